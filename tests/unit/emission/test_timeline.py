"""Trips as GeoJSON, in the form that was recorded from e-mission's server."""

from __future__ import annotations

from typing import cast

from emlab.emission.timeline import Travel, between, trip_feature
from emlab.entries import JsonObject

TS = 1_440_688_739.672


def entry(number: int, **data: object) -> JsonObject:
    return {"_id": {"$oid": f"{number:024x}"}, "metadata": {}, "data": data}


def at(number: int) -> JsonObject:
    return {"$oid": f"{number:024x}"}


def here(lon: float) -> JsonObject:
    return {"type": "Point", "coordinates": [lon, 37.4]}


TRIP = entry(1, start_ts=TS, end_ts=TS + 90, start_place=at(2), end_place=at(3), cleaned_trip=at(9), distance=7.0)
SECTION = entry(
    5, trip_id=at(9), start_ts=TS, end_ts=TS + 60, start_loc=here(-122.1), end_loc=here(-122.0), sensed_mode=1
)
TRAVEL = Travel(
    places={f"{n:024x}": entry(n, location=here(-122.0 - n), enter_ts=TS) for n in (2, 3)},
    stops={f"{9:024x}": [entry(4, enter_loc=here(1.0), exit_loc=here(2.0), enter_ts=TS + 60)]},
    sections={f"{9:024x}": [SECTION]},
    inferred={f"{5:024x}": entry(6, sensed_mode=2)},
    points=[entry(20 + n, ts=TS + 30 * n, loc=here(-122.0 + n / 100)) for n in range(4)],
    incidents=[entry(40, ts=TS + 10, loc=here(-122.0), stress=3), entry(41, ts=TS + 500, loc=here(-122.0))],
)


def features(travel: Travel) -> list[JsonObject]:
    return cast("list[JsonObject]", trip_feature(TRIP, travel)["features"])


def test_a_trip_has_its_places_stops_sections_and_incidents() -> None:
    trip = trip_feature(TRIP, TRAVEL)
    assert (trip["type"], trip["id"]) == ("FeatureCollection", f"{1:024x}")
    assert cast(JsonObject, trip["properties"])["feature_type"] == "trip"
    assert cast(JsonObject, trip["properties"])["distance"] == 7.0
    start, end, stop, section, incident = features(TRAVEL)
    assert [cast(JsonObject, one["properties"])["feature_type"] for one in (start, end, stop, incident)] == [
        "start_place",
        "end_place",
        "stop",
        "incident",
    ]
    assert start["geometry"] == here(-124.0)
    assert "location" not in cast(JsonObject, start["properties"])
    assert stop["geometry"] == {"type": "LineString", "coordinates": [[1.0, 37.4], [2.0, 37.4]]}
    assert section.keys() == {"type", "features"}


def test_a_section_is_a_line_along_the_points_of_its_time() -> None:
    (line,) = cast("list[JsonObject]", features(TRAVEL)[3]["features"])
    assert line["geometry"] == {"type": "LineString", "coordinates": [[-122.0 + n / 100, 37.4] for n in range(3)]}
    properties = cast(JsonObject, line["properties"])
    assert properties["times"] == [TS, TS + 30, TS + 60]
    assert properties["timestamps"] == [1440688739672, 1440688769672, 1440688799672]
    assert properties["sensed_mode"] == "PredictedModeTypes.BICYCLING"
    assert not properties.keys() & {"start_loc", "end_loc"}


def test_a_section_without_an_inferred_mode_shows_the_sensed_one() -> None:
    bare = Travel(places={}, stops={}, sections=TRAVEL.sections, inferred={}, points=[], incidents=[])
    (section,) = features(bare)
    (line,) = cast("list[JsonObject]", section["features"])
    assert cast(JsonObject, line["properties"])["sensed_mode"] == "MotionTypes.BICYCLING"
    assert line["geometry"] == {"type": "LineString", "coordinates": []}


def test_what_is_between_includes_both_ends() -> None:
    points = TRAVEL.points
    assert between(points, TS, TS) == points[:1]
    assert between(points, TS + 1, TS + 60) == points[1:3]
    assert between(points, TS + 1, TS + 2) == []
