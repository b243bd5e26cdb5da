"""Below which distance a given share of people or trips stays, such as the median."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import ClassVar, Literal

from emlab.errors import BadQuery
from emlab.queries.travel import check_counted, check_edges, check_one_of, earliest, limited, moving
from emlab.query import Estimate, Part, Query, Reading

Of = Literal["people", "trips"]
OF: tuple[Of, ...] = ("people", "trips")


class Quantile(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="quantile"):
    """The distance that a share `q` of the people, or of the trips, does not exceed.

    Each cloud adds 1 to one bin of a histogram for itself, or 1 for each of its first `per_person` trips. Distances
    are clamped to the first and last edge. The quantile lies in one of the bins, so closer edges make it finer and its
    interval, which takes the noise of all bins together, wider.

    Unit: metres. Sensitivity: 2 of people, 2 * per_person of trips.

    Args:
        q: above 0 and below 1; 0.5 is the median.
        of: "people": what each travelled on the trips (with a mode: the sections) that started in the interval, 0 for
            whoever did not travel. "trips": the distance of each trip (with a mode: of those mostly travelled so).
        start_ts, end_ts: UTC seconds; a trip or section counts if start_ts <= its start < end_ts.
        edges_m: whole metres ascending, 2..257 edges of bins, which include their lower edge.
        per_person: of trips, so many of a person count, the earliest; 1..1000. 1 of people.
        mode: None is any.
    Raises: BadQuery.
    """

    q: float
    of: Of
    start_ts: float
    end_ts: float
    edges_m: tuple[int, ...]
    per_person: int = 1
    mode: str | None = None

    unit: ClassVar[str] = "metres"

    def __post_init__(self) -> None:
        if isinstance(self.q, bool) or not isinstance(self.q, (int, float)) or not 0 < self.q < 1:
            raise BadQuery(f"q is above 0 and below 1, not {self.q!r}")
        check_one_of(self, "of", OF)
        check_counted(self)
        check_edges(self, "edges_m")
        if self.of == "people" and self.per_person != 1:
            raise BadQuery(f"of people each counts once: per_person is 1, not {self.per_person}")

    @property
    def parts(self) -> tuple[Part, ...]:
        """People or trips in each bin."""
        labels = tuple(f"{low}..{high} m" for low, high in pairwise(self.edges_m))
        unit = "users" if self.of == "people" else "trips"
        return (Part(name=self.of, unit=unit, cap=self.per_person, total=self.per_person, labels=labels),)

    def contribution(self, data: Reading) -> list[int]:
        """Whole people or trips in each bin."""
        counts = [0] * (len(self.edges_m) - 1)
        for distance_m in self._distances(data):
            counts[self._bin(distance_m)] += 1
        return counts

    def _distances(self, data: Reading) -> Iterable[float]:
        if self.of == "trips":
            return (trip.distance_m for trip in earliest(self, data))
        return [math.fsum(limited(one.distance_m, self.edges_m[-1]) for one in moving(self, data))]

    def _bin(self, distance_m: float) -> int:
        bins = len(self.edges_m) - 1
        return min(max(bisect_right(self.edges_m, limited(distance_m, self.edges_m[-1])) - 1, 0), bins - 1)

    def summary(self, cells: Sequence[Estimate]) -> Estimate:
        """The quantile, interpolated within its bin; its interval has all bins that it may be in."""
        lows = [max(one.low, 0.0) for one in cells]
        highs = [max(one.high, 0.0) for one in cells]
        possible = [number for number in range(len(cells)) if _may_hold(self.q, lows, highs, number)]
        first, last = (possible[0], possible[-1]) if possible else (0, len(cells) - 1)
        low, high = float(self.edges_m[first]), float(self.edges_m[last + 1])
        return Estimate(min(max(self._point([max(one.value, 0.0) for one in cells]), low), high), low, high)

    def _point(self, counts: Sequence[float]) -> float:
        wanted = self.q * math.fsum(counts)
        if wanted <= 0:
            return (self.edges_m[0] + self.edges_m[-1]) / 2
        sums = list(accumulate(counts))
        number = next((one for one, total in enumerate(sums) if total >= wanted), len(counts) - 1)
        low, high = self.edges_m[number : number + 2]
        part = 1.0 - (sums[number] - wanted) / counts[number] if counts[number] else 1.0
        return low + part * (high - low)


def _may_hold(q: float, lows: Sequence[float], highs: Sequence[float], number: int) -> bool:
    """Whether counts within these bounds exist of which the q-quantile lies in the bin of that number.

    It does if less than the share q lies in bins before, and not less in those before and this one: that is
    (1 - q) * before < q * rest and (1 - q) * until >= q * after, each of which some counts at the bounds satisfy.
    """
    before, rest = math.fsum(lows[:number]), math.fsum(highs[number:])
    until, after = math.fsum(highs[: number + 1]), math.fsum(lows[number + 1 :])
    slack = 1e-9 * (rest + until)  # of sums of floats
    return (1 - q) * before < q * rest + slack and (1 - q) * until >= q * after - slack
