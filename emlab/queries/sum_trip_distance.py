"""How far people travelled on their trips."""

from __future__ import annotations

from typing import ClassVar

from emlab.queries.travel import MAX_SUM_M, check_mode, moving, whole_sum
from emlab.query import Part, Query, Reading, check_times, check_whole


class SumTripDistance(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sum_trip_distance"):
    """How many metres people travelled on trips that they started in an interval, each person up to `cap_m`.

    Each cloud answers the sum over its trips, as intake found them; with a mode, over the sections of its trips that
    were travelled so. It is rounded to metres and clamped. Unit: metres. Sensitivity: `cap_m`.

    Args:
        start_ts, end_ts: UTC seconds; a trip or section counts if start_ts <= its start < end_ts.
        cap_m: whole metres, 1..10,000,000; a larger one means more noise.
        mode: such as "BUS"; None is any.
    Raises: BadQuery.
    """

    start_ts: float
    end_ts: float
    cap_m: int
    mode: str | None = None

    unit: ClassVar[str] = "metres"

    def __post_init__(self) -> None:
        check_times(self)
        check_mode(self)
        check_whole(self, "cap_m", 1, MAX_SUM_M, "a whole number of metres")

    @property
    def parts(self) -> tuple[Part, ...]:
        """One number: metres."""
        return (Part.number("distance", self.unit, self.cap_m),)

    def contribution(self, data: Reading) -> tuple[int]:
        """Whole metres within 0..cap_m."""
        amounts = (one.distance_m for one in moving(self, data))
        return (whole_sum(amounts, each=self.cap_m, cap=self.cap_m),)
