"""What one run of the pipeline did: a value that crosses the wire. Imports msgspec only."""

from __future__ import annotations

import html
from collections.abc import Mapping

import msgspec


class IntakeReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of raw entries.

    Attributes:
        formatted: raw phone entries that got the standard form.
        unformatted: how many could not, by reason; they are kept apart.
        read: locations, motions and transitions that were looked at (those of a trip that is still open, each time).
        dropped: how many of these were left out, by reason.
        trips: complete trips in the part that was looked at.
        results: entries computed in this part, by key.
        written: results that are new or changed.
        removed: earlier results that no longer hold.
        duration_s: how long it took, without the start of its program.
    """

    formatted: int = 0
    unformatted: dict[str, int] = {}
    read: int = 0
    dropped: dict[str, int] = {}
    trips: int = 0
    results: dict[str, int] = {}
    written: int = 0
    removed: int = 0
    duration_s: float = 0.0

    def plus(self, other: IntakeReport) -> IntakeReport:
        """Both as one: numbers are added, reason by reason."""
        return IntakeReport(
            formatted=self.formatted + other.formatted,
            unformatted=added(self.unformatted, other.unformatted),
            read=self.read + other.read,
            dropped=added(self.dropped, other.dropped),
            trips=self.trips + other.trips,
            results=added(self.results, other.results),
            written=self.written + other.written,
            removed=self.removed + other.removed,
            duration_s=self.duration_s + other.duration_s,
        )

    def rows(self) -> list[tuple[str, int]]:
        """What it says, line by line."""
        rows = [("formatted", self.formatted), ("read", self.read), ("trips", self.trips)]
        rows += [("written", self.written), ("removed", self.removed)]
        rows += [(f"not formatted: {reason}", count) for reason, count in sorted(self.unformatted.items())]
        return rows + [(f"dropped: {reason}", count) for reason, count in sorted(self.dropped.items())]

    def __str__(self) -> str:
        return f"{self.trips} trips in {self.duration_s:.2f} s\n" + "\n".join(
            f"  {count:6d} {name}" for name, count in self.rows()
        )

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{count}</td></tr>" for name, count in self.rows())
        return f"<table><caption>IntakeReport ({self.duration_s:.2f} s)</caption>{cells}</table>"


def added(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    """The sums, name by name."""
    return {name: a.get(name, 0) + b.get(name, 0) for name in {**a, **b}}
