"""Zones: named regions that divide a map. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from emlab.errors import BadQuery
from emlab.polygon import Area
from emlab.query import Position, Query, Region

MAX_ZONES = 60  # 3600 pairs, of the 4096 cells that an answer may have
MAX_POINTS = 10_000  # of all zones together
MAX_NAME = 64


class Zone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A region with a name of 1 to 64 printable characters. Raises BadQuery."""

    name: str
    region: Region

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable() or " > " in name:
            raise BadQuery(f"a zone's name has 1 to {MAX_NAME} printable characters and no ' > ', unlike {name!r:.80}")
        if not isinstance(self.region, Region):
            raise BadQuery(f"zone {self.name} has a Region, not {type(self.region).__name__}")


def as_zones(query: Query, name: str) -> None:
    """The query's field of this name is a tuple of 2 to 60 zones with different names; raises BadQuery.

    A mapping from names to Regions or GeoJSON becomes one.
    """
    value = getattr(query, name)
    if not isinstance(value, (Mapping, list, tuple)) or not 2 <= len(value) <= MAX_ZONES:
        raise BadQuery(f"{name} has 2 to {MAX_ZONES} named regions")
    zones = [_zone(*item) for item in value.items()] if isinstance(value, Mapping) else value
    if not all(isinstance(zone, Zone) for zone in zones):
        raise BadQuery(f"{name} is a mapping from names to regions, or a list of zones")
    if len({zone.name for zone in zones}) < len(zones):
        raise BadQuery(f"two of the {name} have the same name")
    if sum(len(ring) for zone in zones for polygon in zone.region.polygons for ring in polygon) > MAX_POINTS:
        raise BadQuery(f"the {name} have at most {MAX_POINTS} points together")
    msgspec.structs.force_setattr(query, name, tuple(zones))


def _zone(name: str, region: Region | Mapping[str, object]) -> Zone:
    return Zone(name, Region.from_geojson(region) if isinstance(region, Mapping) else region)


class Zoning:
    """Zones made ready to be asked about many positions."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self._areas = [Area(zone.region.polygons) for zone in zones]

    def number(self, position: Position) -> int | None:
        """Which zone the position is in: the first of those that hold it, None if none does."""
        return next((number for number, area in enumerate(self._areas) if area.holds(*position)), None)
