"""GPX, 1.0 and 1.1: tracks as the entries of a phone, and the fixes of a cloud as tracks.

A track says where somebody was and when, and little else; e-mission's pipeline wants more. What is made up here:

* platform "ios" and filter "distance": background/location has all points, background/filtered_location those that are
  50 m from the one before, with the first and the last, as such a phone would note; so gaps of more than ten minutes
  end a trip, whether within a track or between two;
* accuracy: 5 m for each unit of `hdop`, 10 m without one; altitude 0 without `ele`; speed and heading -1 (unknown)
  without `speed` and `course`;
* the time of writing: that of the point; the time zone: the argument;
* transitions, for each stretch without a longer gap: EXITED_GEOFENCE at its first point; VISIT_ENDED at its last one,
  without which the pipeline does not believe in a trip that no motion tells of; STOPPED_MOVING ten minutes later, or
  halfway to the next stretch;
* motion_activity in it, once a minute, if the track's `type` is a usual word for walking, running, cycling or driving.

Not read: waypoints, routes, metadata. Imports defusedxml, and of emlab entries, errors and files.opening.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

from emlab.entries import JsonObject
from emlab.entries.codes import Motion, State, Transition
from emlab.entries.times import time_fields, zone_named
from emlab.entries.view import MILLISECONDS_FROM
from emlab.errors import BadEntry, ConfigError
from emlab.files.opening import Reader
from emlab.geo import haversine_m

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

FILTERED, LOCATION = "background/filtered_location", "background/location"
MOTION, TRANSITION = "background/motion_activity", "statemachine/transition"
MAX_XML_BYTES = 256 << 20  # unpacked: over a million points
MAX_POINTS = 1_000_000  # of one track, which has to be in memory to be sorted
MAX_DEPTH = 64  # elements within each other; in a point of a usual track 7
MAX_IN_POINT = 1000  # elements
STAY_S, FILTER_M = 600.0, 50.0  # as an ios phone notes the end of a trip, and the points of one
MOTION_S = 60.0
HDOP_M, ACCURACY_M, UNKNOWN = 5.0, 10.0, -1.0
_KINDS = {
    Motion.WALKING: ("walk", "walking", "hike", "hiking", "foot", "on foot"),
    Motion.RUNNING: ("run", "running", "jogging", "trail_running"),
    Motion.BICYCLING: ("ride", "bike", "biking", "bicycle", "bicycling", "cycle", "cycling", "road_biking"),
    Motion.IN_VEHICLE: ("car", "drive", "driving", "bus", "train", "tram", "subway", "transit", "automotive"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_NUMBERS = {"ele": "altitude", "hdop": "hdop", "speed": "sensed_speed", "course": "heading"}


@dataclass(slots=True)
class Track:
    """A track's points in their order, each as the fields of a location entry, and what kind of movement it says."""

    kind: Motion | None = None
    points: list[JsonObject] = field(default_factory=list)


def read(file: Reader, zone: str = "UTC") -> Iterator[JsonObject]:
    """The entries of a GPX file, track by track, formatted; points without a time as entries that lack theirs.

    Raises: BadEntry: no XML, no GPX, or XML that declares things. ConfigError: there is no such zone.
    """
    found = zone_named(zone)
    if found is None:
        raise ConfigError(f"there is no time zone {zone[:80]!r}; one is called like Europe/Berlin")
    tracks = itertools.chain(_tracks(file), [None])
    before: Track | None = None
    for track in tracks:
        if before is not None:
            yield from _entries(before, None if track is None else track, found)
        before = track


# -- the file's tracks -----------------------------------------------------------------------------------------


def _tracks(file: Reader) -> Iterator[Track]:
    """Each track that has points."""
    track = Track()
    for name, element in _elements(file):
        if name == "trkpt":
            track.points.append(_point(element))
            if len(track.points) > MAX_POINTS:
                raise BadEntry(f"{file.name}: a track has more than {MAX_POINTS} points")
        elif name == "type":  # also that of a link, which is none of these words
            track.kind = _KIND_OF.get((element.text or "").strip().lower(), track.kind)
        elif name == "trk":
            if track.points:
                yield track
            track = Track()


def _elements(file: Reader) -> Iterator[tuple[str, Element]]:
    """Each element at its end, what is within it before; only those within a point are still there then."""
    open_: list[Element] = []
    in_point = 0
    for event, element in _events(_Bounded(file)):
        if event == "start":
            if not open_ and _local(element) != "gpx":
                raise BadEntry(f"{file.name} is XML, but no GPX: its root is {_local(element)[:40]!r}")
            open_.append(element)
            if len(open_) > MAX_DEPTH:
                raise BadEntry(f"{file.name} has more than {MAX_DEPTH} elements within each other")
            continue
        open_.pop()
        yield _local(element), element
        in_point = in_point + 1 if any(_local(outer) == "trkpt" for outer in open_) else 0
        if in_point > MAX_IN_POINT:
            raise BadEntry(f"{file.name} has a point with more than {MAX_IN_POINT} elements")
        if open_ and not in_point:
            open_[-1].remove(element)


def _events(file: Reader) -> Iterator[tuple[str, Element]]:
    from xml.etree.ElementTree import ParseError

    from defusedxml import ElementTree
    from defusedxml.common import DefusedXmlException

    try:
        yield from ElementTree.iterparse(file, events=("start", "end"), forbid_dtd=True)
    except ParseError as exc:
        raise BadEntry(f"{file.name}: line {exc.position[0]}, column {exc.position[1]}: {exc}") from exc
    except DefusedXmlException as exc:
        raise BadEntry(f"{file.name} declares a document type or entities, which no GPX needs: it is refused") from exc
    except (ValueError, LookupError) as exc:  # an encoding that Python does not have
        if isinstance(exc, BadEntry):
            raise
        raise BadEntry(f"{file.name} cannot be read as XML: {exc}") from exc


class _Bounded:
    """A file that is not longer than MAX_XML_BYTES."""

    def __init__(self, file: Reader) -> None:
        self.name = file.name
        self._file = file
        self._left = MAX_XML_BYTES

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes. Raises BadEntry."""
        part = self._file.read(size)
        self._left -= len(part)
        if self._left < 0:
            raise BadEntry(f"{self.name} has more than {MAX_XML_BYTES >> 20} MiB of XML")
        return part


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _point(element: Element) -> JsonObject:
    """The fields of a location entry; a position that is no number stays a text, for `store` to reject."""
    point: JsonObject = {"altitude": 0.0, "sensed_speed": UNKNOWN, "heading": UNKNOWN}
    for axis, name in (("lat", "latitude"), ("lon", "longitude")):
        point[name] = _number(element.get(axis, ""))
    for child in element.iter():
        if (name := _local(child)) in _NUMBERS and isinstance(value := _number(child.text or ""), float):
            point[_NUMBERS[name]] = value
        elif name == "time" and (ts := _seconds(child.text or "")) is not None:
            point["ts"] = ts
    hdop = point.pop("hdop", None)
    point["accuracy"] = HDOP_M * hdop if isinstance(hdop, float) else ACCURACY_M
    return point


def _number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text[:40]
    return value if math.isfinite(value) else text[:40]


def _seconds(text: str) -> float | None:
    """UTC seconds of an ISO time, which is UTC if it does not say; None if it is none."""
    try:
        time = datetime.fromisoformat(text.strip())
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


# -- a track as entries ----------------------------------------------------------------------------------------


def _entries(track: Track, following: Track | None, zone: ZoneInfo) -> Iterator[JsonObject]:
    timed = _in_order(filter(_is_usable, track.points))
    yield from (_entry(LOCATION, point, None, zone) for point in track.points if not _is_usable(point))
    filtered = _apart(timed)
    for key, points in ((LOCATION, timed), (FILTERED, filtered)):
        yield from (_entry(key, point, cast(float, point["ts"]), zone) for point in points)
    times = [cast(float, point["ts"]) for point in filtered]
    for start, end, next_ts in _stretches(times, _times(following)):
        yield _transition(State.WAITING_FOR_TRIP_START, Transition.EXITED_GEOFENCE, start, zone)
        yield _transition(State.ONGOING_TRIP, Transition.VISIT_ENDED, end, zone)
        yield _transition(State.ONGOING_TRIP, Transition.STOPPED_MOVING, min(end + STAY_S, (end + next_ts) / 2), zone)
        if track.kind is not None:
            minutes = range(int((end - start) // MOTION_S) + 1)
            yield from (_motion(track.kind, start + minute * MOTION_S, zone) for minute in minutes)


def _stretches(times: list[float], later: Iterable[float]) -> Iterator[tuple[float, float, float]]:
    """Start, end, and the start of what follows, of all that has no gap longer than STAY_S; single points are none."""
    after = min((ts for ts in later if ts > times[-1]), default=math.inf) if times else math.inf
    gaps = [at for at in range(1, len(times)) if times[at] - times[at - 1] > STAY_S]
    for first, behind in itertools.pairwise([0, *gaps, len(times)]):
        if behind - first > 1:
            yield times[first], times[behind - 1], times[behind] if behind < len(times) else after


def _is_usable(point: JsonObject) -> bool:
    """Whether a point says when and where it was; `store` rejects the others, each once, with the reason."""
    return (
        _within(point.get("ts"), 0.0, MILLISECONDS_FROM)
        and _within(point["latitude"], -90.0, 90.0)
        and _within(point["longitude"], -180.0, 180.0)
    )


def _within(value: object, low: float, high: float) -> bool:
    return isinstance(value, float) and low <= value <= high


def _times(track: Track | None) -> Iterator[float]:
    return (cast(float, point["ts"]) for point in (track.points if track else []) if _is_usable(point))


def _in_order(points: Iterable[JsonObject]) -> list[JsonObject]:
    """By time, one of each time: the pipeline drops what goes back."""
    of_time = {cast(float, point["ts"]): point for point in points}
    return [of_time[ts] for ts in sorted(of_time)]


def _apart(points: list[JsonObject]) -> list[JsonObject]:
    """Those that are at least FILTER_M from the one before of them, and the last."""
    kept = points[:1]
    for point in points[1:]:
        if _distance_m(kept[-1], point) >= FILTER_M or point is points[-1]:
            kept.append(point)
    return kept


def _distance_m(one: JsonObject, other: JsonObject) -> float:
    ends = [cast(float, point[axis]) for point in (one, other) for axis in ("longitude", "latitude")]
    return haversine_m(*ends)


def _entry(key: str, point: JsonObject, ts: float | None, zone: ZoneInfo) -> JsonObject:
    data = {**point, "filter": "distance"}
    if isinstance(point["longitude"], float) and isinstance(point["latitude"], float):
        data["loc"] = {"type": "Point", "coordinates": [point["longitude"], point["latitude"]]}
    return _enveloped(key, "sensor-data", data, ts, zone)


def _motion(kind: Motion, ts: float, zone: ZoneInfo) -> JsonObject:
    return _enveloped(MOTION, "sensor-data", {"type": int(kind), "confidence": 100}, ts, zone)


def _transition(state: State, kind: Transition, ts: float, zone: ZoneInfo) -> JsonObject:
    return _enveloped(TRANSITION, "message", {"curr_state": int(state), "transition": int(kind)}, ts, zone)


def _enveloped(key: str, kind: str, data: JsonObject, ts: float | None, zone: ZoneInfo) -> JsonObject:
    metadata: JsonObject = {"key": key, "platform": "ios", "type": kind, "time_zone": zone.key, "plugin": "gpx"}
    if ts is None:
        return {"metadata": {**metadata, "read_ts": 0, "write_ts": 0.0}, "data": data}
    written = {**metadata, "read_ts": 0, **time_fields(ts, zone, "write_")}
    return {"metadata": written, "data": {**data, **time_fields(ts, zone)}}


# -- entries as tracks -----------------------------------------------------------------------------------------


def write(entries: Iterable[object]) -> Iterator[str]:
    """The text of a GPX 1.1 file: a track for each trip (analysis/cleaned_trip) or, without trips, for each local day.

    Its points are those of background/filtered_location, or of background/location if there are none. Everything else
    in the entries is left out.
    """
    fixes: dict[str, list[JsonObject]] = {FILTERED: [], LOCATION: []}
    trips: list[JsonObject] = []
    for entry in entries:
        key, data = _key_and_data(entry)
        if key in fixes and isinstance(data.get("ts"), int | float):
            fixes[key].append(data)
        elif key == "analysis/cleaned_trip":
            trips.append(data)
    points = sorted(fixes[FILTERED] or fixes[LOCATION], key=lambda data: cast(float, data["ts"]))
    named = _by_trip(points, trips) if trips else _by_day(points)
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield '<gpx version="1.1" creator="emlab" xmlns="http://www.topografix.com/GPX/1/1">\n'
    for name, track in named:
        yield f"<trk><name>{_escaped(name)}</name><trkseg>\n"
        yield from map(_trkpt, track)
        yield "</trkseg></trk>\n"
    yield "</gpx>\n"


def _key_and_data(entry: object) -> tuple[object, JsonObject]:
    metadata = entry.get("metadata") if isinstance(entry, dict) else None
    data = entry.get("data") if isinstance(entry, dict) else None
    return (metadata.get("key"), data) if isinstance(metadata, dict) and isinstance(data, dict) else (None, {})


def _by_day(points: Iterable[JsonObject]) -> Iterator[tuple[str, Iterable[JsonObject]]]:
    yield from itertools.groupby(points, key=lambda point: str(point.get("fmt_time", _utc(point)))[:10])


def _by_trip(points: list[JsonObject], trips: list[JsonObject]) -> Iterator[tuple[str, Iterable[JsonObject]]]:
    times = [cast(float, point["ts"]) for point in points]
    for trip in sorted(trips, key=lambda trip: cast(float, trip["start_ts"])):
        start, end = cast(float, trip["start_ts"]), cast(float, trip["end_ts"])
        yield str(trip.get("start_fmt_time", start)), points[bisect_left(times, start) : bisect_right(times, end)]


def _utc(point: JsonObject) -> str:
    return datetime.fromtimestamp(cast(float, point["ts"]), UTC).isoformat().replace("+00:00", "Z")


def _trkpt(point: JsonObject) -> str:
    elevation = point.get("altitude")
    ele = f"<ele>{_decimal(elevation)}</ele>" if isinstance(elevation, int | float) else ""
    lat, lon = _decimal(point["latitude"]), _decimal(point["longitude"])
    return f'<trkpt lat="{lat}" lon="{lon}">{ele}<time>{_utc(point)}</time></trkpt>\n'


def _decimal(number: object) -> str:
    """All digits of a float without an exponent, which XML's decimals do not have."""
    return format(Decimal(repr(number)), "f")


def _escaped(text: str) -> str:
    from xml.sax.saxutils import escape

    return escape(text)
