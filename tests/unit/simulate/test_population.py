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
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from emlab.errors import ConfigError
from emlab.geo import haversine_m
from emlab.key import Key
from emlab.simulate import District, Kind, Mode, Person, Simulator
from emlab.simulate.households import SIZE_SHARES

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


@pytest.mark.parametrize("timezone", ["Mars/Olympus", "America", "../etc/passwd", "", 3])
def test_a_time_zone_that_the_host_does_not_know_is_refused(timezone: str) -> None:
    with pytest.raises(ConfigError, match="timezone"):
        Simulator(1, 1, 1, timezone=timezone)


@pytest.mark.parametrize("center", [(37.87, -122.27), (0, 90), (200, 0), (float("nan"), 0), (1,), "", (179.99, 0)])
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
    for person in Simulator(120, 1, 8, center=(9.99, 53.55), timezone="Europe/Berlin", box_m=3_000):
        for place in person.places:
            assert haversine_m(9.99, 53.55, place.lon, 53.55) <= 1_501
            assert haversine_m(9.99, 53.55, 9.99, place.lat) <= 1_501
        for a, b in itertools.combinations(person.places, 2):
            assert haversine_m(a.lon, a.lat, b.lon, b.lat) >= 345


def test_who_works_has_a_workplace_and_who_learns_a_school() -> None:
    names = {person.kind: {place.name for place in person.places} for person in Simulator(40, 1, 8)}
    assert set(names) == set(Kind)
    assert {"work", "lunch", "escort"} <= names[Kind.WORKER]
    assert "school" in names[Kind.STUDENT]
    assert names[Kind.OTHER] == {"home", "shop", "market", "leisure", "friend"}


def test_who_shares_a_household_shares_home_and_shops_and_nobody_else_does() -> None:
    people = [(p.index, p.household, p.places) for p in Simulator(90, 1, 4)]
    assert all(index in household for index, household, _ in people)
    for (_, household, places), (index, other_household, other_places) in itertools.combinations(people, 2):
        same = places[0] == other_places[0]
        assert same == (index in household) == (household == other_household)
        assert not same or places[1:3] == other_places[1:3]


def test_households_have_the_sizes_of_the_census() -> None:
    # About 460 households: the standard deviation of a share is at most 2.2 %, the mean's 0.06.
    houses = {person.household for person in Simulator(1_200, 1, 5)}
    sizes = Counter(map(len, houses))
    assert sum(sizes.values()) > 400
    for size, share in enumerate(SIZE_SHARES, start=1):
        assert abs(sizes[size] / len(houses) - share) < 0.08
    assert 2.1 < 1_200 / len(houses) < 2.7


@pytest.mark.parametrize(("workers", "students"), [(0.5, 0.22), (1.0, 0.0), (0.1, 0.6), (0.0, 0.0)])
def test_kinds_of_people_have_the_shares_asked_for(workers: float, students: float) -> None:
    # Of 600 people: the standard deviation of a share is at most 2.1 %.
    kinds = Counter(p.kind for p in Simulator(600, 1, 5, workers=workers, students=students))
    assert abs(kinds[Kind.WORKER] / 600 - workers) < 0.08
    assert abs(kinds[Kind.STUDENT] / 600 - students) < 0.08


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_phones_are_ios_in_the_share_asked_for(share: float) -> None:
    found = sum(p.platform == "ios" for p in Simulator(500, 1, 5, ios_share=share)) / 500
    assert abs(found - share) < 0.08  # four standard deviations
    assert share not in (0.0, 1.0) or found == share


@pytest.mark.parametrize("trips_per_day", [1.5, 2.3, 3.4, 4.5])
def test_people_make_about_the_trips_a_day_asked_for(trips_per_day: float) -> None:
    simulator = Simulator(40, 14, 5, trips_per_day=trips_per_day, workers=1 / 3, students=1 / 3)
    found = sum(len(person.trips) for person in simulator) / 40 / 14
    assert abs(found - trips_per_day) < 0.25


def test_everybody_leaves_home_on_the_first_day() -> None:
    zone = ZoneInfo("America/Los_Angeles")
    for person in Simulator(60, 1, 5, trips_per_day=1):
        assert datetime.fromtimestamp(person.trips[0].start_ts, zone).date().isoformat() == "2026-03-02"


@pytest.mark.parametrize(("homes", "works"), [(0.8, 0.1), (0.0, 1.0)])
def test_a_district_has_the_shares_of_homes_and_workplaces_asked_for(homes: float, works: float) -> None:
    district = District(-122.285, 37.86, -122.265, 37.875, homes=homes, works=works)
    people = list(Simulator(300, 1, 5, district=district))
    houses = {p.household: p.places[0] for p in people}
    found = sum(district.holds((home.lon, home.lat)) for home in houses.values()) / len(houses)
    assert abs(found - homes) < 0.16  # of about 120 households: four standard deviations
    at = [place for p in people for place in p.places if place.name == "work"]
    inside = sum(district.holds((place.lon, place.lat)) for place in at) / len(at)
    assert inside > 0.9 if works == 1 else inside < 0.45


@pytest.mark.parametrize(
    ("district", "match"),
    [
        (District(-122.28, 37.86, -122.279, 37.88), "800 m"),
        (District(-122.26, 37.86, -122.28, 37.88), "800 m"),
        (District(-122.34, 37.81, -122.20, 37.93), "70%"),
        (District(-122.40, 37.86, -122.38, 37.88), "within the box"),
        (District(-122.28, 37.86, float("nan"), 37.88), "degrees"),
        (District(-122.28, 37.86, -122.26, 37.88, homes=1.5), "homes"),
        ((-122.28, 37.86, -122.26, 37.88), "District"),
    ],
)
def test_a_district_that_holds_no_streets_or_all_is_refused(district: District, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Simulator(1, 1, 1, district=district)


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("trips_per_day", [0.5, 9, float("nan"), "3", True]),
        ("workers", [-0.1, 1.1, 0.9]),
        ("students", [2, None]),
        ("ios_share", [-1, "half"]),
        ("period_s", [1, 600]),
        ("noise", [-1, 6]),
        ("upload", ["daily", None, 3]),
        ("city", ["atlantis", 5, None]),
    ],
)
def test_a_knob_out_of_bounds_is_refused_by_name(argument: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ConfigError, match=argument):
            Simulator(1, 1, 1, **{argument: value})


def test_trips_chain_from_place_to_place_and_end_each_day_at_home() -> None:
    for person in Simulator(20, 3, 2):
        trips = person.trips
        assert trips[0].start.name == trips[-1].end.name == "home"
        assert all(a.end == b.start and a.end_ts + 1199 <= b.start_ts for a, b in itertools.pairwise(trips))


def test_a_path_joins_its_places_and_is_as_long_as_the_trip() -> None:
    for trip in (trip for person in Simulator(6, 7, 12) for trip in person.trips):
        assert trip.path[0] == (trip.start.lon, trip.start.lat)
        assert trip.path[-1] == (trip.end.lon, trip.end.lat)
        length_m = sum(haversine_m(*a, *b) for a, b in itertools.pairwise(trip.path))
        assert trip.distance_m == pytest.approx(length_m, rel=1e-5)
        assert trip.distance_m >= haversine_m(*trip.path[0], *trip.path[-1]) * 0.99999


def test_the_same_way_is_taken_each_time() -> None:
    ways: dict[tuple[str, str, Mode], set[tuple[tuple[float, float], ...]]] = {}
    for trip in Simulator(1, 28, 12).person(0).trips:
        ways.setdefault((trip.start.name, trip.end.name, trip.mode), set()).add(trip.path)
    assert {len(paths) for paths in ways.values()} == {1}


def test_a_vehicle_that_left_home_comes_back_home() -> None:
    for person in Simulator(40, 7, 3):
        away = None
        for trip in person.trips:
            if trip.start.name == "home":
                away = trip.mode
            if trip.mode in (Mode.CAR, Mode.BICYCLING):
                assert trip.mode is away
            if trip.end.name == "home" and away in (Mode.CAR, Mode.BICYCLING):
                assert trip.mode is away


def test_a_day_ends_before_four_in_the_morning_and_work_begins_in_the_morning() -> None:
    zone, hours = ZoneInfo("America/Los_Angeles"), list[int]()
    for trip in (trip for person in Simulator(60, 7, 3) for trip in person.trips):
        start, end = (datetime.fromtimestamp(ts, zone) for ts in (trip.start_ts, trip.end_ts))
        assert start.hour >= 5
        assert end.hour >= 5 or end.hour < 2
        if trip.purpose == "work" and trip.start.name == "home":
            hours.append(start.hour)
            assert start.weekday() < 5
    assert {7, 8} <= set(hours) <= {6, 7, 8, 9}


def test_the_truth_is_one_row_for_each_trip_of_everybody() -> None:
    simulator = Simulator(3, 2, 7)
    truth = simulator.truth()
    trips = [(p.name, k, t) for p in simulator for k, t in enumerate(p.trips)]
    assert list(truth.columns) == [
        *("user", "trip", "start_ts", "end_ts", "mode", "distance_m"),
        *("start_place", "end_place", "start_lon", "start_lat", "end_lon", "end_lat"),
        *("true_mode", "purpose", "sections"),
    ]
    assert len(truth) == len(trips)
    for row, (name, number, trip) in zip(truth.to_dict("records"), trips, strict=True):
        assert (row["user"], row["trip"], row["true_mode"]) == (name, number, trip.mode.name)
        assert row["mode"] in {"WALKING", "BICYCLING", "IN_VEHICLE"}
        assert (row["mode"] == "IN_VEHICLE") == (row["true_mode"] in {"CAR", "BUS", "TRAIN"})
        assert (row["start_ts"], row["end_ts"], row["distance_m"]) == (trip.start_ts, trip.end_ts, trip.distance_m)
        start = row["start_place"], row["start_lon"], row["start_lat"]
        assert start == (trip.start.name, trip.start.lon, trip.start.lat)
        assert (row["end_place"], row["end_lon"], row["end_lat"]) == (trip.end.name, trip.end.lon, trip.end.lat)
        assert (row["sections"], row["purpose"]) == (len(trip.sections), trip.purpose)


def test_the_true_sections_of_a_trip_add_up_to_it() -> None:
    simulator = Simulator(12, 7, 7)
    sections = simulator.truth_sections().groupby(["user", "trip"])
    for row in simulator.truth().to_dict("records"):
        mine = sections.get_group((row["user"], row["trip"]))
        assert mine["section"].tolist() == list(range(row["sections"]))
        assert (mine["start_ts"].iloc[0], mine["end_ts"].iloc[-1]) == (row["start_ts"], row["end_ts"])
        assert mine["distance_m"].sum() == pytest.approx(row["distance_m"], abs=0.01)
        assert row["true_mode"] in set(mine["true_mode"])
        assert (mine["start_ts"].iloc[1:].to_numpy() > mine["end_ts"].iloc[:-1].to_numpy()).all()
        if row["true_mode"] in {"BUS", "TRAIN"}:
            assert mine["true_mode"].tolist() == ["WALKING", row["true_mode"], "WALKING"]


def test_true_stays_lie_between_the_trips() -> None:
    simulator = Simulator(2, 3, 7)
    stays, truth = simulator.truth_stays(), simulator.truth()
    for name, mine in stays.groupby("user"):
        trips = truth[truth["user"] == name]
        assert mine["enter_ts"].iloc[1:].tolist() == trips["end_ts"].tolist()
        assert mine["exit_ts"].iloc[:-1].tolist() == trips["start_ts"].tolist()
        assert mine["place"].tolist() == ["home", *trips["end_place"]]
        assert np.isnan(mine["enter_ts"].iloc[0])
        assert np.isnan(mine["exit_ts"].iloc[-1])


def test_entries_are_made_anew_so_that_nobody_changes_anothers() -> None:
    person: Person = Simulator(1, 1, 1).person(0)
    first = person.entries()
    first[0]["data"] = {}
    assert person.entries()[0]["data"] != {}
