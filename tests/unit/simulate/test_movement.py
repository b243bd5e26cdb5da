"""Movement in time: accelerating, cruising, braking and waiting along any route."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.simulate import CITIES, Mode
from emlab.simulate.movement import Movement, move
from emlab.simulate.routes import Route, make_route
from emlab.simulate.seeds import stream
from emlab.simulate.streets import Address, Lattice

BAY = CITIES["bay"]
LATTICE = Lattice(BAY, BAY.center)
ENDS = st.tuples(st.integers(-40, 40), st.integers(-40, 40))
MODES = st.sampled_from([Mode.WALKING, Mode.BICYCLING, Mode.CAR, Mode.BUS, Mode.TRAIN])


def route(seed: int, start: tuple[int, int], end: tuple[int, int], mode: Mode) -> Route:
    return make_route(LATTICE, stream(seed, "route"), mode, Address(*start, 37.5), Address(*end, 61.0, on_column=False))


def movement(seed: int, routes: list[Route]) -> Movement:
    count = sum(len(each.segments) for each in routes)
    ones = [1.0] * len(routes)
    return move(routes, ones, ones, stream(seed, "move").table(count, 3))


any_movement = given(st.integers(0, 10_000), ENDS, ENDS, MODES)
thorough = settings(deadline=None, derandomize=True, max_examples=150)


@thorough
@any_movement
def test_nobody_jumps_stands_still_for_ever_or_drives_backwards(
    seed: int, start: tuple[int, int], end: tuple[int, int], mode: Mode
) -> None:
    found = movement(seed, [route(seed, start, end, mode)])
    numbers = np.arange(len(found.length_m))
    assert (found.moves_s > 0).all()
    assert all((phase > -1e-9).all() for phase in found.phases_s)
    assert np.allclose(found.gone_m(numbers, np.zeros(len(numbers))), 0)
    assert np.allclose(found.gone_m(numbers, found.moves_s), found.length_m, atol=1e-6)
    for share in (0.1, 0.4, 0.7, 0.95):
        at_s = share * found.moves_s
        behind, before = found.gone_m(numbers, at_s), found.gone_m(numbers, at_s + 1e-3)
        assert (before >= behind - 1e-9).all()
        # The speed is what the position says: over a millisecond it changes by far less than 0.1 m/s.
        assert np.allclose((before - behind) / 1e-3, found.speed_mps(numbers, at_s), atol=0.1)


@thorough
@any_movement
def test_speed_is_the_same_on_both_sides_of_a_corner_and_zero_at_each_stop(
    seed: int, start: tuple[int, int], end: tuple[int, int], mode: Mode
) -> None:
    found = movement(seed, [route(seed, start, end, mode)])
    assert found.in_mps[0] == found.out_mps[-1] == 0
    assert (found.in_mps[1:] == found.out_mps[:-1]).all()
    assert (found.out_mps[found.wait_s > 0] == 0).all()
    assert (found.top_mps >= np.maximum(found.in_mps, found.out_mps)).all()


@thorough
@any_movement
def test_a_distance_is_reached_when_it_is_gone(
    seed: int, start: tuple[int, int], end: tuple[int, int], mode: Mode
) -> None:
    found = movement(seed, [route(seed, start, end, mode)])
    numbers = np.arange(len(found.length_m))
    for share in (0.0, 0.02, 0.3, 0.8, 0.999):
        reached_s = found.reached_s(numbers, share * found.length_m)
        assert np.allclose(found.gone_m(numbers, reached_s), share * found.length_m, atol=1e-5)


def test_a_journey_is_the_same_alone_and_before_others() -> None:
    routes = [route(k, (0, 0), (15 + k, 9), Mode.CAR) for k in range(3)]
    alone, together = movement(1, routes[:1]), movement(1, routes)
    assert alone.durations_s[0] == together.durations_s[0]
    assert (np.diff(together.first) == [len(each.segments) for each in routes]).all()


def test_accelerations_are_those_of_the_mode_but_on_the_shortest_stretches() -> None:
    routes = [route(k, (0, 0), (30, 20 + k), Mode.CAR) for k in range(20)]
    found = movement(1, routes)
    assert (found.up_mps2 == 1.6).mean() > 0.9
    assert found.up_mps2.max() < 8


@pytest.mark.parametrize(("mode", "least_mps", "most_mps"), [(Mode.WALKING, 1.1, 1.4), (Mode.CAR, 6.0, 13.0)])
def test_waiting_and_braking_slow_a_way_down_to_what_one_knows(mode: Mode, least_mps: float, most_mps: float) -> None:
    routes = [route(k, (0, 0), (22, 20 + k % 5), mode) for k in range(20)]
    found = movement(2, routes)
    for k, (first, after) in enumerate(itertools.pairwise(found.first)):
        assert least_mps < found.length_m[first:after].sum() / found.durations_s[k] < most_mps
