"""How far people travelled."""

from __future__ import annotations

from typing import ClassVar

from emlab.geo import path_length_m
from emlab.query import LOCATION, Part, Query, Reading, check_times, check_whole

MAX_CAP_M = 10_000_000


class SumDistance(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sum_distance"):
    """How many metres people travelled in an interval, each person counted up to `cap_m`.

    Each cloud answers the length of its `background/filtered_location` track in steps of at least 50 m (so that
    noise at rest adds nothing), rounded to metres and clamped to 0..cap_m. `SumTripDistance` is of the trips that
    intake found, also by mode; this one needs no intake. Unit: metres. Sensitivity: `cap_m`.

    Args:
        start_ts, end_ts: UTC seconds, both included.
        cap_m: whole metres, 1..10,000,000; also the sensitivity, so a larger cap means more noise.
    Raises: BadQuery.
    """

    start_ts: float
    end_ts: float
    cap_m: int

    unit: ClassVar[str] = "metres"
    slot_s: ClassVar[float] = 3.0  # a year of fixes takes 0.8 s, more where many clouds work

    def __post_init__(self) -> None:
        check_times(self)
        check_whole(self, "cap_m", 1, MAX_CAP_M, "a whole number of metres")

    @property
    def parts(self) -> tuple[Part, ...]:
        """One number: metres."""
        return (Part.number("distance", self.unit, self.cap_m),)

    def contribution(self, data: Reading) -> tuple[int]:
        """Whole metres within 0..cap_m."""
        track = data.track(LOCATION, start_ts=self.start_ts, end_ts=self.end_ts)
        length_m = path_length_m((lon, lat) for _, lon, lat in track if abs(lon) <= 180 and abs(lat) <= 90)
        return (min(round(length_m), self.cap_m),)
