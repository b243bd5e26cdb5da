"""The cleaned chain as entries: what people and e-mission's tools read as the diary. Imports numpy through the chain.

What e-mission gets from outside services (addresses of places, labels from a model) is missing or empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from emlab.entries import JsonObject
from emlab.entries.codes import Mode, Motion
from emlab.intake.chain import Chain, Place, Trip, oid
from emlab.intake.cleaning import Leg
from emlab.intake.labels import (
    PLACE_ADDITION,
    PLACE_NAMES,
    TRIP_ADDITION,
    TRIP_NAMES,
    Said,
    additions,
    user_input,
)
from emlab.intake.modes import Lines, inferred
from emlab.intake.writer import (
    SECTION_SOURCE,
    Writer,
    beside,
    end,
    link,
    linked,
    moment,
    names,
    place_fields,
    point,
    stop_fields,
    wrapped,
)

MAX_LOCATIONS = 100  # of a composite trip
RULES, NO_MODEL = 2, 7  # e-mission's numbers of algorithms: its rules for modes, and a model that knows no labels
CONFIDENCE = 0.55  # from which on e-mission shows a label as sure


@dataclass(frozen=True, slots=True)
class _Sections:
    """The cleaned sections of a trip, inferred and with the entries of their points."""

    inferred: list[JsonObject]
    modes: list[Mode]
    located: list[JsonObject]


def write(writer: Writer, chain: Chain, inputs: list[Said], lines: Lines | None) -> None:
    """All cleaned, inferred, confirmed and composite entries of a chain are among the entries."""
    following = {trip.start_place.id: trip for trip in chain.trips}
    places = {place.id: _write_place(writer, place, inputs) for place in chain.places}
    for trip in chain.trips:
        ends = [places[trip.start_place.id], places[trip.end_place.id]]
        if trip.raw.untracked:
            _write_untracked(writer, trip, ends)
            continue
        after = following.get(trip.end_place.id)
        _write_trip(writer, trip, ends, inputs, lines, None if after is None else after.start_ts)


def _confirmed(name: str | None, *, untracked: bool) -> str | None:
    """The id of the confirmed counterpart of a cleaned trip or untracked time."""
    key = "analysis/confirmed_untracked" if untracked else "analysis/confirmed_trip"
    return None if name is None else oid(key, name)


def _write_place(writer: Writer, place: Place, inputs: list[Said]) -> JsonObject:
    """The entry of the confirmed place."""
    fields = {**place_fields(place), "raw_places": [link(name) for name in place.raw_places]}
    links = linked("ending_trip", place.ending) | linked("starting_trip", place.starting)
    writer.add("analysis/cleaned_place", place.id, fields | links)
    ending = linked("ending_trip", _confirmed(place.ending, untracked=place.untracked))
    starting = linked("starting_trip", _confirmed(place.starting, untracked=place.leaving_untracked))
    data = {**fields, **ending, **starting, "cleaned_place": link(place.id), **_said_of_place(place, inputs)}
    return writer.add("analysis/confirmed_place", oid("analysis/confirmed_place", place.id), data)


def _said_of_place(place: Place, inputs: list[Said]) -> JsonObject:
    if place.enter_ts is None or place.exit_ts is None or not inputs:
        return {"user_input": {}, "additions": []}
    span = (place.enter_ts, place.exit_ts, place.exit_ts)
    return {
        "user_input": user_input(inputs, PLACE_NAMES, *span),
        "additions": additions(inputs, PLACE_ADDITION, *span),
    }


def _ends(trip: Trip) -> JsonObject:
    return {
        "source": trip.raw.source,
        **end("start", trip.start_ts, trip.start_zone, trip.start),
        **end("end", trip.end_ts, trip.end_zone, trip.end),
        "duration": trip.duration_s,
        "distance": trip.distance_m,
    }


def _between(places: list[JsonObject], *, cleaned: Trip | None = None) -> JsonObject:
    """The links to the places at the ends: the cleaned ones of a trip, or the confirmed ones."""
    if cleaned is not None:
        return {"start_place": link(cleaned.start_place.id), "end_place": link(cleaned.end_place.id)}
    return {"start_place": places[0]["_id"], "end_place": places[1]["_id"]}


def _write_untracked(writer: Writer, trip: Trip, places: list[JsonObject]) -> None:
    fields = _ends(trip)
    writer.add("analysis/cleaned_untracked", trip.id, fields | _between(places, cleaned=trip))
    nothing: JsonObject = {"user_input": {}, "additions": []}
    name = oid("analysis/confirmed_untracked", trip.id)
    data = {**fields, **_between(places), **nothing}
    writer.add("analysis/confirmed_untracked", name, data)
    _write_composite(writer, name, "analysis/confirmed_untracked", data, places, None)


def _write_trip(
    writer: Writer,
    trip: Trip,
    places: list[JsonObject],
    inputs: list[Said],
    lines: Lines | None,
    next_ts: float | None,
) -> None:
    fields = {**_ends(trip), "raw_trip": link(trip.raw.id)}
    own = _between(places, cleaned=trip)
    writer.add("analysis/cleaned_trip", trip.id, fields | own)
    sections = _write_sections(writer, trip, lines)
    steps = _write_steps(writer, trip, fields, own)
    span = (trip.start_ts, trip.end_ts, next_ts)
    data = {
        **fields,
        **_between(places),
        **steps,
        **_summaries(trip.journey.legs, sections.modes),
        "user_input": user_input(inputs, TRIP_NAMES, *span) if inputs else {},
        "additions": additions(inputs, TRIP_ADDITION, *span) if inputs else [],
    }
    name = oid("analysis/confirmed_trip", trip.id)
    writer.add("analysis/confirmed_trip", name, data)
    _write_composite(writer, name, "analysis/confirmed_trip", data, places, sections)


def _write_steps(writer: Writer, trip: Trip, fields: JsonObject, own: JsonObject) -> JsonObject:
    """The entries between a cleaned and a confirmed trip, for the tools that read them; what a confirmed one keeps."""
    inferred_trip, expected_trip = (oid(f"analysis/{name}_trip", trip.id) for name in ("inferred", "expected"))
    label: JsonObject = {
        "algorithm_id": NO_MODEL,
        "trip_id": link(inferred_trip),
        "prediction": [],
        "start_ts": trip.start_ts,
        "end_ts": trip.end_ts,
    }
    writer.add("inference/labels", oid("inference/labels", trip.id), label)
    writer.add("analysis/inferred_labels", oid("analysis/inferred_labels", trip.id), label)
    kept: JsonObject = {"cleaned_trip": link(trip.id), "inferred_labels": []}
    writer.add("analysis/inferred_trip", inferred_trip, {**fields, **own, **kept})
    kept |= {
        "inferred_trip": link(inferred_trip),
        "expectation": {"to_label": True},
        "confidence_threshold": CONFIDENCE,
    }
    writer.add("analysis/expected_trip", expected_trip, {**fields, **own, **kept})
    return kept | {"expected_trip": link(expected_trip)}


def _write_sections(writer: Writer, trip: Trip, lines: Lines | None) -> _Sections:
    legs, stops = trip.journey.legs, trip.journey.stops
    section_ids = names("analysis/cleaned_section", trip.id, len(legs))
    stop_ids = names("analysis/cleaned_stop", trip.id, len(stops))
    found = _Sections([], [], [])
    for index, leg in enumerate(legs):
        data = {**_section(trip, leg), **beside(stop_ids, index)}
        writer.add("analysis/cleaned_section", section_ids[index], data)
        early = trip.journey.early and index == 0
        found.located.extend(_write_locations(writer, leg, section_ids[index], early=early))
        mode = inferred(leg, lines)
        found.modes.append(mode)
        found.inferred.append(_write_inferred(writer, trip, leg, section_ids[index], data, mode))
    for index, stop in enumerate(stops):
        writer.add("analysis/cleaned_stop", stop_ids[index], stop_fields(stop, trip.id, section_ids, index))
    return found


def _section(trip: Trip, leg: Leg) -> JsonObject:
    return {
        "source": SECTION_SOURCE,
        "ble_sensed_mode": None,
        "trip_id": link(trip.id),
        **end("start", leg.start_ts, leg.start_zone, leg.start),
        **end("end", leg.end_ts, leg.end_zone, leg.end),
        "duration": leg.duration_s,
        "speeds": leg.speeds,
        "distances": leg.hops_m,
        "distance": leg.distance_m,
        "sensed_mode": leg.kind,
    }


def _write_inferred(writer: Writer, trip: Trip, leg: Leg, section: str, data: JsonObject, mode: Mode) -> JsonObject:
    prediction: JsonObject = {
        "trip_id": link(trip.id),
        "section_id": link(section),
        "algorithm_id": RULES,
        "predicted_mode_map": {mode.name: 1},
        "start_ts": leg.start_ts,
        "end_ts": leg.end_ts,
    }
    writer.add("inference/prediction", oid("inference/prediction", section), prediction)
    found = {**data, "sensed_mode": int(mode), "cleaned_section": link(section)}
    return writer.add("analysis/inferred_section", oid("analysis/inferred_section", section), found)


def _write_locations(writer: Writer, leg: Leg, section: str, *, early: bool) -> list[JsonObject]:
    """The entries of a section's points; one that was put before the others has no number."""
    path = leg.path
    rows = zip(
        path.ts.tolist(),
        path.lon.tolist(),
        path.lat.tolist(),
        path.altitude.tolist(),
        path.zone.tolist(),
        leg.hops_m,
        leg.speeds,
        leg.turns,
        strict=False,  # a section that took a stop has one more hop than points
    )
    where = link(section)
    return [
        writer.add(
            "analysis/recreated_location",
            oid("analysis/recreated_location", section, index),
            {
                "latitude": lat,
                "longitude": wrapped(lon),
                "loc": point((lon, lat)),
                **moment("", ts, zone),
                "altitude": altitude,
                "distance": hop_m,
                "speed": speed,
                "heading": turn,
                **({"idx": index} if index >= 0 else {}),
                "mode": leg.kind if index < 0 else leg.located,
                "section": where,
            },
        )
        for index, (ts, lon, lat, altitude, zone, hop_m, speed, turn) in enumerate(rows, start=-1 if early else 0)
    ]


def _summaries(legs: list[Leg], modes: list[Mode]) -> JsonObject:
    sensed = [Motion(leg.kind).name for leg in legs]
    return {
        "inferred_section_summary": _summary(legs, [mode.name for mode in modes]),
        "cleaned_section_summary": _summary(legs, sensed),
        "ble_sensed_summary": _summary(legs, ["UNKNOWN"] * len(legs)),
    }


def _summary(legs: list[Leg], modes: list[str]) -> JsonObject:
    """Distance, duration and number of sections by mode."""
    distance: dict[str, float] = {}
    duration: dict[str, float] = {}
    count: dict[str, int] = {}
    for leg, mode in zip(legs, modes, strict=True):
        distance[mode] = distance.get(mode, 0.0) + leg.distance_m
        duration[mode] = duration.get(mode, 0.0) + leg.duration_s
        count[mode] = count.get(mode, 0) + 1
    return {"distance": distance, "duration": duration, "count": count}


def _write_composite(
    writer: Writer, confirmed: str, key: str, data: JsonObject, places: list[JsonObject], found: _Sections | None
) -> None:
    """The trip with all that a phone shows of it."""
    located = [] if found is None else found.located
    if len(located) > MAX_LOCATIONS:
        located = located[:: len(located) // MAX_LOCATIONS + 1]
    sections = [] if found is None else [_named(*each) for each in zip(found.inferred, found.modes, strict=True)]
    whole = {
        **data,
        "locations": located,
        "confirmed_trip": link(confirmed),
        "start_confirmed_place": places[0],
        "end_confirmed_place": places[1],
        "sections": sections,
    }
    writer.add("analysis/composite_trip", oid("analysis/composite_trip", confirmed), whole, origin_key=key)


def _named(section: JsonObject, mode: Mode) -> JsonObject:
    """A section as it stands in a composite trip: its mode also by name, without its points."""
    data = section["data"]
    assert isinstance(data, dict)
    kept = {name: value for name, value in data.items() if name not in ("speeds", "distances")}
    return {**section, "data": {**kept, "sensed_mode_str": mode.name}}
