"""One contract for stores, over memory and a real mongod; then what only a real one shows: e-mission's form, crashes,
a full disk."""

from __future__ import annotations

import copy
import gzip
import json
import os
import random
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from bson.binary import Binary
from bson.objectid import ObjectId
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from shapely import Point, Polygon

from emlab.clock import wait_until
from emlab.entries import JsonObject, StoreReport
from emlab.errors import BadEntry, BadQuery, DiskFull, EmlabError, StoreError
from emlab.mongod import Mongod
from emlab.store import MemoryStore, MongoStore, Store

Client = MongoClient[dict[str, object]]

USER = uuid.UUID("0123456789abcdef0123456789abcdef")
LOCATION = "background/filtered_location"
TS = 1_440_688_707.5
BERKELEY = {
    "type": "Polygon",
    "coordinates": [[[-122.3, 37.8], [-122.2, 37.8], [-122.2, 37.9], [-122.3, 37.9], [-122.3, 37.8]]],
}


def _box(west: float, south: float, east: float, north: float) -> JsonObject:
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def fix(number: int, *, key: str = LOCATION, lon: float = -122.25, lat: float = 37.85, **data: object) -> JsonObject:
    """The formatted fix of that number, a minute after the one before."""
    ts = TS + 60 * number
    return {
        "_id": {"$oid": f"{number:024x}"},
        "user_id": {"$uuid": "f" * 32},
        "metadata": {
            "key": key,
            "platform": "android",
            "type": "sensor-data",
            "write_ts": ts + 5,
            "time_zone": "America/Los_Angeles",
            "write_fmt_time": "2015-08-27T08:18:38-07:00",
        },
        "data": {
            "ts": ts,
            "latitude": lat,
            "longitude": lon,
            "loc": {"type": "Point", "coordinates": [lon, lat]},
            **data,
        },
    }


def trip(number: int) -> JsonObject:
    """A computed entry, which refers to others."""
    entry = fix(number, key="analysis/cleaned_trip")
    start, link = TS + 60 * number, {"$oid": f"{number + 1:024x}"}
    entry["data"] = {
        "start_ts": start,
        "end_ts": start + 30,
        "start_loc": {"type": "Point", "coordinates": [-122.25, 37.85]},
        "start_place": link,
        "links": [{"of": link}, {"$date": 1_440_688_707_500}, {"$uuid": "a" * 32}],
    }
    return entry


def raw(write_ts: float, **data: object) -> JsonObject:
    """A transition as a phone uploads it."""
    return {
        "metadata": {
            "key": "statemachine/transition",
            "platform": "ios",
            "type": "message",
            "write_ts": write_ts,
            "time_zone": "America/Los_Angeles",
        },
        "data": {"currState": "STATE_START", "ts": write_ts, **data},
    }


def own(entry: JsonObject) -> JsonObject:
    """The entry as its store gives it back: with the cloud's user."""
    return {**entry, "user_id": {"$uuid": USER.hex}}


def ids(entries: Iterator[JsonObject]) -> list[int]:
    return [int(entry["_id"]["$oid"], 16) for entry in entries]  # type: ignore[index]


def in_words(report: StoreReport) -> tuple[int, int, int, int]:
    return report.received, report.inserted, report.replaced, report.rejected_total


def entries_of(path: Path) -> list[JsonObject]:
    entries: list[JsonObject] = json.loads(gzip.decompress(path.read_bytes()))
    return entries


def real_days(folder: Path) -> list[list[JsonObject]]:
    return [entries_of(path) for path in sorted(folder.glob("*.json.gz")) if "ground_truth" not in path.name]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A run directory whose path is short enough for a socket, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def serve(run_dir: Path, need: Callable[[str], None]) -> Iterator[Callable[[Path], Mongod]]:
    """`serve(data_dir)` starts a mongod, which is gone at the end, however the test ends."""
    need("mongod")
    servers: list[Mongod] = []

    def start(data_dir: Path) -> Mongod:
        data_dir.mkdir(exist_ok=True)
        servers.append(Mongod(data_dir, run_dir))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def client(shared_client: Client) -> Client:
    shared_client.drop_database("Stage_database")
    return shared_client


@pytest.fixture
def mongo(client: Client) -> MongoStore:
    return MongoStore(client, USER)


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryStore(USER)
    found: MongoStore = request.getfixturevalue("mongo")
    return found


class TestStore:
    def test_what_was_stored_is_found_whole(self, store: Store) -> None:
        entries = [fix(1, note="costs $5"), fix(2, big=2**40, nothing=None, inner={"a.b": [1, 2.5, "é"]})]
        assert in_words(store.put(entries)) == (2, 2, 0, 0)
        assert list(store.find(LOCATION)) == [own(entry) for entry in entries]

    def test_the_given_entries_are_not_changed_and_not_shared(self, store: Store) -> None:
        entry = fix(1)
        before = copy.deepcopy(entry)
        store.put([entry])
        assert entry == before
        next(store.find(LOCATION))["data"] = None
        assert list(store.find(LOCATION)) == [own(before)]

    def test_ids_of_others_come_back_in_wire_form(self, store: Store) -> None:
        store.put([trip(1)])
        (found,) = store.find("analysis/cleaned_trip", time_key="data.start_ts")
        assert found == own(trip(1))
        assert json.loads(msgspec.json.encode(found)) == found

    def test_storing_again_replaces(self, store: Store) -> None:
        store.put([fix(1), fix(2), trip(3), raw(TS)])
        again = store.put([fix(1, lat=37.86), fix(2), trip(3), raw(TS), fix(4)])
        assert in_words(again) == (5, 1, 4, 0)
        assert next(store.find(LOCATION)) == own(fix(1, lat=37.86))
        assert sum(store.counts().values()) == 5

    def test_of_duplicates_in_one_call_the_last_stays(self, store: Store) -> None:
        report = store.put([fix(1, n=1), fix(2), fix(1, n=2), fix(1, n=3)])
        assert in_words(report) == (4, 2, 2, 0)
        assert next(store.find(LOCATION)) == own(fix(1, n=3))

    def test_an_entry_without_id_is_stored_once(self, store: Store) -> None:
        entry = fix(1)
        del entry["_id"]
        turned = dict(reversed(entry.items()))
        assert in_words(store.put([entry])) == (1, 1, 0, 0)
        assert in_words(store.put([turned])) == (1, 0, 1, 0)
        assert in_words(store.put([{**entry, "user_id": {"$uuid": "e" * 32}}])) == (1, 0, 1, 0)
        (found,) = store.find(LOCATION)
        assert {**found, "_id": None} == {**own(entry), "_id": None}

    def test_raw_entries_wait_apart_one_for_each_type_key_and_write_time(self, store: Store) -> None:
        assert in_words(store.put([raw(TS, n=1), raw(TS + 1), raw(TS, n=2)])) == (3, 2, 1, 0)
        assert list(store.find("statemachine/transition")) == []
        first, second = store.pending()
        assert {**first, "_id": None} == {**own(raw(TS, n=2)), "_id": None}
        assert second["data"] == raw(TS + 1)["data"]
        assert store.counts() == {"statemachine/transition": 2}

    def test_the_first_malformed_entry_refuses_all(self, store: Store) -> None:
        with pytest.raises(BadEntry, match=r"entry 1 \(background/filtered_location\): data.latitude 99") as caught:
            store.put([fix(1), fix(2, latitude=99), {}])
        assert caught.value.position == 1
        assert store.counts() == {}

    def test_a_partial_store_keeps_the_good_ones_and_counts_the_others(self, store: Store) -> None:
        report = store.put([fix(1), fix(2, latitude=99), *[{} for _ in range(30)], fix(3)], partial=True)
        assert in_words(report) == (33, 2, 0, 31)
        assert report.rejected == {"data.latitude is not within -90..90": 1, "metadata is missing": 30}
        assert [one.position for one in report.examples] == list(range(1, 21))
        assert ids(store.find(LOCATION)) == [1, 3]

    def test_nothing_is_a_good_thing_to_store(self, store: Store) -> None:
        assert in_words(store.put([])) == (0, 0, 0, 0)
        assert (store.counts(), list(store.pending())) == ({}, [])

    def test_an_interval_includes_its_ends(self, store: Store) -> None:
        store.put([fix(number) for number in (4, 1, 3, 2)])
        assert ids(store.find(LOCATION, start_ts=TS + 120, end_ts=TS + 180)) == [2, 3]
        assert ids(store.find(LOCATION, start_ts=TS + 120.1)) == [3, 4]
        assert ids(store.find(LOCATION, end_ts=TS + 120.1, limit=1)) == [1]
        assert ids(store.find(LOCATION, start_ts=TS + 65, end_ts=TS + 65, time_key="metadata.write_ts")) == [1]
        assert ids(store.find("background/location")) == []

    def test_entries_of_one_time_come_by_id_and_those_without_a_time_first(self, store: Store) -> None:
        untimed = fix(9, key="config/consent")
        untimed["data"] = {"approved": True}
        same = [fix(number, key="config/consent", ts=TS) for number in (3, 1, 2)]
        store.put([*same, untimed])
        assert ids(store.find("config/consent")) == [9, 1, 2, 3]
        assert ids(store.find("config/consent", start_ts=0.0)) == [1, 2, 3]

    def test_an_invalid_entry_is_kept_but_not_found(self, store: Store) -> None:
        store.put([fix(1), {**fix(2), "invalid": True}])
        assert ids(store.find(LOCATION)) == [1]
        assert store.counts() == {LOCATION: 1}
        assert len(list(store.track(LOCATION, start_ts=0, end_ts=2e9))) == 1
        assert not store.exists(LOCATION, start_ts=TS + 120, end_ts=TS + 120, region=None)

    def test_an_entry_exists_in_its_interval_and_region(self, store: Store) -> None:
        store.put([fix(1), fix(2, lon=2.35, lat=48.85)])
        assert store.exists(LOCATION, start_ts=TS + 60, end_ts=TS + 60, region=None)
        assert store.exists(LOCATION, start_ts=TS + 60, end_ts=TS + 60, region=BERKELEY)
        assert not store.exists(LOCATION, start_ts=TS + 61, end_ts=TS + 119, region=None)
        assert not store.exists(LOCATION, start_ts=TS + 61, end_ts=2e9, region=BERKELEY)
        assert not store.exists("background/location", start_ts=0, end_ts=2e9, region=None)
        both = {
            "type": "MultiPolygon",
            "coordinates": [[[[2, 48], [3, 48], [3, 49], [2, 49], [2, 48]]], BERKELEY["coordinates"]],
        }
        assert store.exists(LOCATION, start_ts=TS + 61, end_ts=2e9, region=both)

    def test_raw_entries_are_settled_and_the_failed_ones_kept_apart(self, store: Store) -> None:
        store.put([raw(TS + number) for number in range(5)])
        fourth = list(store.pending())[3]
        first, second, third = store.claim(3)
        good = {**fix(0, key="statemachine/transition"), "_id": first["_id"]}
        bad = {**fix(1, latitude=99), "_id": second["_id"]}
        (rejected,) = store.settle([good, bad], [third["_id"]["$oid"]])  # type: ignore[index]
        assert (rejected.position, rejected.reason) == (1, "data.latitude is not within -90..90")
        assert [entry["data"] for entry in store.pending()] == [fourth["data"], raw(TS + 4)["data"]]
        assert list(store.find("statemachine/transition")) == [own(good)]
        assert store.settle([good], []) == []
        assert len(list(store.pending())) == 2

    def test_what_is_stored_again_while_it_is_formatted_stays_pending(self, store: Store) -> None:
        store.put([raw(TS), raw(TS + 1)])
        claimed = store.claim(9)
        store.put([raw(TS, n=2)])
        formatted = [{**fix(number), "_id": entry["_id"]} for number, entry in enumerate(claimed)]
        assert store.settle(formatted, []) == []
        (left,) = store.pending()
        assert left["data"] == raw(TS, n=2)["data"]
        assert {**left, "_id": None} == {**own(raw(TS, n=2)), "_id": None}
        assert store.claim(9) == [left]

    def test_columns_are_equally_long_and_by_time(self, store: Store) -> None:
        store.put([fix(3, speed=2.5), fix(1), fix(2, speed=1)])
        found = store.columns(LOCATION, ["ts", "speed", "metadata.write_ts"], start_ts=TS + 60, end_ts=TS + 180)
        times = [TS + 60, TS + 120, TS + 180]
        assert found == {
            "_id": [f"{number:024x}" for number in (1, 2, 3)],
            "ts": times,
            "speed": [None, 1, 2.5],
            "metadata.write_ts": [ts + 5 for ts in times],
        }
        assert store.columns(LOCATION, ["ts"], start_ts=TS + 100, limit=1)["ts"] == [TS + 120]
        assert store.columns("background/battery", ["ts"]) == {"_id": [], "ts": []}

    def test_older_entries_are_counted(self, store: Store) -> None:
        store.put([*map(fix, range(5)), fix(6, key="background/battery")])
        assert store.count([LOCATION], before_ts=TS + 120, time_key="data.ts") == 2
        assert store.count([LOCATION, "background/battery"], before_ts=2e9, time_key="data.ts") == 6
        store.put([fix(number, key="manual/mode_confirm", ts=None, start_ts=TS + number) for number in (7, 8, 9)])
        assert store.count(["manual/mode_confirm"], before_ts=TS + 9, time_key="data.start_ts") == 2

    def test_results_are_replaced_from_a_time_on(self, store: Store) -> None:
        keys = ["analysis/cleaned_trip"]
        assert store.replace_results([trip(1), trip(5), trip(9)], keys=keys, from_ts=None, until_ts=None) == (3, 0)
        assert store.replace_results([trip(5), trip(7)], keys=keys, from_ts=TS + 300, until_ts=None) == (1, 1)
        assert ids(store.find(keys[0], time_key="data.start_ts")) == [1, 5, 7]
        assert store.replace_results([trip(1)], keys=["analysis/other"], from_ts=None, until_ts=None) == (0, 0)
        assert store.replace_results([trip(1)], keys=keys, from_ts=None, until_ts=None) == (0, 2)
        assert ids(store.find(keys[0], time_key="data.start_ts")) == [1]

    def test_results_are_replaced_until_a_time(self, store: Store) -> None:
        keys = ["analysis/cleaned_trip"]
        store.replace_results([trip(1), trip(5), trip(9)], keys=keys, from_ts=None, until_ts=None)
        assert store.replace_results([], keys=keys, from_ts=TS + 300, until_ts=TS + 480) == (0, 1)
        assert ids(store.find(keys[0], time_key="data.start_ts")) == [1, 9]
        assert store.replace_results([], keys=keys, from_ts=None, until_ts=TS + 60) == (0, 1)
        assert ids(store.find(keys[0], time_key="data.start_ts")) == [9]

    def test_a_trip_shows_the_place_at_its_end_as_it_is_now(self, store: Store) -> None:
        place = fix(3, key="analysis/confirmed_place")
        composite = fix(1, key="analysis/composite_trip", start_ts=TS)
        composite["data"] = {"start_ts": TS, "end_confirmed_place": {**place, "data": {"duration": 1.0}}}
        other = {**fix(2, key="analysis/composite_trip"), "data": {"start_ts": TS + 1, "end_confirmed_place": {}}}
        store.put([composite, other])
        store.embed_place(place)
        first, second = store.find("analysis/composite_trip", time_key="data.start_ts")
        assert first["data"] == {
            "start_ts": TS,
            "end_confirmed_place": {name: value for name, value in place.items() if name != "user_id"},
        }
        assert second["data"] == other["data"]

    def test_a_result_that_only_was_written_later_stays(self, store: Store) -> None:
        store.replace_results([trip(1)], keys=[], from_ts=None, until_ts=None)
        later = trip(1)
        later["metadata"] = {**later["metadata"], "write_ts": TS + 1e6, "write_fmt_time": "2020"}  # type: ignore[dict-item]
        changed = trip(2)
        assert store.replace_results([later, changed], keys=[], from_ts=None, until_ts=None) == (1, 0)
        first, _ = store.find("analysis/cleaned_trip", time_key="data.start_ts")
        assert first == own(trip(1))

    def test_a_place_without_beginning_counts_by_its_end(self, store: Store) -> None:
        place = fix(1, key="analysis/cleaned_place")
        place["data"] = {"exit_ts": TS + 60}
        store.replace_results([place], keys=["analysis/cleaned_place"], from_ts=None, until_ts=None)
        assert store.replace_results([], keys=["analysis/cleaned_place"], from_ts=TS + 61, until_ts=None) == (0, 0)
        assert store.replace_results([], keys=["analysis/cleaned_place"], from_ts=TS + 59, until_ts=None) == (0, 1)

    def test_a_malformed_result_leaves_the_others_as_they_are(self, store: Store) -> None:
        store.replace_results([trip(1)], keys=[], from_ts=None, until_ts=None)
        with pytest.raises(BadEntry):
            store.replace_results([trip(2), {}], keys=["analysis/cleaned_trip"], from_ts=None, until_ts=None)
        assert ids(store.find("analysis/cleaned_trip", time_key="data.start_ts")) == [1]

    def test_how_far_the_pipeline_got_is_kept(self, store: Store) -> None:
        assert store.progress() == (None, 0, None)
        store.keep_progress(17, TS, TS + 9, {"since_ts": TS, "places": [{"n": 1}]})
        store.keep_progress(17, None, TS + 9, {"since_ts": TS + 1})
        assert store.progress() == ({"since_ts": TS + 1}, 0, None)

    def test_the_pipeline_is_told_of_entries_that_became_others(self, store: Store) -> None:
        store.put([fix(1), fix(2), fix(3), trip(4)])
        store.put([fix(1, lat=37.86)])
        assert store.progress().changes == 0
        store.keep_progress(17, None, TS, {})
        store.put([fix(1, lat=37.86), fix(2), fix(9), trip(4)])
        assert store.progress() == ({}, 0, None)
        store.put([fix(3, lat=37.86)])
        store.put([fix(2, ts=TS + 400.0)])
        assert store.progress() == ({}, 2, TS + 120)
        store.forget_changes(1)
        assert store.progress().changes == 2
        store.forget_changes(2)
        assert store.progress() == ({}, 0, None)
        store.put([trip(4) | {"data": {"start_ts": TS}}])
        assert store.progress().changes == 0

    def test_a_hole_is_outside(self, store: Store) -> None:
        hole = [[-122.26, 37.84], [-122.24, 37.84], [-122.24, 37.86], [-122.26, 37.86], [-122.26, 37.84]]
        store.put([fix(1)])
        region = {"type": "Polygon", "coordinates": [*BERKELEY["coordinates"], hole]}
        assert not store.exists(LOCATION, start_ts=0, end_ts=2e9, region=region)

    def test_edges_are_straight_on_the_map_however_long_they_are(self, store: Store) -> None:
        """On the sphere the southern edge of the first box bends north by 35 km, and that of the second by 2,000."""
        store.put([fix(1, lon=-120.0, lat=37.51), fix(2, lon=-120.0, lat=40.01), fix(3, lon=-120.0, lat=37.49)])
        for west, south, east, north in ((-130.0, 37.5, -110.0, 40.0), (-170.0, 37.5, -60.0, 40.0)):
            found = [
                store.exists(LOCATION, start_ts=TS + 60 * n, end_ts=TS + 60 * n, region=_box(west, south, east, north))
                for n in (1, 2, 3)
            ]
            assert found == [True, False, False]

    def test_what_lies_in_any_polygon_is_what_lies_in_it_on_the_map(self, store: Store) -> None:
        draw = random.Random(7)
        points = {n: (draw.uniform(-179, 179), draw.uniform(-89, 89)) for n in range(400)}
        store.put([fix(n, lon=lon, lat=lat) for n, (lon, lat) in points.items()])
        compared = 0
        for size in (2.0, 30.0, 170.0) * 12:
            west, south = draw.uniform(-179, 179 - size), draw.uniform(-89, 89 - min(size, 100))
            corners = [(west + draw.random() * size, south + draw.random() * min(size, 100)) for _ in range(3)]
            middle = [sum(axis) / 3 for axis in zip(*corners, strict=True)]
            inner = [((lon + middle[0]) / 2, (lat + middle[1]) / 2) for lon, lat in corners]
            shape = Polygon(corners, [inner])
            if shape.area < 1e-3 or not shape.is_valid:
                continue
            rings = [[list(point) for point in (*ring, ring[0])] for ring in (corners, inner)]
            region: JsonObject = {"type": "Polygon", "coordinates": rings}
            try:
                store.check_region(region)
            except BadQuery:  # on the sphere the hole of a thin one touches an edge
                continue
            compared += 1
            found = store.fixes(LOCATION, start_ts=0, end_ts=2e9, region=region)
            assert {round((ts - TS) / 60) for ts, _, _ in found} == {
                n for n, place in points.items() if shape.contains(Point(place))
            }
        assert compared > 20

    @pytest.mark.parametrize(
        "region",
        [
            {},
            {"type": "Point", "coordinates": [1, 2]},
            {"type": "Polygon"},
            {"type": "Polygon", "coordinates": []},
            {"type": "Polygon", "coordinates": "everywhere"},
            {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
            {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]},
            {"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [1, 0], ["a", 0]]]},
            {"type": ["Polygon"], "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 0]]]},
            {**BERKELEY, "crs": {"type": "name", "properties": {"name": "urn:x-mongodb:crs:strictwinding:EPSG:4326"}}},
        ],
    )
    def test_a_region_that_makes_no_sense_is_refused(self, store: Store, region: JsonObject) -> None:
        with pytest.raises(BadQuery, match="region"):
            store.check_region(region)
        with pytest.raises(BadQuery, match="region"):
            store.exists(LOCATION, start_ts=0, end_ts=2e9, region=region)

    def test_a_good_region_passes(self, store: Store) -> None:
        store.check_region(BERKELEY)

    def test_a_track_is_times_and_positions_by_time(self, store: Store) -> None:
        store.put([fix(3, lon=-122.0), fix(1), fix(2, lat=38.0), fix(4)])
        fixes = list(store.track(LOCATION, start_ts=TS, end_ts=TS + 180))
        assert fixes == [(TS + 60, -122.25, 37.85), (TS + 120, -122.25, 38.0), (TS + 180, -122.0, 37.85)]

    def test_an_entry_without_a_place_is_not_on_the_track(self, store: Store) -> None:
        entry = fix(1, key="manual/incident", loc=None)
        store.put([entry, fix(2, key="manual/incident")])
        assert [ts for ts, _, _ in store.track("manual/incident", start_ts=0, end_ts=2e9)] == [TS + 120]

    @pytest.mark.parametrize("time_key", ["data.$where", "data", "", "metadata.key", "data.ts.x"])
    def test_a_time_that_entries_do_not_have_is_refused_at_once(self, store: Store, time_key: str) -> None:
        with pytest.raises(BadQuery, match=r"there are data.end_ts, data.enter_ts"):
            store.find(LOCATION, time_key=time_key)

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_an_interval_without_end_is_refused(self, store: Store, bad: float) -> None:
        for ask in (store.find, store.track):
            with pytest.raises(BadQuery, match="not finite"):
                ask(LOCATION, start_ts=bad, end_ts=1.0)
        with pytest.raises(BadQuery, match="not finite"):
            store.exists(LOCATION, start_ts=0.0, end_ts=bad, region=None)
        with pytest.raises(BadQuery, match="limit"):
            store.find(LOCATION, limit=0)

    def test_many_threads_may_store_at_once(self, store: Store) -> None:
        reports: list[StoreReport] = []

        def put(first: int) -> None:
            reports.append(store.put([fix(number) for number in range(first, first + 40)]))

        threads = [threading.Thread(target=put, args=(first,)) for first in range(0, 80, 20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(in_words(report)[1] for report in reports) == 100
        assert ids(store.find(LOCATION)) == list(range(100))

    def test_real_days_come_back_equal(self, store: Store, phone_days: Path) -> None:
        for day in real_days(phone_days):
            assert in_words(store.put(day)) == (len(day), len(day), 0, 0)
            assert in_words(store.put(day)) == (len(day), 0, len(day), 0)
        days = {json.dumps(entry["_id"]): own(entry) for day in real_days(phone_days) for entry in day}
        counts = store.counts()
        assert sum(counts.values()) == len(days)
        for key in counts:
            for found in store.find(key):
                assert found == days.pop(json.dumps(found["_id"]))
                assert json.loads(msgspec.json.encode(found)) == found
        assert days == {}


def answers(store: Store, start_ts: float, end_ts: float) -> object:
    keys = (LOCATION, "analysis/cleaned_trip")
    return (
        [list(store.find(key, start_ts=start_ts, end_ts=end_ts)) for key in keys],
        list(store.track(LOCATION, start_ts=start_ts, end_ts=end_ts)),
        [store.exists(LOCATION, start_ts=start_ts, end_ts=end_ts, region=region) for region in (None, BERKELEY)],
        store.counts(),
        list(store.pending()),
    )


NUMBERS = st.integers(0, 5)
ENTRIES: st.SearchStrategy[JsonObject] = st.one_of(
    st.builds(fix, NUMBERS, lon=st.sampled_from([-122.25, 2.35]), accuracy=st.floats(0, 100)),
    st.builds(trip, NUMBERS),
    st.builds(raw, NUMBERS.map(float)),
    st.just({}),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(ENTRIES, max_size=6), max_size=3), NUMBERS, NUMBERS)
def test_both_stores_answer_alike(client: Client, puts: list[list[JsonObject]], start: int, end: int) -> None:
    for name in client["Stage_database"].list_collection_names():
        client["Stage_database"][name].delete_many({})
    stores: Sequence[Store] = (MemoryStore(USER), MongoStore(client, USER))
    for entries in puts:
        first, second = (store.put(entries, partial=True) for store in stores)
        assert first == second
    first_answers, second_answers = (answers(store, TS + 60 * start, TS + 60 * end) for store in stores)
    assert first_answers == second_answers


class TestMongoStore:
    def test_documents_have_e_missions_own_form(self, mongo: MongoStore, client: Client) -> None:
        mongo.put([fix(1, ts=1_440_688_707), trip(2), raw(TS)])
        document = client["Stage_database"]["Stage_timeseries"].find_one({"_id": ObjectId(f"{1:024x}")})
        assert document is not None
        assert document["user_id"] == USER  # the client reads subtype 3, as e-mission's does
        assert document["data"]["ts"] == 1_440_688_707.0  # type: ignore[index]
        assert type(document["data"]["ts"]) is float  # type: ignore[index]
        subtype = client["Stage_database"]["Stage_timeseries"].count_documents({"user_id": Binary(USER.bytes, 3)})
        assert subtype == 1
        stored = client["Stage_database"]["Stage_analysis_timeseries"].find_one()
        assert stored is not None
        assert stored["data"]["start_place"] == ObjectId(f"{3:024x}")  # type: ignore[index]
        assert client["Stage_database"]["Stage_usercache"].count_documents({"metadata.write_ts": TS}) == 1

    def test_e_missions_indexes_are_there(self, mongo: MongoStore, client: Client) -> None:
        mongo.put([fix(1), trip(2), raw(TS)])
        names = {
            name: set(client["Stage_database"][name].index_information())
            for name in ("Stage_timeseries", "Stage_usercache", "Stage_analysis_timeseries")
        }
        both = {"_id_", "user_id_1", "metadata.key_1"}
        assert names["Stage_timeseries"] == both | {
            *("metadata.write_ts_-1", "data.ts_-1", "data.start_ts_-1", "data.loc_2dsphere", "timeseries_compound_hack")
        }
        assert names["Stage_usercache"] == both | {
            *("metadata.type_1", "metadata.write_ts_-1", "data.ts_-1", "usercache_compound_hack")
        }
        assert len(names["Stage_analysis_timeseries"]) == 52
        assert names["Stage_analysis_timeseries"] > both | {
            *("data.end_local_dt.weekday_-1", "data.location_2dsphere", "data.cleaned_section_1"),
            *("data.exit_ts_-1", "analysis_compound_hack"),
        }

    def test_results_that_a_loader_put_among_the_raw_entries_are_found_too(
        self, mongo: MongoStore, client: Client
    ) -> None:
        mongo.put([fix(1, key="analysis/recreated_location"), fix(3, key="analysis/recreated_location")])
        elsewhere = {**fix(2), "_id": ObjectId(f"{2:024x}"), "user_id": USER}
        elsewhere["metadata"] = {**fix(2, key="analysis/recreated_location")["metadata"]}  # type: ignore[dict-item]
        client["Stage_database"]["Stage_timeseries"].insert_one(elsewhere)
        assert ids(mongo.find("analysis/recreated_location")) == [1, 2, 3]
        assert ids(mongo.find("analysis/recreated_location", limit=2)) == [1, 2]
        times = [ts for ts, _, _ in mongo.track("analysis/recreated_location", start_ts=0, end_ts=2e9)]
        assert times == [TS + 60, TS + 120, TS + 180]

    def test_raw_days_shrink_to_one_for_each_write_time(self, mongo: MongoStore, phone_days: Path) -> None:
        path = phone_days.parent / "rest" / "iphone_2016-02-22.phone_to_server.json.gz"
        if not path.exists():
            pytest.skip(f"no raw phone day beside the formatted ones: {path.name}")
        entries = entries_of(path)
        assert in_words(mongo.put(entries)) == (1238, 1140, 98, 0)  # as the real server: facts of its own recording
        assert len(list(mongo.pending())) == 1140

    def test_an_error_quotes_no_entry(self, mongo: MongoStore, client: Client) -> None:
        client["Stage_database"].create_collection("Stage_timeseries", validator={"data.secret": {"$exists": False}})
        with pytest.raises(StoreError) as caught:
            mongo.put([fix(1, secret="my diary")])
        shown = [str(caught.value), str(caught.value.__cause__), repr(caught.value.__cause__)]
        assert "diary" not in "".join(shown)
        assert "(code 121)" in str(caught.value)

    def test_a_mongod_that_is_gone_is_a_store_error(self, run_dir: Path, serve: Callable[[Path], Mongod]) -> None:
        server = serve(run_dir / "db")
        with server.client() as client:
            store = MongoStore(client, USER, data_dir=run_dir / "db")
            store.put([fix(1)])
            server.stop()
            asks: list[Callable[[], object]] = [
                lambda: store.put([fix(2)]),
                lambda: list(store.find(LOCATION)),
                store.counts,
            ]
            with pytest.raises(StoreError, match="the database could not store entries"):
                asks[0]()
            server.start()
            for ask in asks:
                ask()
            assert store.counts() == {LOCATION: 2}


@pytest.mark.parametrize("round_", range(3))
def test_what_was_acknowledged_survives_a_kill(run_dir: Path, serve: Callable[[Path], Mongod], round_: int) -> None:
    server = serve(run_dir / "db")
    acknowledged: list[int] = []

    def write() -> None:
        with server.client() as client:
            store = MongoStore(client, USER)
            number = 0
            try:
                while True:
                    store.put([fix(number), fix(number + 1), raw(float(number))])
                    acknowledged.append(number)
                    number += 2
            except StoreError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    assert wait_until(lambda: len(acknowledged) > 20 + 40 * round_, 30)
    os.kill(server.pid, 9)
    writer.join(30)
    server.wait(10)
    server.start()
    with server.client() as client:
        store = MongoStore(client, USER)
        assert set(ids(store.find(LOCATION))) >= {n + side for n in acknowledged for side in (0, 1)}
        assert {entry["data"]["ts"] for entry in store.pending()} >= {float(n) for n in acknowledged}  # type: ignore[index]


def noise(number: int) -> JsonObject:
    """A formatted entry of 100 kB that hardly compresses."""
    return fix(number, key="survey/noise", noise=os.urandom(50_000).hex())


def store_until_refused(store: Store, acknowledged: list[int]) -> None:
    for number in range(0, 4000, 4):
        numbers = range(number, number + 4)
        store.put([noise(one) for one in numbers])
        acknowledged.extend(numbers)


class TestFullDisk:
    def test_a_full_disk_is_named_and_nothing_acknowledged_is_lost(
        self, small_disk: Path, serve: Callable[[Path], Mongod]
    ) -> None:
        server = serve(small_disk / "db")
        acknowledged: list[int] = []
        with server.client() as client:
            store = MongoStore(client, USER, data_dir=server.data_dir)
            with pytest.raises(DiskFull, match=rf"{small_disk}/db is full: [\d_]+ bytes are free"):
                store_until_refused(store, acknowledged)
            assert len(acknowledged) > 100
            assert ids(store.find("survey/noise")) == acknowledged
        os.kill(server.pid, 9)
        server.wait(10)
        server.start()
        with server.client() as client:
            assert ids(MongoStore(client, USER).find("survey/noise")) == acknowledged

    def test_a_disk_that_others_filled_is_named(self, small_disk: Path, serve: Callable[[Path], Mongod]) -> None:
        server = serve(small_disk / "db")
        with server.client() as client:
            store = MongoStore(client, USER, data_dir=server.data_dir)
            store.put([fix(1)])
            ballast = fill(small_disk)
            with pytest.raises(DiskFull):
                store.put([fix(2)])
            assert ids(store.find(LOCATION)) == [1]
            ballast.unlink()
            store.put([fix(2)])

    def test_a_mongod_that_finds_no_room_says_so(
        self, small_disk: Path, run_dir: Path, need: Callable[[str], None]
    ) -> None:
        need("mongod")
        (small_disk / "db").mkdir()
        fill(small_disk)
        with pytest.raises(DiskFull, match=rf"{small_disk}/db is full: 0 bytes are free") as caught:
            Mongod(small_disk / "db", run_dir).start()
        assert isinstance(caught.value, EmlabError)


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            return ballast
