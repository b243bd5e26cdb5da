"""How far people travelled on their trips."""

from __future__ import annotations

from typing import ClassVar

from emlab.queries.amounts import DISTANCE, Amount, SumOfTrips


class SumTripDistance(SumOfTrips, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sum_trip_distance"):
    """How many metres people travelled on trips that they started in an interval, each person up to `cap_m`.

    Each cloud answers the sum over its trips, as intake found them; with a mode, over the sections of its trips that
    were travelled so. It is rounded to metres and clamped. Unit: metres. Sensitivity: `cap_m`.

    Args:
        start_ts, end_ts: UTC seconds; a trip or section counts if start_ts <= its start < end_ts.
        cap_m: whole metres, 1..10,000,000; a larger one means more noise.
        mode: such as "BUS"; None is any.
    Raises: BadQuery.
    """

    cap_m: int
    mode: str | None = None

    unit: ClassVar[str] = "metres"
    amount: ClassVar[Amount] = DISTANCE
