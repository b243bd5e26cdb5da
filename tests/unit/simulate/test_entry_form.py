"""The wire form, field by field: against real android entries where there are some, and on its own."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from emlab.entries.codes import Motion, State, Transition
from emlab.entries.times import time_fields
from emlab.intake.formatting import format_entry
from emlab.simulate import Simulator
from emlab.simulate.entry_form import formatted, motion, to_raw, transition
from tests.unit.simulate.phone_log import KEYS, MOTION, through_json

REAL_DAY, REAL_IOS_DAY = "shankari_2016-08-10.json.gz", "sunil_2016-07-20.json.gz"
CODES = {"type", "confidence", "curr_state", "transition", "battery_status"}  # of data; ints on both sides

Shape = dict[str, set[str]]


def kind(value: object) -> str:
    """JSON's own type of a value: real files write a float without decimals as an int."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "number"
    return type(value).__name__


def fields(value: object, path: str) -> Iterator[tuple[str, str]]:
    """(path, type) of everything in an entry; the items of a list count as one."""
    yield path, kind(value)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from fields(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from fields(inner, f"{path}[]")


def shapes(entries: list[dict[str, Any]]) -> dict[str, Shape]:
    """For each key the fields that any of its entries has, with their types."""
    found: dict[str, Shape] = defaultdict(lambda: defaultdict(set))
    for entry in entries:
        for path, type_name in fields(entry, ""):
            found[entry["metadata"]["key"]][path].add(type_name)
    return {key: dict(shape) for key, shape in found.items()}


def real_day(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get("EMLAB_PHONE_DAYS")
    if not folder:
        pytest.skip("EMLAB_PHONE_DAYS is not set: point it at a folder of e-mission's example days (*.json.gz)")
    with gzip.open(Path(folder) / name) as file:
        entries: list[dict[str, Any]] = json.load(file)
    return entries


@pytest.fixture(scope="module")
def simulated() -> list[dict[str, Any]]:
    return through_json(Simulator(1, 2, 5, ios_share=0).person(0))


@pytest.fixture(scope="module")
def simulated_ios() -> list[dict[str, Any]]:
    return through_json(Simulator(1, 2, 5, ios_share=1).person(0))


@pytest.fixture(scope="module")
def real() -> list[dict[str, Any]]:
    return real_day(REAL_DAY)


def test_simulated_android_entries_have_the_fields_and_types_of_real_ones(
    simulated: list[dict[str, Any]], real: list[dict[str, Any]]
) -> None:
    ours, theirs = shapes(simulated), shapes(real)
    assert ours.keys() == theirs.keys() == KEYS
    for key, shape in ours.items():
        assert shape.pop(".metadata.plugin") == {"str"}  # a field of e-mission's that android phones of 2016 left out
        assert shape == theirs[key]


def test_simulated_ios_entries_have_the_fields_and_types_of_real_ones(simulated_ios: list[dict[str, Any]]) -> None:
    ours, theirs = shapes(simulated_ios), shapes(real_day(REAL_IOS_DAY))
    assert ours.keys() == KEYS <= theirs.keys()
    for key, shape in ours.items():
        for path, types in shape.items():
            assert types <= theirs[key][path], (key, path)
        assert shape.keys() == theirs[key].keys()


@pytest.mark.parametrize("share", [0, 1])
def test_what_a_phone_posts_is_formatted_to_what_the_server_keeps(share: int) -> None:
    person = Simulator(1, 2, 5, ios_share=share).person(0)
    kept, raw = through_json(person), list(person.raw_entries())
    assert len(kept) == len(raw)
    for entry, sent in zip(kept, raw, strict=True):
        assert set(sent) == {"metadata", "data"}
        made = format_entry(sent)
        assert {name: part for name, part in entry.items() if name not in ("_id", "user_id")} == made


@pytest.mark.parametrize("share", [0, 1])
def test_raw_entries_have_the_fields_of_those_that_phones_posted(share: int) -> None:
    sent: dict[str, set[str]] = {}
    for raw in Simulator(1, 2, 5, ios_share=share).person(0).raw_entries():
        metadata, data = (cast("dict[str, Any]", raw[part]) for part in ("metadata", "data"))
        sent.setdefault(metadata["key"], set()).update(data)
        assert not {"local_dt", "fmt_time", "loc", "heading"} & data.keys()
        assert "write_fmt_time" not in metadata
    places = {"latitude", "longitude", "altitude", "accuracy", "sensed_speed", "bearing", "ts", "filter"}
    own = {"vaccuracy", "floor"} if share else {"elapsedRealtimeNanos"}
    assert sent["background/location"] == sent["background/filtered_location"] == places | own
    assert sent["statemachine/transition"] == {"currState", "transition", "ts"}
    flags = {"stationary", "walking", "running", "cycling", "automotive", "unknown"}
    assert sent["background/motion_activity"] == {"confidence", "ts"} | (flags if share else {"type"})


def test_codes_are_ints_in_both(simulated: list[dict[str, Any]], real: list[dict[str, Any]]) -> None:
    for entries in (simulated, real):
        codes = [(name, e["data"][name]) for e in entries for name in CODES & e["data"].keys()]
        assert {name for name, _ in codes} == CODES
        assert all(type(code) is int for _, code in codes)


def test_real_times_come_out_as_the_real_server_wrote_them(real: list[dict[str, Any]]) -> None:
    for e in real:
        zone = ZoneInfo(e["metadata"]["time_zone"])
        made = time_fields(e["data"]["ts"], zone)
        assert made == {name: e["data"][name] for name in made}
        made = time_fields(e["metadata"]["write_ts"], zone, "write_")
        assert made == {name: e["metadata"][name] for name in made}


def test_measured_numbers_are_floats_and_codes_are_ints(simulated: list[dict[str, Any]]) -> None:
    whole = CODES | {"elapsedRealtimeNanos", "android_temperature", "android_voltage"}
    for e in simulated:
        assert type(e["metadata"]["write_ts"]) is float
        assert e["metadata"]["read_ts"] == 0
        for name, value in e["data"].items():
            if kind(value) == "number":
                assert type(value) is (int if name in whole else float), name


def test_a_location_says_where_it_is_three_times_the_same(simulated: list[dict[str, Any]]) -> None:
    for data in (e["data"] for e in simulated if "loc" in e["data"]):
        assert data["loc"] == {"type": "Point", "coordinates": [data["longitude"], data["latitude"]]}
        assert data["filter"] == "time"
        assert 0 <= data["heading"] < 360


def test_an_entry_is_built_as_written_down() -> None:
    seen = motion(Motion.WALKING, 77, 1470877075.12, platform="android")
    raw = to_raw(seen, "android", "America/Los_Angeles")
    (entry,) = formatted([raw], "ab" * 16)
    local = {"year": 2016, "month": 8, "day": 10, "hour": 17, "minute": 57, "second": 55, "weekday": 2}
    local_dt, text = {**local, "timezone": "America/Los_Angeles"}, "2016-08-10T17:57:55.120000-07:00"
    assert entry == {
        "_id": {"$oid": "57abcd93" + "ab" * 5 + "000000"},
        "user_id": {"$uuid": "ab" * 16},
        "metadata": {
            "key": MOTION,
            "platform": "android",
            "type": "sensor-data",
            "write_ts": 1470877075.12,
            "write_local_dt": local_dt,
            "write_fmt_time": text,
            "time_zone": "America/Los_Angeles",
            "read_ts": 0,
            "plugin": "none",
        },
        "data": {"type": 7, "confidence": 77, "ts": 1470877075.12, "local_dt": local_dt, "fmt_time": text},
    }


@pytest.mark.parametrize(
    ("confidence", "word"), [(30, "low"), (54, "low"), (65, "medium"), (85, "high"), (100, "high")]
)
def test_an_ios_phone_raises_one_flag_and_says_in_a_word_how_sure_it_is(confidence: int, word: str) -> None:
    values = motion(Motion.BICYCLING, confidence, 1.0, platform="ios").values
    assert [name for name, value in values.items() if value is True] == ["cycling"]
    assert values["confidence"] == word


def test_a_transition_has_the_names_of_its_platform() -> None:
    step = State.ONGOING_TRIP, Transition.STOPPED_MOVING, 1.0
    assert transition(*step, platform="android").values == {
        "currState": "local.state.ongoing_trip",
        "transition": "local.transition.stopped_moving",
        "ts": 1.0,
    }
    names = {"currState": "STATE_ONGOING_TRIP", "transition": "T_TRIP_ENDED", "ts": 1.0}
    assert transition(*step, platform="ios").values == names
