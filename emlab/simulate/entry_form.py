"""The raw form in which phones post what they saw, and the formatted one in which e-mission keeps it.

The raw form stands here; the formatted one is what the cloud's own formatter makes of it. Every number that measures
is a float. May import entries; imports intake.formatting when it formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emlab.entries.codes import Motion, State, Transition

Entry = dict[str, object]

LOCATION, FILTERED_LOCATION = "background/location", "background/filtered_location"
MOTION, TRANSITION, BATTERY = "background/motion_activity", "statemachine/transition", "background/battery"
ANDROID, IOS = "android", "ios"
FLAGS = {
    Motion.STILL: "stationary",
    Motion.WALKING: "walking",
    Motion.RUNNING: "running",
    Motion.BICYCLING: "cycling",
    Motion.IN_VEHICLE: "automotive",
    Motion.UNKNOWN: "unknown",
}
LEVELS = ((55, "low"), (85, "medium"), (101, "high"))  # below that confidence, an ios phone says
STATE_NAMES = {state: state.name for state in State}
ANDROID_TRANSITIONS = {
    Transition.BOOTED: "booted",
    Transition.INITIALIZE: "local.transition.initialize",
    Transition.EXITED_GEOFENCE: "local.transition.exited_geofence",
    Transition.STOPPED_MOVING: "local.transition.stopped_moving",
}


@dataclass(frozen=True, slots=True)
class Observation:
    """What a phone noted: under which key, when it was so, when it was written (UTC seconds), and the raw values.

    Attributes:
        step: what the state machine did, if that is what was noted.
    """

    key: str
    ts: float
    write_ts: float
    values: Entry
    step: Transition | None = None


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


def location(fix: Fix, ts: float, write_ts: float, *, key: str, platform: str) -> Observation:
    """A position under one of the two keys of locations: found by time on android, by distance on ios."""
    values: Entry = {
        "latitude": fix.lat,
        "longitude": fix.lon,
        "accuracy": fix.accuracy_m,
        "altitude": fix.altitude_m,
        "sensed_speed": fix.speed_mps,
        "bearing": fix.heading_deg,
        "ts": ts,
    }
    if platform == ANDROID:
        values |= {"elapsedRealtimeNanos": fix.uptime_ns, "filter": "time"}
    else:
        values |= {"vaccuracy": round(0.6 * fix.accuracy_m + 2, 1), "floor": 0, "filter": "distance"}
    return Observation(key, ts, write_ts, values)


def motion(kind: Motion, confidence: int, ts: float, *, platform: str) -> Observation:
    """What the phone takes the movement for, and how surely (0 to 100; e-mission believes more than 60)."""
    if platform == ANDROID:
        return Observation(MOTION, ts, ts, {"type": int(kind), "confidence": confidence, "ts": ts})
    level = next(word for bound, word in LEVELS if confidence < bound)
    flags = {flag: kind is sensed for sensed, flag in FLAGS.items()}
    return Observation(MOTION, ts, ts, {**flags, "confidence": level, "ts": ts})


def transition(state: State, kind: Transition, ts: float, *, platform: str) -> Observation:
    """A step of the phone's state machine, and the state in which it came."""
    if platform == ANDROID:
        names = f"local.state.{STATE_NAMES[state].lower()}", ANDROID_TRANSITIONS[kind]
    else:
        step = "TRIP_ENDED" if kind is Transition.STOPPED_MOVING else kind.name
        names = f"STATE_{STATE_NAMES[state]}", f"T_{step}"
    return Observation(TRANSITION, ts, ts, {"currState": names[0], "transition": names[1], "ts": ts}, kind)


def battery(level_pct: int, temperature: int, ts: float, *, charging: bool, platform: str) -> Observation:
    """The state of the battery; the temperature is in tenths of a degree Celsius."""
    if platform == IOS:
        values: Entry = {"battery_level_ratio": level_pct / 100, "battery_status": 2 if charging else 1}
    else:
        values = {
            "battery_level_pct": float(level_pct),
            "battery_status": 2 if charging else 3,
            "android_health": "GOOD",
            "android_plugged": "UNKNOWN",
            "android_technology": "Li-ion",
            "android_temperature": temperature,
            "android_voltage": 3500 + 7 * level_pct,
        }
    return Observation(BATTERY, ts, ts, {**values, "ts": ts})


def to_raw(seen: Observation, platform: str, timezone: str) -> Entry:
    """The entry as a phone posts it to /usercache/put: no `_id`, no `user_id`, times as seconds alone."""
    metadata: Entry = {
        "key": seen.key,
        "platform": platform,
        "type": "message" if seen.key == TRANSITION else "sensor-data",
        "write_ts": seen.write_ts,
        "time_zone": timezone,
        "read_ts": 0,  # an int, as in every real entry that its phone has not read back
        "plugin": None if platform == IOS and seen.key == MOTION else "none",
    }
    return {"metadata": metadata, "data": dict(seen.values)}


def formatted(raw: Iterable[Entry], user_id: str) -> Iterator[Entry]:
    """The entries as e-mission keeps them, in the same order.

    Args:
        raw: of a person from the first on, in order of writing. user_id: 32 hex digits.
    Returns:
        entries whose `_id` has the form of Mongo's: the second of writing, five bytes of the user, a running number.
    """
    from emlab.intake.formatting import format_entry

    for number, entry in enumerate(raw):
        made = format_entry(entry)
        metadata = made["metadata"]
        assert isinstance(metadata, dict)
        oid = f"{int(metadata['write_ts']):08x}{user_id[:10]}{number:06x}"
        yield {"_id": {"$oid": oid}, "user_id": {"$uuid": user_id}, **made}
