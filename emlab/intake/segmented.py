"""The chain as it was sensed, as entries: segmentation/* and analysis/smoothing. Imports numpy through the chain."""

from __future__ import annotations

from emlab.entries import JsonObject
from emlab.intake.chain import Chain, Place, Position, Span, oid
from emlab.intake.legs import Journey, Stop, section_points
from emlab.intake.sections import Part
from emlab.intake.sphere import distance_m
from emlab.intake.tracks import Fixes
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
    stop_fields,
)

_End = tuple[float, str, Position]


def write(writer: Writer, chain: Chain) -> None:
    """All raw places, trips, sections, stops and untracked times of a chain are among the entries."""
    for place in chain.raw_places:
        writer.add("segmentation/raw_place", place.id, _place(place))
    for span in chain.spans:
        writer.add(f"segmentation/raw_{'untracked' if span.untracked else 'trip'}", span.id, _trip(span))
        journey = chain.journeys.get(span.id)
        if journey is not None and journey.points is not None and journey.parts:
            _write_sections(writer, span.id, journey, journey.points)


def _place(place: Place) -> JsonObject:
    links = linked("ending_trip", place.ending) | linked("starting_trip", place.starting)
    return place_fields(place) | links


def _trip(span: Span) -> JsonObject:
    return {
        "source": span.source,
        **end("start", span.start_ts, span.start_zone, span.start),
        **end("end", span.end_ts, span.end_zone, span.end),
        "start_place": link(span.start_place.id),
        "end_place": link(span.end_place.id),
        "duration": span.end_ts - span.start_ts,
        "distance": span.distance_m,
    }


def _write_sections(writer: Writer, trip: str, journey: Journey, points: Fixes) -> None:
    sections = names("segmentation/raw_section", trip, len(journey.parts))
    stops = names("segmentation/raw_stop", trip, len(journey.parts) - 1)
    ends = [(_end(points, part.start), _end(points, part.end)) for part in journey.parts]
    for index, part in enumerate(journey.parts):
        data = {**_section(trip, part, *ends[index]), **beside(stops, index)}
        writer.add("segmentation/raw_section", sections[index], data)
        deleted = journey.legs[index].deleted
        if deleted is not None:
            false = section_points(points, part).id[deleted].tolist()
            _write_smoothing(writer, sections[index], ends[index][0], false)
    for index, name in enumerate(stops):
        stop = _stop(ends[index][1], ends[index + 1][0])
        writer.add("segmentation/raw_stop", name, stop_fields(stop, trip, sections, index))


def _end(points: Fixes, index: int) -> _End:
    return float(points.ts[index]), str(points.zone[index]), (float(points.lon[index]), float(points.lat[index]))


def _section(trip: str, part: Part, start: _End, finish: _End) -> JsonObject:
    return {
        "trip_id": link(trip),
        **end("start", *start),
        **end("end", *finish),
        "duration": finish[0] - start[0],
        "source": SECTION_SOURCE,
        "sensed_mode": int(part.kind),
        "ble_sensed_mode": None,
    }


def _stop(enter: _End, leave: _End) -> Stop:
    return Stop(*enter, *leave, distance_m(*enter[2], *leave[2]), leave[0] - enter[0])


def _write_smoothing(writer: Writer, section: str, start: _End, deleted: list[str]) -> None:
    """Which points are false. Its time, the section's start, is ours: without one it would outlive its section."""
    data: JsonObject = {
        "section": link(section),
        **moment("", start[0], start[1]),
        "deleted_points": [link(name) for name in deleted],
        "outlier_algo": "BoxplotOutlier",
        "filtering_algo": "SmoothZigzag",
    }
    writer.add("analysis/smoothing", oid("analysis/smoothing", section), data)
