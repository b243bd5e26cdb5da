from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point, Polygon

from emlab.geo import EARTH_RADIUS_M
from emlab.polygon import area_m2, box_of, close_to, covers, width_m

M_PER_DEG = math.radians(1) * EARTH_RADIUS_M


def box(west: float, south: float, east: float, north: float) -> tuple[tuple[float, float], ...]:
    return ((west, south), (east, south), (east, north), (west, north), (west, south))


def square(side_m: float, lat: float = 0.0, lon: float = 0.0) -> tuple[tuple[float, float], ...]:
    high = side_m / M_PER_DEG
    wide = high / math.cos(math.radians(lat + high / 2))
    return box(lon, lat, lon + wide, lat + high)


@pytest.mark.parametrize("lat", [0.0, 37.0, 60.0, -60.0])
@pytest.mark.parametrize("side_m", [10.0, 500.0, 20_000.0])
def test_a_square_is_as_wide_as_its_side(lat: float, side_m: float) -> None:
    assert area_m2(square(side_m, lat)) == pytest.approx(side_m**2, rel=2e-3)
    assert width_m([square(side_m, lat)]) == pytest.approx(side_m, rel=2e-3)


def test_a_hemisphere_has_half_of_the_sphere_s_area() -> None:
    # a ring along the equator and back over the north pole; the edge at the pole has no length on the sphere
    ring = ((-180.0, 0.0), (0.0, 0.0), (180.0, 0.0), (180.0, 90.0), (-180.0, 90.0), (-180.0, 0.0))
    assert area_m2(ring) == pytest.approx(2 * math.pi * EARTH_RADIUS_M**2)


def test_a_strip_is_not_wide_however_long_it_is() -> None:
    for length_m in (1_000.0, 100_000.0):
        strip = box(0.0, 0.0, length_m / M_PER_DEG, 10 / M_PER_DEG)
        assert 19 < width_m([strip]) < 20


def test_holes_make_a_region_narrower() -> None:
    whole, hole = square(1_000.0), square(980.0, 10 / M_PER_DEG, 10 / M_PER_DEG)
    assert width_m([whole, hole]) < 50 < width_m([whole])
    assert width_m([hole, whole]) == 0.0


COORDINATE = st.floats(-0.01, 0.01)


@given(st.lists(st.tuples(COORDINATE, COORDINATE), min_size=3, max_size=8), st.tuples(COORDINATE, COORDINATE))
def test_points_lie_where_shapely_says_but_for_a_metre_at_the_border(
    corners: list[tuple[float, float]], point: tuple[float, float]
) -> None:
    ring = (*corners, corners[0])
    shape = Polygon(corners)
    if not shape.is_valid:
        return
    away_m = shape.exterior.distance(Point(point)) * M_PER_DEG  # at the equator degrees are alike
    if away_m > 1.01:
        assert covers([ring], point) is bool(shape.covers(Point(point)))
    elif away_m < 0.99:
        assert covers([ring], point)


def test_a_hole_is_outside_but_for_its_border() -> None:
    polygon = [square(1_000.0), square(100.0, 400 / M_PER_DEG, 400 / M_PER_DEG)]
    middle, border = 450 / M_PER_DEG, 400.5 / M_PER_DEG
    assert not covers(polygon, (middle, middle))
    assert covers(polygon, (border, middle))
    assert covers(polygon, (300 / M_PER_DEG, middle))


def test_a_box_is_close_to_what_is_within_a_metre_of_it() -> None:
    polygon = [square(100.0, 60.0)]
    west, south, east, north = box_of(polygon)
    step = 0.9 / M_PER_DEG
    for point in ((west - 2 * step, south), (east + 2 * step, north), (west, south - step), (east, north + step)):
        assert close_to((west, south, east, north), point)
    assert not close_to((west, south, east, north), (west, south - 2 * step))
    assert not close_to((west, south, east, north), (west - 3 * step, south))
