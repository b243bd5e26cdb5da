"""From where to where people travel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import ClassVar, TypeVar

from emlab.queries.travel import check_counted, trips_of
from emlab.queries.zones import Zone, Zoning, as_zones
from emlab.query import Part, Query, Reading, Region

N = TypeVar("N", int, float)


class OriginDestination(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="origin_destination"):
    """How many trips went from each zone to each, of those that people started in an interval.

    Each cloud adds its first `per_person` trips that start in a zone and end in one, each to one pair; a zone to itself
    is a pair, too. Unit: trips. Sensitivity: 2 * per_person, as somebody else's trips join other pairs.

    Args:
        zones: 2..60, as a mapping from names to Regions (or GeoJSON), or as Zones; with 10,000 points at most. Where
            they overlap, the one that is named first counts; on a common border, what lies east or north of it.
        start_ts, end_ts: UTC seconds; a trip counts if start_ts <= its start < end_ts.
        per_person: so many trips of a person count, the earliest; 1..1000.
        mode: only trips most of whose distance was travelled so; None is any.
    Raises: BadQuery.
    """

    zones: tuple[Zone, ...]
    start_ts: float
    end_ts: float
    per_person: int
    mode: str | None = None

    unit: ClassVar[str] = "trips"

    def __post_init__(self) -> None:
        as_zones(self, "zones")
        check_counted(self)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Trips of each pair of zones, all from the first one first."""
        labels = tuple(f"{one.name} > {other.name}" for one in self.zones for other in self.zones)
        return (Part(name="trips", unit=self.unit, cap=self.per_person, total=self.per_person, labels=labels),)

    @property
    def regions(self) -> tuple[Region, ...]:
        """Those of the zones."""
        return tuple(zone.region for zone in self.zones)

    def contribution(self, data: Reading) -> list[int]:
        """Whole trips of each pair."""
        zoning, counts = Zoning(self.zones), [0] * len(self.zones) ** 2
        ends = ((zoning.number(trip.start), zoning.number(trip.end)) for trip in trips_of(self, data))
        pairs = ((start, end) for start, end in ends if start is not None and end is not None)
        for start, end in islice(pairs, self.per_person):
            counts[start * len(self.zones) + end] += 1
        return counts

    def matrix(self, values: Sequence[N]) -> list[list[N]]:
        """The values of a release as a list for each origin, with a number for each destination."""
        n = len(self.zones)
        return [list(values[row * n : (row + 1) * n]) for row in range(n)]
