"""What a simulator accepts: each check says what is wrong with which argument. Raises ConfigError alone."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from emlab.errors import ConfigError
from emlab.simulate.arithmetic import cosine
from emlab.simulate.setting import District, Setting
from emlab.simulate.streets import METRES_PER_DEGREE
from emlab.simulate.uploads import SCHEDULES

MIN_BOX_M, MAX_BOX_M = 3_000.0, 200_000.0
FIRST_START, LAST_START = date(1971, 1, 1), date(2099, 1, 1)
MIN_DISTRICT_M = 800.0  # a side of a district: it holds some streets, whichever way they run
MAX_DISTRICT_SHARE = 0.7  # of the box: people can live outside of it


def check_whole(what: str, value: object, low: int, high: int) -> None:
    """The value is a whole number within these bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{what} must be a whole number from {low} to {high}, not {value!r}")


def check_number(what: str, value: object, low: float, high: float) -> None:
    """The value is a number within these bounds."""
    if not _is_number(value, low, high):
        raise ConfigError(f"{what} must be a number from {low:g} to {high:g}, not {value!r}")


def parse_start(start: str) -> date:
    """The day that is written so."""
    try:
        day = date.fromisoformat(start)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"start must be a day like '2026-03-02', not {start!r}") from exc
    if not FIRST_START <= day < LAST_START:
        raise ConfigError(f"start must lie from {FIRST_START} to {LAST_START}, not {start!r}")
    return day


def check_timezone(timezone: str) -> None:
    """The host knows that zone."""
    # A folder of the time zone database ("America") is an OSError, a path that leaves it a ValueError.
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, OSError, TypeError, ValueError) as exc:
        raise ConfigError(f"timezone must be an IANA name that this host knows, not {timezone!r}") from exc


def check_box(center: object, box_m: float) -> None:
    """A box of that side fits around the center."""
    if not _is_number(box_m, MIN_BOX_M, MAX_BOX_M):
        raise ConfigError(f"box_m must be {MIN_BOX_M:g} to {MAX_BOX_M:g} metres, not {box_m!r}")
    if not (isinstance(center, (tuple, list)) and len(center) == 2 and all(_is_number(x, -180, 180) for x in center)):
        raise ConfigError(f"center must be (longitude, latitude) in degrees, not {center!r}")
    lon, lat = center
    if abs(lat) > 80:
        raise ConfigError(f"the latitude of center must be -80 to 80 degrees, not {lat!r} (longitude comes first)")
    if abs(lon) + box_m / METRES_PER_DEGREE / cosine(lat) > 180:  # twice the half: streets lead out of the box
        raise ConfigError(f"a box of {box_m:g} m around longitude {lon!r} would cross the date line; move center")


def check_shares(workers: object, students: object, upload: object) -> None:
    """The kinds of people make up no more than all, and the schedule of uploads is known."""
    check_number("workers", workers, 0, 1)
    check_number("students", students, 0, 1)
    assert isinstance(workers, (int, float))
    assert isinstance(students, (int, float))
    if workers + students > 1:
        raise ConfigError(f"workers and students must be at most 1 together, not {workers:g} + {students:g}")
    if upload not in SCHEDULES:
        raise ConfigError(f"upload must be one of {', '.join(SCHEDULES)}, not {upload!r}")


def check_district(setting: Setting) -> None:
    """The district lies in the box, with streets in it and room outside of it."""
    district = setting.district
    if district is None:
        return
    if not isinstance(district, District):
        raise ConfigError(f"district must be a District or None, not {district!r}")
    for name in ("homes", "works"):
        check_number(f"{name} of the district", getattr(district, name), 0, 1)
    width_m, height_m = _sides_m(setting, district)
    if not (width_m >= MIN_DISTRICT_M and height_m >= MIN_DISTRICT_M):
        raise ConfigError(f"the district must measure at least {MIN_DISTRICT_M:g} m each way, east after west")
    if width_m * height_m > MAX_DISTRICT_SHARE * setting.box_m * setting.box_m:
        raise ConfigError(f"the district must cover at most {MAX_DISTRICT_SHARE:.0%} of the box of {setting.box_m:g} m")
    half_lon = setting.box_m / 2 / METRES_PER_DEGREE / cosine(setting.center[1])
    half_lat = setting.box_m / 2 / METRES_PER_DEGREE
    east, north = (
        max(abs(lon - setting.center[0]) for lon in (district.west, district.east)),
        max(abs(lat - setting.center[1]) for lat in (district.south, district.north)),
    )
    if east > half_lon or north > half_lat:
        raise ConfigError(f"the district must lie within the box of {setting.box_m:g} m around {setting.center}")


def _sides_m(setting: Setting, district: District) -> tuple[float, float]:
    edges = (district.west, district.south, district.east, district.north)
    if not all(_is_number(edge, -180, 180) for edge in edges):
        raise ConfigError(f"the edges of the district must be degrees, not {edges!r}")
    width_m = (district.east - district.west) * METRES_PER_DEGREE * cosine(setting.center[1])
    return width_m, (district.north - district.south) * METRES_PER_DEGREE


def _is_number(value: object, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
