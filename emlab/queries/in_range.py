"""Whether the number of people somewhere lies between two bounds."""

from __future__ import annotations

from typing import Literal

from emlab.errors import BadQuery
from emlab.queries.count_users import CountUsers
from emlab.query import check_whole

MAX_USERS = 1_000_000_000
Verdict = Literal["yes", "no", "unsure"]


class InRange(CountUsers, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="in_range"):
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

    low: int
    high: int

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("low", "high"):
            check_whole(self, name, 0, MAX_USERS, "a whole number of people")
        if self.low >= self.high:
            raise BadQuery(f"a range goes from low to a larger high, not {self.low}..{self.high}")

    @property
    def offset(self) -> float:
        """Half the width of the range, in users: noise that stays within it cannot carry its middle out of it.

        Source: e-mission's range check, which asks with this error.
        """
        return (self.high - self.low) / 2

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
