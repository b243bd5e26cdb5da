"""What queries read of a store: trips and sections as intake found them, alike from memory and a real mongod."""

from __future__ import annotations

import copy
import itertools
import math
import time
import uuid
from collections.abc import Callable, Iterable

import pytest
from bson.objectid import ObjectId

import emlab as em
from emlab import diary, pipeline
from emlab.clock import ManualClock
from emlab.entries import JsonObject
from emlab.errors import BadQuery
from emlab.geo import haversine_m
from emlab.queries.heatmap import Heatmap
from emlab.queries.known import OURS
from emlab.queries.origin_destination import OriginDestination
from emlab.query import Query, Region, Section, Trip, clamp
from emlab.store import MemoryStore, MongoStore, Store, results
from emlab.store.documents import legacy
from emlab.store.hurried import hurried
from tests.contract.rest import Client
from tests.unit.queries.examples import EXAMPLES

USER, SIMULATED = uuid.UUID("0123456789abcdef0123456789abcdef"), uuid.UUID(int=1)
TS = 1_440_688_707.5
WEST, EAST = [-122.25, 37.85], [-122.20, 37.86]
EVER = {"start_ts": 0.0, "end_ts": 2e9}
BAD_AMOUNTS: tuple[object, ...] = (None, "7", -0.5, True, [7.0], {})


def computed(number: int, key: str, **data: object) -> JsonObject:
    """The result of that number, a minute after the one before."""
    start_ts = TS + 60 * number
    return {
        "_id": {"$oid": f"{number:024x}"},
        "user_id": {"$uuid": "f" * 32},
        "metadata": {"key": key, "platform": "server", "write_ts": TS, "write_fmt_time": "2015-08-27T08:18:38-07:00"},
        "data": {
            "start_ts": start_ts,
            "end_ts": start_ts + 30.5,
            "distance": 500.5,
            "duration": 30.5,
            "start_loc": {"type": "Point", "coordinates": WEST},
            "end_loc": {"type": "Point", "coordinates": EAST},
            "start_local_dt": {"year": 2015, "month": 8, "day": 27, "hour": 8},
            "speeds": [1.5] * 100,
            **data,
        },
    }


def trip(number: int, **data: object) -> JsonObject:
    summary = {"distance": {"WALKING": 100.0, "CAR": 400.5}, "count": {"WALKING": 5, "CAR": 1}}
    return computed(number, diary.TRIPS, **{"inferred_section_summary": summary, **data})


def section(number: int, **data: object) -> JsonObject:
    return computed(number, diary.SECTIONS, **{"sensed_mode": 5, **data})


def expected(number: int, mode: str = "CAR", hour: int | None = 8) -> tuple[object, ...]:
    start_ts = TS + 60 * number
    return (start_ts, start_ts + 30.5, 500.5, 30.5, mode, tuple(WEST), tuple(EAST), hour)


@pytest.fixture
def client(shared_client: Client) -> Client:
    """A mongod without anybody's entries but those of the simulated person; dropping them would drop indexes, too."""
    for collection in shared_client["Stage_database"].list_collections(filter={"name": {"$regex": "^Stage_"}}):
        shared_client["Stage_database"][collection["name"]].delete_many({"user_id": {"$ne": legacy(SIMULATED)}})
    return shared_client


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryStore(USER) if request.param == "memory" else MongoStore(request.getfixturevalue("client"), USER)


Make = Callable[..., JsonObject]
BOTH = pytest.mark.parametrize(("kind", "make"), [("trips", trip), ("sections", section)])


def read(store: Store, kind: str, start_ts: float = 0.0, end_ts: float = 2e9) -> list[Trip | Section]:
    found: Iterable[Trip | Section] = getattr(store, kind)(start_ts=start_ts, end_ts=end_ts)
    return list(found)


@BOTH
class TestReading:
    def test_nothing_is_there_before_it_is_stored(self, store: Store, kind: str, make: Make) -> None:
        assert read(store, kind) == []

    def test_what_intake_found_comes_by_its_start(self, store: Store, kind: str, make: Make) -> None:
        store.put([make(3), make(1), make(2, start_local_dt=None)])
        assert read(store, kind) == [expected(1), expected(2, hour=None), expected(3)]
        assert {type(one) for one in read(store, kind)} == {Trip if kind == "trips" else Section}

    def test_an_interval_has_its_start_and_not_its_end(self, store: Store, kind: str, make: Make) -> None:
        store.put([make(number) for number in range(4)])
        assert read(store, kind, TS + 60, TS + 180) == [expected(1), expected(2)]
        assert read(store, kind, TS + 60, TS + 60) == []
        parts = [read(store, kind, TS + 45 * n, TS + 45 * (n + 1)) for n in range(5)]
        assert list(itertools.chain.from_iterable(parts)) == read(store, kind)

    def test_of_one_start_they_come_by_their_id(self, store: Store, kind: str, make: Make) -> None:
        store.put([make(number, start_ts=TS, distance=float(number)) for number in (3, 1, 2)])
        assert [one.distance_m for one in read(store, kind)] == [1.0, 2.0, 3.0]

    def test_one_marked_invalid_is_not_there(self, store: Store, kind: str, make: Make) -> None:
        store.put([make(1), {**make(2), "invalid": True}])
        assert read(store, kind) == [expected(1)]

    def test_whole_numbers_count_as_well(self, store: Store, kind: str, make: Make) -> None:
        store.put([make(1, distance=7, duration=0)])
        (found,) = read(store, kind)
        assert (found.distance_m, found.duration_s) == (7.0, 0.0)
        assert {type(found.distance_m), type(found.duration_s)} == {float}

    @pytest.mark.parametrize(
        "data",
        [
            *({name: bad} for name in ("distance", "duration") for bad in BAD_AMOUNTS),
            {"start_loc": None},
            {"end_loc": None},
            {"end_ts": None},
            {"end_ts": TS},
        ],
        ids=str,
    )
    def test_a_malformed_one_is_left_out(self, store: Store, kind: str, make: Make, data: JsonObject) -> None:
        store.put([make(1), make(2, **data), make(3)])
        assert read(store, kind) == [expected(1), expected(3)]

    @pytest.mark.parametrize("hour", [None, {}, {"hour": None}])
    def test_one_that_does_not_tell_its_hour_is_there_without(
        self, store: Store, kind: str, make: Make, hour: object
    ) -> None:
        store.put([make(1, start_local_dt=hour)])
        assert read(store, kind) == [expected(1, hour=None)]

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_an_interval_without_end_is_refused_at_once(self, store: Store, kind: str, make: Make, bad: float) -> None:
        for start_ts, end_ts in ((bad, 1.0), (0.0, bad)):
            with pytest.raises(BadQuery, match="not finite"):
                getattr(store, kind)(start_ts=start_ts, end_ts=end_ts)

    def test_the_time_of_an_ask_ends_it(self, kind: str, make: Make) -> None:
        store, clock = MemoryStore(USER), ManualClock()
        store.put([make(1), make(2)])
        found = getattr(hurried(store, clock.monotonic() + 1.0, clock), kind)(**EVER)
        assert next(found) == expected(1)
        clock.advance(1.0)
        with pytest.raises(TimeoutError):
            next(found)


@pytest.mark.parametrize("mode", [None, "CAR", 5.0, -1, 99, True])
def test_a_section_of_a_mode_that_is_none_is_left_out(store: Store, mode: object) -> None:
    store.put([section(1), section(2, sensed_mode=mode)])
    assert read(store, "sections") == [expected(1)]


@pytest.mark.parametrize(
    ("summary", "mode"),
    [
        (None, "UNKNOWN"),
        ({}, "UNKNOWN"),
        ({"distance": 5}, "UNKNOWN"),
        ({"distance": {}}, "UNKNOWN"),
        ({"distance": {"HOVERCRAFT": 5.0, "CAR": 1.0}}, "UNKNOWN"),
        ({"distance": {"BUS": "far", "CAR": 1.0, "TRAIN": -7.0, "TRAM": True}}, "CAR"),
        ({"distance": {"BICYCLING": 5.0, "CAR": 5.0}}, "BICYCLING"),
        ({"distance": {"WALKING": 5, "BUS": 6}}, "BUS"),
    ],
)
def test_a_trip_has_the_mode_of_most_of_its_distance(store: Store, summary: object, mode: str) -> None:
    store.put([trip(1, inferred_section_summary=summary)])
    assert read(store, "trips") == [expected(1, mode)]


@pytest.mark.parametrize(
    "data",
    [
        *({name: bad} for name in ("distance", "duration", "end_ts") for bad in (math.nan, math.inf, -math.inf)),
        *(
            {"start_loc": {"coordinates": bad}}
            for bad in ([1.0], [1.0, 2.0, 3.0], ["1", 2.0], [181.0, 0.0], "ab", None)
        ),
        *({"end_loc": {"coordinates": bad}} for bad in ([0.0, 91.0], [math.nan, 0.0], [0.0, math.inf], [True, 0.0])),
        {"start_loc": "here"},
        {"start_ts": str(TS)},
    ],
    ids=str,
)
def test_what_got_into_a_result_past_every_check_makes_it_count_as_nothing(data: JsonObject) -> None:
    for key, reading in ((results.TRIPS, results.trips), (results.SECTIONS, results.sections)):
        good, bad = computed(1, key, sensed_mode=5), computed(2, key, sensed_mode=5, **data)
        assert [one.start_ts for one in reading([good, bad, good], before_ts=2e9)] == [TS + 60] * 2


class TestMongo:
    def test_only_the_fields_that_are_read_leave_the_database(self, client: Client) -> None:
        store = MongoStore(client, USER)
        store.put([trip(1), section(2)])
        for key, fields in ((results.TRIPS, results.OF_TRIPS), (results.SECTIONS, results.OF_SECTIONS)):
            (entry,) = store._shown(key, fields, 0.0, 2e9)
            data = entry["data"]
            assert entry.keys() == {"_id", "data"}
            assert isinstance(data, dict)
            assert data.keys() == {field.split(".")[1] for field in fields}

    def test_what_a_loader_put_among_the_raw_entries_is_found_as_the_diary_finds_it(self, client: Client) -> None:
        store = MongoStore(client, USER)
        store.put([trip(1), trip(3)])
        elsewhere: dict[str, object] = {**copy.deepcopy(trip(2)), "_id": ObjectId(f"{2:024x}"), "user_id": store._user}
        client["Stage_database"]["Stage_timeseries"].insert_one(elsewhere)
        assert read(store, "trips") == [expected(1), expected(2), expected(3)]

    def test_trips_of_somebody_else_in_the_same_database_are_not_there(self, client: Client) -> None:
        MongoStore(client, uuid.UUID(int=7)).put([trip(1)])
        assert read(MongoStore(client, USER), "trips") == []


CORNERS = [(-180.0, -90.0), (-180.0, 89.9), (0.0, 0.0), (-122.3, 37.8), (179.9, 89.9), (179.9, -90.0), (0.0, 45.0)]


@pytest.mark.parametrize("corner", CORNERS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (64, 64)])
def test_the_smallest_cell_of_a_grid_is_a_region_that_every_store_takes(
    store: Store, corner: tuple[float, float], rows: int, columns: int
) -> None:
    west, south = corner
    for size in (1e-4 * 64.001, 0.1):
        query = Heatmap(west, south, west + size, south + size, rows, columns, **EVER, per_person=1)
        for region in query.regions:
            region.check()
            store.check_region(region.geojson())


@pytest.fixture(scope="module")
def person() -> em.Person:
    return next(iter(em.Simulator(1, 4, seed=5)))


@pytest.fixture(scope="module")
def stores(shared_client: Client, person: em.Person) -> list[Store]:
    """The same days of one simulated person in both kinds of store, with trips."""
    both: list[Store] = [MemoryStore(SIMULATED), MongoStore(shared_client, SIMULATED)]
    for store in both:
        store.put(person.entries())
        pipeline.digest(store, None)
    return both


def test_intake_s_own_results_are_read_as_the_diary_shows_them(stores: list[Store]) -> None:
    for store in stores:
        frame = diary.trips(store.find(diary.TRIPS, time_key="data.start_ts"))
        found = read(store, "trips")
        assert len(found) == len(frame) >= 8
        assert [one.mode for one in found] == frame["mode"].tolist()
        assert [one.distance_m for one in found] == frame["distance_m"].tolist()
        assert [one.start for one in found] == list(zip(frame["start_lon"], frame["start_lat"], strict=True))
        assert [one.start_hour for one in found] == [int(text[11:13]) for text in frame["start_local"]]
        sections = diary.sections(
            *(store.find(key, time_key="data.start_ts") for key in (diary.SECTIONS, diary.SENSED))
        )
        assert [(one.mode, one.distance_m) for one in read(store, "sections")] == list(
            zip(sections["mode"], sections["distance_m"], strict=True)
        )


def _zones(trips: Iterable[Trip | Section]) -> dict[str, Region]:
    """Squares around the first places that trips start from, so that some trips join two of them."""
    places: list[tuple[float, float]] = []
    for one in trips:
        if all(haversine_m(*one.start, *place) > 400 for place in places):
            places.append(one.start)
    return {
        f"zone {number}": Region.box(lon - 0.001, lat - 0.001, lon + 0.001, lat + 0.001)
        for number, (lon, lat) in enumerate(places[:8])
    }


def test_both_stores_answer_every_query_alike(stores: list[Store]) -> None:
    trips = read(stores[0], "trips")
    lons, lats = [one.start[0] for one in trips], [one.start[1] for one in trips]
    around = (min(lons) - 0.01, min(lats) - 0.01, max(lons) + 0.01, max(lats) + 0.01)
    queries: list[Query] = [
        *itertools.chain.from_iterable(EXAMPLES.values()),
        OriginDestination(_zones(trips), **EVER, per_person=20),  # type: ignore[arg-type]
        Heatmap(*around, 20, 20, **EVER, per_person=50),
    ]
    assert {type(query) for query in queries} == set(OURS)
    answered = 0
    for query in queries:
        first, second = (list(query.contribution(store)) for store in stores)
        assert first == second, query
        assert clamp(query, first) == tuple(first)
        answered += any(first)
    assert answered > len(queries) // 2


def test_each_query_takes_a_small_part_of_its_slot(stores: list[Store]) -> None:
    """A year of this person's data is 90 times as much; what a query takes of a slot for four days tells nothing of
    another machine, but one that is far too slow is found."""
    for query in itertools.chain.from_iterable(EXAMPLES.values()):
        start = time.perf_counter()
        query.contribution(stores[1])
        assert time.perf_counter() - start < query.slot_s / 2, query
