"""Ways through streets and the movement along them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.geo import haversine_m
from emlab.simulate.routes import PACES, mode_for, path_distance_m, shifted, street_distance_m, street_path, travel
from emlab.simulate.seeds import digest, stream
from emlab.simulate.truth import Mode, Place

A, B = Place("a", -122.30, 37.85), Place("b", -122.26, 37.88)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_a_path_has_the_turns_asked_for_and_never_goes_back(seed: int, turns: int) -> None:
    path = street_path(stream(seed, "path"), A, B, turns)
    assert len(path) == turns + 2
    assert (path[0], path[-1]) == ((A.lon, A.lat), (B.lon, B.lat))
    for (lon1, lat1), (lon2, lat2) in itertools.pairwise(path):
        assert lon2 >= lon1
        assert lat2 >= lat1
        assert (lon1 == lon2) != (lat1 == lat2)
    assert path_distance_m(path) == pytest.approx(street_distance_m(A, B), rel=1e-3)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from(list(Mode)))
def test_movement_follows_the_path_at_the_pace_of_its_mode(seed: int, mode: Mode) -> None:
    path = street_path(stream(seed, "path"), A, B, 3)
    knots = travel(stream(seed, "move"), path, mode, 1_000.0)
    slow, fast = PACES[mode].speed_mps
    assert knots[0].ts == 1_000.0
    assert [(k.lon, k.lat) for k in knots[1::2]] == list(path[1:])
    for a, b in itertools.pairwise(knots):
        gone_m, took_s = haversine_m(a.lon, a.lat, b.lon, b.lat), b.ts - a.ts
        if gone_m:
            assert slow * 0.89 < gone_m / took_s < fast * 1.11
        else:
            assert 0 <= took_s <= PACES[mode].wait_s + 0.001


def test_the_longer_the_way_the_faster_the_mode() -> None:
    assert [mode_for(d) for d in (0, 1_300, 1_301, 3_500, 3_501, 90_000)] == [
        *(Mode.WALKING, Mode.WALKING),
        *(Mode.BICYCLING, Mode.BICYCLING),
        *(Mode.IN_VEHICLE, Mode.IN_VEHICLE),
    ]


@pytest.mark.parametrize("lat", [-60.0, 0.0, 37.87, 80.0])
def test_a_shift_of_metres_is_that_many_metres(lat: float) -> None:
    assert haversine_m(10, lat, *shifted((10, lat), 1_000, 0)) == pytest.approx(1_000, rel=1e-3)
    assert haversine_m(10, lat, *shifted((10, lat), 0, -1_000)) == pytest.approx(1_000, rel=1e-9)


def test_streams_are_told_apart_by_their_words() -> None:
    assert digest(1, "a", 2) == digest(1, "a", 2)
    assert len({digest(1, "a", 2), digest(1, "a2"), digest(1, "a", "b"), digest(2, "a", 2), digest(12, "a")}) == 5
    assert stream(1, "x").random_sample() != stream(1, "y").random_sample()
