"""Queries: what may be computed in a cloud, as frozen values with unit, sensitivity and clamp. Pure.

A query reads through the small `Reading` protocol, which the store implements, and answers one integer in its
unit, already clamped: whatever the data, one person changes the sum by at most `sensitivity`. Every cloud answers
`slot_s` seconds after it was asked; one that cannot compute by then answers 0. So neither the answer's time nor
its absence tells how much data there is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol, TypeVar

import msgspec

from emlab.errors import BadQuery
from emlab.geo import path_length_m

MAX_TS = 1e11  # seconds; the year 5138. Anything later is milliseconds by mistake
MAX_CAP_M = 10_000_000
MAX_REGION_POINTS = 1000

Position = tuple[float, float]
Ring = tuple[Position, ...]
T = TypeVar("T")


class Reading(Protocol):
    """What a query may ask of a cloud's store."""

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is an entry of this key in the time range and GeoJSON region."""

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterable[tuple[float, float, float]]:
        """(ts, longitude, latitude) of the entries of this key, by time."""


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One or several polygons on the map: rings of (longitude, latitude) in degrees, the first and last point equal.

    Raises BadQuery: a ring is open or too short, a position is off the globe, the region has more than
    1000 points or spans half the globe or more.
    """

    polygons: tuple[tuple[Ring, ...], ...]

    def __post_init__(self) -> None:
        rings = [ring for polygon in self.polygons for ring in polygon]
        points = [point for ring in rings for point in ring]
        if not rings or not all(self.polygons):
            raise BadQuery("a region needs at least one polygon with an outer ring")
        if len(points) > MAX_REGION_POINTS:
            raise BadQuery(f"a region has at most {MAX_REGION_POINTS} points, not {len(points)}")
        if any(len(ring) < 4 or ring[0] != ring[-1] for ring in rings):
            raise BadQuery("each ring of a region has at least 4 points and ends where it began")
        if not all(-180 <= lon <= 180 and -90 <= lat <= 90 for lon, lat in points):
            raise BadQuery("a region's points are (longitude, latitude) within -180..180 and -90..90")
        longitudes = [lon for lon, _ in points]
        if max(longitudes) - min(longitudes) >= 180:
            raise BadQuery("a region spans less than 180 degrees of longitude; use None for everywhere")

    @classmethod
    def box(cls, west: float, south: float, east: float, north: float) -> Region:
        """The rectangle between these degrees."""
        if not (west < east and south < north):
            raise BadQuery(f"a box goes from west to east and from south to north, not {west, south, east, north}")
        ring = ((west, south), (east, south), (east, north), (west, north), (west, south))
        return cls(((ring,),))

    @classmethod
    def from_geojson(cls, shape: Mapping[str, object]) -> Region:
        """The region of a GeoJSON Polygon or MultiPolygon, or of e-mission's {"geometry": ...} around one."""
        inner = shape.get("geometry", shape) if isinstance(shape, Mapping) else shape
        kind = inner.get("type") if isinstance(inner, Mapping) else None
        if not isinstance(inner, Mapping) or kind not in ("Polygon", "MultiPolygon"):
            raise BadQuery(f"a region is a GeoJSON Polygon or MultiPolygon, not {kind or type(shape).__name__}")
        coordinates = inner.get("coordinates")
        return _convert({"polygons": [coordinates] if kind == "Polygon" else coordinates}, cls)

    def check(self) -> None:
        """Returns if the polygons make sense; for providers, before anybody is asked. Raises BadQuery."""
        import shapely
        from shapely.geometry import shape

        found = shape(self.geojson())
        if not found.is_valid:
            raise BadQuery(f"the region is not valid: {shapely.is_valid_reason(found)}")

    def geojson(self) -> dict[str, object]:
        """The same as a GeoJSON MultiPolygon."""
        return {
            "type": "MultiPolygon",
            "coordinates": [[[list(p) for p in ring] for ring in polygon] for polygon in self.polygons],
        }


def _convert(value: object, type_: type[T]) -> T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as exc:
        raise BadQuery(f"not a {type_.__name__}: {exc}") from exc


def _check_times(query: CountUsers | SumDistance) -> None:
    for name in ("start_ts", "end_ts"):
        value = getattr(query, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_TS:
            raise BadQuery(f"{name} is UTC seconds within 0..{MAX_TS:g}, not {value!r}")
        msgspec.structs.force_setattr(query, name, float(value))
    if query.end_ts < query.start_ts:
        raise BadQuery(f"end_ts {query.end_ts} is before start_ts {query.start_ts}")


class CountUsers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_users"):
    """How many people were in a region at any time of an interval.

    Each cloud answers 1 if it holds a `background/filtered_location` in the region and interval, else 0.

    Args:
        region: a Region (or GeoJSON); None is everywhere.
        start_ts, end_ts: UTC seconds, both included.
    Raises: BadQuery.
    """

    region: Region | None
    start_ts: float
    end_ts: float

    unit: ClassVar[str] = "users"
    sensitivity: ClassVar[int] = 1
    slot_s: ClassVar[float] = 0.25

    def __post_init__(self) -> None:
        if isinstance(self.region, Mapping):
            msgspec.structs.force_setattr(self, "region", Region.from_geojson(self.region))
        if not (self.region is None or isinstance(self.region, Region)):
            raise BadQuery(f"region is a Region, GeoJSON or None, not {type(self.region).__name__}")
        _check_times(self)

    def contribution(self, data: Reading) -> int:
        """0 or 1."""
        shape = None if self.region is None else self.region.geojson()
        return int(data.exists(LOCATION, start_ts=self.start_ts, end_ts=self.end_ts, region=shape))


class SumDistance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sum_distance"):
    """How many metres people travelled in an interval, each person counted up to `cap_m`.

    Each cloud answers the length of its `background/filtered_location` track in steps of at least 50 m (so that
    noise at rest adds nothing), rounded to metres and clamped to 0..cap_m.

    Args:
        start_ts, end_ts: UTC seconds, both included.
        cap_m: whole metres, 1..10,000,000; also the sensitivity, so a larger cap means more noise.
    Raises: BadQuery.
    """

    start_ts: float
    end_ts: float
    cap_m: int

    unit: ClassVar[str] = "metres"
    slot_s: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        _check_times(self)
        cap = self.cap_m
        if isinstance(cap, bool) or not isinstance(cap, (int, float)) or not 1 <= cap <= MAX_CAP_M or cap != int(cap):
            raise BadQuery(f"cap_m is a whole number of metres within 1..{MAX_CAP_M}, not {cap!r}")
        msgspec.structs.force_setattr(self, "cap_m", int(cap))

    @property
    def sensitivity(self) -> int:
        """Most metres by which one person can change the sum."""
        return self.cap_m

    def contribution(self, data: Reading) -> int:
        """Whole metres within 0..cap_m."""
        track = data.track(LOCATION, start_ts=self.start_ts, end_ts=self.end_ts)
        length_m = path_length_m((lon, lat) for _, lon, lat in track)
        return min(round(length_m), self.cap_m) if math.isfinite(length_m) else 0


LOCATION = "background/filtered_location"
Query = CountUsers | SumDistance


def clamp(query: Query, value: int) -> int:
    """`value` brought within what one person may contribute: 0..sensitivity."""
    return max(0, min(value, query.sensitivity))
