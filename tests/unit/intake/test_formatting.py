"""Raw phone entries come out as the real server formatted them, and no entry brings another error than BadEntry."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given

from emlab.entries import parse
from emlab.entries.times import time_fields, zone_named
from emlab.errors import BadEntry
from emlab.intake.formatting import BEACON_EVENTS, TRANSITIONS, TYPE_AND_CONFIDENCE, format_entry

Entry = dict[str, Any]
RECORDED = ".phone_to_server.json.gz"
TS = 1_440_688_707.867
# weekday counts from 1 in what old servers wrote of the time of writing; nobody reads it there
OLD_WEEKDAYS = "shankari_2015-aug-27"


def raw(key: str, data: Entry, **metadata: object) -> Entry:
    told = {"key": key, "platform": "android", "type": "message", "write_ts": TS, "time_zone": "America/Los_Angeles"}
    return {"metadata": {**told, **metadata}, "data": data}


def fix(**data: object) -> Entry:
    return raw("background/location", {"latitude": 37.4, "longitude": -122.1, "ts": TS, "bearing": 12.5, **data})


def reason(entry: object) -> str:
    with pytest.raises(BadEntry) as caught:
        format_entry(entry)  # type: ignore[arg-type]
    return str(caught.value)


def recorded() -> Iterator[tuple[str, list[Entry], list[Entry]]]:
    """Each real day: its name, what the phone sent, what the real server made of it, in the same order."""
    inputs = Path(os.environ["EMLAB_PHONE_DAYS"])
    for file in sorted((inputs.parent / "rest").glob("*" + RECORDED)):
        name = file.name.removesuffix(RECORDED)
        sent = json.loads(gzip.decompress(file.read_bytes()))
        kept = json.loads(gzip.decompress((inputs / f"{name}.json.gz").read_bytes()))
        yield name, sent, sorted(kept, key=lambda entry: entry["metadata"]["write_ts"])


@pytest.mark.needs("phone-days")
def test_real_entries_are_formatted_as_the_real_server_did() -> None:
    compared = 0
    for name, sent, kept in recorded():
        assert len(sent) == len(kept)
        for ours, theirs in zip(map(format_entry, sent), kept, strict=True):
            expected = theirs["metadata"] | {"write_ts": float(theirs["metadata"]["write_ts"])}
            if name == OLD_WEEKDAYS:
                expected["write_local_dt"]["weekday"] -= 1
            assert ours["metadata"] == expected
            assert ours["data"] == theirs["data"]
            compared += 1
    assert compared >= 1000


@pytest.mark.needs("phone-days")
def test_formatted_entries_stay_as_they_are() -> None:
    for _, sent, kept in recorded():
        for entry in [*kept, *map(format_entry, sent)]:
            assert format_entry(entry) is entry


def test_a_raw_entry_is_not_changed() -> None:
    entry = fix()
    before = json.dumps(entry)
    format_entry(entry)
    assert json.dumps(entry) == before


def test_a_fix_gets_a_heading_and_a_point() -> None:
    data: Entry = format_entry(fix(latitude=37, vaccuracy=4))["data"]  # type: ignore[assignment]
    assert data["heading"] == 12.5
    assert "bearing" not in data
    assert data["loc"] == {"type": "Point", "coordinates": [-122.1, 37.0]}
    assert data["vaccuracy"] == 4


@pytest.mark.parametrize("ts", [1440688707867, 1440688707867.0])
def test_milliseconds_become_seconds(ts: float) -> None:
    entry = fix(ts=ts)
    entry["metadata"]["write_ts"] = ts
    formatted: Entry = format_entry(entry)
    assert formatted["data"]["ts"] == formatted["metadata"]["write_ts"] == TS


def test_whole_seconds_become_floats() -> None:
    formatted: Entry = format_entry(fix(ts=1440688707))
    assert type(formatted["data"]["ts"]) is float
    assert formatted["data"]["fmt_time"] == "2015-08-27T08:18:27-07:00"


@pytest.mark.parametrize("zone", [None, "absent"])
def test_a_phone_without_a_zone_is_where_e_mission_assumes_it(zone: str | None) -> None:
    entry = fix()
    entry["metadata"]["time_zone"] = zone
    if zone == "absent":
        del entry["metadata"]["time_zone"]
    formatted: Entry = format_entry(entry)
    assert formatted["metadata"]["time_zone"] == "America/Los_Angeles"
    assert formatted["data"]["local_dt"]["hour"] == 8


@pytest.mark.parametrize("zone", ["Atlantis/Capital", "", "../../etc/passwd", "Europe", "x" * 5000, "a\0b", 7])
def test_a_zone_that_does_not_exist_is_refused(zone: object) -> None:
    assert reason(raw("stats/client_time", {}, time_zone=zone)) == "metadata.time_zone is none of the IANA database"


def test_a_configuration_from_nowhere_is_kept() -> None:
    formatted: Entry = format_entry(raw("config/sensor_config", {"accuracy": 100}, time_zone="Atlantis/Capital"))
    assert formatted["metadata"]["time_zone"] == "America/Los_Angeles"
    assert formatted["data"] == {"accuracy": 100}


def test_both_passes_through_a_repeated_hour_are_told_apart() -> None:
    first = 1446366600.0  # 2015-11-01 01:30 in Los Angeles, summer time, and the same an hour later
    formatted: list[Entry] = [format_entry(fix(ts=first)), format_entry(fix(ts=first + 3600))]
    assert [entry["data"]["fmt_time"] for entry in formatted] == [
        "2015-11-01T01:30:00-07:00",
        "2015-11-01T01:30:00-08:00",
    ]


def test_a_spring_morning_skips_an_hour() -> None:
    berlin = fix(ts=1427590800.0)  # 2015-03-29 01:00 UTC, when Berlin goes from 2 to 3
    berlin["metadata"]["time_zone"] = "Europe/Berlin"
    formatted: Entry = format_entry(berlin)
    assert formatted["data"]["local_dt"]["hour"] == 3


@pytest.mark.parametrize(("kind", "confidence"), TYPE_AND_CONFIDENCE)
def test_each_android_name_of_a_motion_is_known(kind: str, confidence: str) -> None:
    formatted: Entry = format_entry(raw("background/motion_activity", {kind: 7, confidence: 80}))
    assert (formatted["data"]["type"], formatted["data"]["confidence"]) == (7, 80)
    assert formatted["data"]["ts"] == TS


@pytest.mark.parametrize(
    ("raised", "kind"),
    [([], 9), (["walking"], 7), (["automotive"], 0), (["stationary", "automotive"], 10), (["unknown"], 4)],
)
def test_an_ios_flag_becomes_a_type(raised: list[str], kind: int) -> None:
    flags = dict.fromkeys(["stationary", "walking", "running", "cycling", "automotive", "unknown"], False)
    data = flags | dict.fromkeys(raised, True) | {"confidence": "medium", "ts": 1.0}
    formatted: Entry = format_entry(raw("background/motion_activity", data, platform="ios"))
    assert formatted["data"]["type"] == kind
    assert (formatted["data"]["confidence"], formatted["data"]["confidence_level"]) == (75, "medium")
    assert formatted["data"]["ts"] == TS


def test_two_ios_flags_at_once_are_refused() -> None:
    data = {"walking": True, "cycling": True, "confidence": "low"}
    assert reason(raw("background/motion_activity", data, platform="ios")) == "data says two motions at once"


@pytest.mark.parametrize("name", TRANSITIONS)
def test_a_transition_becomes_codes_at_the_time_of_its_writing(name: str) -> None:
    data = {"currState": "local.state.ongoing_trip", "transition": name, "ts": 5.0}
    formatted: Entry = format_entry(raw("statemachine/transition", data))
    assert (formatted["data"]["curr_state"], formatted["data"]["transition"]) == (2, TRANSITIONS[name])
    assert formatted["data"]["ts"] == TS
    assert "currState" not in formatted["data"]


def test_a_transition_may_be_null() -> None:
    data = {"currState": "STATE_TRACKING_STOPPED", "transition": None}
    formatted: Entry = format_entry(raw("statemachine/transition", data, platform="ios"))
    assert (formatted["data"]["curr_state"], formatted["data"]["transition"]) == (3, None)


@pytest.mark.parametrize(("android", "code"), [(1, 0), (2, 2), (3, 1), (4, 4), (5, 3)])
def test_an_android_battery_has_e_missions_codes(android: int, code: int) -> None:
    formatted: Entry = format_entry(raw("background/battery", {"battery_status": android, "battery_level_pct": 7}))
    assert formatted["data"]["battery_status"] == code


def test_an_ios_battery_is_in_percent() -> None:
    data = {"battery_status": 1, "battery_level_ratio": 0.54}
    formatted: Entry = format_entry(raw("background/battery", data, platform="ios"))
    assert formatted["data"]["battery_level_pct"] == 54.0
    assert "battery_level_ratio" not in formatted["data"]


def test_labels_and_answers_get_the_times_that_they_have() -> None:
    data = {"start_ts": TS, "end_ts": TS + 60, "label": "bike", "enter_ts": None}
    formatted: Entry = format_entry(raw("manual/mode_confirm", data))
    zone = zone_named("America/Los_Angeles")
    assert zone is not None
    times = time_fields(TS, zone, "start_") | time_fields(TS + 60, zone, "end_")
    assert formatted["data"] == data | times


def test_unknown_keys_and_fields_pass() -> None:
    entry = raw("manual/no_such_key", {"name": "sync", "reading": None, "ts": TS}) | {"invalid": True}
    formatted: Entry = format_entry(entry)
    assert formatted["invalid"] is True
    assert formatted["data"]["reading"] is None
    assert formatted["data"]["fmt_time"] == "2015-08-27T08:18:27.867000-07:00"


@pytest.mark.parametrize("platform", ["android", "ios"])
def test_statistics_stay_as_they_were_but_for_dots_in_names(platform: str) -> None:
    data = {"name": "a.b", "ts": 5, "reading": {"x.y.z": [{"u.v": None}], "w": 1.5}, "client.app": "1.2"}
    formatted: Entry = format_entry(raw("stats/client_time", data, platform=platform))
    assert formatted["metadata"]["write_fmt_time"] == "2015-08-27T08:18:27.867000-07:00"
    kept = {"name": "a.b", "ts": 5, "reading": {"x_y_z": [{"u_v": None}], "w": 1.5}, "client_app": "1.2"}
    assert formatted["data"] == kept
    assert "x.y.z" in cast(Entry, data["reading"])
    settings: Entry = format_entry(raw("config/app_ui_config", {"a.b": 1}))
    assert settings["data"] == {"a.b": 1}


@pytest.mark.parametrize("platform", ["android", "ios"])
@pytest.mark.parametrize(("name", "code"), [("REGION_ENTER", 0), ("REGION_EXIT", 1), ("RANGE_UPDATE", 2)])
def test_what_is_heard_of_a_beacon_is_a_code_with_the_local_time_of_its_writing(
    platform: str, name: str, code: int
) -> None:
    heard = {"eventType": name, "uuid": "dfc0", "major": 1, "minor": 4, "rssi": -60}
    for ts in ({}, {"ts": TS - 5}, {"ts": (TS - 5) * 1000}):
        formatted: Entry = format_entry(raw("background/bluetooth_ble", {**heard, **ts}, platform=platform))
        assert formatted["data"]["eventType"] == code
        assert formatted["data"]["fmt_time"] == formatted["metadata"]["write_fmt_time"]
        assert formatted["data"]["local_dt"] == formatted["metadata"]["write_local_dt"]
        assert formatted["data"]["ts"] == pytest.approx(TS - 5 if ts else TS)
        assert formatted["data"].items() >= {"minor": 4, "rssi": -60}.items()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (None, "metadata is missing or no object"),
        ({"metadata": {"key": "a/b", "write_ts": 1.0}, "data": []}, "data is missing or no object"),
        (raw(cast(str, None), {}), "metadata.key is missing or no text"),
        (raw("a/b", {}, write_ts="now"), "metadata.write_ts is missing or no number"),
        (raw("a/b", {}, write_ts=-1.0), "metadata.write_ts is no time in seconds since 1970"),
        (raw("a/b", {}, write_ts=float("nan")), "metadata.write_ts is not finite"),
        (raw("a/b", {}, write_ts=10**400), "metadata.write_ts is not finite"),
        (raw("a/b", {"end_ts": True}), "data.end_ts is missing or no number"),
        (fix(latitude=95), "data.latitude is not within -90..90"),
        (fix(longitude=-181.0), "data.longitude is not within -180..180"),
        (fix(ts=None), "data.ts is missing or no number"),
        (raw("background/motion_activity", {}), "data.confidence is missing or no number"),
        (
            raw("background/motion_activity", {"type": 6, "confidence": 1}),
            "data.type is none of the motions that e-mission has",
        ),
        (raw("background/motion_activity", {"agb": 3, "agc": 101}), "data.agc is not within 0..100"),
        (
            raw("background/motion_activity", {"walking": True, "confidence": ["high"]}, platform="ios"),
            "data.confidence is missing or no number",
        ),
        (
            raw("statemachine/transition", {"transition": None}),
            "data.currState is none of the states that e-mission has",
        ),
        (
            raw("statemachine/transition", {"currState": "STATE_START", "transition": {}}),
            "data.transition is none of those that e-mission has",
        ),
        (raw("background/bluetooth_ble", {"eventType": "NEAR"}), "data.eventType is none of those that e-mission has"),
        (raw("background/bluetooth_ble", {}), "data.eventType is none of those that e-mission has"),
        (
            raw("background/bluetooth_ble", {"eventType": 2, "ts": "now"}),
            "data.ts is missing or no number",
        ),
        (raw("background/battery", {"battery_status": 9}), "data.battery_status is none of those that e-mission has"),
    ],
)
def test_what_cannot_be_formatted_says_why_without_the_value(entry: object, said: str) -> None:
    assert reason(entry) == said


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
names = st.sampled_from(
    [
        "ts",
        "start_ts",
        "end_ts",
        "latitude",
        "longitude",
        "bearing",
        "type",
        "confidence",
        "agb",
        "agc",
        "walking",
        "automotive",
        "currState",
        "transition",
        "battery_status",
        "battery_level_ratio",
        "eventType",
        "x",
        "x.y",
    ]
)
words = st.sampled_from(
    [*TRANSITIONS, *BEACON_EVENTS, "STATE_START", "local.state.start", "high", "low", 0, 3, 7, 50.0, TS, 37.0]
)
things = scalars | words | st.lists(scalars, max_size=2) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)
keys = st.sampled_from(
    [
        "background/location",
        "background/filtered_location",
        "background/motion_activity",
        "statemachine/transition",
        "background/battery",
        "background/bluetooth_ble",
        "manual/mode_confirm",
        "config/consent",
        "stats/client_time",
    ]
)
metadatas = st.fixed_dictionaries(
    {
        "key": keys | scalars,
        "platform": st.sampled_from(["android", "ios", "server"]) | scalars,
        "write_ts": words | scalars,
    },
    optional={"time_zone": st.sampled_from(["Europe/Berlin", "UTC", "Nowhere"]) | things, "type": things},
)
entries = st.fixed_dictionaries(
    {"metadata": metadatas | things, "data": st.dictionaries(names, things, max_size=6) | things}
)


@given(entry=entries | things)
def test_no_entry_brings_another_error(entry: Any) -> None:
    try:
        formatted = format_entry(entry)
    except BadEntry:
        return
    assert format_entry(formatted) is formatted


good: dict[str, st.SearchStrategy[Entry]] = {
    "background/location": st.fixed_dictionaries(
        {"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180), "ts": st.floats(0, 9e10)},
        optional={"bearing": st.floats(0, 360), "altitude": st.integers(0, 9000)},
    ),
    "background/motion_activity": st.fixed_dictionaries(
        {"type": st.sampled_from([0, 1, 7]), "confidence": st.integers(0, 100)}
    ),
    "statemachine/transition": st.fixed_dictionaries(
        {"currState": st.just("STATE_START"), "transition": st.sampled_from([None, *TRANSITIONS])}
    ),
    "background/bluetooth_ble": st.fixed_dictionaries(
        {"eventType": st.sampled_from(sorted(BEACON_EVENTS))}, optional={"ts": st.floats(0, 9e10)}
    ),
    "stats/client_time": st.fixed_dictionaries(
        {"name": st.text(max_size=5)},
        optional={"ts": st.floats(0, 9e10), "a.b": st.dictionaries(st.just("c.d"), words)},
    ),
    "manual/mode_confirm": st.fixed_dictionaries({"start_ts": st.floats(0, 9e10), "end_ts": st.floats(0, 9e10)}),
}


@given(key=st.sampled_from(sorted(good)), draw=st.data(), write_ts=st.floats(0, 9e10))
def test_what_is_formatted_the_store_accepts(key: str, draw: st.DataObject, write_ts: float) -> None:
    formatted = format_entry(parse(raw(key, draw.draw(good[key]), write_ts=write_ts)))
    assert parse(formatted) == formatted
