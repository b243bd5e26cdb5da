"""How long people were on their way."""

from __future__ import annotations

from typing import ClassVar

from emlab.queries.travel import MAX_SUM_S, check_mode, moving, whole_sum
from emlab.query import Part, Query, Reading, check_times, check_whole


class SumDuration(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sum_duration"):
    """How many seconds people spent on trips that they started in an interval, each person up to `cap_s`.

    Each cloud answers the sum over its trips, as intake found them; with a mode, over the sections of its trips that
    were travelled so. It is rounded to seconds and clamped. Unit: seconds. Sensitivity: `cap_s`.

    Args:
        start_ts, end_ts: UTC seconds; a trip or section counts if start_ts <= its start < end_ts.
        cap_s: whole seconds, 1..100,000,000; a larger one means more noise.
        mode: such as "BUS"; None is any.
    Raises: BadQuery.
    """

    start_ts: float
    end_ts: float
    cap_s: int
    mode: str | None = None

    unit: ClassVar[str] = "seconds"

    def __post_init__(self) -> None:
        check_times(self)
        check_mode(self)
        check_whole(self, "cap_s", 1, MAX_SUM_S, "a whole number of seconds")

    @property
    def parts(self) -> tuple[Part, ...]:
        """One number: seconds."""
        return (Part.number("duration", self.unit, self.cap_s),)

    def contribution(self, data: Reading) -> tuple[int]:
        """Whole seconds within 0..cap_s."""
        amounts = (one.duration_s for one in moving(self, data))
        return (whole_sum(amounts, each=self.cap_s, cap=self.cap_s),)
