"""Entries: what is accepted and how it is kept, what is refused and in which words."""

from __future__ import annotations

import copy
import datetime
import gzip
import itertools
import json
import math
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emlab.entries import (
    DEFAULT_TIME_ZONE,
    MAX_DEPTH,
    MAX_ENTRY_BYTES,
    JsonObject,
    StoreReport,
    count_reasons,
    is_formatted,
    parse,
    parse_all,
)
from emlab.entries.fault import Fault
from emlab.entries.parser import _is_plain
from emlab.entries.tree import check_object
from emlab.errors import BadEntry

TS = 1_440_688_707.867
GONE = object()  # stands for a field that is taken away


def local_dt(**changes: object) -> JsonObject:
    parts = {"year": 2015, "month": 8, "day": 27, "hour": 8, "minute": 18, "second": 27, "weekday": 3}
    return {**parts, "timezone": "America/Los_Angeles", **changes}


def formatted() -> JsonObject:
    return {
        "_id": {"$oid": "55df34ed7d65cb39ee9865a1"},
        "user_id": {"$uuid": "0763de67f61e3f5d90e7518e69793954"},
        "metadata": {
            "key": "background/location",
            "platform": "android",
            "type": "sensor-data",
            "write_ts": TS + 11,
            "time_zone": "America/Los_Angeles",
            "read_ts": 0,
            "write_fmt_time": "2015-08-27T08:18:38.867000-07:00",
            "write_local_dt": local_dt(),
        },
        "data": {
            "latitude": 37.3929098,
            "longitude": -122.084979,
            "loc": {"type": "Point", "coordinates": [-122.084979, 37.3929098]},
            "ts": TS,
            "fmt_time": "2015-08-27T08:18:27.867000-07:00",
            "local_dt": local_dt(),
            "accuracy": 34.5,
            "altitude": 0,
        },
    }


def raw() -> JsonObject:
    return {
        "metadata": {"key": "background/location", "platform": "ios", "type": "sensor-data", "write_ts": TS + 1},
        "data": {"latitude": 37.39, "longitude": -122.08, "ts": TS, "accuracy": 65, "bearing": -1},
    }


def changed(entry: JsonObject, path: str, value: object) -> JsonObject:
    """A copy in which one field has another value, or is gone."""
    whole = copy.deepcopy(entry)
    *parents, last = path.split("/")
    place: object = whole
    for name in parents:
        assert isinstance(place, dict)
        place = place[name]
    assert isinstance(place, dict)
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return whole


def at(entry: JsonObject, path: str) -> object:
    place: object = entry
    for name in path.split("/"):
        assert isinstance(place, dict)
        place = place[name]
    return place


def nested(depth: int) -> object:
    inner: object = 1
    for _ in range(depth):
        inner = {"a": inner}
    return inner


def test_a_formatted_entry_passes_whole() -> None:
    assert parse(formatted()) == formatted()


def test_the_given_entry_is_not_changed() -> None:
    entry = changed(raw(), "data/ts", 1_440_688_707_867)
    before = copy.deepcopy(entry)
    assert parse(entry) != before
    assert entry == before


def test_the_form_is_told_by_the_formatted_time() -> None:
    assert is_formatted(parse(formatted()))
    assert not is_formatted(parse(raw()))


def test_a_missing_time_zone_is_the_default() -> None:
    assert at(parse(raw()), "metadata/time_zone") == DEFAULT_TIME_ZONE


@pytest.mark.parametrize("path", ["metadata/write_ts", "data/ts", "data/start_ts", "data/exit_ts"])
def test_whole_seconds_become_floats(path: str) -> None:
    parsed = at(parse(changed(raw(), path, 1_525_435_200)), path)
    assert type(parsed) is float
    assert parsed == 1_525_435_200.0


@pytest.mark.parametrize("path", ["metadata/write_ts", "data/ts"])
@pytest.mark.parametrize("milliseconds", [1_440_688_707_867, 1_440_688_707_867.0])
def test_milliseconds_become_seconds(path: str, milliseconds: float) -> None:
    assert at(parse(changed(raw(), path, milliseconds)), path) == pytest.approx(TS, abs=1e-6)


@pytest.mark.parametrize("weekday", [0, 3, 6, 7])
def test_a_weekday_that_is_off_by_one_passes(weekday: int) -> None:
    parse(changed(formatted(), "metadata/write_local_dt", local_dt(weekday=weekday)))


UNKNOWN = [
    ("metadata/key", "survey/never_heard.of-it_2"),
    ("metadata/novel", {"deep": [1, {"er": None}]}),
    ("data/elapsedRealtimeNanos", 5_898_111_000_000),
    ("data/trip_id", {"$oid": "55df34ed7d65cb39ee9865a1"}),
    ("data/seen", [{"$date": -1}, {"$uuid": "0763de67-f61e-3f5d-90e7-518e69793954"}]),
    ("data/a.b", "dots are allowed"),
    ("data/note", 'costs $5, says "\\u0000" and "$where"'),
    ("data/empty", {"": [], "x": {}}),
    ("invalid", True),
]


@pytest.mark.parametrize(("path", "value"), UNKNOWN)
def test_unknown_keys_and_fields_pass_unchanged(path: str, value: object) -> None:
    assert at(parse(changed(formatted(), path, value)), path) == value


MALFORMED = [
    ("metadata", GONE, "(no key): metadata is missing"),
    ("data", GONE, "data is missing"),
    ("data", [], "data [] is not as it should be: expected object, got array"),
    ("metadata/key", GONE, "(no key): metadata.key is missing"),
    ("metadata/key", 3, "(no key): metadata.key 3 is not as it should be: expected str, got int"),
    ("metadata/key", "", "metadata.key '' is not as it should be"),
    ("metadata/key", "a b", "metadata.key 'a b' has characters that no key has"),
    ("metadata/key", "a/b\n", "has characters that no key has"),
    ("metadata/key", "../etc", "has characters that no key has"),
    ("metadata/key", "a//b", "has characters that no key has"),
    ("metadata/key", "k" * 129, "is not as it should be: expected str of length <= 128"),
    ("metadata/platform", GONE, "metadata.platform is missing"),
    ("metadata/platform", "windows", "metadata.platform 'windows' is not android, ios or server"),
    ("metadata/type", "sensor", "metadata.type 'sensor' is none of those that e-mission has"),
    ("metadata/time_zone", 8, "metadata.time_zone 8 is not as it should be"),
    ("metadata/write_ts", GONE, "metadata.write_ts is missing"),
    ("metadata/write_ts", "now", "metadata.write_ts 'now' is no time in seconds since 1970"),
    ("metadata/write_ts", True, "metadata.write_ts True is no time in seconds since 1970"),
    ("metadata/write_ts", math.nan, "metadata.write_ts nan is not finite"),
    ("metadata/write_ts", -1.0, "is no time in seconds since 1970"),
    ("metadata/write_ts", 1e14, "is no time in seconds since 1970"),
    ("metadata/write_local_dt", local_dt(month=13), "metadata.write_local_dt.month 13 is not as it should be"),
    ("metadata/write_local_dt", local_dt(weekday=8), "metadata.write_local_dt.weekday 8 is not as it should be"),
    ("data/ts", GONE, "data.ts is missing"),
    ("data/ts", math.inf, "data.ts inf is not finite"),
    ("data/ts", None, "data.ts None is no time in seconds since 1970"),
    ("data/start_ts", 1e12, "data.start_ts 1000000000000.0 is no time in seconds since 1970"),
    ("data/latitude", GONE, "data.latitude is missing"),
    ("data/latitude", 123.4, "data.latitude 123.4 is not within -90..90"),
    ("data/latitude", "37", "data.latitude '37' is not within -90..90"),
    ("data/longitude", -180.1, "data.longitude -180.1 is not within -180..180"),
    ("data/accuracy", -1, "data.accuracy -1 is not a number of metres, 0 or more"),
    ("data/loc", GONE, "data.loc is missing, which only raw phone entries may lack"),
    ("data/loc/type", "Polygon", "data.loc.type 'Polygon' is none of those"),
    ("data/loc/coordinates", [1], "data.loc.coordinates [1] is not [longitude within -180..180"),
    ("data/loc/coordinates", [37.4, -122.1], "data.loc.coordinates [37.4, -122.1] is not [longitude within"),
    ("data/loc/coordinates", [10.0, 10.0], "data.loc [10.0, 10.0] is not [data.longitude, data.latitude]"),
    ("data/loc/crs", "x", "data.loc (dict of 3) is not as it should be: object contains unknown field crs"),
    ("_id", "55df34ed7d65cb39ee9865a1", "_id '55df34ed7d65cb39ee9865a1' is not as it should be"),
    ("_id", {"$oid": "55df34ed 7d65cb39ee9865a"}, "_id.$oid '55df34ed 7d65cb39ee9865a' is not 24 hex digits"),
    ("user_id", {"$uuid": "me"}, "user_id.$uuid 'me' is not 32 hex digits"),
    ("user_id", {"$binary": "AA"}, "user_id (dict of 1) is not as it should be"),
    ("data/$where", "1", "data has a field name that starts with $"),
    ("data/x", {"$gt": 1}, "data.x has a field name that starts with $"),
    ("data/x", [{"$oid": "zz"}], "data.x has a field name that starts with $"),
    ("data/x", {"$oid": "55df34ed7d65cb39ee9865a1", "y": 1}, "data.x has a field name that starts with $"),
    ("data/x", {"$date": True}, "data.x has a field name that starts with $"),
    ("$set", {}, "the entry has a field name that starts with $"),
    ("data/x\0y", 1, "data has a field name with a zero byte"),
    ("data/x", {1: 2}, "data.x has a field name that is no text"),
    ("data/x", "\ud800", "data.x is text that is no valid Unicode"),
    ("data/x", 2**63, "data.x is an integer of more than 64 bits"),
    ("data/x", [-(10**5000)], "data.x is an integer of more than 64 bits"),
    ("data/x", [0.0, math.nan], "data.x nan is not finite"),
    ("data/x", b"bytes", "data.x is a bytes, which JSON does not have"),
    ("data/x", (1, 2), "data.x is a tuple, which JSON does not have"),
    ("data/x", {1, 2}, "data.x is a set, which JSON does not have"),
    ("data/x", datetime.datetime(2015, 8, 27, tzinfo=datetime.UTC), "data.x is a datetime, which JSON does not have"),
    ("data/x", nested(MAX_DEPTH), f"the entry is nested deeper than {MAX_DEPTH}"),
    ("data/x", nested(5000), f"the entry is nested deeper than {MAX_DEPTH}"),
    ("user_id", nested(5000), f"the entry is nested deeper than {MAX_DEPTH}"),
    ("data/x", "a" * MAX_ENTRY_BYTES, "bytes) has more than 1_000_000 bytes of JSON"),
    ("data/x", [[["a" * MAX_ENTRY_BYTES]]], "bytes) has more than 1_000_000 bytes of JSON"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), MALFORMED, ids=[f"{path!a}" for path, _, _ in MALFORMED])
def test_a_malformed_entry_is_named_with_its_position(path: str, value: object, sentence: str) -> None:
    with pytest.raises(BadEntry) as caught:
        parse(changed(formatted(), path, value), 17)
    assert caught.value.position == 17
    assert str(caught.value).startswith("entry 17 (")
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "thing",
    [None, 3, [10**5000], ["x" * 1000], [], [formatted()], {}, object(), b""],
    ids=lambda thing: type(thing).__name__,
)
def test_what_is_no_entry_at_all_is_refused(thing: object) -> None:
    with pytest.raises(BadEntry, match=r"^entry 0 \(no key\): "):
        parse(thing)


def test_the_sentence_names_key_field_and_value() -> None:
    with pytest.raises(BadEntry) as caught:
        parse(changed(formatted(), "data/latitude", 123.4), 17)
    assert str(caught.value) == "entry 17 (background/location): data.latitude 123.4 is not within -90..90"


def test_the_sentence_of_an_entry_that_came_as_json_names_its_key_too() -> None:
    entry = changed(raw(), "data/latitude", 95)
    for sent in (entry, msgspec.Raw(msgspec.json.encode(entry))):
        with pytest.raises(BadEntry) as caught:
            parse(sent, 3)
        (rejected,) = parse_all([sent])[1]
        assert str(caught.value).startswith(f"entry 3 ({entry['metadata']['key']}): data.latitude 95")  # type: ignore[index]
        assert rejected.message.startswith(f"entry 0 ({entry['metadata']['key']}): data.latitude 95")  # type: ignore[index]
    for nothing in (b"{", b"\xff", b"7", b'{"metadata": {"key": "a b"}}', b"[" * 100_000):
        assert parse_all([msgspec.Raw(nothing)])[1][0].message.startswith("entry 0 (no key): ")


def test_a_raw_entry_needs_a_type_and_a_formatted_one_does_not() -> None:
    parse(changed(formatted(), "metadata/type", GONE))
    with pytest.raises(BadEntry, match=r"metadata\.type is missing, which only formatted entries may lack"):
        parse(changed(raw(), "metadata/type", GONE))


@pytest.mark.parametrize("field", ["start_loc", "end_loc", "location", "loc"])
def test_places_of_a_computed_entry_are_points(field: str) -> None:
    trip = changed(changed(formatted(), "metadata/key", "analysis/cleaned_trip"), "data", {field: None})
    parse(trip)
    with pytest.raises(BadEntry, match=rf"data\.{field} 'home' is not as it should be"):
        parse(changed(trip, f"data/{field}", "home"))


def test_accuracy_may_be_negative_where_it_is_a_setting() -> None:
    config = changed(raw(), "metadata/key", "config/sensor_config")
    parse(changed(config, "data", {"accuracy": -2}))


def test_good_and_malformed_entries_are_parted() -> None:
    entries = [raw(), {}, formatted(), changed(raw(), "data/latitude", 99), changed(raw(), "data/latitude", -99)]
    good, rejected = parse_all(entries)
    assert [is_formatted(entry) for entry in good] == [False, True]
    assert [one.position for one in rejected] == [1, 3, 4]
    assert count_reasons(rejected) == {"metadata is missing": 1, "data.latitude is not within -90..90": 2}
    assert rejected[1].message == "entry 3 (background/location): data.latitude 99 is not within -90..90"


def test_a_reason_holds_no_value_and_a_bounded_name() -> None:
    _, rejected = parse_all([changed(raw(), "metadata/platform", "secret"), changed(raw(), "data/" + "n" * 500, b"")])
    assert "secret" not in rejected[0].reason
    assert len(rejected[1].reason) < 150


def test_a_report_reads_well_and_crosses_the_wire() -> None:
    report = StoreReport(received=5, inserted=2, replaced=1, rejected={"data.<x> is missing": 2})
    assert str(report) == "5 received: 2 inserted, 1 replaced, 2 rejected\n  2 x data.<x> is missing"
    assert "rejected: data.&lt;x&gt; is missing" in report._repr_html_()
    assert msgspec.json.decode(msgspec.json.encode(report), type=StoreReport) == report


def test_real_phone_days_pass_whole(phone_days: Path) -> None:
    files = [path for path in phone_days.glob("*.json.gz") if "ground_truth" not in path.name]
    files += phone_days.parent.glob("rest/*.phone_to_server.json.gz")
    for path in files:
        entries = json.loads(gzip.decompress(path.read_bytes()))
        good, rejected = parse_all(entries)
        assert rejected == []
        assert good == entries  # 1440688732 == 1440688732.0
        assert all(type(at(entry, "metadata/write_ts")) is float for entry in good)


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = TEXTS.filter(lambda name: "$" not in name and "\0" not in name)
JSON = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
# What Python callers could hand over, and JSON does not have.
ODD = st.recursive(
    SCALARS
    | st.floats()
    | st.integers()
    | st.binary(max_size=3)
    | st.text(max_size=5)
    | st.sampled_from([b"", (1,), {1}, frozenset(), uuid.UUID(int=0), datetime.date(2020, 1, 1)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from(["$oid", "$gt", "\0", "a\\"]) | st.integers(), inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(NAMES.map("x_".__add__), JSON, max_size=4))
def test_unknown_json_is_never_lost(extra: dict[str, object]) -> None:
    entry = formatted()
    entry["data"] = {**extra, **entry["data"]}  # type: ignore[dict-item]
    entry["metadata"] = {**extra, **entry["metadata"]}  # type: ignore[dict-item]
    before = copy.deepcopy(entry)
    assert parse({**extra, **entry}) == {**extra, **before}


@given(ODD | st.fixed_dictionaries({"metadata": ODD, "data": ODD}))
def test_anything_is_an_entry_or_refused_as_one(thing: object) -> None:
    try:
        parsed = parse(thing, 3)
    except BadEntry as exc:
        refusal: BadEntry | None = exc
    else:
        refusal = None
        assert parsed["metadata"]
    assert refusal is None or (refusal.position == 3 and str(refusal).startswith("entry 3 ("))


@given(st.dictionaries(st.text(max_size=3) | st.sampled_from(["$oid", "$gt"]) | st.integers(), ODD, max_size=3))
@example({"$oid": "55df34ed7d65cb39ee9865a1"})
@example({"x": {1, 2}})
def test_the_fast_look_passes_nothing_that_the_close_look_refuses(fields: JsonObject) -> None:
    for entry in (changed(raw(), "data/x", fields), changed(formatted(), "metadata/x", fields), {**raw(), **fields}):
        if _is_plain(entry):
            check_object(entry, "", 1)
            assert json.loads(msgspec.json.encode(entry)) == entry


@given(ODD)
def test_what_the_close_look_passes_is_json(value: object) -> None:
    try:
        check_object({"data": value}, "", 1)
    except Fault:
        return
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


@given(st.floats(), st.floats())
def test_a_position_is_accepted_exactly_within_its_bounds(latitude: float, longitude: float) -> None:
    entry = changed(changed(raw(), "data/latitude", latitude), "data/longitude", longitude)
    good, _ = parse_all([entry])
    assert bool(good) == (-90 <= latitude <= 90 and -180 <= longitude <= 180)


@given(st.floats(1e8, 9e10), st.booleans())
def test_a_time_is_the_same_in_seconds_and_milliseconds(seconds: float, whole: bool) -> None:
    milliseconds = round(seconds * 1000) if whole else seconds * 1000
    parsed = at(parse(changed(raw(), "data/ts", milliseconds)), "data/ts")
    assert parsed == pytest.approx(seconds, abs=2e-3)


@given(st.sampled_from([raw, formatted]), st.integers(0, 2_000_000_000))
def test_parsing_twice_changes_nothing_more(make: Callable[[], JsonObject], ts: int) -> None:
    once = parse(changed(make(), "data/ts", ts))
    assert parse(once) == once


def test_every_field_of_an_entry_is_looked_at() -> None:
    """A bound that nobody tests would be a hole: each typed field refuses a value of a wrong type."""
    for part, name in itertools.chain(
        (("metadata", name) for name in ("key", "platform", "type", "write_ts", "time_zone", "write_fmt_time")),
        (("data", name) for name in ("ts", "start_ts", "end_ts", "enter_ts", "exit_ts", "loc", "local_dt", "latitude")),
    ):
        with pytest.raises(BadEntry, match=rf"{part}\.{name} "):
            parse(changed(formatted(), f"{part}/{name}", ["wrong"]))


def test_an_entry_may_come_as_json_and_is_checked_like_a_mapping() -> None:
    good = msgspec.Raw(msgspec.json.encode(formatted()))
    for text, wrong in (
        (b"{", "is no JSON"),
        (b"[" * 5000 + b"]" * 5000, "nested deeper"),
        (b"[]", "is no JSON object"),
    ):
        with pytest.raises(BadEntry, match=wrong):
            parse(msgspec.Raw(text))
    assert parse(good) == parse(formatted())
