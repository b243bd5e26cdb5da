"""The wire form of e-mission entries, as its server keeps them after formatting: the one place that knows it.

Every time stands three times (seconds, components, text), every number that measures is a float, every code of an
enumeration an int. May import nothing of emlab.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

Entry = dict[str, object]

LOCATION, FILTERED_LOCATION = "background/location", "background/filtered_location"
MOTION, TRANSITION, BATTERY = "background/motion_activity", "statemachine/transition", "background/battery"


class Motion(enum.IntEnum):
    """What a phone senses (e-mission's MotionTypes, as far as they are used here)."""

    IN_VEHICLE = 0
    BICYCLING = 1
    STILL = 3
    WALKING = 7


class Transition(enum.IntEnum):
    """What happened in the phone's state machine; the value is also the state in which it happened.

    WAITING_FOR_TRIP_START (1) is left by EXITED_GEOFENCE (1), ONGOING_TRIP (2) by STOPPED_MOVING (2).
    """

    EXITED_GEOFENCE = 1
    STOPPED_MOVING = 2


@dataclass(frozen=True, slots=True)
class Observation:
    """What a phone noted: under which key, when it was so, when it was written (UTC seconds), and the values."""

    key: str
    ts: float
    write_ts: float
    values: Entry


@dataclass(frozen=True, slots=True)
class Fix:
    """One position: degrees, metres of the 68 % radius and of altitude, m/s, degrees from north, ns since boot."""

    lon: float
    lat: float
    accuracy_m: float
    altitude_m: float
    speed_mps: float
    heading_deg: float
    uptime_ns: int


def location(fix: Fix, ts: float, write_ts: float, *, key: str) -> Observation:
    """A position under one of the two keys of locations, found by time (as on android, not by distance)."""
    values: Entry = {
        "latitude": fix.lat,
        "longitude": fix.lon,
        "loc": {"type": "Point", "coordinates": [fix.lon, fix.lat]},
        "accuracy": fix.accuracy_m,
        "altitude": fix.altitude_m,
        "sensed_speed": fix.speed_mps,
        "heading": fix.heading_deg,
        "elapsedRealtimeNanos": fix.uptime_ns,
        "filter": "time",
    }
    return Observation(key, ts, write_ts, values)


def motion(kind: Motion, confidence: int, ts: float) -> Observation:
    """What the phone takes the movement for, and how surely (0 to 100; e-mission believes more than 60)."""
    return Observation(MOTION, ts, ts, {"type": int(kind), "confidence": confidence})


def transition(kind: Transition, ts: float) -> Observation:
    """A step of the phone's state machine."""
    return Observation(TRANSITION, ts, ts, {"curr_state": int(kind), "transition": int(kind)})


def battery(level_pct: float, temperature: int, voltage_mv: int, ts: float, *, charging: bool) -> Observation:
    """The state of the battery; the temperature is in tenths of a degree Celsius."""
    values: Entry = {
        "battery_level_pct": level_pct,
        "battery_status": 2 if charging else 1,
        "android_health": "GOOD",
        "android_plugged": "UNKNOWN",
        "android_technology": "Li-ion",
        "android_temperature": temperature,
        "android_voltage": voltage_mv,
    }
    return Observation(BATTERY, ts, ts, values)


def time_fields(ts: float, zone: ZoneInfo, prefix: str = "") -> Entry:
    """A time as e-mission writes it: `ts`, `local_dt` (Monday is weekday 0), `fmt_time`, each after the prefix."""
    local = datetime.fromtimestamp(ts, zone)
    components = {
        "year": local.year,
        "month": local.month,
        "day": local.day,
        "hour": local.hour,
        "minute": local.minute,
        "second": local.second,
        "weekday": local.weekday(),
        "timezone": zone.key,
    }
    return {f"{prefix}ts": ts, f"{prefix}local_dt": components, f"{prefix}fmt_time": local.isoformat()}


def _metadata(seen: Observation, zone: ZoneInfo) -> Entry:
    return {
        "key": seen.key,
        "platform": "android",
        "type": "message" if seen.key == TRANSITION else "sensor-data",
        **time_fields(seen.write_ts, zone, "write_"),
        "time_zone": zone.key,
        "read_ts": 0,  # an int, as in every real entry that its phone has not read back
        "plugin": "none",
    }


def to_entries(observations: Iterable[Observation], user_id: str, zone: ZoneInfo) -> list[Entry]:
    """One entry for each observation, in the same order.

    Args:
        user_id: 32 hex digits.
    Returns:
        entries whose `_id` has the form of Mongo's: the second of writing, five bytes of the user, a running number.
    """
    return [
        {
            "_id": {"$oid": f"{int(seen.write_ts):08x}{user_id[:10]}{number:06x}"},
            "user_id": {"$uuid": user_id},
            "metadata": _metadata(seen, zone),
            "data": {**seen.values, **time_fields(seen.ts, zone)},
        }
        for number, seen in enumerate(observations)
    ]
