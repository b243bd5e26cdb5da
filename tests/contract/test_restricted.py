"""What an owner excludes contributes nothing: a restricted store reads like one that never held it, on either store."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from shapely import Polygon

from emlab.entries import JsonObject
from emlab.policy import Policy
from emlab.queries.count_users import CountUsers
from emlab.queries.sum_distance import SumDistance
from emlab.query import LOCATION, Region
from emlab.restricted import restricted
from emlab.store import MemoryStore, MongoStore, Store
from tests.contract.rest import Client

USER = uuid.UUID("0123456789abcdef0123456789abcdef")
START = datetime(2023, 10, 28, 12, tzinfo=UTC).timestamp()  # the clocks of Europe go back half a day later
STEP_S = 300.0
STEPS = 288  # a day
MIDNIGHT, KEPT_DAYS = START + 43_200, 3
NOW = MIDNIGHT + KEPT_DAYS * 86_400 + 5000.0
LON, LAT, GRID = 13.4, 52.5, 0.001  # positions are more than a metre from any border below
HOME = Region.box(LON - 0.0015, LAT - 0.0015, LON + 0.0015, LAT + 0.0015)
EVERYWHERE: tuple[Region | None, ...] = (None, HOME, Region.box(LON - 0.0035, LAT - 0.0035, LON + 0.0005, LAT + 0.0035))
BERLIN = ZoneInfo("Europe/Berlin")
POLICIES = {
    "place": Policy.open(excluded_places=[HOME]),
    "hours": Policy.open(excluded_hours=[(22, 3), (12, 13)], zone="Europe/Berlin"),
    "both": Policy.open(excluded_places=[HOME], excluded_hours=[(2, 3)], zone="Europe/Berlin"),
}


@dataclass(frozen=True)
class Move:
    """A trip or a section between two numbered times and two places of the grid."""

    key: str
    first: int
    last: int
    start: tuple[int, int]
    end: tuple[int, int]


@dataclass(frozen=True)
class Fix:
    number: int
    at: tuple[int, int]


def position(at: tuple[int, int]) -> list[float]:
    return [LON + at[0] * GRID, LAT + at[1] * GRID]


def ts_of(number: int) -> float:
    return START + number * STEP_S


def entry(number: int, key: str, data: JsonObject) -> JsonObject:
    ts = START + number
    metadata = {"key": key, "platform": "android", "type": "sensor-data", "write_ts": ts, "time_zone": "Europe/Berlin"}
    return {"_id": {"$oid": f"{number:024x}"}, "metadata": {**metadata, "write_fmt_time": "x"}, "data": data}


def location(number: int, ts: float, lon: float, lat: float) -> JsonObject:
    place = {"type": "Point", "coordinates": [lon, lat]}
    return entry(number, LOCATION, {"ts": ts, "latitude": lat, "longitude": lon, "loc": place})


def fix_entry(number: int, fix: Fix) -> JsonObject:
    return location(number, ts_of(fix.number), *position(fix.at))


def move_entry(number: int, move: Move) -> JsonObject:
    start_ts, end_ts = ts_of(move.first), ts_of(move.last)
    data: JsonObject = {
        "start_ts": start_ts,
        "end_ts": end_ts,
        "duration": end_ts - start_ts,
        "distance": float(number),
        "start_loc": {"type": "Point", "coordinates": position(move.start)},
        "end_loc": {"type": "Point", "coordinates": position(move.end)},
        "sensed_mode": 1,
    }
    return entry(number, move.key, data)


# -- the same, decided in the simplest way ---------------------------------------------------------------------


def at_home(at: tuple[int, int]) -> bool:
    return max(abs(at[0]), abs(at[1])) <= 1


def in_hours(policy: Policy, number: int) -> bool:
    clock = datetime.fromtimestamp(ts_of(number), UTC).astimezone(BERLIN)
    return any(hours.covers(clock.hour) for hours in policy.excluded_hours)


def is_hidden(policy: Policy, fix: Fix) -> bool:
    return in_hours(policy, fix.number) or (bool(policy.excluded_places) and at_home(fix.at))


def touches(policy: Policy, move: Move, fixes: Sequence[Fix]) -> bool:
    steps = range(move.first, move.last + 1)
    places = [move.start, move.end, *(fix.at for fix in fixes if fix.number in steps)]
    return any(in_hours(policy, number) for number in steps) or (
        bool(policy.excluded_places) and any(map(at_home, places))
    )


def overlap(one: Move, trip: Move) -> bool:
    return (one.first < trip.last and one.last > trip.first) or trip.first <= one.first < trip.last


def visible(policy: Policy, fixes: Sequence[Fix], moves: Sequence[Move]) -> list[Fix | Move]:
    trips = [move for move in moves if move.key == TRIP and touches(policy, move, fixes)]
    kept: list[Fix | Move] = [fix for fix in fixes if not is_hidden(policy, fix)]
    seen = [move for move in moves if move.key == TRIP and move not in trips]
    for move in moves:
        with_a_trip = move.key == SECTION and any(overlap(move, trip) for trip in trips)
        of_none = move.key == SECTION and not any(overlap(move, trip) for trip in seen)
        if not (touches(policy, move, fixes) or with_a_trip or (of_none and _excludes(policy))):
            kept.append(move)
    return kept


AWAY = (4, 4)


def _excludes(policy: Policy) -> bool:
    return bool(policy.excluded_places or policy.excluded_hours)


TRIP, SECTION = "analysis/confirmed_trip", "analysis/inferred_section"
AT = st.tuples(st.integers(-4, 4), st.integers(-4, 4))
FIXES = st.lists(st.builds(Fix, st.integers(0, STEPS), AT), max_size=12)


@st.composite
def moves(draw: st.DrawFn) -> Move:
    first = draw(st.integers(0, STEPS))
    return Move(draw(st.sampled_from([TRIP, SECTION])), first, first + draw(st.integers(0, 20)), draw(AT), draw(AT))


@pytest.fixture(params=["memory", "mongo"])
def make(request: pytest.FixtureRequest) -> Callable[[], Store]:
    if request.param == "memory":
        return lambda: MemoryStore(USER)
    client: Client = request.getfixturevalue("shared_client")

    def fresh() -> Store:
        database = client["Stage_database"]
        for name in database.list_collection_names():
            database[name].delete_many({})  # to make the indexes anew would take longer than the test
        return MongoStore(client, USER)

    return fresh


def stored(make: Callable[[], Store], items: Mapping[int, Fix | Move]) -> Store:
    store = make()
    store.put([fix_entry(n, one) if isinstance(one, Fix) else move_entry(n, one) for n, one in items.items()])
    return store


@dataclass(frozen=True)
class Seen:
    """All that a query can read, in parts of the time and in regions."""

    exists: list[bool]
    tracks: list[object]
    trips: list[object]
    sections: list[object]


def seen(store: Store, policy: Policy) -> Seen:
    data = restricted(store, policy, NOW)
    spans = [(START, ts_of(STEPS + 30)), (ts_of(60), ts_of(120)), (ts_of(100), ts_of(101))]
    return Seen(
        exists=[
            data.exists(LOCATION, start_ts=low, end_ts=high, region=None if where is None else where.geojson())
            for low, high in spans
            for where in EVERYWHERE
        ],
        tracks=[list(data.track(LOCATION, start_ts=low, end_ts=high)) for low, high in spans],
        trips=[list(data.trips(start_ts=low, end_ts=high)) for low, high in spans],
        sections=[list(data.sections(start_ts=low, end_ts=high)) for low, high in spans],
    )


@pytest.mark.parametrize("kind", list(POLICIES))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fixes=FIXES, several=st.lists(moves(), max_size=10))
def test_a_restricted_store_reads_like_one_that_never_held_what_is_excluded(
    make: Callable[[], Store], kind: str, fixes: list[Fix], several: list[Move]
) -> None:
    policy = POLICIES[kind]
    items: dict[int, Fix | Move] = dict(enumerate([*fixes, *several]))
    shown = visible(policy, fixes, several)
    kept = {number: one for number, one in items.items() if one in shown}
    found = seen(stored(make, items), policy)
    assert found == seen(stored(make, kept), Policy.open())


@pytest.mark.parametrize("kind", ["open", *POLICIES])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fixes=FIXES, several=st.lists(moves(), max_size=10))
def test_what_began_too_early_is_hidden_and_what_it_hides_stays_hidden(
    make: Callable[[], Store], kind: str, fixes: list[Fix], several: list[Move]
) -> None:
    """Such as the section of today of a trip that began at an excluded home yesterday."""
    policy = POLICIES.get(kind, Policy.open())
    items: dict[int, Fix | Move] = dict(enumerate([*fixes, *several]))
    recent = [one for one in visible(policy, fixes, several) if ts_of(_first(one)) > MIDNIGHT]
    kept = {number: one for number, one in items.items() if one in recent}
    found = seen(stored(make, items), policy.but(retention_days=KEPT_DAYS))
    assert found == seen(stored(make, kept), Policy.open())


def _first(one: Fix | Move) -> int:
    return one.number if isinstance(one, Fix) else one.first


@pytest.mark.parametrize("kind", ["trip", "fix"])
def test_what_is_deleted_for_its_age_was_hidden_before_to_the_moment(make: Callable[[], Store], kind: str) -> None:
    policy, step = Policy.open(retention_days=KEPT_DAYS), int((MIDNIGHT - START) / STEP_S)
    both: list[Fix | Move] = [Fix(n, AWAY) if kind == "fix" else Move(TRIP, n, n, AWAY, AWAY) for n in (step, step + 1)]
    store = stored(make, dict(enumerate(both)))
    before = seen(store, policy)
    store.delete(None, policy.kept_since(NOW))
    assert seen(store, Policy.open()) == before == seen(stored(make, {1: both[1]}), Policy.open())


def test_a_section_of_a_trip_that_is_too_old_stays_hidden_when_that_is_deleted(make: Callable[[], Store]) -> None:
    step = int((MIDNIGHT - START) / STEP_S)
    begun = {0: Move(TRIP, step - 4, step + 4, (0, 0), AWAY), 1: Move(SECTION, step + 2, step + 4, AWAY, AWAY)}
    later = {2: Move(TRIP, step + 9, step + 12, AWAY, AWAY), 3: Move(SECTION, step + 9, step + 12, AWAY, AWAY)}
    policy = POLICIES["place"].but(retention_days=KEPT_DAYS)
    store = stored(make, {**begun, **later})
    for _ in range(2):
        shown = [section.start_ts for section in restricted(store, policy, NOW).sections(start_ts=0.0, end_ts=2e9)]
        assert shown == [ts_of(step + 9)]
        store.delete(None, MIDNIGHT)
    assert len(list(store.sections(start_ts=0.0, end_ts=2e9))) == 2


def test_without_exclusions_nothing_stands_between_a_query_and_the_store(make: Callable[[], Store]) -> None:
    store = make()
    assert restricted(store, Policy.closed(), NOW) is store


def test_queries_count_nothing_of_an_excluded_place(make: Callable[[], Store]) -> None:
    store = stored(make, {n: Fix(n, (n % 2, 0)) for n in range(10)})
    inside = CountUsers(HOME, START, ts_of(STEPS))
    distance = SumDistance(START, ts_of(STEPS), 10_000)
    plain, hidden = restricted(store, Policy.open(), NOW), restricted(store, POLICIES["place"], NOW)
    assert inside.contribution(plain) == (1,)
    assert distance.contribution(plain)[0] > 500
    assert (inside.contribution(hidden), distance.contribution(hidden)) == ((0,), (0,))


@pytest.mark.parametrize("number", [0, 5, 20])
@pytest.mark.parametrize("section", [Move(SECTION, 15, 18, AWAY, AWAY), Move(SECTION, 0, 0, AWAY, AWAY)], ids=str)
def test_a_trip_that_passed_an_excluded_place_is_hidden_with_each_of_its_sections(
    make: Callable[[], Store], number: int, section: Move
) -> None:
    """Also one that was elsewhere, of an interval that begins with it, after the trip."""
    store = stored(make, {0: Move(TRIP, 0, 20, AWAY, AWAY), 1: section, 2: Fix(number, (0, 0))})
    late = {"start_ts": ts_of(section.first), "end_ts": ts_of(30)}
    assert (len(list(store.sections(**late))), len(list(store.trips(start_ts=0.0, end_ts=2e9)))) == (1, 1)
    hidden = restricted(store, POLICIES["place"], NOW)
    assert list(hidden.sections(**late)) == []
    assert list(hidden.trips(start_ts=0.0, end_ts=2e9)) == []


def test_what_lies_beside_a_wide_place_is_seen_where_edges_of_the_sphere_have_it(make: Callable[[], Store]) -> None:
    """On the sphere the northern edge of a box bends out of it, here by 120 m."""
    store = make()
    store.put([location(1, START, 10.5, 53.0005)])
    data = restricted(store, Policy.open(excluded_places=[Region.box(10.0, 52.0, 11.0, 53.0)]), NOW)
    assert data.exists(LOCATION, start_ts=START, end_ts=START, region=None)


def test_an_entry_without_a_position_is_hidden(make: Callable[[], Store]) -> None:
    store = make()
    store.put([entry(1, "background/motion_activity", {"ts": START, "type": 7})])
    for policy, there in ((Policy.open(), True), (POLICIES["hours"], False), (POLICIES["place"], False)):
        data = restricted(store, policy, NOW)
        assert data.exists("background/motion_activity", start_ts=0.0, end_ts=2e9, region=None) is there


@pytest.mark.parametrize("width", [0.01, 0.04, 1.0, 19.0])
@pytest.mark.parametrize("latitude", [0.0, 52.0, 80.0, -52.0])
def test_a_wide_place_hides_all_of_it_where_edges_of_the_sphere_bend_away(
    make: Callable[[], Store], width: float, latitude: float
) -> None:
    """On the sphere the southern edge of a box bends into it (in the north), so that mongod alone would miss some."""
    high = min(width, 1.0)
    place = Region.box(10.0, latitude, 10.0 + width, latitude + high)
    policy = Policy.open(excluded_places=[place])
    middle = 10.0 + width / 2
    store = make()
    lats = [latitude + 2e-5, latitude + high / 2, latitude + high - 2e-5]
    for number, lat in enumerate(lats):
        away = {"type": "Point", "coordinates": [10.0, latitude - 1.5]}
        span = {"start_ts": START + 60 * number - 1, "end_ts": START + 60 * number + 1, "duration": 2.0}
        trip = {**span, "distance": 1.0, "start_loc": away, "end_loc": away}
        store.put([location(number, START + 60 * number, middle, lat), entry(100 + number, TRIP, trip)])
    assert len(list(store.trips(start_ts=0.0, end_ts=2e9))) == len(lats)
    assert list(restricted(store, policy, NOW).trips(start_ts=0.0, end_ts=2e9)) == []
    assert list(restricted(store, policy, NOW).track(LOCATION, start_ts=0.0, end_ts=2e9)) == []


@pytest.mark.parametrize("latitude", [0.0, 52.0, 80.0, -52.0])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_database_that_leaves_out_small_places_leaves_out_no_more_than_is_excluded(
    make: Callable[[], Store], latitude: float, data: st.DataObject
) -> None:
    """Points at the middle of the long edges of triangles, where map and sphere differ most."""
    inner = st.floats(0.0, 0.04)
    corners = [(10.0 + data.draw(inner), latitude + data.draw(inner)) for _ in range(3)]
    assume(Polygon(corners).area > 1e-5)
    policy = Policy.open(excluded_places=[Region((((*corners, corners[0]),),))])
    store = make()
    for number, (one, two) in enumerate(itertools.pairwise([*corners, corners[0]])):
        for side in (-1.0, 1.0):
            lat = (one[1] + two[1]) / 2 + side * 1.05 / 111_195
            store.put([location(2 * number + (side > 0), START + number, (one[0] + two[0]) / 2, lat)])
    hidden = restricted(store, policy, NOW)
    for number in range(3):
        shown = list(hidden.track(LOCATION, start_ts=START + number, end_ts=START + number))
        assert hidden.exists(LOCATION, start_ts=START + number, end_ts=START + number, region=None) is bool(shown)


def test_a_year_of_one_person_is_looked_through_within_a_slot(shared_client: Client) -> None:
    """150,000 fixes, of which a third lie at an excluded home; who was elsewhere is found within half of 0.25 s."""
    shared_client.drop_database("Stage_database")
    store = MongoStore(shared_client, USER)
    number, year_s = 150_000, 365 * 86400
    ts = [START + year_s * n / number for n in range(number)]
    places = [(0, 0), (3, 3), (-3, 2)]
    for first in range(0, number, 10_000):
        store.put([location(n, ts[n], *position(places[n % 3])) for n in range(first, first + 10_000)])
    data = restricted(store, POLICIES["both"], NOW)
    for region in (EVERYWHERE[2], None):
        shape = None if region is None else region.geojson()
        begun = time.monotonic()
        assert data.exists(LOCATION, start_ts=START, end_ts=START + year_s, region=shape)
        assert time.monotonic() - begun < 0.125
    assert not data.exists(LOCATION, start_ts=START, end_ts=START + year_s, region=HOME.geojson())


def test_hours_follow_the_clock_of_the_zone_when_it_changes() -> None:
    policy = POLICIES["both"]
    change = datetime(2023, 10, 29, 0, tzinfo=UTC)  # 2:00 summer time; an hour later it is 2:00 again
    store = MemoryStore(USER)
    for number in range(-1, 3):
        ts = (change + timedelta(hours=number)).timestamp() + 1
        store.put([location(number + 10, ts, *position((4, 4)))])
    shown = [
        ts - 1 - change.timestamp()
        for ts, _, _ in restricted(store, policy, NOW).track(LOCATION, start_ts=0, end_ts=2e9)
    ]
    assert shown == [-3600.0, 7200.0]
