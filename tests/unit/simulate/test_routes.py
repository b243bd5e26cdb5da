"""Streets, buses and trains, and the routes through them."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.errors import ConfigError
from emlab.geo import haversine_m
from emlab.intake import modes
from emlab.simulate import CITIES, City, Mode, Simulator
from emlab.simulate.routes import make_route
from emlab.simulate.seeds import digest, pick, stream
from emlab.simulate.streets import Address, Lattice, Point
from emlab.simulate.transit import RIDE_M, WALK_M, best_ride

BAY = CITIES["bay"]
LATTICE = Lattice(BAY, BAY.center)
BLOCKS = st.integers(-60, 60)
ADDRESSES = st.builds(
    lambda i, j, offset, on_column: LATTICE.address((i * 100.0 + 50, j * 100.0 + offset), on_column=on_column),
    BLOCKS,
    BLOCKS,
    st.floats(0, 100),
    st.booleans(),
)


def length_m(path: list[Point]) -> float:
    return sum(abs(x1 - x0) + abs(y1 - y0) for (x0, y0), (x1, y1) in itertools.pairwise(path))


def on_a_street(a: Point, b: Point) -> bool:
    if a[0] == b[0]:
        return a[0] % 100 == 0
    return a[1] == b[1] and a[1] % 100 == 0


@settings(deadline=None, derandomize=True, max_examples=300)
@given(ADDRESSES, ADDRESSES, st.integers(0, 10_000), st.sampled_from([1, 5]))
def test_a_way_follows_streets_from_door_to_door_and_crosses_the_river_on_bridges(
    a: Address, b: Address, seed: int, every: int
) -> None:
    path = LATTICE.way(stream(seed, "way"), a, b, every=every)
    assert (path[0], path[-1]) == (LATTICE.point(a), LATTICE.point(b))
    assert all(on_a_street(p, q) or p == q for p, q in itertools.pairwise(path))
    assert BAY.river_row is not None
    river_m = (BAY.river_row + 0.5) * 100
    for (x0, y0), (_, y1) in itertools.pairwise(path):
        if min(y0, y1) < river_m < max(y0, y1):
            assert x0 % (100 * BAY.bridge_every) == 0


@settings(deadline=None, derandomize=True, max_examples=200)
@given(ADDRESSES, ADDRESSES, st.integers(0, 10_000), st.sampled_from([1, 5]))
def test_a_way_is_as_long_as_told(a: Address, b: Address, seed: int, every: int) -> None:
    path = LATTICE.way(stream(seed, "way"), a, b, every=every)
    assert length_m(path) == pytest.approx(LATTICE.way_m(a, b), abs=1e-6)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(ADDRESSES, ADDRESSES, st.integers(0, 10_000), st.sampled_from([Mode.WALKING, Mode.BICYCLING, Mode.CAR]))
def test_a_route_has_segments_that_join_and_its_own_length(a: Address, b: Address, seed: int, mode: Mode) -> None:
    if a == b:
        return
    route = make_route(LATTICE, stream(seed, "route"), mode, a, b)
    rows = route.segments
    assert (rows[1:, :2] == rows[:-1, 2:4]).all()
    assert (np.abs(rows[:, 2:4] - rows[:, :2]).sum(axis=1) > 0).all()
    assert rows[-1][10] == 1
    (path,), (metres,) = route.paths, route.distances_m
    assert metres == pytest.approx(sum(haversine_m(*p, *q) for p, q in itertools.pairwise(path)), rel=1e-5, abs=0.05)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(ADDRESSES, ADDRESSES, st.sampled_from([Mode.BUS, Mode.TRAIN]))
def test_a_ride_has_walks_and_lines_that_are_worth_it(a: Address, b: Address, mode: Mode) -> None:
    ride = best_ride(LATTICE, mode, a, b)
    if ride is None:
        return
    every, stops = (10, 5) if mode is Mode.BUS else (40, 20)
    for (i0, j0), (i1, j1) in itertools.pairwise(ride.nodes):
        assert (i0 == i1 and i0 % every == 0) or (j0 == j1 and j0 % every == 0)
    for i, j in (ride.nodes[0], ride.nodes[-1]):
        assert i % stops == j % stops == 0
    assert ride.ridden_m >= RIDE_M[mode]
    assert 2 * WALK_M[mode][0] <= ride.walked_m <= 2 * WALK_M[mode][1]
    route = make_route(LATTICE, stream(1, "ride"), mode, a, b)
    assert route.modes == (Mode.WALKING, mode, Mode.WALKING)


def test_without_trains_nobody_rides_one() -> None:
    town = CITIES["town"]
    far = Address(-20, 0, 30), Address(60, 40, 30)
    assert best_ride(Lattice(town, town.center), Mode.TRAIN, *far) is None


@pytest.mark.parametrize("name", CITIES)
def test_ways_in_a_city_are_longer_than_the_crow_flies_as_real_ones_are(name: str) -> None:
    # Real networks: 1.2 to 1.4 times the straight line, the more the shorter the way.
    trips = [trip for person in Simulator(25, 3, 4, city=name) for trip in person.trips]
    straight_m = sum(haversine_m(t.start.lon, t.start.lat, t.end.lon, t.end.lat) for t in trips)
    assert 1.15 < sum(t.distance_m for t in trips) / straight_m < 1.5


@pytest.mark.parametrize("name", CITIES)
def test_a_city_uses_every_mode_that_it_has(name: str) -> None:
    city = CITIES[name]
    used = {trip.mode for person in Simulator(150, 3, 4, city=name) for trip in person.trips}
    assert used >= {Mode.WALKING, Mode.BICYCLING, Mode.CAR}
    assert (Mode.BUS in used) == (city.bus > 0)
    assert (Mode.TRAIN in used) == (city.train > 0)


def test_rush_hours_slow_cars_down() -> None:
    at = {True: list[float](), False: list[float]()}
    for person in Simulator(60, 5, 4, timezone="UTC"):
        for trip in person.trips:
            if trip.mode is Mode.CAR:
                hour = trip.start_ts % 86_400 / 3600
                at[7.2 < hour < 9 or 16.2 < hour < 18].append(trip.distance_m / trip.duration_s)
    assert min(map(len, at.values())) > 40
    assert np.median(at[True]) < 0.95 * np.median(at[False])


@pytest.mark.parametrize("lat", [-60.0, 0.0, 37.87, 79.0])
def test_a_step_of_metres_is_that_many_metres(lat: float) -> None:
    lattice = Lattice(City("x", (10.0, lat), "UTC"), (10.0, lat))
    for point in (lattice.plane(1_000, 0), lattice.plane(0, -1_000)):
        assert haversine_m(10, lat, *lattice.lonlat(point)) == pytest.approx(1_000, rel=1e-3)
    assert math.isclose(lattice.lonlat(lattice.plane(0, 500))[0], 10.0, abs_tol=1e-7)


@pytest.mark.parametrize(
    "change",
    [{"block_m": 5.0}, {"turn": (1.0, 1.0)}, {"walk": 0.0}, {"car": -1.0}, {"walk_mps": 3.0}, {"centrality": 2.0}],
)
def test_a_city_that_nobody_could_live_in_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        City("x", (0.0, 0.0), "UTC", **change)  # type: ignore[arg-type]


def test_streams_are_told_apart_by_their_words() -> None:
    assert digest(1, "a", 2) == digest(1, "a", 2)
    assert len({digest(1, "a", 2), digest(1, "a2"), digest(1, "a", "b"), digest(2, "a", 2), digest(12, "a")}) == 5
    assert stream(1, "x").one() != stream(1, "y").one()


def test_a_pick_follows_the_weights_and_never_takes_what_weighs_nothing() -> None:
    chance = stream(1, "pick")
    picked = [pick(chance, [1, 0, 3]) for _ in range(2_000)]
    assert 1 not in picked
    assert abs(picked.count(2) / 2_000 - 0.75) < 0.05  # five standard deviations


@pytest.mark.parametrize("name", CITIES)
def test_every_ride_begins_and_ends_at_a_stop_of_the_networks_that_a_simulator_tells(name: str) -> None:
    simulator = Simulator(40, 3, 4, city=name)
    lines = modes.lines(simulator.lines())
    stops = {mode: set(zip(lon, lat, strict=True)) for mode, lon, lat in zip(*astuple(lines), strict=True)}
    assert set(stops) == {mode for mode, weight in ((Mode.BUS, 1), (Mode.TRAIN, CITIES[name].train)) if weight}
    rides = [s for p in simulator for trip in p.trips for s in trip.sections if s.mode in (Mode.BUS, Mode.TRAIN)]
    assert rides
    for ride in rides:
        assert {ride.path[0], ride.path[-1]} <= stops[ride.mode]
