"""The distances of emlab.geo, against geometry that is known without them."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.geo import EARTH_RADIUS_M, haversine_m, path_length_m

DEGREE_M = EARTH_RADIUS_M * math.pi / 180
lons, lats = st.floats(-180, 180), st.floats(-90, 90)
points = st.tuples(lons, lats)


def track(*metres: tuple[float, float]) -> list[tuple[float, float]]:
    """Points at (east, north) metres from the null island, where a degree is equally long both ways."""
    return [(east / DEGREE_M, north / DEGREE_M) for east, north in metres]


def test_a_degree_of_latitude_is_a_360th_of_the_circumference() -> None:
    assert haversine_m(10, 50, 10, 51) == pytest.approx(111_195.08, abs=0.01)


def test_a_degree_of_longitude_shrinks_with_the_cosine_of_latitude() -> None:
    assert haversine_m(10, 60, 10.001, 60) == pytest.approx(DEGREE_M / 1000 / 2, rel=1e-6)


def test_berkeley_to_san_francisco_is_known() -> None:
    # Independent figure: the chord between the two unit vectors, turned into an arc.
    def unit(lon: float, lat: float) -> tuple[float, float, float]:
        a, b = math.radians(lon), math.radians(lat)
        return math.cos(b) * math.cos(a), math.cos(b) * math.sin(a), math.sin(b)

    chord = math.dist(unit(-122.2727, 37.8716), unit(-122.4194, 37.7749))
    assert haversine_m(-122.2727, 37.8716, -122.4194, 37.7749) == pytest.approx(
        2 * EARTH_RADIUS_M * math.asin(chord / 2), rel=1e-9
    )


def test_the_date_line_is_no_border() -> None:
    assert haversine_m(179.9, 0, -179.9, 0) == pytest.approx(0.2 * DEGREE_M)
    assert haversine_m(190, 10, -170, 10) == pytest.approx(0, abs=1e-6)


def test_antipodes_are_half_a_circumference_apart() -> None:
    assert haversine_m(0, 0, 180, 0) == pytest.approx(math.pi * EARTH_RADIUS_M)
    assert haversine_m(-30, 90, 77, -90) == pytest.approx(math.pi * EARTH_RADIUS_M)


@given(points, points)
def test_there_and_back_are_equally_long(a: tuple[float, float], b: tuple[float, float]) -> None:
    assert haversine_m(*a, *b) == pytest.approx(haversine_m(*b, *a), abs=1e-6)
    assert 0 <= haversine_m(*a, *b) <= math.pi * EARTH_RADIUS_M * (1 + 1e-12)


@given(points, points, points)
def test_a_detour_is_never_shorter(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> None:
    # 1 m of slack: near the antipode asin loses half the digits.
    assert haversine_m(*a, *c) <= haversine_m(*a, *b) + haversine_m(*b, *c) + 1


def test_no_point_and_one_point_have_no_length() -> None:
    assert path_length_m([]) == 0.0
    assert path_length_m(iter([(5.0, 5.0)])) == 0.0


def test_the_anchor_moves_only_when_a_point_is_a_step_away() -> None:
    # 0 -> 30 (nothing), 60 (adds 60), 100 (nothing), 120 (adds 60), then 30 m that are lost.
    assert path_length_m(track((0, 0), (30, 0), (60, 0), (100, 0), (120, 0), (150, 0))) == pytest.approx(120)


def test_a_point_exactly_a_step_away_counts() -> None:
    here, there = track((0, 0), (80, 0))
    assert path_length_m([here, there], step_m=haversine_m(*here, *there)) > 0


@given(st.lists(st.tuples(st.floats(-12, 12), st.floats(-12, 12)), max_size=80))
def test_a_phone_at_rest_adds_nothing(noise: list[tuple[float, float]]) -> None:
    # Any two points of this box are less than 34 m apart, as with errors of up to 17 m.
    assert path_length_m(track(*noise)) == 0.0


def test_rest_with_twenty_metres_of_noise_adds_nothing_where_the_plain_sum_adds_kilometres() -> None:
    rng = random.Random(7)
    angles = [rng.uniform(0, 2 * math.pi) for _ in range(500)]
    at_rest = track(*((20 * math.cos(a), 20 * math.sin(a)) for a in angles))
    assert path_length_m(at_rest) == 0.0
    assert path_length_m(at_rest, step_m=0) > 10_000


@given(st.floats(1, 5000), st.integers(1, 200), st.floats(0, 200))
def test_a_straight_noiseless_track_loses_less_than_one_step(length_m: float, hops: int, step_m: float) -> None:
    found_m = path_length_m(track(*((length_m * i / hops, 0) for i in range(hops + 1))), step_m=step_m)
    assert length_m - step_m - 1e-6 <= found_m <= length_m + 1e-6


@given(st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), max_size=50), st.floats(0, 200))
def test_it_is_never_longer_than_the_sum_of_all_hops(metres: list[tuple[float, float]], step_m: float) -> None:
    path = track(*metres)
    plain_m = sum(haversine_m(*a, *b) for a, b in itertools.pairwise(path))
    assert path_length_m(path, step_m=step_m) <= plain_m + 1e-6
    assert path_length_m(path, step_m=0) == pytest.approx(plain_m)


def test_a_corner_is_cut_by_less_than_its_detour() -> None:
    # East, then north, a point every 30 m: around the corner two anchors lie at most 50 * sqrt(2) + 30 m of path apart.
    walk = [(min(s, 1000.0), max(0.0, s - 1000.0)) for s in range(0, 1981, 30)]
    cut_m = (50 * math.sqrt(2) + 30) * (1 - math.sqrt(0.5))
    assert 1980 - 50 - cut_m < path_length_m(track(*walk)) < 1980


def test_noise_on_a_walk_adds_about_what_the_docstring_says() -> None:
    # 100 walks of 3 km with a point every 50 m and s = 5 m: the mean of 100 errors is 1.0 % with a standard error
    # of 0.05 %, so the bounds fail by chance with a probability below 1e-9.
    rng = random.Random(11)

    def walk_m() -> float:
        return path_length_m(track(*((60 * i + rng.gauss(0, 5), rng.gauss(0, 5)) for i in range(51))), step_m=25)

    mean_m = sum(walk_m() for _ in range(100)) / 100
    assert 3000 * (1 + 0.5 * 25 / 3600) < mean_m < 3000 * (1 + 2 * 25 / 3600)


@pytest.mark.parametrize("step_m", [-1.0, math.nan, math.inf])
def test_a_step_that_is_no_length_is_refused(step_m: float) -> None:
    with pytest.raises(ValueError, match="step_m"):
        path_length_m([(0.0, 0.0)], step_m=step_m)
