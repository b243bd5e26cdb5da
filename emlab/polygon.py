"""Polygons on the map in plain Python: how wide they are, and whether a point lies in one. Imports geo only.

A polygon is its outer ring and then its holes; a ring is (longitude, latitude) in degrees, the last point being the
first again. Edges are straight on a map of degrees.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from emlab.geo import EARTH_RADIUS_M, haversine_m

Point = tuple[float, float]
Polygon = Sequence[Sequence[Point]]
Box = tuple[float, float, float, float]
BORDER_M = 1.0


def area_m2(ring: Sequence[Point]) -> float:
    """The area inside a ring, in square metres, whichever way it goes round.

    Source: Chamberlain, Duquette, "Some Algorithms for Polygons on a Sphere", JPL Publication 07-03 (2007).
    """
    sides = itertools.pairwise(ring)
    doubled = sum(
        math.radians(lon2 - lon1) * (math.sin(math.radians(lat1)) + math.sin(math.radians(lat2)))
        for (lon1, lat1), (lon2, lat2) in sides
    )
    return abs(doubled) / 2 * EARTH_RADIUS_M * EARTH_RADIUS_M


def width_m(polygon: Polygon) -> float:
    """The side of the square that has as much area for its outline as the polygon, in metres.

    It is 4 * area / outline, holes included: a narrow strip is about twice as wide as it is broad, however long.
    """
    outer, *holes = polygon
    area = area_m2(outer) - sum(map(area_m2, holes))
    outline_m = sum(haversine_m(*one, *two) for ring in polygon for one, two in itertools.pairwise(ring))
    return 4 * area / outline_m if area > 0 else 0.0


def box_of(polygon: Polygon) -> Box:
    """West, south, east, north of its outer ring."""
    longitudes, latitudes = zip(*polygon[0], strict=True)
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def close_to(box: Box, point: Point) -> bool:
    """Whether the point lies in the box or within a metre of it."""
    west, south, east, north = box
    high = math.degrees(BORDER_M / EARTH_RADIUS_M)
    wide = high / max(math.cos(math.radians(point[1])), 1e-9)
    return west - wide <= point[0] <= east + wide and south - high <= point[1] <= north + high


def covers(polygon: Polygon, point: Point) -> bool:
    """Whether the point lies in the polygon or within a metre of its border."""
    if any(_nearby(ring, point) for ring in polygon):
        return True
    outer, *holes = polygon
    return _inside(outer, point) and not any(_inside(hole, point) for hole in holes)


def _inside(ring: Sequence[Point], point: Point) -> bool:
    """Whether a ray to the east crosses the ring an odd number of times."""
    lon, lat = point
    odd = False
    for (lon1, lat1), (lon2, lat2) in itertools.pairwise(ring):
        if (lat1 > lat) != (lat2 > lat) and lon < lon1 + (lat - lat1) * (lon2 - lon1) / (lat2 - lat1):
            odd = not odd
    return odd


def _nearby(ring: Sequence[Point], point: Point) -> bool:
    """Whether an edge passes within a metre of the point."""
    lon, lat = point
    north = math.radians(1) * EARTH_RADIUS_M
    east = north * math.cos(math.radians(lat))
    around = [((one_lon - lon) * east, (one_lat - lat) * north) for one_lon, one_lat in ring]
    return any(_distance(one, two) <= BORDER_M for one, two in itertools.pairwise(around))


def _distance(one: Point, two: Point) -> float:
    """From the origin to the segment between two points of a plane."""
    (x, y), (dx, dy) = one, (two[0] - one[0], two[1] - one[1])
    length2 = dx * dx + dy * dy
    along = 0.0 if length2 == 0 else min(1.0, max(0.0, -(x * dx + y * dy) / length2))
    return math.hypot(x + along * dx, y + along * dy)
