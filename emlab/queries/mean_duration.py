"""How much time trips take."""

from __future__ import annotations

from typing import ClassVar

from emlab.queries.amounts import DURATION, Amount, MeanOfTrips, Shares


class MeanDuration(MeanOfTrips, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="mean_duration"):
    """The mean duration of the trips that people started in an interval.

    Each cloud answers two numbers, of its first `per_person` trips: the sum of their seconds, each clamped to
    0..cap_s, and how many they are. The mean is one by the other; it is of clamped seconds.

    Unit: seconds per trip. Sensitivity: per_person * cap_s seconds of the sum, per_person trips of the count. `shares`
    says how the privacy loss is split. The mean is most accurate if they are to each other as the roots of cap_s and of
    the mean itself: (2, 1) is best where the clamp is four times the mean.

    Args:
        start_ts, end_ts: UTC seconds; a trip counts if start_ts <= its start < end_ts.
        per_person: so many trips of a person count, the earliest; 1..1000.
        cap_s: whole seconds, 1..1,000,000, to which each trip is clamped.
        mode: only trips most of whose distance was travelled so; None is any.
        shares: of the sum and of the count in the privacy loss; whole numbers, 1..100.
    Raises: BadQuery.
    """

    cap_s: int
    mode: str | None = None
    shares: Shares = (2, 1)

    unit: ClassVar[str] = "seconds per trip"
    amount: ClassVar[Amount] = DURATION
