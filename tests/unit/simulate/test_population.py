"""The simulator: what it refuses, that it repeats itself, and that its people live sensible lives."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import FrozenInstanceError
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from emlab.errors import ConfigError
from emlab.geo import haversine_m
from emlab.key import Key
from emlab.simulate import Mode, Person, Simulator

DIGEST = """
import hashlib, json
from emlab.simulate import Simulator
people = Simulator(3, 2, 42)
print(hashlib.sha256(json.dumps([p.entries() for p in people]).encode()).hexdigest())
"""


@pytest.mark.parametrize("n_users", [0, -1, 100_001, 2.0, True, "3"])
def test_a_number_of_users_out_of_bounds_is_refused(n_users: int) -> None:
    with pytest.raises(ConfigError, match="n_users"):
        Simulator(n_users, 1, 1)


@pytest.mark.parametrize("days", [0, -2, 367, 1.5])
def test_a_number_of_days_out_of_bounds_is_refused(days: int) -> None:
    with pytest.raises(ConfigError, match="days"):
        Simulator(1, days, 1)


@pytest.mark.parametrize("seed", [-1, 2**63, None])
def test_a_seed_out_of_bounds_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match="seed"):
        Simulator(1, 1, seed)


@pytest.mark.parametrize("start", ["yesterday", "2026-02-30", "1969-12-31", "2099-01-01", 20260302])
def test_a_start_that_is_no_day_of_our_time_is_refused(start: str) -> None:
    with pytest.raises(ConfigError, match="start"):
        Simulator(1, 1, 1, start=start)


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "America", "../etc/passwd", "", None])
def test_a_time_zone_that_the_host_does_not_know_is_refused(timezone: str) -> None:
    with pytest.raises(ConfigError, match="timezone"):
        Simulator(1, 1, 1, timezone=timezone)


@pytest.mark.parametrize("center", [(37.87, -122.27), (0, 90), (200, 0), (float("nan"), 0), (1,), None, (179.99, 0)])
def test_a_center_where_no_box_fits_is_refused(center: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"center"):
        Simulator(1, 1, 1, center=center)


@pytest.mark.parametrize("box_m", [0, 2_999, 200_001, float("nan"), float("inf"), "12000"])
def test_a_box_out_of_bounds_is_refused(box_m: float) -> None:
    with pytest.raises(ConfigError, match="box_m"):
        Simulator(1, 1, 1, box_m=box_m)


def test_a_person_beyond_the_population_is_refused() -> None:
    with pytest.raises(ConfigError, match="index"):
        Simulator(3, 1, 1).person(3)


def test_the_same_seed_gives_the_same_people_and_another_seed_others() -> None:
    assert [p.entries() for p in Simulator(2, 2, 9)] == [p.entries() for p in Simulator(2, 2, 9)]
    assert Simulator(2, 2, 9).person(0).entries() != Simulator(2, 2, 10).person(0).entries()


def test_a_person_is_the_same_in_a_bigger_population() -> None:
    small, big = Simulator(2, 2, 9).person(1), Simulator(5_000, 2, 9).person(1)
    assert small == big
    assert small.entries() == big.entries()
    assert (small.key, small.trips, small.user_id) == (big.key, big.trips, big.user_id)


def test_the_first_days_do_not_depend_on_how_many_follow() -> None:
    short, long = Simulator(1, 2, 9).person(0).entries(), Simulator(1, 5, 9).person(0).entries()
    assert long[: len(short)] == short
    assert len(long) > len(short)


def test_another_process_with_another_hash_seed_makes_the_same_bytes() -> None:
    def run(hash_seed: str) -> str:
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(
            [sys.executable, "-c", DIGEST], env=env, capture_output=True, text=True, check=True
        ).stdout

    here = hashlib.sha256(json.dumps([p.entries() for p in Simulator(3, 2, 42)]).encode()).hexdigest()
    assert run("1").strip() == run("2").strip() == here


def test_importing_the_simulator_loads_neither_numpy_nor_pandas() -> None:
    code = "import sys, emlab.simulate; print({'numpy', 'pandas', 'cryptography'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_making_one_person_of_many_makes_no_other() -> None:
    people = iter(Simulator(100_000, 366, 1))
    assert next(people).name == "user-001"
    assert next(people).name == "user-002"
    assert len(Simulator(100_000, 366, 1)) == 100_000


def test_people_differ_in_name_key_id_and_home() -> None:
    people = list(Simulator(200, 1, 6))
    assert [p.name for p in people[:2]] == ["user-001", "user-002"]
    assert people[149].name == "user-150"
    assert len({p.key for p in people}) == len({p.user_id for p in people}) == len({p.places for p in people}) == 200
    assert all(isinstance(p.key, Key) for p in people)


def test_a_person_cannot_be_changed_and_shows_no_key() -> None:
    person = Simulator(1, 1, 6).person(0)
    with pytest.raises(FrozenInstanceError):
        person.index = 3  # type: ignore[misc]
    assert "key" not in repr(person).lower()


def test_every_place_lies_in_the_box_and_apart_from_the_others() -> None:
    for person in Simulator(300, 1, 8, center=(9.99, 53.55), timezone="Europe/Berlin", box_m=3_000):
        home, work, third = person.places
        for place in person.places:
            assert haversine_m(9.99, 53.55, place.lon, 53.55) <= 1_501
            assert haversine_m(9.99, 53.55, 9.99, place.lat) <= 1_501
        for a, b in itertools.combinations((home, work, third), 2):
            assert haversine_m(a.lon, a.lat, b.lon, b.lat) >= 390


def test_trips_chain_from_place_to_place_and_end_each_day_at_home() -> None:
    for person in Simulator(20, 3, 2):
        trips = person.trips
        assert trips[0].start.name == trips[-1].end.name == "home"
        assert all(a.end == b.start and a.end_ts + 1800 <= b.start_ts for a, b in itertools.pairwise(trips))


def test_a_path_joins_its_places_with_right_angled_turns_and_is_as_long_as_the_trip() -> None:
    for trip in Simulator(1, 7, 12).person(0).trips:
        assert trip.path[0] == (trip.start.lon, trip.start.lat)
        assert trip.path[-1] == (trip.end.lon, trip.end.lat)
        assert len(trip.path) >= 4
        assert all((a[0] == b[0]) != (a[1] == b[1]) for a, b in itertools.pairwise(trip.path))
        assert trip.distance_m == pytest.approx(sum(haversine_m(*a, *b) for a, b in itertools.pairwise(trip.path)))
        assert trip.distance_m > haversine_m(*trip.path[0], *trip.path[-1])


def test_the_same_way_is_taken_each_time_out_and_back() -> None:
    ways: dict[frozenset[str], set[tuple[tuple[float, float], ...]]] = {}
    for trip in Simulator(1, 14, 12).person(0).trips:
        out = (trip.start.name, trip.end.name) in {("home", "work"), ("home", "third"), ("work", "third")}
        ways.setdefault(frozenset((trip.start.name, trip.end.name)), set()).add(trip.path if out else trip.path[::-1])
    assert [len(paths) for paths in ways.values()] == [1, 1, 1]


def test_working_days_have_four_trips_and_free_days_two_or_four() -> None:
    zone = ZoneInfo("America/Los_Angeles")
    for person in Simulator(20, 7, 3):
        days = Counter(datetime.fromtimestamp(t.start_ts, zone).date() for t in person.trips)
        assert len(days) == 7
        assert all(n == 4 if day.weekday() < 5 else n in (2, 4) for day, n in days.items())


def test_the_mode_follows_the_distance_and_a_population_uses_all_of_them() -> None:
    trips = [trip for person in Simulator(100, 2, 3) for trip in person.trips]
    by_mode = {mode: sorted(t.distance_m for t in trips if t.mode is mode) for mode in Mode}
    walked, cycled, driven = (by_mode[m] for m in (Mode.WALKING, Mode.BICYCLING, Mode.IN_VEHICLE))
    assert walked[-1] <= 1_310
    assert 1_290 <= cycled[0] <= cycled[-1] <= 3_510
    assert driven[0] >= 3_490
    assert min(len(walked), len(cycled), len(driven)) > 0.1 * len(trips)


def test_the_truth_is_one_row_for_each_trip_of_everybody() -> None:
    simulator = Simulator(3, 2, 7)
    truth = simulator.truth()
    trips = [(p.name, k, t) for p in simulator for k, t in enumerate(p.trips)]
    assert list(truth.columns) == [
        *("user", "trip", "start_ts", "end_ts", "mode", "distance_m"),
        *("start_place", "end_place", "start_lon", "start_lat", "end_lon", "end_lat"),
    ]
    assert len(truth) == len(trips) == 24
    for row, (name, number, trip) in zip(truth.to_dict("records"), trips, strict=True):
        assert (row["user"], row["trip"], row["mode"]) == (name, number, trip.mode.value)
        assert (row["start_ts"], row["end_ts"], row["distance_m"]) == (trip.start_ts, trip.end_ts, trip.distance_m)
        assert (row["start_place"], row["start_lon"], row["start_lat"]) == (
            *(trip.start.name, trip.start.lon),
            trip.start.lat,
        )
        assert (row["end_place"], row["end_lon"], row["end_lat"]) == (trip.end.name, trip.end.lon, trip.end.lat)


def test_entries_are_made_anew_so_that_nobody_changes_anothers() -> None:
    person: Person = Simulator(1, 1, 1).person(0)
    first = person.entries()
    first[0]["data"] = {}
    assert person.entries()[0]["data"] != {}
