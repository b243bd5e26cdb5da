"""The simulator's own arithmetic against the mathematics that it stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.geo import haversine_m
from emlab.simulate.arithmetic import BINS, bearing, cosine, cosines, ground_m, growth, normal
from emlab.simulate.seeds import stream

COORDINATES = st.tuples(st.floats(-179, 179), st.floats(-80, 80))


def test_normal_numbers_have_the_moments_of_the_normal_law() -> None:
    # 200,000 numbers: the standard deviations of mean, variance and kurtosis are 0.0022, 0.0032, 0.011.
    z = normal(stream(1, "normal").table(200_000, 1))
    assert abs(z.mean()) < 0.012
    assert abs(z.var() - 1) < 0.02
    assert abs((z**4).mean() / z.var() ** 2 - 3) < 0.12
    assert np.abs(z).max() < 3.7


def test_normal_numbers_rise_with_the_uniform_ones_and_mirror_at_a_half() -> None:
    uniform = np.linspace(0, 1, 20_001)[:-1]
    z = normal(uniform)
    assert (np.diff(z) > 0).all()
    assert normal(np.array([0.5]))[0] == pytest.approx(0, abs=1e-6)
    assert np.allclose(z[1:], -normal(1 - uniform[1:])[:], atol=1e-9)


def test_no_quantile_is_so_near_to_a_tie_that_another_library_could_round_it_otherwise() -> None:
    from statistics import NormalDist

    scaled = [NormalDist().inv_cdf(max(k, 0.5) / BINS) * 1e6 for k in range(BINS // 2)]
    assert min(abs(value % 1 - 0.5) for value in scaled) > 1e-6


@given(st.floats(-3, 3))
def test_growth_is_about_the_exponential(x: float) -> None:
    assert growth(np.array([x]))[0] == pytest.approx(math.exp(x), rel=x * x / 2000 + 1e-12)


@given(st.floats(-90, 90))
def test_the_cosine_is_the_cosine(degrees: float) -> None:
    assert cosine(degrees) == pytest.approx(math.cos(math.radians(degrees)), abs=1e-12)
    assert cosines(np.array([degrees]))[0] == cosine(degrees)


@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_a_bearing_is_the_direction_from_north_by_east(east: float, north: float) -> None:
    if math.hypot(east, north) < 1e-6:
        return
    found = float(bearing(np.array([east]), np.array([north]))[0])
    assert 0 <= found < 360
    off = (found - math.degrees(math.atan2(east, north)) + 180) % 360 - 180
    assert abs(off) < 0.31


def test_no_step_has_the_bearing_zero() -> None:
    assert bearing(np.zeros(1), np.zeros(1))[0] == 0


@settings(max_examples=300)
@given(COORDINATES, st.floats(-0.05, 0.05), st.floats(-0.05, 0.05))
def test_metres_along_the_ground_are_those_of_the_great_circle(
    start: tuple[float, float], east: float, north: float
) -> None:
    lon, lat = start
    found = ground_m(np.array([lon, lon + east]), np.array([lat, lat + north]))[0]
    assert found == pytest.approx(haversine_m(lon, lat, lon + east, lat + north), rel=2e-5, abs=1e-3)
