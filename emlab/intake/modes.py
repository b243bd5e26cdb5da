"""How somebody travelled, from what the phone sensed, the speed and, if known, the lines nearby. Imports numpy.

The rules are e-mission's. Without lines, motorised is a car.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from emlab.entries.codes import Mode, Motion
from emlab.errors import ConfigError
from emlab.intake.cleaning import Leg
from emlab.intake.flipflop import BICYCLING_MPS, WALKING_MPS
from emlab.intake.sphere import Floats, distances_m

STOP_M = 150.0  # a section starts at a stop that is no farther away
RAIL = frozenset({Mode.TRAIN, Mode.SUBWAY, Mode.TRAM, Mode.LIGHT_RAIL})
_NAMES = {
    "bus": Mode.BUS,
    "trolleybus": Mode.BUS,
    "train": Mode.TRAIN,
    "rail": Mode.TRAIN,
    "railway": Mode.TRAIN,
    "monorail": Mode.TRAIN,
    "funicular": Mode.TRAIN,
    "subway": Mode.SUBWAY,
    "tram": Mode.TRAM,
    "light_rail": Mode.LIGHT_RAIL,
}


@dataclass(frozen=True, slots=True)
class Lines:
    """Public transport: the stops of each line, in degrees, and by what it runs."""

    modes: tuple[Mode, ...]
    lon: tuple[Floats, ...]
    lat: tuple[Floats, ...]


def lines(collection: Mapping[str, object]) -> Lines:
    """The lines of a GeoJSON FeatureCollection.

    Args:
        collection: each feature is a line: a LineString or MultiPoint whose positions are its stops, and a property
            `route` (as OpenStreetMap has it): bus, trolleybus, train, rail, railway, monorail, funicular, subway, tram
            or light_rail.
    Raises:
        ConfigError: it is none; says what is wrong.
    """
    features = collection.get("features")
    if collection.get("type") != "FeatureCollection" or not isinstance(features, list):
        raise ConfigError("lines are a GeoJSON FeatureCollection")
    read = [_line(feature, index) for index, feature in enumerate(features)]
    return Lines(*(tuple(column) for column in zip(*read, strict=True))) if read else Lines((), (), ())


def _line(feature: object, index: int) -> tuple[Mode, Floats, Floats]:
    parts = feature if isinstance(feature, dict) else {}
    geometry, properties = (parts.get(name) or {} for name in ("geometry", "properties"))
    route = properties.get("route") if isinstance(properties, dict) else None
    if not isinstance(route, str) or route not in _NAMES:
        raise ConfigError(f"line {index} needs a property `route`, one of {', '.join(_NAMES)}")
    if not isinstance(geometry, dict) or geometry.get("type") not in ("LineString", "MultiPoint"):
        raise ConfigError(f"line {index} needs a LineString or a MultiPoint of its stops")
    try:
        stops = np.array([stop[:2] for stop in cast("Sequence[Sequence[float]]", geometry["coordinates"])], dtype=float)
    except (KeyError, TypeError, ValueError):
        stops = np.empty((0, 2))
    if stops.ndim != 2 or stops.shape[0] < 2 or stops.shape[1] != 2 or not np.isfinite(stops).all():
        raise ConfigError(f"line {index} needs the positions of two stops or more")
    return _NAMES[route], stops[:, 0], stops[:, 1]


def inferred(leg: Leg, known: Lines | None) -> Mode:
    """The mode of a section."""
    if leg.kind == Motion.AIR_OR_HSR:
        return Mode.AIR_OR_HSR
    slow = not _median(leg.speeds) > WALKING_MPS
    if leg.kind == Motion.UNKNOWN:
        return _of_unknown(leg, known, slow=slow)
    if leg.kind != Motion.IN_VEHICLE:
        return Mode.WALKING if slow else Mode.BICYCLING
    return _by_line(leg, known) or Mode.CAR


def _of_unknown(leg: Leg, known: Lines | None, *, slow: bool) -> Mode:
    if leg.speeds and slow:
        return Mode.WALKING
    if leg.duration_s and not leg.distance_m / leg.duration_s > WALKING_MPS:
        return Mode.WALKING
    return (_by_line(leg, known) if leg.duration_s else None) or Mode.UNKNOWN


def _median(speeds: list[float]) -> float:
    return float(np.median(speeds)) if speeds else float("nan")


def _by_line(leg: Leg, known: Lines | None) -> Mode | None:
    """By what the line runs that stops at both ends; of several, a bus if it was slow."""
    if known is None:
        return None
    stopping = [
        mode
        for mode, lon, lat in zip(known.modes, known.lon, known.lat, strict=True)
        if _is_near(leg.start, lon, lat) and _is_near(leg.end, lon, lat)
    ]
    rails = [mode for mode in stopping if mode in RAIL]
    if not stopping or len(rails) == len(stopping):
        return rails[0] if rails else None
    slow = not _median(leg.speeds) > BICYCLING_MPS
    return Mode.BUS if slow or not rails else rails[0]


def _is_near(point: tuple[float, float], lon: Floats, lat: Floats) -> bool:
    lon1, lat1 = (np.full(len(lon), value) for value in point)
    return bool((distances_m(lon1, lat1, lon, lat) <= STOP_M).any())
