"""Result entries as e-mission writes them, and the fields of which they are made. Imports nothing but emlab's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast
from zoneinfo import ZoneInfo

from emlab.entries import DEFAULT_TIME_ZONE, JsonObject
from emlab.entries.times import time_fields, zone_named
from emlab.intake.chain import Place, Position, oid
from emlab.intake.legs import Stop

SECTION_SOURCE = "SmoothedHighConfidenceMotion"


@dataclass(slots=True)
class Writer:
    """Entries so far. All of them say that the server wrote them, in e-mission's own zone."""

    metadata: JsonObject
    entries: list[JsonObject] = field(default_factory=list)

    @classmethod
    def at(cls, now: float) -> Writer:
        """One whose entries were written at that moment, UTC seconds."""
        times = moment("write", now, DEFAULT_TIME_ZONE)
        return cls({"platform": "server", "time_zone": DEFAULT_TIME_ZONE, **times})

    def add(self, key: str, name: str, data: JsonObject, **extra: object) -> JsonObject:
        """The entry of that key, id and content is there too."""
        entry: JsonObject = {"_id": link(name), "metadata": {"key": key, **self.metadata, **extra}, "data": data}
        self.entries.append(entry)
        return entry


def link(name: str) -> JsonObject:
    """An id in wire form."""
    return {"$oid": name}


def linked(name: str, target: str | None) -> JsonObject:
    """A field that names another entry, if there is one."""
    return {} if target is None else {name: link(target)}


def names(key: str, trip: str, count: int) -> list[str]:
    """The ids of so many entries of a trip."""
    return [oid(key, trip, index) for index in range(count)]


def beside(targets: list[str], index: int) -> JsonObject:
    """The links from a section to the stops before and after it."""
    start = linked("start_stop", targets[index - 1] if index > 0 else None)
    return start | linked("end_stop", targets[index] if index < len(targets) else None)


def point(position: Position) -> JsonObject:
    """A position as GeoJSON."""
    return {"type": "Point", "coordinates": [wrapped(position[0]), position[1]]}


def wrapped(lon: float) -> float:
    """The same longitude from -180 to 180 degrees."""
    return lon if -180.0 <= lon <= 180.0 else (lon + 180.0) % 360.0 - 180.0


def moment(prefix: str, ts: float, zone: str) -> JsonObject:
    """A time, three times over."""
    return time_fields(ts, cast(ZoneInfo, zone_named(zone)), f"{prefix}_" if prefix else "")


def end(prefix: str, ts: float, zone: str, position: Position) -> JsonObject:
    """When and where a trip, section or stop starts or ends."""
    return {**moment(prefix, ts, zone), f"{prefix}_loc": point(position)}


def place_fields(place: Place) -> JsonObject:
    """What raw and cleaned places have in common."""
    data: JsonObject = {"source": place.source, "location": point(place.at)}
    if place.enter_ts is not None:
        data |= moment("enter", place.enter_ts, place.zone)
    if place.exit_ts is not None:
        data |= moment("exit", place.exit_ts, cast(str, place.exit_zone))
    if place.stay_s is not None:
        data["duration"] = place.stay_s
    return data


def stop_fields(stop: Stop, trip: str, sections: list[str], index: int) -> JsonObject:
    """The stop of a trip after its section of that index."""
    return {
        "trip_id": link(trip),
        "source": SECTION_SOURCE,
        **end("enter", stop.enter_ts, stop.enter_zone, stop.enter),
        **end("exit", stop.exit_ts, stop.exit_zone, stop.exit),
        "ending_section": link(sections[index]),
        "starting_section": link(sections[index + 1]),
        "duration": stop.duration_s,
        "distance": stop.distance_m,
    }
