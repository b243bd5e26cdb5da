"""Which entries a request means, which of too many are answered, what a profile and labels may hold."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.emission import labels, profile
from emlab.emission.span import local_dates, where
from emlab.emission.truncation import places
from emlab.emission.uploads import last_times
from emlab.entries import JsonObject
from emlab.errors import BadQuery
from emlab.store.emission import part
from emlab.wire.emission import FindEntries, LocalDate

NOW = 1_700_000_000.25


def find(**fields: object) -> FindEntries:
    return msgspec.convert({"key_list": None, **fields}, FindEntries)


def meant(request: FindEntries) -> tuple[JsonObject, str]:
    return where(request, key_time=request.key_time, key_local_date=request.key_local_date)


def test_a_span_of_seconds_includes_both_ends() -> None:
    query, order = meant(find(start_time=1, end_time=2.5, key_time="data.ts"))
    assert (query, order) == ({"data.ts": {"$gte": 1.0, "$lte": 2.5}}, "data.ts")


def test_seconds_are_of_the_time_of_writing_unless_another_is_named() -> None:
    assert meant(find(start_time=1, end_time=2))[1] == "metadata.write_ts"


def test_local_dates_win_over_seconds_and_are_sorted_by_the_instant() -> None:
    request = find(
        start_time=1,
        end_time=2,
        from_local_date={"year": 2015, "hour": 6},
        to_local_date={"year": 2015, "hour": 12},
        key_local_date="data.start_local_dt",
    )
    query, order = meant(request)
    assert query == {
        "data.start_local_dt.year": {"$gte": 2015, "$lte": 2015},
        "data.start_local_dt.hour": {"$gte": 6, "$lte": 12},
    }
    assert order == "data.start_ts"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"start_time": 1.0},
        {"end_time": 1.0},
        {"from_local_date": {"year": 2015}},
        {"start_time": 1, "end_time": 2, "key_time": "data.latitude"},
        {"start_time": 1, "end_time": 2, "key_time": "$where"},
        {"from_local_date": {"year": 2015}, "to_local_date": {"month": 8}, "key_local_date": "data.local_dt"},
        {"from_local_date": {"year": 2015}, "to_local_date": {"year": 2015}, "key_local_date": "data.loc"},
    ],
)
def test_a_span_that_is_none_is_refused(fields: dict[str, object]) -> None:
    try:
        request = find(**fields)
    except msgspec.ValidationError:
        return
    with pytest.raises(BadQuery):
        meant(request)


@given(st.integers(0, 23), st.integers(0, 23), st.integers(0, 23))
def test_hours_go_over_midnight_when_the_first_is_the_later(low: int, high: int, hour: int) -> None:
    (condition,) = local_dates("t", LocalDate(hour=low), LocalDate(hour=high)).values()
    assert isinstance(condition, dict)
    inside = low <= hour <= high if low <= high else hour >= low or hour <= high
    if "$gte" in condition:
        assert inside == (condition["$gte"] <= hour <= condition["$lte"])
    else:
        assert inside == (not (condition["$not"]["$gt"] < hour < condition["$not"]["$lt"]))
        assert condition["$exists"] is True


@given(st.lists(st.integers(), max_size=60), st.integers(0, 70), st.sampled_from(["first", "last", "sample"]))
def test_of_too_many_entries_some_are_answered_in_their_order(found: list[int], most: int, method: str) -> None:
    got = [found[place] for place in places(len(found), most, method)]
    if not most or len(found) <= most:
        assert got == found
        return
    assert 1 <= len(got) <= most
    if method == "sample":
        assert got == found[:: len(found) // most + 1]
    else:
        assert got == (found[:most] if method == "first" else found[-most:])


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4), st.data())
def test_the_parts_of_what_is_wanted_are_all_of_it(counts: list[int], data: st.DataObject) -> None:
    count = sum(counts)
    wanted = places(count, data.draw(st.integers(0, 40)), data.draw(st.sampled_from(["first", "last", "sample"])))
    found: list[int] = []
    for number, inner in enumerate(counts):
        before = sum(counts[:number])
        mine = part(wanted, before, inner)
        assert all(0 <= place < inner for place in mine)
        found += [before + place for place in mine]
    assert found == list(wanted)


def test_a_bound_without_a_method_is_refused_only_when_it_is_exceeded() -> None:
    assert places(2, 2, None) == range(2)
    with pytest.raises(BadQuery, match="trunc_method"):
        places(3, 2, None)


def test_a_fresh_profile_has_the_mileage_that_e_mission_gives_everybody() -> None:
    assert profile.FRESH["mpg_array"] == [32.044384997811726]


@pytest.mark.parametrize("fields", [{"phone_lang": "en"}, {"a b-c": {"deep": [1, None, {"x.y": True}]}}, {}])
def test_a_profile_may_be_given_plain_fields(fields: JsonObject) -> None:
    profile.check_update(dict(profile.FRESH), fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"_id": 1},
        {"user_id": "x"},
        {"mode": {}},
        {"pipeline_range": {}},
        {"$set": 1},
        {"a.b": 1},
        {"": 1},
        {"a\0": 1},
        {"a": {"$where": "1"}},
        {"a": 2**70},
        {"a": float("nan")},
        {"a": "\ud800"},
        {"a": "x" * (profile.MAX_BYTES + 1)},
        {f"f{number}": 1 for number in range(profile.MAX_FIELDS + 1)},
    ],
)
def test_a_profile_is_not_given_what_would_break_it(fields: JsonObject) -> None:
    with pytest.raises(BadQuery):
        profile.check_update(dict(profile.FRESH), fields)


def test_a_call_notes_the_times_that_e_mission_notes() -> None:
    assert profile.calls_noted("profile_get", 5.0) == {"last_call_ts": 5.0}
    assert profile.calls_noted("usercache_get", 5.0).keys() == {"last_call_ts", "last_sync_ts"}
    assert profile.calls_noted("usercache_putone", 5.0).keys() == {"last_call_ts", "last_sync_ts", "last_put_ts"}
    assert profile.calls_noted("pipeline_range", 5.0).keys() == {"last_call_ts", "last_diary_fetch_ts"}


def test_labels_are_listed_by_use_and_then_by_age() -> None:
    uses: labels.Uses = {}
    for label in ("skateboard", "scooter", "skateboard"):
        uses = labels.inserted(uses, label, NOW)
    assert labels.listed(uses) == ["skateboard", "scooter"]
    uses = labels.changed(uses, "", "scooter", NOW, add=False)
    assert labels.listed(uses) == ["scooter", "skateboard"]
    uses = labels.changed(uses, "scooter", "canoe", NOW, add=True)
    assert labels.listed(uses) == ["canoe", "skateboard", "scooter"]
    assert labels.changed(uses, "", "unknown", NOW, add=False) == uses
    uses = labels.deleted(labels.deleted(uses, "skateboard"), "never there")
    assert labels.listed(uses) == ["canoe", "scooter"]
    assert labels.listed(labels.inserted(uses, "skateboard", NOW)) == ["canoe", "skateboard", "scooter"]
    assert uses["canoe"] == {"createdAt": {"$date": 1_700_000_000_250}, "frequency": 1, "isActive": True}


@pytest.mark.parametrize("label", ["", "$set", "a\0b", "\ud800"])
def test_a_label_that_could_name_no_field_is_refused(label: str) -> None:
    with pytest.raises(BadQuery, match="label"):
        labels.inserted({}, label, NOW)


def test_there_is_an_end_to_labels() -> None:
    uses: labels.Uses = {str(number): {"isActive": True, "frequency": 0} for number in range(labels.MAX_LABELS)}
    assert len(labels.inserted(uses, "7", NOW)) == labels.MAX_LABELS
    with pytest.raises(BadQuery, match="already"):
        labels.changed(uses, "7", "one more", NOW, add=True)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.booleans()), max_size=20))
def test_uses_add_up_whatever_happens(steps: list[tuple[str, str, bool]]) -> None:
    uses = labels.inserted({}, "a", NOW)
    total = 0
    for old, new, add in steps:
        total += (new in uses or add) - (old in uses or (old == new and add))
        uses = labels.changed(uses, old, new, NOW, add=add)
    assert sum(int(str(use["frequency"])) for use in uses.values()) == total


def upload(key: str, ts: float, **data: object) -> msgspec.Raw:
    metadata = {"key": key, "platform": "android", "type": "sensor-data", "write_ts": ts + 1}
    return msgspec.Raw(msgspec.json.encode({"metadata": metadata, "data": {"ts": ts, **data}}))


def test_an_upload_tells_its_last_location_and_its_last_entry() -> None:
    here = {"latitude": 37.0, "longitude": -122.0}
    good = upload("background/location", 1e9, **here)
    later, bad = upload("background/battery", 1e9 + 5), upload("background/location", 1e9 + 9, latitude=95.0)
    assert last_times([good, later, bad]) == {"last_location_ts": 1e9, "last_phone_data_ts": 1e9 + 6}
    assert last_times([later]) == {"last_phone_data_ts": 1e9 + 6}
    assert last_times([bad, msgspec.Raw(b"[]"), msgspec.Raw(b"{")]) == {}
