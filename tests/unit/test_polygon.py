from __future__ import annotations

import math
import random

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely import Point, Polygon

from emlab.geo import EARTH_RADIUS_M
from emlab.polygon import Area, area_m2, box_of, width_m

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
    assert width_m([square(side_m, lat)]) == pytest.approx(side_m, rel=3e-3)


def test_a_hemisphere_has_half_of_the_sphere_s_area() -> None:
    # a ring along the equator and back over the north pole; the edge at the pole has no length on the sphere
    ring = ((-180.0, 0.0), (0.0, 0.0), (180.0, 0.0), (180.0, 90.0), (-180.0, 90.0), (-180.0, 0.0))
    assert area_m2(ring) == pytest.approx(2 * math.pi * EARTH_RADIUS_M**2)


def test_a_strip_is_not_wide_however_long_it_is() -> None:
    for length_m in (1_000.0, 100_000.0):
        strip = box(0.0, 0.0, length_m / M_PER_DEG, 10 / M_PER_DEG)
        assert 19 < width_m([strip]) < 20


def along_great_circle(lat: float, lon: float) -> float:
    """The latitude at `lon` of the great circle through (-1, lat) and (1, lat)."""
    tangent = math.tan(math.radians(lat)) * math.cos(math.radians(lon)) / math.cos(math.radians(1.0))
    return math.degrees(math.atan(tangent))


@pytest.mark.parametrize("lat", [-52.0, 5.0, 52.0, 75.0])
def test_a_strip_that_is_wide_on_the_map_only_is_not_wide(lat: float) -> None:
    """Its long edge is a parallel on the map, and where regions are made of great circles 6 m beside its other side."""
    offset, lons = math.copysign(6 / M_PER_DEG, lat), [1 - number / 100 for number in range(201)]
    bulge = [(lon, along_great_circle(lat, lon) + offset) for lon in lons]
    ring = ((-1.0, lat), (1.0, lat), *bulge, (-1.0, lat))
    assert width_m([ring]) < 25


def test_a_country_is_about_as_wide_as_it_was_drawn() -> None:
    assert width_m([box(6.0, 47.0, 15.0, 55.0)]) == pytest.approx(720_000, rel=0.05)


def test_an_edge_over_a_sixth_of_the_earth_is_no_border() -> None:
    assert width_m([box(-170.0, -10.0, 170.0, 10.0)]) == 0.0


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
        assert Area([[ring]]).is_near(*point) is bool(shape.covers(Point(point)))
    elif away_m < 0.99:
        assert Area([[ring]]).is_near(*point)


def test_a_hole_is_outside_but_for_its_border() -> None:
    polygon = [square(1_000.0), square(100.0, 400 / M_PER_DEG, 400 / M_PER_DEG)]
    middle, border = 450 / M_PER_DEG, 400.5 / M_PER_DEG
    area = Area([polygon])
    assert not area.is_near(middle, middle)
    assert area.is_near(border, middle)
    assert area.is_near(300 / M_PER_DEG, middle)


def test_near_is_what_is_within_a_metre_wherever_degrees_are_narrow() -> None:
    polygon = [square(100.0, 60.0)]
    area, (west, south, east, north) = Area([polygon]), box_of(polygon)
    step = 0.9 / M_PER_DEG
    for point in ((west - 2 * step, south), (east + 2 * step, north), (west, south - step), (east, north + step)):
        assert area.is_near(*point) is not area.holds(*point)
    assert not area.is_near(west, south - 2 * step)
    assert not area.is_near(west - 3 * step, south)


coordinates = st.floats(-2, 2, allow_subnormal=False) | st.integers(-2, 2).map(float)
corners = st.tuples(coordinates, coordinates)


def star(radii: list[float], scale: float = 1.0) -> list[tuple[float, float]]:
    """A ring around the null island with corners so far from it, in equal angles."""
    angles = [2 * math.pi * number / len(radii) for number in range(len(radii))]
    ring = [
        (scale * radius * math.cos(angle), scale * radius * math.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]
    return [*ring, ring[0]]


@pytest.mark.parametrize("hollow", [False, True])
@given(radii=st.lists(st.floats(0.2, 2), min_size=3, max_size=9), asked=st.lists(corners, min_size=1, max_size=20))
def test_what_an_area_holds_is_what_shapely_says(
    hollow: bool,
    radii: list[float],
    asked: list[tuple[float, float]],
) -> None:
    rings = [star(radii), star(radii, 0.4)] if hollow else [star(radii)]
    expected = shapely.Polygon(rings[0], rings[1:])
    area = Area([rings])
    for point in map(shapely.Point, asked):
        if expected.boundary.distance(point) > 1e-9:
            assert area.holds(point.x, point.y) == expected.contains(point)


@given(
    st.lists(coordinates, min_size=3, max_size=6, unique=True),
    st.lists(corners, min_size=1, max_size=20),
    st.integers(0, 5),
)
def test_each_point_of_two_areas_side_by_side_is_in_one(
    heights: list[float], asked: list[tuple[float, float]], seed: int
) -> None:
    north_south = sorted(heights)
    chance = random.Random(seed)
    border = [(chance.uniform(-1, 1), lat) for lat in north_south]
    west = Area([[[(-3.0, border[0][1]), *border, (-3.0, border[-1][1]), (-3.0, border[0][1])]]])
    east = Area([[[(3.0, border[-1][1]), *reversed(border), (3.0, border[0][1]), (3.0, border[-1][1])]]])
    for lon, lat in [*asked, *border[:-1]]:
        if north_south[0] <= lat < north_south[-1]:
            assert west.holds(lon, lat) + east.holds(lon, lat) == 1


def test_a_box_holds_its_west_and_south_edge_and_not_the_others() -> None:
    box = Area([[[(0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (0.0, 1.0), (0.0, 0.0)]]])
    assert box.holds(0.0, 0.0)
    assert box.holds(0.0, 0.5)
    assert box.holds(1.0, 0.0)
    assert not any(box.holds(*point) for point in [(2.0, 0.5), (1.0, 1.0), (2.0, 1.0), (-0.1, 0.5), (1.0, -0.1)])


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_no_area_holds_what_is_nowhere(strange: float) -> None:
    box = Area([[[(0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (0.0, 1.0), (0.0, 0.0)]]])
    assert not box.holds(strange, 0.5)
    assert not box.holds(0.5, strange)


def test_polygons_that_overlap_hold_what_both_have() -> None:
    box = [[(0.0, 0.0), (2.0, 0.0), (2.0, 1.0), (0.0, 1.0), (0.0, 0.0)]]
    assert Area([box, box]).holds(1.0, 0.5)
