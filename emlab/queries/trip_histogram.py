"""How trips are spread over modes, hours of the day, or distances."""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice, pairwise
from typing import ClassVar, Literal

import msgspec

from emlab.entries.codes import Mode
from emlab.errors import BadQuery
from emlab.queries.travel import check_counted, check_edges, check_one_of, trips_of
from emlab.query import Part, Query, Reading, Trip

Over = Literal["mode", "hour", "distance"]
OVER: tuple[Over, ...] = ("mode", "hour", "distance")
_MODES = tuple(Mode.__members__)
_HOURS = tuple(f"{hour:02}:00" for hour in range(24))


class TripHistogram(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="trip_histogram"):
    """How many trips fall in each bin, of those that people started in an interval.

    Each cloud adds its first `per_person` trips that fall in a bin, each to one bin.
    Unit: trips. Sensitivity: 2 * per_person, as somebody else's trips fall in other bins.

    Args:
        over: "mode": that of most of the trip's distance; a bin for each Mode. "hour": 00:00 to 23:00, in which the
            trip started by the clocks where it started, so that a rush hour is one whatever the zone and season; a
            trip whose result does not say it is in no bin. "distance": bins between `edges_m`.
        start_ts, end_ts: UTC seconds; a trip counts if start_ts <= its start < end_ts.
        per_person: so many trips of a person count, the earliest; 1..1000.
        edges_m: over distance, whole metres ascending: 2..257 edges of bins that include their lower edge. A trip
            below the first or from the last on is in no bin.
        mode: only trips most of whose distance was travelled so; None is any. Not over modes.
    Raises: BadQuery.
    """

    over: Over
    start_ts: float
    end_ts: float
    per_person: int
    edges_m: tuple[int, ...] = ()
    mode: str | None = None

    unit: ClassVar[str] = "trips"

    def __post_init__(self) -> None:
        check_one_of(self, "over", OVER)
        check_counted(self)
        if self.over == "distance":
            check_edges(self, "edges_m")
        elif self.edges_m not in ((), []):
            raise BadQuery(f"edges_m are for a histogram over distance, not over {self.over}")
        else:
            msgspec.structs.force_setattr(self, "edges_m", ())
        if self.over == "mode" and self.mode is not None:
            raise BadQuery("a histogram over modes is not of one mode")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Trips in each bin."""
        n = self.per_person
        return (Part(name="trips", unit=self.unit, cap=n, total=n, labels=self._labels()),)

    @property
    def span_s(self) -> float:
        """In all, of what one bin counts: over hours a 24th of the interval."""
        return (self.end_ts - self.start_ts) / (len(_HOURS) if self.over == "hour" else 1)

    def _labels(self) -> tuple[str, ...]:
        if self.over == "distance":
            return tuple(f"{low}..{high} m" for low, high in pairwise(self.edges_m))
        return _MODES if self.over == "mode" else _HOURS

    def contribution(self, data: Reading) -> list[int]:
        """Whole trips in each bin."""
        counts = [0] * len(self._labels())
        bins = (self._bin(trip) for trip in trips_of(self, data))
        for number in islice((one for one in bins if one is not None), self.per_person):
            counts[number] += 1
        return counts

    def _bin(self, trip: Trip) -> int | None:
        if self.over == "mode":
            return Mode[trip.mode].value if trip.mode in Mode.__members__ else None
        return trip.start_hour if self.over == "hour" else self._of_distance(trip.distance_m)

    def _of_distance(self, distance_m: float) -> int | None:
        if not self.edges_m[0] <= distance_m < self.edges_m[-1]:
            return None
        return bisect_right(self.edges_m, distance_m) - 1
