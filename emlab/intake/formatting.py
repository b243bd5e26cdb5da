"""Raw phone entries as e-mission's server would keep them: names as codes, times three times over, GeoJSON.

Pure: an entry in, an entry out. Imports of emlab errors and entries; neither pandas nor bson.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from zoneinfo import ZoneInfo

from emlab.entries import DEFAULT_TIME_ZONE, TIME_FIELDS, JsonObject
from emlab.entries.codes import BeaconEvent, Motion, State, Transition
from emlab.entries.times import time_fields, zone_named
from emlab.entries.view import MILLISECONDS_FROM
from emlab.errors import BadEntry

# What a phone calls a motion: ios raises one of these flags (or stationary and automotive together) ...
FLAGS = {
    "stationary": Motion.STILL,
    "walking": Motion.WALKING,
    "running": Motion.RUNNING,
    "cycling": Motion.BICYCLING,
    "automotive": Motion.IN_VEHICLE,
    "unknown": Motion.UNKNOWN,
}
CONFIDENCE = {"low": 50, "medium": 75, "high": 100}
# ... and android writes type and confidence, under names that its libraries' obfuscation changed with each version.
TYPE_AND_CONFIDENCE = (
    ("type", "confidence"),
    ("agb", "agc"),
    ("zzaEg", "zzaEh"),
    ("zzbjA", "zzbjB"),
    ("ajO", "ajP"),
    ("zzaKM", "zzaKN"),
    ("zzbhB", "zzbhC"),
)
# Of states and transitions each platform has its way to write e-mission's own name, and a few of its own.
STATES = {
    **{f"local.state.{state.name.lower()}": int(state) for state in State},
    **{f"STATE_{state.name}": int(state) for state in State},
    "unknown": int(State.TRACKING_STOPPED),
}
TRANSITIONS = {
    **{f"local.transition.{kind.name.lower()}": int(kind) for kind in Transition},
    **{f"T_{kind.name}": int(kind) for kind in Transition},
    "booted": int(Transition.BOOTED),
    "local.transition.tracking_error": int(Transition.BLE_BEACON_FOUND),
    "T_TRIP_ENDED": int(Transition.STOPPED_MOVING),
    "T_FORCE_STOP_TRACKING": int(Transition.STOP_TRACKING),
}
BEACON_EVENTS = {event.name: int(event) for event in BeaconEvent}
ANDROID_BATTERY = {1: 0, 2: 2, 3: 1, 4: 4, 5: 3}  # BatteryManager's codes as e-mission's
BATTERY_CODES = frozenset(range(5))

_MOTIONS = frozenset(map(int, Motion))
_PREFIXES = tuple(name.removesuffix("ts") for name in TIME_FIELDS)
_Formatter = Callable[[JsonObject, "_Written"], JsonObject]


class _Written:
    """What every formatter may need of an entry's metadata."""

    __slots__ = ("ios", "ts", "zone")

    def __init__(self, ts: float, zone: ZoneInfo, *, ios: bool) -> None:
        self.ts = ts
        self.zone = zone
        self.ios = ios


def format_entry(raw: JsonObject) -> JsonObject:
    """The entry in the form that the pipeline reads; a formatted one as it is.

    Fields that nobody here knows pass unchanged, and so do the keys without a form of their own (manual/*, config/*),
    whose times get their components and texts. Of stats/* only the names of fields change, which get _ for dots.

    Args:
        raw: an entry in wire form. It is not changed; unchanged parts are shared with the result.
    Raises:
        BadEntry: it cannot be formatted. The message is the reason: it names the field and holds no value, so that
            reasons can be counted.
    """
    metadata, data = _part(raw, "metadata"), _part(raw, "data")
    if "write_fmt_time" in metadata:
        return raw
    key = metadata.get("key")
    if type(key) is not str:
        raise BadEntry("metadata.key is missing or no text")
    written = _written(metadata, key)
    new_metadata = {**metadata, "time_zone": written.zone.key, **time_fields(written.ts, written.zone, "write_")}
    formatter = _stats if key.startswith("stats/") else _FORMATTERS.get(key, _other)
    return {**raw, "metadata": new_metadata, "data": formatter(data, written)}


def _part(raw: JsonObject, name: str) -> JsonObject:
    part = raw.get(name) if type(raw) is dict else None
    if type(part) is not dict:
        raise BadEntry(f"{name} is missing or no object")
    return part


def _written(metadata: JsonObject, key: str) -> _Written:
    name = metadata.get("time_zone")
    name = DEFAULT_TIME_ZONE if name is None else name
    zone = zone_named(name) if type(name) is str else None
    if zone is None and key.startswith("config/"):  # whose zone is a guess of the phone's browser
        zone = zone_named(DEFAULT_TIME_ZONE)
    if zone is None:
        raise BadEntry("metadata.time_zone is none of the IANA database")
    return _Written(_seconds(metadata, "write_ts", "metadata"), zone, ios=metadata.get("platform") == "ios")


def _seconds(fields: JsonObject, name: str, place: str = "data") -> float:
    """A time as seconds since 1970, whatever its unit was. Raises BadEntry."""
    value = _number(fields, name, place)
    if value >= MILLISECONDS_FROM:
        value /= 1000
    if not 0 <= value < MILLISECONDS_FROM:
        raise BadEntry(f"{place}.{name} is no time in seconds since 1970")
    return value


def _number(fields: JsonObject, name: str, place: str = "data") -> float:
    value = fields.get(name)
    if type(value) is not float and type(value) is not int:
        raise BadEntry(f"{place}.{name} is missing or no number")
    if abs(value) > 1e300 or value != value:  # also integers that no float holds
        raise BadEntry(f"{place}.{name} is not finite")
    return float(value)


def _location(data: JsonObject, written: _Written) -> JsonObject:
    latitude, longitude = _number(data, "latitude"), _number(data, "longitude")
    if abs(latitude) > 90:
        raise BadEntry("data.latitude is not within -90..90")
    if abs(longitude) > 180:
        raise BadEntry("data.longitude is not within -180..180")
    new = {**data, **time_fields(_seconds(data, "ts"), written.zone)}
    new["loc"] = {"type": "Point", "coordinates": [longitude, latitude]}
    if "bearing" in new:
        new["heading"] = new.pop("bearing")
    return new


def _motion(data: JsonObject, written: _Written) -> JsonObject:
    if written.ios and not FLAGS.keys().isdisjoint(data):
        return {**data, "type": _flagged(data), **_level(data), **time_fields(written.ts, written.zone)}
    names = next((names for names in TYPE_AND_CONFIDENCE if names[0] in data), TYPE_AND_CONFIDENCE[0])
    kind, confidence = data.get(names[0]), _confidence(data, names[1])
    if type(kind) is not int or kind not in _MOTIONS:
        raise BadEntry("data.type is none of the motions that e-mission has")
    ts = _seconds(data, "ts") if "ts" in data else written.ts
    return {**data, "type": kind, "confidence": confidence, **time_fields(ts, written.zone)}


def _confidence(data: JsonObject, name: str) -> object:
    if not 0 <= _number(data, name) <= 100:
        raise BadEntry(f"data.{name} is not within 0..100")
    return data[name]


def _level(data: JsonObject) -> JsonObject:
    """An ios phone's word and its number."""
    level = data.get("confidence_level", data.get("confidence"))
    if type(level) is str and level in CONFIDENCE:
        return {"confidence_level": level, "confidence": CONFIDENCE[level]}
    return {"confidence": _confidence(data, "confidence")}


def _flagged(data: JsonObject) -> int:
    raised = [name for name in FLAGS if data.get(name) == 1]  # true equals 1
    if raised == ["stationary", "automotive"]:
        return int(Motion.STOPPED_WHILE_IN_VEHICLE)
    if len(raised) > 1:
        raise BadEntry("data says two motions at once")
    return int(FLAGS[raised[0]] if raised else Motion.NONE)


def _transition(data: JsonObject, written: _Written) -> JsonObject:
    """Its time is that of its writing: phones do not set another."""
    new = {name: value for name, value in data.items() if name != "currState"}
    state = data.get("currState", data.get("curr_state"))
    new["curr_state"] = _code(state, STATES, "data.currState is none of the states that e-mission has")
    kind = data.get("transition")
    if kind is not None:
        kind = _code(kind, TRANSITIONS, "data.transition is none of those that e-mission has")
    return {**new, "transition": kind, **time_fields(written.ts, written.zone)}


def _code(value: object, names: Mapping[str, int], otherwise: str) -> int:
    """A name's code; a code stays. Raises BadEntry with the given reason."""
    if type(value) is int and value in names.values():
        return value
    if type(value) is not str or value not in names:
        raise BadEntry(otherwise)
    return names[value]


def _battery(data: JsonObject, written: _Written) -> JsonObject:
    status = data.get("battery_status")
    if not written.ios:
        status = ANDROID_BATTERY.get(status) if type(status) is int else None
    if type(status) is not int or status not in BATTERY_CODES:
        raise BadEntry("data.battery_status is none of those that e-mission has")
    new = {**data, "battery_status": status, **time_fields(written.ts, written.zone)}
    if "battery_level_ratio" in new:
        new["battery_level_pct"] = _number(new, "battery_level_ratio") * 100
        del new["battery_level_ratio"]
    return new


def _beacon(data: JsonObject, written: _Written) -> JsonObject:
    """Its local times are those of its writing, as the real server has them, whatever `ts` the phone set."""
    event = _code(data.get("eventType"), BEACON_EVENTS, "data.eventType is none of those that e-mission has")
    times = time_fields(written.ts, written.zone)
    if data.get("ts") is not None:
        times["ts"] = _seconds(data, "ts")
    return {**data, "eventType": event, **times}


def _stats(data: JsonObject, _written: _Written) -> JsonObject:
    return {name.replace(".", "_"): _without_dots(value) for name, value in data.items()}


def _without_dots(value: object) -> object:
    if type(value) is list:
        return [_without_dots(item) for item in value]
    if type(value) is not dict:
        return value
    return {name.replace(".", "_"): _without_dots(item) for name, item in value.items()}


def _other(data: JsonObject, written: _Written) -> JsonObject:
    """Any other key: whatever times it has, written out in the zone of the phone."""
    new = data
    for prefix in _PREFIXES:
        if data.get(f"{prefix}ts") is not None:
            new = {**new, **time_fields(_seconds(data, f"{prefix}ts"), written.zone, prefix)}
    return new


_FORMATTERS: dict[str, _Formatter] = {
    "background/location": _location,
    "background/filtered_location": _location,
    "background/motion_activity": _motion,
    "statemachine/transition": _transition,
    "background/battery": _battery,
    "background/bluetooth_ble": _beacon,
}
