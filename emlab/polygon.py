"""Polygons on the map in plain Python: how wide they are, and whether a point lies in one. Imports geo only.

A polygon is its outer ring and then its holes; a ring is (longitude, latitude) in degrees, the last point being the
first again. Edges are straight on a map of degrees.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from emlab.geo import EARTH_RADIUS_M, haversine_m

Point = tuple[float, float]
Polygon = Sequence[Sequence[Point]]
Box = tuple[float, float, float, float]
Edge = tuple[float, float, float, float]
BORDER_M = 1.0
MARGIN_DEG = 2e-4


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

    It is 4 * area / outline, holes included: a narrow strip is about twice as wide as it is broad, however long. What
    may lie between an edge on the map and the great circle between its ends is no part of the area, because databases
    take the one or the other.
    """
    outer, *holes = polygon
    edges = [edge for ring in polygon for edge in itertools.pairwise(ring)]
    area = area_m2(outer) - sum(map(area_m2, holes)) - sum(_sliver_m2(*edge) for edge in edges)
    outline_m = sum(haversine_m(*one, *two) for one, two in edges)
    return 4 * area / outline_m if area > 0 else 0.0


def _sliver_m2(one: Point, two: Point) -> float:
    """No less area than lies between an edge on the map and the great circle between its ends, if it is not too long.

    Along a great circle the latitude curves by sin * cos of it, and by twice its tangent times the slope's square; the
    sliver is 1/12 of that times the cube of the longitude's change. The result is three times as much, which is more
    than enough for edges of up to 60 degrees; longer ones are nothing but sliver.
    """
    lons, lats = zip(one, two, strict=True)
    east, north = (math.radians(abs(a - b)) for a, b in (lons, lats))
    if east > math.pi / 3:
        return math.inf
    high, low = (math.radians(choose(map(abs, lats))) for choose in (max, min))
    curved = east * east * math.sin(high) * math.cos(low) + 2 * math.tan(high) * north * north
    return curved * east * math.cos(low) / 4 * EARTH_RADIUS_M * EARTH_RADIUS_M


def box_of(polygon: Polygon) -> Box:
    """West, south, east, north of its outer ring."""
    longitudes, latitudes = zip(*polygon[0], strict=True)
    return min(longitudes), min(latitudes), max(longitudes), max(latitudes)


def wider(box: Box) -> Box:
    """The box with some 20 m more on each side, as far as there is a map."""
    west, south, east, north = box
    return (
        max(-180.0, west - MARGIN_DEG),
        max(-90.0, south - MARGIN_DEG),
        min(180.0, east + MARGIN_DEG),
        min(90.0, north + MARGIN_DEG),
    )


def bent(box: Box) -> Box:
    """A box that has all of a box on the map also where edges are drawn on the sphere.

    An edge along a parallel is then a great circle, which lies nearer to the pole, by at most asin(tan^2(d / 4)) if it
    spans d: from tan(middle) = tan(latitude) / cos(d / 2).
    """
    west, south, east, north = wider(box)
    bulge = math.degrees(math.asin(min(1.0, math.tan(math.radians(east - west) / 4) ** 2)))
    return west, south - bulge, east, north + bulge


class Area:
    """Polygons on the map, made ready to be asked about many points.

    Args:
        polygons: no edge of them crosses the date line.
    """

    def __init__(self, polygons: Iterable[Polygon]) -> None:
        self._polygons = [(box_of(polygon), polygon, _edges(polygon)) for polygon in polygons]

    def holds(self, lon: float, lat: float) -> bool:
        """Whether the point lies in one of the polygons.

        A point on an edge belongs to what lies east or north of it: of polygons side by side exactly one holds it.
        """
        return any(_within(box, lon, lat) and _crosses(edges, lon, lat) for box, _, edges in self._polygons)

    def is_near(self, lon: float, lat: float) -> bool:
        """Whether the point lies in one of the polygons or within a metre of its border."""
        high = math.degrees(BORDER_M / EARTH_RADIUS_M)
        wide = high / max(math.cos(math.radians(lat)), 1e-9)
        return any(
            _within(box, lon, lat, wide, high) and (_crosses(edges, lon, lat) or _borders(polygon, lon, lat))
            for box, polygon, edges in self._polygons
        )


def _edges(polygon: Polygon) -> list[Edge]:
    """Each from south to north, so that two neighbours compute with the same."""
    pairs = (sorted(pair, key=_latitude) for ring in polygon for pair in itertools.pairwise(ring))
    return [(*start, *end) for start, end in pairs if start[1] < end[1]]


def _latitude(point: Point) -> float:
    return point[1]


def _within(box: Box, lon: float, lat: float, wide: float = 0.0, high: float = 0.0) -> bool:
    """Whether the point lies in the box, or beside it by at most so many degrees."""
    west, south, east, north = box
    return west - wide <= lon <= east + wide and south - high <= lat <= north + high


def _crosses(edges: Iterable[Edge], lon: float, lat: float) -> bool:
    """Whether a ray from the point to the west crosses an odd number of the edges.

    Source: Shimrat, "Algorithm 112: position of point relative to polygon" (1962).
    """
    odd = False
    for lon1, lat1, lon2, lat2 in edges:
        if lat1 <= lat < lat2 and lon1 + (lat - lat1) / (lat2 - lat1) * (lon2 - lon1) <= lon:
            odd = not odd
    return odd


def _borders(polygon: Polygon, lon: float, lat: float) -> bool:
    """Whether an edge passes within a metre of the point."""
    north = math.radians(1) * EARTH_RADIUS_M
    east = north * math.cos(math.radians(lat))
    around = ([((one_lon - lon) * east, (one_lat - lat) * north) for one_lon, one_lat in ring] for ring in polygon)
    return any(_distance(one, two) <= BORDER_M for ring in around for one, two in itertools.pairwise(ring))


def _distance(one: Point, two: Point) -> float:
    """From the origin to the segment between two points of a plane."""
    (x, y), (dx, dy) = one, (two[0] - one[0], two[1] - one[1])
    length2 = dx * dx + dy * dy
    along = 0.0 if length2 == 0 else min(1.0, max(0.0, -(x * dx + y * dy) / length2))
    return math.hypot(x + along * dx, y + along * dy)
