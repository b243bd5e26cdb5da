"""e-mission's routes over a real mongod: who may call, what is kept, what is found, and bad input of every kind."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emlab.key import new_token
from emlab.wire.emission import EMISSION_ROUTES
from tests.contract.rest import BATTERY, EVER, FIND, OWNER, USER, Client, Rest, find, numbers, phone_entry

PATHS = [route.path.replace("{day}", "2015-08-27").replace("{time_type}", "timestamp") for route in EMISSION_ROUTES]


@pytest.fixture
def rest(shared_client: Client) -> Rest:
    shared_client.drop_database("Stage_database")
    return Rest(shared_client)


class TestWhoMayCall:
    @pytest.mark.parametrize("path", PATHS)
    def test_nobody_without_the_owners_token(self, rest: Rest, path: str) -> None:
        assert rest.send(path, b"{}")[0] == 401
        for stranger in (new_token("owner"), new_token("provider"), "", "é\u0000", OWNER[:-1], OWNER + "x"):
            status, problem = rest.post(path, user=stranger)
            assert (status, problem["kind"]) == (403, "NotPermitted")

    @pytest.mark.parametrize("user", [None, 7, ["a"], {"a": 1}, True])
    def test_a_token_is_text(self, rest: Rest, user: object) -> None:
        assert rest.post("/profile/get", user=user)[0] == 400

    def test_the_token_is_in_no_log_and_not_in_the_database(
        self, rest: Rest, shared_client: Client, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        for path in PATHS:
            rest.post(path, {"user": OWNER, "update_doc": {"phone_lang": "en"}})
        rest.ask("/usercache/put", phone_to_server=[phone_entry(1)])
        assert OWNER not in caplog.text
        database = shared_client["Stage_database"]
        kept = [repr(list(database[name].find())) for name in database.list_collection_names()]
        assert kept
        assert not any(OWNER in text for text in kept)

    def test_a_stranger_changes_nothing(self, rest: Rest) -> None:
        assert rest.post("/usercache/put", {"phone_to_server": [phone_entry(1)]}, user="nobody@example.org")[0] == 403
        assert find(rest) == []


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b'{"user": "x',
            b"[1,2]",
            b"null",
            b'"text"',
            b"\xff\xfe",
            b'{"user":"\xff"}',
            b'{"user":"\\ud800"}',
            b'{"user":"a","x":' + b"[" * 100_000,
        ],
    )
    def test_what_is_no_object_is_refused(self, rest: Rest, body: bytes) -> None:
        for path in PATHS:
            status, problem = rest.send(path, body)
            assert (status, problem["kind"]) == (400, "BadQuery")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("value", [None, 5, "x", [], {}, [[]], 1e300, {"$gt": 1}])
    def test_no_field_of_a_wrong_type_is_a_failure(self, rest: Rest, path: str, value: object) -> None:
        names = {name for route in EMISSION_ROUTES if route.request for name in route.request.__struct_fields__}
        fields = {"key_list": None, **EVER, "modes": None, "sel_region": None, "freq": "D", "metric": "count"}
        for name in names:
            assert rest.post(path, {**fields, name: value})[0] in (200, 400)

    def test_a_route_has_one_method_and_no_parameter_of_its_own_name(self, rest: Rest) -> None:
        body = json.dumps({"user": OWNER}).encode()
        assert rest.send("/profile/get", body, method="GET")[0] == 405
        assert rest.send("/profile/create", body, method="PUT")[0] == 405
        assert rest.send("/timeline/getTrips/{day}", body)[0] == 400
        assert rest.send("/timeline/getTrips/2015/08", body)[0] == 404
        assert rest.send("/no/such/route", body)[0] == 404


class TestProfile:
    def test_it_is_made_once(self, rest: Rest) -> None:
        assert rest.ask("/profile/create") == rest.ask("/profile/create") == {"uuid": str(USER)}
        profile = rest.ask("/profile/get")
        made = int(rest.clock.now() * 1000)
        assert profile["user_id"] == {"$uuid": USER.hex}
        assert profile["create_ts"] == profile["update_ts"] == {"$date": made}
        assert (profile["source"], profile["mode"], profile["purpose"]) == ("Shankari", {}, {})

    def test_many_who_make_it_at_once_make_one(self, rest: Rest, shared_client: Client) -> None:
        with ThreadPoolExecutor(8) as pool:
            answers = list(
                pool.map(lambda number: rest.post("/usercache/putone", {"the_entry": phone_entry(number)}), range(40))
            )
        assert {status for status, _ in answers} == {200}
        database = shared_client["Stage_database"]
        assert [database[name].count_documents({}) for name in ("Stage_Profiles", "Stage_uuids")] == [1, 1]

    def test_no_use_of_a_label_is_lost(self, rest: Rest) -> None:
        new = {"key": "mode", "old_label": "", "new_label": "canoe", "is_new_label_must_added": True}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: rest.ask("/customlabel/update", updated_label=new), range(40)))
        assert rest.ask("/profile/get")["mode"]["canoe"]["frequency"] == 40

    def test_it_is_there_before_it_is_made(self, rest: Rest) -> None:
        rest.ask("/profile/update", update_doc={"phone_lang": "en", "nested": {"a": [1, None]}})
        profile = rest.ask("/profile/get")
        assert (profile["phone_lang"], profile["nested"]) == ("en", {"a": [1, None]})
        assert profile["last_call_ts"] == rest.clock.now()

    def test_a_field_that_would_break_it_is_refused(self, rest: Rest) -> None:
        for wrong in ({"user_id": 1}, {"user": OWNER}, {"$inc": {"a": 1}}, {"a.b": 1}, {"a": {"$oid": "x"}}):
            assert rest.post("/profile/update", {"update_doc": wrong})[0] == 400
        rest.ask("/profile/update", update_doc={"link": {"$oid": "0" * 24}, "when": {"$date": 5}})
        assert rest.ask("/profile/get")["when"] == {"$date": 5}

    def test_it_does_not_grow_for_ever(self, rest: Rest) -> None:
        statuses = [rest.post("/profile/update", {"update_doc": {f"f{n}": "x" * 50_000}})[0] for n in range(6)]
        assert statuses == [200, 200, 200, 400, 400, 400]

    def test_labels_of_a_kind_that_the_profile_uses_otherwise_are_refused(self, rest: Rest) -> None:
        for key in ("_id", "user_id", "source", "create_ts", "mpg_array", "pipeline_range"):
            label = {"key": key, "label": "x"}
            assert rest.post("/customlabel/insert", {"inserted_label": label})[0] == 400
            assert rest.post("/customlabel/get", {"keys": [key]})[0] == 400
        assert rest.ask("/customlabel/insert", inserted_label={"key": "shoe", "label": "a.b $c"}) == {
            "label": ["a.b $c"]
        }
        assert rest.ask("/customlabel/get", keys=["shoe", "hat"]) == {"shoe": ["a.b $c"], "hat": []}


class TestUploads:
    def test_of_the_same_type_key_and_write_ts_the_last_stays(self, rest: Rest) -> None:
        assert rest.post("/usercache/put", {"phone_to_server": [phone_entry(1, n=1), phone_entry(1, n=2)]}) == (
            200,
            None,
        )
        assert rest.post("/usercache/put", {"phone_to_server": [phone_entry(1, n=3)]}) == (200, None)
        (entry,) = find(rest)
        assert entry["data"]["n"] == 3
        assert entry["user_id"] == {"$uuid": USER.hex}

    def test_good_entries_are_kept_and_bad_ones_counted(self, rest: Rest) -> None:
        bad = [phone_entry(2, latitude=95.0), {"data": {}}, 7, phone_entry(3, key="no key"), None, "x", [], {}]
        report = rest.ask("/usercache/put", phone_to_server=[phone_entry(1), *bad, phone_entry(4)])
        assert (report["received"], report["inserted"], sum(report["rejected"].values())) == (10, 2, 8)
        assert report["examples"][0]["position"] == 1
        assert report["examples"][0]["message"].startswith("entry 1 (background/location): data.latitude 95")
        assert numbers(find(rest)) == [1, 4]

    def test_an_upload_without_a_good_entry_is_refused(self, rest: Rest) -> None:
        assert rest.post("/usercache/put", {"phone_to_server": [{"data": {}}]})[1]["kind"] == "BadEntry"
        assert rest.post("/usercache/putone", {"the_entry": {"metadata": {}}})[1]["kind"] == "BadEntry"
        assert rest.post("/usercache/put", {"phone_to_server": []}) == (200, None)

    @pytest.mark.parametrize("ts", [1_440_688_700, 1_440_688_700_000, 1.4406887e12])
    def test_integers_and_milliseconds_become_seconds(self, rest: Rest, ts: float) -> None:
        entry: Any = phone_entry(0)
        entry["metadata"]["write_ts"] = entry["data"]["ts"] = ts
        del entry["metadata"]["time_zone"]
        assert rest.ask("/usercache/putone", the_entry=entry) == {"putone": True}
        (found,) = find(rest, key_time="data.ts")
        assert (found["metadata"]["write_ts"], found["data"]["ts"]) == (1_440_688_700.0, 1_440_688_700.0)

    @pytest.mark.parametrize("number", ["NaN", "1e999", "-1e999", "1" + "0" * 400])
    def test_a_number_that_is_none_spoils_only_its_entry(self, rest: Rest, number: str) -> None:
        good, bad = (
            json.dumps(phone_entry(1)),
            json.dumps(phone_entry(2, accuracy=-12345.0)).replace("-12345.0", number),
        )
        body = f'{{"user": "{OWNER}", "phone_to_server": [{good}, {bad}]}}'.encode()
        status, answer = rest.send("/usercache/put", body)
        if number == "NaN":  # which is no JSON
            assert (status, answer["kind"]) == (400, "BadQuery")
        else:
            assert (status, answer["inserted"], sum(answer["rejected"].values())) == (200, 1, 1)

    def test_bytes_that_are_no_text_spoil_only_their_entry(self, rest: Rest) -> None:
        good, bad = (
            json.dumps(phone_entry(1)).encode(),
            json.dumps(phone_entry(2, note="?")).encode().replace(b"?", b"\xff"),
        )
        body = b'{"user": "%s", "phone_to_server": [%s, %s]}' % (OWNER.encode(), good, bad)
        status, answer = rest.send("/usercache/put", body)
        assert (status, answer["inserted"]) == (200, 1)

    def test_an_upload_without_a_location_keeps_what_is_known_of_the_last_one(self, rest: Rest) -> None:
        rest.ask("/profile/create")
        assert "last_location_ts" not in rest.ask("/profile/get")
        rest.ask("/usercache/put", phone_to_server=[phone_entry(1)])
        rest.clock.advance(10)
        rest.ask("/usercache/putone", the_entry=phone_entry(9, key=BATTERY, battery_level_pct=50))
        profile = rest.ask("/profile/get")
        assert profile["last_location_ts"] == phone_entry(1)["data"]["ts"]  # type: ignore[index]
        assert profile["last_phone_data_ts"] == phone_entry(9)["metadata"]["write_ts"]  # type: ignore[index]
        assert profile["last_put_ts"] == profile["last_sync_ts"] == rest.clock.now()


class TestFinding:
    @pytest.fixture
    def rest(self, shared_client: Client) -> Rest:
        shared_client.drop_database("Stage_database")
        rest = Rest(shared_client)
        entries = [
            phone_entry(n, key=BATTERY if n % 3 == 0 else "background/location") for n in (4, 2, 9, 0, 7, 5, 1, 3)
        ]
        rest.ask("/usercache/put", phone_to_server=entries)
        return rest

    def test_entries_come_by_time(self, rest: Rest) -> None:
        assert numbers(find(rest)) == [0, 1, 2, 3, 4, 5, 7, 9]
        assert numbers(find(rest, key_list=[BATTERY])) == [0, 3, 9]
        assert find(rest, key_list=["no/such_key"]) == []

    def test_both_ends_are_included(self, rest: Rest) -> None:
        start, end = (1_440_688_700.5 + 30 * n for n in (2, 5))
        assert numbers(find(rest, key_time="data.ts", start_time=start, end_time=end)) == [2, 3, 4, 5]
        assert find(rest, start_time=end, end_time=start) == []

    def test_formatted_and_computed_entries_come_before_pending_ones(self, rest: Rest) -> None:
        formatted, trip = (phone_entry(n, key=key) for n, key in ((8, BATTERY), (6, "analysis/cleaned_trip")))
        for entry in (formatted, trip):
            entry["metadata"]["write_fmt_time"] = "2015-08-27T08:18:38-07:00"  # type: ignore[index]
        assert rest.store.put([formatted, trip]).inserted == 2
        assert numbers(find(rest)) == [8, 6, 0, 1, 2, 3, 4, 5, 7, 9]
        assert numbers(find(rest, key_list=["analysis/cleaned_trip", BATTERY])) == [8, 6, 0, 3, 9]

    def test_an_entry_that_was_deleted_is_not_found(self, rest: Rest, shared_client: Client) -> None:
        gone = shared_client["Stage_database"]["Stage_usercache"]
        assert gone.update_many({"metadata.key": BATTERY}, {"$set": {"invalid": True}}).modified_count == 3
        assert numbers(find(rest)) == [1, 2, 4, 5, 7]

    def test_a_component_alone_is_no_interval_of_an_entry_without_it(self, rest: Rest) -> None:
        query = {"from_local_date": {"hour": 20}, "to_local_date": {"hour": 9}, "key_local_date": "data.local_dt"}
        assert find(rest, **query) == []

    def test_a_query_is_never_an_operator(self, rest: Rest) -> None:
        for wrong in (
            {"key_time": "$where"},
            {"start_time": {"$gt": 0}},
            {"key_list": [{"$gt": ""}]},
            {"key_list": ["$a"]},
        ):
            assert rest.post(FIND, {"key_list": None, **EVER, **wrong})[0] == 400


NUMBERS = st.floats(0, 2e9) | st.integers(0, 3) | st.none()
POINTS = st.just({"type": "Point", "coordinates": [-122.0, 37.0]}) | st.none()
LINKS: st.SearchStrategy[object] = st.just({"$oid": "0" * 24}) | st.just("x") | st.none() | st.just({})
DAYS = st.just({"year": 2015, "month": 8, "day": 27, "timezone": "UTC"}) | st.just(
    {"year": 2015, "month": 8, "day": 27}
)
RESULTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("ts", "start_ts", "end_ts", "enter_ts", "exit_ts"), NUMBERS),
        **dict.fromkeys(("loc", "start_loc", "enter_loc", "location"), POINTS),
        **dict.fromkeys(("trip_id", "cleaned_trip", "cleaned_section", "start_place", "end_place"), LINKS),
        **dict.fromkeys(("start_local_dt", "local_dt"), DAYS | st.none()),
        **dict.fromkeys(("sensed_mode", "mode", "distance", "duration"), NUMBERS | st.text(max_size=3) | st.just([])),
        "speeds": st.lists(NUMBERS, max_size=3) | st.text(max_size=3),
        "user_input": st.just({}) | st.none() | st.just({"mode_confirm": "walk"}),
    },
)
KEYS = [f"analysis/{name}" for name in ("confirmed_trip", "composite_trip", "cleaned_section", "inferred_section")]
KEYS += ["analysis/cleaned_stop", "analysis/confirmed_place", "manual/incident"]


class TestResultsOfAnyForm:
    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @example([("analysis/confirmed_trip", {"start_local_dt": {"year": 2015, "month": 8, "day": 27}})])
    @given(st.lists(st.tuples(st.sampled_from(KEYS), RESULTS), min_size=1, max_size=8))
    def test_no_route_is_broken_by_them(
        self, shared_client: Client, drawn: list[tuple[str, dict[str, object]]]
    ) -> None:
        for name in ("Stage_analysis_timeseries", "Stage_timeseries"):
            shared_client["Stage_database"][name].delete_many({})
        rest = Rest(shared_client)
        metadata = {"platform": "server", "write_ts": 1.5, "write_fmt_time": "1970-01-01T00:00:01.5+00:00"}
        entries = [
            {"_id": {"$oid": f"{n:024x}"}, "metadata": {**metadata, "key": key}, "data": data}
            for n, (key, data) in enumerate(drawn)
        ]
        rest.store.put(entries, partial=True)
        fields = {"key_list": None, **EVER, "modes": None, "sel_region": None, "freq": "Y", "metric": "median_speed"}
        for path in PATHS:
            status, answer = rest.post(path, fields)
            assert status in (200, 400), (path, answer)
        day = {"start_time": {"year": 2015}, "end_time": {"year": 2015}, "freq": "DAILY", "metric": "distance"}
        assert rest.post("/result/metrics/local_date", day)[0] == 200
        assert rest.post("/timeline/getTrips/2015-08-27")[0] == 200


class TestBeforeThePipeline:
    def test_there_is_nothing(self, rest: Rest) -> None:
        assert rest.ask("/pipeline/get_range_ts") == {"start_ts": None, "end_ts": None}
        assert rest.ask("/pipeline/get_complete_ts") == {"complete_ts": None}
        assert rest.ask("/timeline/getTrips/2015-08-27") == {"timeline": []}
        assert "total_trips" not in rest.ask("/profile/get")
        metrics = {**EVER, "freq": "D", "metric_list": ["count", "distance"], "is_return_aggregate": False}
        assert rest.ask("/result/metrics/timestamp", **metrics) == {"user_metrics": [[], []]}
        heat = rest.ask("/result/heatmap/pop.route/timestamp", modes=None, sel_region=None, **EVER)
        assert heat == {"lnglat": []}

    @pytest.mark.parametrize(
        "day",
        [
            "notaday",
            "2015-02-30",
            "2015-08-27T00:00",
            "%00",
            "0000-01-01",
            "20150827",
            "2015-W35-4",
            "2015W354",
            "x" * 5000,
        ],
    )
    def test_a_day_that_is_none_is_refused(self, rest: Rest, day: str) -> None:
        assert rest.post(f"/timeline/getTrips/{day}")[0] == 400

    def test_a_region_that_is_none_is_refused(self, rest: Rest) -> None:
        for wrong in ({}, {"geometry": 5}, {"geometry": {"type": "Point"}}, {"geometry": {"$where": "1"}}):
            fields = {"modes": ["WALKING"], "sel_region": wrong, **EVER}
            assert rest.post("/result/heatmap/pop.route/timestamp", fields)[0] == 400
        assert (
            rest.post("/result/heatmap/pop.route/timestamp", {"modes": ["FLYING"], "sel_region": None, **EVER})[0]
            == 400
        )
