"""A region as a query of mongod. Imports emlab polygon.

Edges are straight on the map of degrees, as everywhere in emlab: that is `$polygon`, which no index helps. mongod's
indexes know the sphere, where an edge is a great circle; they find what lies around a polygon that is not too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from emlab.polygon import Box, Polygon, bent, box_of

WIDE_DEG, HIGH_DEG = 60.0, 85.0
Query = dict[str, object]


def lies_in(region: Mapping[str, object]) -> Query:
    """The query for documents whose data.loc lies in a GeoJSON Polygon or MultiPolygon that is valid."""
    found = cast("list[Polygon]", [region["coordinates"]] if region["type"] == "Polygon" else region["coordinates"])
    inside = [_inside(polygon) for polygon in found]
    return inside[0] if len(inside) == 1 else {"$or": inside}


def _inside(polygon: Polygon) -> Query:
    outer, *holes = ({"$polygon": [list(point) for point in ring[:-1]]} for ring in polygon)
    query: Query = {"$and": [_within(outer), *_nearby(box_of(polygon))]}
    if holes:
        query["$nor"] = [_within(hole) for hole in holes]
    return query


def _nearby(box: Box) -> list[Query]:
    """What an index can look up of it, in none or one query."""
    west, south, east, north = around = bent(box)
    if east - west > WIDE_DEG or max(-south, north) > HIGH_DEG:
        return []
    return [_within({"$geometry": {"type": "Polygon", "coordinates": [_ring(around)]}})]


def _ring(box: Box) -> Sequence[Sequence[float]]:
    west, south, east, north = box
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def _within(shape: Mapping[str, object]) -> Query:
    return {"data.loc": {"$geoWithin": shape}}
