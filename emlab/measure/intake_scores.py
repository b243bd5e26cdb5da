"""How well trips were found: pure counting, in which nothing is left out. Imports of emlab its codes; pandas in frames.

A trip, or a section, is found if both its ends lie within five minutes of one that counts for no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from emlab.entries.codes import Mode

if TYPE_CHECKING:
    import pandas as pd

WITHIN_S = 300.0
MOTORISED = frozenset({Mode.BUS, Mode.TRAIN, Mode.SUBWAY, Mode.TRAM, Mode.LIGHT_RAIL})
"""What counts as CAR where nobody has told which lines there are."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a trip in one mode; UTC seconds."""

    start_ts: float
    end_ts: float
    mode: Mode


@dataclass(frozen=True, slots=True)
class Trip:
    """A trip: UTC seconds, metres along the way, its sections."""

    start_ts: float
    end_ts: float
    distance_m: float
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """One person's or day's trips against those that should have been found.

    Attributes:
        name, against: of whom or which day, and what says what should have been found.
        expected, found, matched: numbers of trips.
        sections_expected, sections_matched: numbers of sections; matched in ends and mode.
        travelled_s, same_mode_s: seconds in expected sections, and those of them in a found section of the same mode.
        distance_errors: of each matched trip, |found - expected| / expected.
    """

    name: str
    against: str
    expected: int
    found: int
    matched: int
    sections_expected: int
    sections_matched: int
    travelled_s: float
    same_mode_s: float
    distance_errors: tuple[float, ...]


_Timed = TypeVar("_Timed", Trip, Section)


def score(
    name: str, against: str, expected: Sequence[Trip], found: Sequence[Trip], *, lines_known: bool = False
) -> Score:
    """How many of the expected trips and sections were found, and how well.

    Args:
        name, against: for the score.
        lines_known: tell buses and trains from cars.
    """
    if not lines_known:
        expected, found = [_plain(trip) for trip in expected], [_plain(trip) for trip in found]
    pairs = paired(expected, found)
    sections = [[section for trip in trips for section in trip.sections] for trips in (expected, found)]
    alike = [(a, b) for a, b in paired(*sections) if a.mode == b.mode]
    return Score(
        name=name,
        against=against,
        expected=len(expected),
        found=len(found),
        matched=len(pairs),
        sections_expected=len(sections[0]),
        sections_matched=len(alike),
        travelled_s=sum(section.end_ts - section.start_ts for section in sections[0]),
        same_mode_s=sum(_shared_s(section, sections[1]) for section in sections[0]),
        distance_errors=tuple(_error(a.distance_m, b.distance_m) for a, b in pairs),
    )


def paired(expected: Sequence[_Timed], found: Sequence[_Timed]) -> list[tuple[_Timed, _Timed]]:
    """Expected and found ones with both ends near, each at most once, the nearest first."""
    near = [
        (apart, i, j)
        for i, one in enumerate(expected)
        for j, other in enumerate(found)
        if (apart := max(abs(one.start_ts - other.start_ts), abs(one.end_ts - other.end_ts))) <= WITHIN_S
    ]
    taken: tuple[set[int], set[int]] = (set(), set())
    pairs = []
    for _, i, j in sorted(near):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            pairs.append((i, j))
    return [(expected[i], found[j]) for i, j in sorted(pairs)]


def _plain(trip: Trip) -> Trip:
    """The trip with all that has a motor called a car."""
    sections = (replace(one, mode=Mode.CAR) if one.mode in MOTORISED else one for one in trip.sections)
    return replace(trip, sections=tuple(sections))


def _shared_s(section: Section, found: Sequence[Section]) -> float:
    """How long it overlaps with found sections of the same mode. They do not overlap each other."""
    overlaps = (
        min(section.end_ts, other.end_ts) - max(section.start_ts, other.start_ts)
        for other in found
        if other.mode == section.mode
    )
    return min(sum(max(0.0, overlap) for overlap in overlaps), section.end_ts - section.start_ts)


def _error(expected_m: float, found_m: float) -> float:
    return abs(found_m - expected_m) / expected_m if expected_m else float(found_m > 0)


def table(scores: Sequence[Score]) -> pd.DataFrame:
    """One row for each score, and one with the totals of each `against`, named "all".

    Returns:
        name, against; trips: expected; found, matched; recall, precision: shares of the expected and of the found trips
        that are matched; sections: share matched; modes: share of the time travelled in the same mode;
        distance, worst_distance: median and greatest relative error of matched trips. NaN where there was nothing.
    """
    import pandas as pd

    sums = [
        _total([one for one in scores if one.against == each], each)
        for each in dict.fromkeys(s.against for s in scores)
    ]
    rows = [_row(one) for one in [*scores, *sums]]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = ["name", "against", "trips", "found", "matched", "recall", "precision", "sections", "modes"]
COLUMNS += ["distance", "worst_distance"]


def _total(scores: Sequence[Score], against: str) -> Score:
    names = ("expected", "found", "matched", "sections_expected", "sections_matched", "travelled_s", "same_mode_s")
    sums = {name: sum(getattr(one, name) for one in scores) for name in names}
    return Score(
        name="all", against=against, distance_errors=tuple(e for one in scores for e in one.distance_errors), **sums
    )


def _row(one: Score) -> list[object]:
    import statistics

    errors = one.distance_errors
    shares = [(one.matched, one.expected), (one.matched, one.found)]
    shares += [(one.sections_matched, one.sections_expected)]
    return [
        one.name,
        one.against,
        one.expected,
        one.found,
        one.matched,
        *(_share(*pair) for pair in shares),
        _share(one.same_mode_s, one.travelled_s),
        statistics.median(errors) if errors else float("nan"),
        max(errors, default=float("nan")),
    ]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
