"""What became of the entries that the pipeline took in: a value that crosses the wire. Imports msgspec only."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Mapping

import msgspec


class IntakeReport(msgspec.Struct, frozen=True):
    """How many entries went into intake, what it left out and why, and what it found.

    Attributes:
        formatted: raw entries that were brought into the pipeline's form.
        unformatted: raw entries that could not be, by reason.
        locations, motions, transitions, inputs: formatted entries that were looked at. Those after the last settled
            trip are looked at again by the next run, and counted again.
        dropped: entries among them that were left out, by reason; a point that was written too late to tell of a trip's
            end is counted here, too, though it stays in its trip's track.
        trips, sections, places, untracked: what was found, in what was looked at.
        written, removed: results that are new or have changed, and those that no longer hold.
        duration_s: seconds that all of it took.
    """

    formatted: int = 0
    unformatted: dict[str, int] = {}
    locations: int = 0
    motions: int = 0
    transitions: int = 0
    inputs: int = 0
    dropped: dict[str, int] = {}
    trips: int = 0
    sections: int = 0
    places: int = 0
    untracked: int = 0
    written: int = 0
    removed: int = 0
    duration_s: float = 0.0

    @property
    def dropped_total(self) -> int:
        """How many entries are among the `dropped`."""
        return sum(self.dropped.values())

    def plus(self, other: IntakeReport) -> IntakeReport:
        """The report of both, one after the other."""
        mine, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return msgspec.convert({name: _sum(value, theirs[name]) for name, value in mine.items()}, IntakeReport)

    def __str__(self) -> str:
        head = (
            f"{self.trips} trips, {self.sections} sections, {self.places} places, {self.untracked} times untracked "
            f"from {self.locations} locations, {self.motions} motions, {self.transitions} transitions; "
            f"{self.dropped_total} entries left out, {self.written} results written, {self.removed} removed"
        )
        return "\n".join([head, *(f"  {count} x {reason}" for reason, count in self._reasons())])

    def _repr_html_(self) -> str:
        counts = {name: value for name, value in msgspec.structs.asdict(self).items() if isinstance(value, int)}
        left_out = {f"left out: {reason}": count for reason, count in self._reasons()}
        rows = [*(counts | left_out).items(), ("seconds", f"{self.duration_s:.3f}")]
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{value}</td></tr>" for name, value in rows)
        return f"<table><caption>IntakeReport</caption>{cells}</table>"

    def _reasons(self) -> list[tuple[str, int]]:
        return sorted((Counter(self.unformatted) + Counter(self.dropped)).items())


def _sum(mine: object, theirs: object) -> object:
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        return dict(Counter(mine) + Counter(theirs))
    assert isinstance(mine, int | float)
    assert isinstance(theirs, int | float)
    return mine + theirs
