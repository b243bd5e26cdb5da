"""The simulator: many people of one setting, made one at a time. Imports pandas when the truth is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import date
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from emlab.errors import ConfigError
from emlab.simulate.life import Setting
from emlab.simulate.person import Person
from emlab.simulate.routes import METRES_PER_DEGREE
from emlab.simulate.truth import LonLat, TrueTrip

if TYPE_CHECKING:
    import pandas as pd

MAX_USERS, MAX_DAYS = 100_000, 366
MIN_BOX_M, MAX_BOX_M = 3_000.0, 200_000.0
FIRST_START, LAST_START = date(1971, 1, 1), date(2099, 1, 1)


@dataclass(frozen=True)
class Simulator:
    """People with days of trips and phone entries, the same ones for the same seed.

    Iterating makes one person after the other and keeps none. Person k is the same in a population of any size, and
    lives through the same first days however many follow.

    Args:
        n_users: people, 1 to 100,000.
        days: local days for each, 1 to 366.
        seed: whole number, 0 to 2**63 - 1.
        start: the first day, YYYY-MM-DD, 1971 to 2098.
        timezone: IANA name of the clock that they live by.
        center: (longitude, latitude) in degrees of the box that holds all places.
        box_m: metres, side of that box, 3,000 to 200,000. Work lies at most half of it, and at most 8 km, from home.
    Raises:
        ConfigError: an argument is out of these bounds; says which one.
    """

    n_users: int
    days: int
    seed: int
    _: KW_ONLY
    start: str = "2026-03-02"
    timezone: str = "America/Los_Angeles"
    center: LonLat = (-122.27, 37.87)
    box_m: float = 12_000.0

    def __post_init__(self) -> None:
        _check_whole("n_users", self.n_users, 1, MAX_USERS)
        _check_whole("days", self.days, 1, MAX_DAYS)
        _check_whole("seed", self.seed, 0, 2**63 - 1)
        _parse_start(self.start)
        _check_timezone(self.timezone)
        _check_box(self.center, self.box_m)

    def __len__(self) -> int:
        return self.n_users

    def __iter__(self) -> Iterator[Person]:
        return (self.person(index) for index in range(self.n_users))

    @property
    def setting(self) -> Setting:
        """What all of these people share; their number is not part of it."""
        start, (lon, lat) = _parse_start(self.start), self.center
        return Setting(self.seed, self.days, start, self.timezone, (float(lon), float(lat)), float(self.box_m))

    def person(self, index: int) -> Person:
        """The person with that index, from 0. Raises ConfigError."""
        _check_whole("index", index, 0, self.n_users - 1)
        return Person(index, self.setting)

    def truth(self) -> pd.DataFrame:
        """Every true trip of everybody, one row each, by user and time.

        Columns: user (name), trip (from 0 for each user), start_ts and end_ts (UTC seconds), mode (WALKING, BICYCLING,
        IN_VEHICLE), distance_m (along the path, without noise), start_place and end_place (home, work, third),
        start_lon, start_lat, end_lon, end_lat (degrees).
        """
        import pandas as pd

        rows = [_row(person.name, k, trip) for person in self for k, trip in enumerate(person.trips)]
        return pd.DataFrame.from_records(rows)


def _row(user: str, number: int, trip: TrueTrip) -> dict[str, str | int | float]:
    return {
        "user": user,
        "trip": number,
        "start_ts": trip.start_ts,
        "end_ts": trip.end_ts,
        "mode": trip.mode.value,
        "distance_m": trip.distance_m,
        "start_place": trip.start.name,
        "end_place": trip.end.name,
        "start_lon": trip.start.lon,
        "start_lat": trip.start.lat,
        "end_lon": trip.end.lon,
        "end_lat": trip.end.lat,
    }


def _check_whole(what: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{what} must be a whole number from {low} to {high}, not {value!r}")


def _parse_start(start: str) -> date:
    try:
        day = date.fromisoformat(start)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"start must be a day like '2026-03-02', not {start!r}") from exc
    if not FIRST_START <= day < LAST_START:
        raise ConfigError(f"start must lie from {FIRST_START} to {LAST_START}, not {start!r}")
    return day


def _check_timezone(timezone: str) -> None:
    # A folder of the time zone database ("America") is an OSError, a path that leaves it a ValueError.
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, OSError, TypeError, ValueError) as exc:
        raise ConfigError(f"timezone must be an IANA name that this host knows, not {timezone!r}") from exc


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _check_box(center: object, box_m: float) -> None:
    if not _is_number(box_m, MIN_BOX_M, MAX_BOX_M):
        raise ConfigError(f"box_m must be {MIN_BOX_M:g} to {MAX_BOX_M:g} metres, not {box_m!r}")
    if not (isinstance(center, (tuple, list)) and len(center) == 2 and all(_is_number(x, -180, 180) for x in center)):
        raise ConfigError(f"center must be (longitude, latitude) in degrees, not {center!r}")
    lon, lat = center
    if abs(lat) > 80:
        raise ConfigError(f"the latitude of center must be -80 to 80 degrees, not {lat!r} (longitude comes first)")
    if abs(lon) + box_m / 2 / METRES_PER_DEGREE / math.cos(math.radians(lat)) > 180:
        raise ConfigError(f"a box of {box_m:g} m around longitude {lon!r} would cross the date line; move center")
