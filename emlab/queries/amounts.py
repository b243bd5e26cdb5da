"""What sums and means of an amount of trips have in common, be it metres or seconds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import msgspec

from emlab.errors import BadQuery
from emlab.queries.travel import check_counted, check_mode, earliest, limited, moving
from emlab.query import Estimate, Move, Part, Query, Reading, check_times, check_whole

MAX_SHARE = 100
Shares = tuple[int, int]


class Amount(NamedTuple):
    """Something that trips have so much of.

    Attributes:
        name, unit: as a part of an answer has them.
        field: of a trip or section. cap: the query's field with the clamp.
        max_trip, max_person: the largest clamp of one trip, and of all trips of a person.
    """

    name: str
    unit: str
    field: str
    cap: str
    max_trip: int
    max_person: int

    def of(self, moves: Iterable[Move]) -> list[float]:
        """How much each has of it."""
        return [getattr(move, self.field) for move in moves]

    def cap_of(self, query: Query) -> int:
        """The query's clamp."""
        return int(getattr(query, self.cap))

    def check_cap(self, query: Query, most: int) -> None:
        """The query's clamp is within 1..most. Raises BadQuery."""
        check_whole(query, self.cap, 1, most, f"a whole number of {self.unit}")


DISTANCE = Amount("distance", "metres", "distance_m", "cap_m", 1_000_000, 10_000_000)
DURATION = Amount("duration", "seconds", "duration_s", "cap_s", 1_000_000, 100_000_000)  # 11 days, 3 years


class SumOfTrips(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """The base of sums over a person's trips; a subclass adds the amount's cap and `mode`."""

    start_ts: float
    end_ts: float

    amount: ClassVar[Amount]

    def __post_init__(self) -> None:
        check_times(self)
        check_mode(self)
        self.amount.check_cap(self, self.amount.max_person)

    @property
    def parts(self) -> tuple[Part, ...]:
        """One number: the amount."""
        return (Part.number(self.amount.name, self.amount.unit, self.amount.cap_of(self)),)

    def contribution(self, data: Reading) -> tuple[int]:
        """Whole units within 0..cap."""
        cap = self.amount.cap_of(self)
        return (whole_sum(self.amount.of(moving(self, data)), each=cap, cap=cap),)


class MeanOfTrips(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """The base of means over trips; a subclass adds the amount's cap, `mode` and `shares`."""

    start_ts: float
    end_ts: float
    per_person: int

    amount: ClassVar[Amount]

    def __post_init__(self) -> None:
        check_counted(self)
        self.amount.check_cap(self, self.amount.max_trip)
        _check_shares(self)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Two numbers: the amount and trips."""
        of_sum, of_count = self.shares  # type: ignore[attr-defined]
        cap = self.per_person * self.amount.cap_of(self)
        total = Part.number(self.amount.name, self.amount.unit, cap, share=of_sum)
        return total, Part.number("trips", "trips", self.per_person, share=of_count)

    def contribution(self, data: Reading) -> tuple[int, int]:
        """Whole units and trips, both of the same trips."""
        cap, amounts = self.amount.cap_of(self), self.amount.of(earliest(self, data))
        return whole_sum(amounts, each=cap, cap=self.per_person * cap), len(amounts)

    def summary(self, cells: Sequence[Estimate]) -> Estimate:
        """The mean, within 0..cap; of no trips at all that is the whole interval."""
        total, count = cells
        return ratio(total, count, self.amount.cap_of(self))


def _check_shares(query: MeanOfTrips) -> None:
    shares = query.shares  # type: ignore[attr-defined]
    good = isinstance(shares, (tuple, list)) and len(shares) == 2
    if not good or any(type(one) is not int or not 1 <= one <= MAX_SHARE for one in shares):
        raise BadQuery(f"shares are those of the sum and the count: whole numbers within 1..{MAX_SHARE}")
    msgspec.structs.force_setattr(query, "shares", tuple(shares))


def whole_sum(values: Iterable[float], *, each: int, cap: int) -> int:
    """The sum of the values, each within 0..each, rounded and within 0..cap."""
    return min(round(math.fsum(limited(value, each) for value in values)), cap)


def ratio(total: Estimate, count: Estimate, cap: int) -> Estimate:
    """The mean of `count` amounts within 0..cap that add up to `total`, where at least one is counted.

    Its interval holds whenever both do. A count so small that the noise drowns it gives the interval 0..cap.
    """
    most, fewest = max(count.high, 1.0), max(count.low, 1.0)
    low, high = (min(max(end, 0.0), float(cap)) for end in (total.low / most, total.high / fewest))
    value = max(total.value, 0.0) / max(count.value, 1.0)
    return Estimate(min(max(value, low), high), low, high)
