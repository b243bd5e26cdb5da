"""How long people were on their way."""

from __future__ import annotations

from typing import ClassVar

from emlab.queries.amounts import DURATION, Amount, SumOfTrips


class SumDuration(SumOfTrips, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sum_duration"):
    """How many seconds people spent on trips that they started in an interval, each person up to `cap_s`.

    Each cloud answers the sum over its trips, as intake found them; with a mode, over the sections of its trips that
    were travelled so. It is rounded to seconds and clamped. Unit: seconds. Sensitivity: `cap_s`.

    Args:
        start_ts, end_ts: UTC seconds; a trip or section counts if start_ts <= its start < end_ts.
        cap_s: whole seconds, 1..100,000,000; a larger one means more noise.
        mode: such as "BUS"; None is any.
    Raises: BadQuery.
    """

    cap_s: int
    mode: str | None = None

    unit: ClassVar[str] = "seconds"
    amount: ClassVar[Amount] = DURATION
