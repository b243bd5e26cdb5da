"""Whether the number of people somewhere lies between two bounds."""

from __future__ import annotations

from typing import ClassVar, Literal

from emlab.errors import BadQuery
from emlab.query import LOCATION, Part, Query, Reading, Region, as_region, check_times, check_whole

MAX_USERS = 1_000_000_000
Verdict = Literal["yes", "no", "unsure"]


class InRange(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="in_range"):
    """Whether low..high people were in a region at any time of an interval: a range check.

    Each cloud answers 1 if it holds a `background/filtered_location` in the region and interval, else 0. What is
    released is their noisy number, as of CountUsers; `verdict` says what that means for the range, so that nobody
    tosses a coin at its bounds:

        release = provider.ask(query, offset=query.offset, alpha=0.05)
        query.verdict(*release.interval(0.05))  # "yes", "no" or "unsure"

    Unit: users. Sensitivity: 1.

    Args:
        region: a Region (or GeoJSON); None is everywhere.
        start_ts, end_ts: UTC seconds, both included.
        low, high: whole numbers of people, both included; low < high.
    Raises: BadQuery.
    """

    region: Region | None
    start_ts: float
    end_ts: float
    low: int
    high: int

    unit: ClassVar[str] = "users"
    slot_s: ClassVar[float] = 0.25

    def __post_init__(self) -> None:
        as_region(self, "region")
        check_times(self)
        for name in ("low", "high"):
            check_whole(self, name, 0, MAX_USERS, "a whole number of people")
        if self.low >= self.high:
            raise BadQuery(f"a range goes from low to a larger high, not {self.low}..{self.high}")

    @property
    def parts(self) -> tuple[Part, ...]:
        """One number: users."""
        return (Part.number("users", self.unit, 1),)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The region, if it is not everywhere."""
        return () if self.region is None else (self.region,)

    @property
    def offset(self) -> float:
        """Half the width of the range, in users: noise that stays within it cannot carry its middle out of it.

        Source: e-mission's range check, which asks with this error.
        """
        return (self.high - self.low) / 2

    def contribution(self, data: Reading) -> tuple[int]:
        """0 or 1."""
        shape = None if self.region is None else self.region.geojson()
        return (int(data.exists(LOCATION, start_ts=self.start_ts, end_ts=self.end_ts, region=shape)),)

    def verdict(self, low: float, high: float) -> Verdict:
        """Whether a number of people within low..high is in the range: "yes", "no", or "unsure" if it may be either.

        An interval of a release is right with its own confidence, and so is the verdict. Of a single number (low equal
        to high) it is "yes" or "no". Raises BadQuery: it is no interval.
        """
        if not low <= high:
            raise BadQuery(f"an interval goes from low to high, not {low}..{high}")
        if self.low <= low and high <= self.high:
            return "yes"
        return "no" if high < self.low or self.high < low else "unsure"
