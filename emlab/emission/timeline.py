"""Trips as GeoJSON, in the form of e-mission's server. Pure: entries in wire form in, mappings out."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

from emlab.entries import JsonObject
from emlab.entries.codes import Mode, Motion


@dataclass(frozen=True, kw_only=True)
class Travel:
    """All that trips refer to, in wire form.

    Attributes:
        places: by id. stops, sections: by the id of their cleaned trip, by time.
        inferred: the inferred section by the id of its cleaned section.
        points: of the trajectory, by data.ts.
        incidents: what the user reported, by data.ts.
    """

    places: Mapping[str, JsonObject]
    stops: Mapping[str, Sequence[JsonObject]]
    sections: Mapping[str, Sequence[JsonObject]]
    inferred: Mapping[str, JsonObject]
    points: Sequence[JsonObject]
    incidents: Sequence[JsonObject]


def trip_feature(trip: JsonObject, travel: Travel) -> JsonObject:
    """A FeatureCollection: start and end place, stops, sections (each a collection of one line), incidents."""
    data = data_of(trip)
    cleaned = oid(data.get("cleaned_trip")) or oid_of(trip)
    features = [
        _place(travel.places[place], role)
        for role, place in (("start_place", oid(data.get("start_place"))), ("end_place", oid(data.get("end_place"))))
        if place in travel.places
    ]
    features += [_stop(stop) for stop in travel.stops.get(cleaned, ())]
    features += [_section(section, travel) for section in travel.sections.get(cleaned, ())]
    during = between(travel.incidents, cast(float, data["start_ts"]), cast(float, data["end_ts"]))
    features += [_feature(one, data_of(one).get("loc"), "incident", "loc") for one in during]
    return {
        "type": "FeatureCollection",
        "properties": {**data, "feature_type": "trip"},
        "features": features,
        "id": oid_of(trip),
    }


def _place(place: JsonObject, role: str) -> JsonObject:
    return _feature(place, data_of(place).get("location"), role, "location")


def _stop(stop: JsonObject) -> JsonObject:
    data = data_of(stop)
    line = {"type": "LineString", "coordinates": [_at(data.get("enter_loc")), _at(data.get("exit_loc"))]}
    return _feature(stop, line, "stop")


def _section(section: JsonObject, travel: Travel) -> JsonObject:
    """A collection of one line: the section's properties, its mode as inferred, and the times of its points."""
    data = data_of(section)
    along = between(travel.points, cast(float, data["start_ts"]), cast(float, data["end_ts"]))
    times = [cast(float, data_of(point)["ts"]) for point in along]
    line = {"type": "LineString", "coordinates": [_at(data_of(point).get("loc")) for point in along]}
    feature = _feature(section, line, "section", "start_loc", "end_loc")
    properties = cast(JsonObject, feature["properties"])
    properties |= {
        "times": times,
        "timestamps": [round(time * 1000) for time in times],
        "sensed_mode": _mode(section, travel.inferred.get(oid_of(section))),
    }
    return {"type": "FeatureCollection", "features": [feature]}


def _mode(section: JsonObject, inferred: JsonObject | None) -> str:
    """The mode's name as Python shows e-mission's enumerations."""
    if inferred is not None:
        return f"PredictedModeTypes.{_name(Mode, data_of(inferred).get('sensed_mode'), Mode.UNKNOWN)}"
    return f"MotionTypes.{_name(Motion, data_of(section).get('sensed_mode'), Motion.UNKNOWN)}"


def _name(names: type[IntEnum], value: object, otherwise: IntEnum) -> str:
    return next((one.name for one in names if one == value), otherwise.name)


def _feature(entry: JsonObject, geometry: object, feature_type: str, *without: str) -> JsonObject:
    properties = {name: value for name, value in data_of(entry).items() if name not in without}
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {**properties, "feature_type": feature_type},
        "id": oid_of(entry),
    }


def between(entries: Sequence[JsonObject], start_ts: float, end_ts: float) -> Sequence[JsonObject]:
    """Those with data.ts in the closed interval, of entries sorted by it."""
    first = bisect.bisect_left(entries, start_ts, key=lambda entry: cast(float, data_of(entry)["ts"]))
    last = bisect.bisect_right(entries, end_ts, key=lambda entry: cast(float, data_of(entry)["ts"]))
    return entries[first:last]


def data_of(entry: JsonObject) -> JsonObject:
    """An entry's `data`."""
    return cast(JsonObject, entry["data"])


def oid_of(entry: JsonObject) -> str:
    """An entry's id in hex."""
    return oid(entry["_id"])


def oid(value: object) -> str:
    """The hex digits of an id in extended JSON; nothing if it is none."""
    return str(value["$oid"]) if isinstance(value, dict) and "$oid" in value else ""


def _at(point: object) -> object:
    return point.get("coordinates") if isinstance(point, dict) else None
