"""How many trips people made."""

from __future__ import annotations

from typing import ClassVar

from emlab.queries.travel import MAX_TRIPS, check_mode, trips_of
from emlab.query import Part, Query, Reading, check_times, check_whole


class CountTrips(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_trips"):
    """How many trips people started in an interval, each person counted up to `cap`.

    Each cloud answers the number of its trips. Unit: trips. Sensitivity: `cap`.

    Args:
        start_ts, end_ts: UTC seconds; a trip counts if start_ts <= its start < end_ts.
        cap: whole trips, 1..100,000; a larger one means more noise.
        mode: only trips most of whose distance was travelled so, such as "BICYCLING"; None is any.
    Raises: BadQuery.
    """

    start_ts: float
    end_ts: float
    cap: int
    mode: str | None = None

    unit: ClassVar[str] = "trips"

    def __post_init__(self) -> None:
        check_times(self)
        check_mode(self)
        check_whole(self, "cap", 1, MAX_TRIPS, "a whole number of trips")

    @property
    def parts(self) -> tuple[Part, ...]:
        """One number: trips."""
        return (Part.number("trips", self.unit, self.cap),)

    def contribution(self, data: Reading) -> tuple[int]:
        """Whole trips within 0..cap."""
        return (min(sum(1 for _ in trips_of(self, data)), self.cap),)
