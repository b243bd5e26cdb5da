"""What every query is: a frozen value that says what a cloud computes, in which unit, and how much one person counts.

A query reads through the small `Reading` protocol, which the store implements, and answers whole numbers, its cells.
They come in parts; whatever the data, one person adds 0 to `cap` to each cell of a part and at most `total` to all of
them. Every cloud answers `slot_s` seconds after it was asked; one that cannot compute by then answers zeros. So
neither the answer's time nor its absence tells how much data there is. Pure. The queries are in `emlab.queries`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, NamedTuple, Protocol, TypeVar, cast

import msgspec

from emlab.errors import BadQuery
from emlab.polygon import width_m

LOCATION = "background/filtered_location"
MAX_TS = 1e11  # seconds; the year 5138. Anything later is milliseconds by mistake
MAX_CELLS = 4096
MIN_SLOT_S, MAX_SLOT_S = 0.05, 30.0
MAX_REGION_POINTS = 1000

Position = tuple[float, float]
Ring = tuple[Position, ...]
T = TypeVar("T")


class Move(NamedTuple):
    """What intake found that somebody travelled, from one place to another.

    Attributes:
        start_ts, end_ts: UTC seconds. duration_s: seconds. distance_m: metres. None of them is negative.
        mode: the name of a `Mode`, in which most of the distance was travelled; "UNKNOWN" if nothing tells.
        start, end: (longitude, latitude) in degrees.
        start_hour: 0..23 on the clocks of the place where it started; None if the result does not say.
    """

    start_ts: float
    end_ts: float
    distance_m: float
    duration_s: float
    mode: str
    start: Position
    end: Position
    start_hour: int | None


class Trip(Move):
    """One trip of the diary."""

    __slots__ = ()


class Section(Move):
    """The part of a trip that was travelled in one mode."""

    __slots__ = ()


class Reading(Protocol):
    """What a query may ask of a cloud's store.

    The interval of fixes has both its ends. A trip belongs to the one in which it starts, without its end: of two
    intervals that follow each other it is in one.
    """

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is an entry of this key in the time range and GeoJSON region."""

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterable[tuple[float, float, float]]:
        """(ts, longitude, latitude) of the entries of this key, by time."""

    def trips(self, *, start_ts: float, end_ts: float) -> Iterable[Trip]:
        """The trips with start_ts <= their start < end_ts, by it; malformed results are left out."""

    def sections(self, *, start_ts: float, end_ts: float) -> Iterable[Section]:
        """The sections with start_ts <= their start < end_ts, by it; malformed results are left out."""


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One or several polygons on the map: rings of (longitude, latitude) in degrees, the first and last point equal.

    Raises BadQuery: a ring is open or too short, a position is off the globe, the region has more than
    1000 points or spans half the globe or more.
    """

    polygons: tuple[tuple[Ring, ...], ...]

    def __post_init__(self) -> None:
        # floats alone, or a region of whole degrees would look different when it comes off the wire
        msgspec.structs.force_setattr(self, "polygons", _in_floats(self.polygons))
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
        return cls(_in_floats([coordinates] if kind == "Polygon" else coordinates))

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


def _in_floats(polygons: object) -> tuple[tuple[Ring, ...], ...]:
    try:
        return msgspec.convert(msgspec.to_builtins(polygons, enc_hook=plain), tuple[tuple[Ring, ...], ...])
    except (msgspec.ValidationError, TypeError) as exc:
        raise BadQuery(f"a region has polygons of rings of (longitude, latitude): {exc}") from exc


def plain(value: object) -> float:
    """A number of another library, such as numpy, as a float. Raises TypeError."""
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} is no number")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Cells of an answer that share unit, clamp and a share of the privacy loss.

    Attributes:
        name: what is counted, such as "users". unit: of the cells.
        labels: what each cell is about; a single empty one for a plain number.
        cap: one person adds 0 to so much to a cell. total: and at most so much to all cells together.
        share: of the query's privacy loss that is spent on this part, relative to the other parts' shares.
    """

    name: str
    unit: str
    cap: int
    total: int
    labels: tuple[str, ...] = ("",)
    share: int = 1

    @classmethod
    def number(cls, name: str, unit: str, cap: int, *, share: int = 1) -> Part:
        """A part that is one number."""
        return cls(name=name, unit=unit, cap=cap, total=cap, share=share)

    @property
    def sensitivity(self) -> int:
        """Most by which the cells together (sum of absolute changes) differ when one person is replaced by another.

        That person may have filled other cells, which is why several cells count twice.
        """
        return self.cap if len(self.labels) == 1 else min(2 * self.total, self.cap * len(self.labels))

    @property
    def sensitivity2(self) -> int:
        """Most by which the sum of the cells' squared changes grows then: for Gaussian noise.

        Source: for x and y without negatives, |x - y|^2 <= |x|^2 + |y|^2 <= cap * (sum of x + sum of y).
        """
        squares = self.cap * self.cap
        return squares if len(self.labels) == 1 else min(2 * self.total * self.cap, squares * len(self.labels))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A released number and the interval around it: of a cell, or of what follows from several."""

    value: float
    low: float
    high: float


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """The base of all queries. A query's fields are checked when it is made; see `emlab.queries` for how to write one.

    Attributes:
        unit: of what `summary` gives. slot_s: how long each cloud takes to answer, whatever its data.
    """

    unit: ClassVar[str] = ""
    slot_s: ClassVar[float] = 1.0

    @property
    def parts(self) -> tuple[Part, ...]:
        """What an answer consists of; at most MAX_CELLS cells in all."""
        raise NotImplementedError

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that it names, or of many alike the smallest: looked at before anything is spent."""
        return ()

    @property
    def side_m(self) -> float | None:
        """How wide the narrowest place is that the answer tells from others, in metres (see `polygon.width_m`).

        None if it tells of no place. A query that tells places apart which are none of its `regions`, such as the cells
        of a grid, says here how wide those are: owners permit only so much.
        """
        return min((width_m(polygon) for region in self.regions for polygon in region.polygons), default=None)

    @property
    def span_s(self) -> float | None:
        """How long the shortest time is that the answer tells from others, in seconds; None if that is not known.

        From the start to the end of what it looks at. A query that tells times apart within that, such as the hours of
        a day, says here how long those are, all days together: owners permit only so much.
        """
        start_ts, end_ts = (getattr(self, name, None) for name in ("start_ts", "end_ts"))
        return None if start_ts is None or end_ts is None else float(end_ts - start_ts)

    def contribution(self, data: Reading) -> Sequence[int]:
        """One person's cells, part after part, clamped. What the data lacks counts as zero; it never raises for it."""
        raise NotImplementedError

    def summary(self, cells: Sequence[Estimate]) -> Estimate | None:
        """The one number that the released cells give, such as a mean; None if they are what was asked for.

        The interval holds whenever those of the cells all do.
        """
        return cells[0] if len(cells) == 1 else None

    @property
    def sensitivity(self) -> int:
        """Most by which one person changes the answer, if that is a single number."""
        (part,) = self.parts
        return part.sensitivity


def check_times(query: Query) -> None:
    """The query's `start_ts` and `end_ts` are floats in order. Raises BadQuery."""
    for name in ("start_ts", "end_ts"):
        check_number(query, name, 0, MAX_TS, "UTC seconds")
    if query.end_ts < query.start_ts:  # type: ignore[attr-defined]
        raise BadQuery(f"end_ts is before start_ts: {query}")


def check_number(query: Query, name: str, low: float, high: float, what: str) -> None:
    """The query's field of this name is a float within low..high. Raises BadQuery, saying `what` it is."""
    value = getattr(query, name)
    if not _is_number(value, low, high):
        raise BadQuery(f"{name} is {what} within {low:g}..{high:g}, not {value!r}")
    msgspec.structs.force_setattr(query, name, float(value))


def check_whole(query: Query, name: str, low: int, high: int, what: str) -> None:
    """The query's field of this name is an int within low..high. Raises BadQuery, saying `what` it is."""
    value = getattr(query, name)
    if not _is_number(value, low, high) or value != int(value):
        raise BadQuery(f"{name} is {what} within {low}..{high}, not {value!r}")
    msgspec.structs.force_setattr(query, name, int(value))


def _is_number(value: object, low: float, high: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and low <= cast(float, value) <= high


def as_region(query: Query, name: str) -> None:
    """The query's field of this name is a Region or None; GeoJSON becomes one. Raises BadQuery."""
    value = getattr(query, name)
    if isinstance(value, Mapping):
        value = Region.from_geojson(value)
        msgspec.structs.force_setattr(query, name, value)
    if not (value is None or isinstance(value, Region)):
        raise BadQuery(f"{name} is a Region, GeoJSON or None, not {type(value).__name__}")


def cells(query: Query) -> int:
    """How many numbers an answer has."""
    return sum(len(part.labels) for part in query.parts)


def clamp(query: Query, values: Sequence[int]) -> tuple[int, ...]:
    """The values brought within what one person may contribute; those that come last lose what is too much.

    Raises ValueError: there are more or fewer of them than cells.
    """
    if len(values) != cells(query):
        raise ValueError(f"{len(values)} values for {cells(query)} cells")
    clamped: list[int] = []
    for part in query.parts:
        left = part.total
        for value in values[len(clamped) : len(clamped) + len(part.labels)]:
            clamped.append(max(0, min(value, part.cap, left)))
            left -= clamped[-1]
    return tuple(clamped)
