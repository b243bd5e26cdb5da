"""How many people were somewhere."""

from __future__ import annotations

from typing import ClassVar

from emlab.query import LOCATION, Part, Query, Reading, Region, as_region, check_times


class CountUsers(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_users"):
    """How many people were in a region at any time of an interval.

    Each cloud answers 1 if it holds a `background/filtered_location` in the region and interval, else 0.
    Unit: users. Sensitivity: 1.

    Args:
        region: a Region (or GeoJSON); None is everywhere.
        start_ts, end_ts: UTC seconds, both included.
    Raises: BadQuery.
    """

    region: Region | None
    start_ts: float
    end_ts: float

    unit: ClassVar[str] = "users"
    slot_s: ClassVar[float] = 0.25

    def __post_init__(self) -> None:
        as_region(self, "region")
        check_times(self)

    @property
    def parts(self) -> tuple[Part, ...]:
        """One number: users."""
        return (Part.number("users", self.unit, 1),)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The region, if it is not everywhere."""
        return () if self.region is None else (self.region,)

    def contribution(self, data: Reading) -> tuple[int]:
        """0 or 1."""
        shape = None if self.region is None else self.region.geojson()
        return (int(data.exists(LOCATION, start_ts=self.start_ts, end_ts=self.end_ts, region=shape)),)
