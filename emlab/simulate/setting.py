"""What all people of one simulation share. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from emlab.simulate.city import City
from emlab.simulate.truth import LonLat


@dataclass(frozen=True, slots=True)
class District:
    """A part of the city that more or fewer people live and work in than elsewhere.

    Attributes:
        west, south, east, north: degrees.
        homes, works: shares of households and of workplaces that lie in it, 0 to 1.
    """

    west: float
    south: float
    east: float
    north: float
    homes: float = 0.5
    works: float = 0.5

    def holds(self, point: LonLat) -> bool:
        """Whether a point lies in it."""
        return self.west <= point[0] <= self.east and self.south <= point[1] <= self.north


@dataclass(frozen=True, slots=True)
class Setting:
    """What all people of one simulation share; their number is not part of it.

    Attributes:
        seed: where chance begins.
        days, start, timezone: how many local days from which on, and whose clock they follow (IANA name).
        city, center, box_m: how they move; (longitude, latitude), and the side of the square that holds every place.
        trips_per_day, workers, students, ios_share, district, period_s, noise, upload: see `Simulator`.
    """

    seed: int
    days: int
    start: date
    timezone: str
    city: City
    center: LonLat
    box_m: float
    trips_per_day: float
    workers: float
    students: float
    ios_share: float
    district: District | None
    period_s: float
    noise: float
    upload: str

    def local_ts(self, day: int, hour: float) -> float:
        """UTC seconds when the wall clock shows `hour` (8.5 is half past eight) on that day, from 0."""
        midnight = datetime.combine(self.start + timedelta(days=day), time.min, tzinfo=ZoneInfo(self.timezone))
        # Adding to an aware datetime moves its wall clock, so a clock change in between does no harm.
        return (midnight + timedelta(milliseconds=round(hour * 3_600_000))).timestamp()

    def weekday(self, day: int) -> int:
        """Monday is 0."""
        return (self.start + timedelta(days=day)).weekday()

    def exists(self, day: int) -> bool:
        """False for a day that its country skipped (Samoa on 30 December 2011)."""
        return self.local_ts(day + 1, 0) > self.local_ts(day, 0)
