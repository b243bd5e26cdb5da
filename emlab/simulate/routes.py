"""Streets and the way along them: a path of a few right-angled turns, and when its traveller is where.

May import geo and truth; draws from the generators that it is given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlab.geo import EARTH_RADIUS_M, haversine_m
from emlab.simulate.truth import LonLat, Mode, Place, TrueTrip

if TYPE_CHECKING:
    from numpy.random import RandomState

METRES_PER_DEGREE = EARTH_RADIUS_M * math.pi / 180
WALK_UP_TO_M, BICYCLE_UP_TO_M = 1_300.0, 3_500.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a mode moves: metres per second and turns as (least, most), seconds waited at a corner as the most."""

    speed_mps: tuple[float, float]
    turns: tuple[int, int]
    wait_s: float


# e-mission's pipeline takes walking above 1.7 m/s for a bicycle, and a ride of less than five minutes for an error.
PACES: dict[Mode, Pace] = {
    Mode.WALKING: Pace((1.15, 1.5), (2, 4), 15.0),
    Mode.BICYCLING: Pace((3.6, 5.2), (2, 5), 20.0),
    Mode.IN_VEHICLE: Pace((7.5, 10.5), (3, 6), 45.0),
}


@dataclass(frozen=True, slots=True)
class Knot:
    """A moment at a corner; between two knots the traveller moves straight and evenly, or waits."""

    ts: float
    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class Journey:
    """A trip together with its movement in time."""

    trip: TrueTrip
    knots: tuple[Knot, ...]


def shifted(origin: LonLat, east_m: float, north_m: float) -> LonLat:
    """The point that lies that many metres east and north of `origin` (a plane: good to 0.1 % within 10 km)."""
    lon, lat = origin
    return lon + east_m / (METRES_PER_DEGREE * math.cos(math.radians(lat))), lat + north_m / METRES_PER_DEGREE


def street_distance_m(a: Place, b: Place) -> float:
    """Metres from place to place along streets that run north and east."""
    return haversine_m(a.lon, a.lat, b.lon, a.lat) + haversine_m(b.lon, a.lat, b.lon, b.lat)


def mode_for(distance_m: float) -> Mode:
    """How people of this simulator go that far: on foot, by bicycle or by car."""
    if distance_m <= WALK_UP_TO_M:
        return Mode.WALKING
    return Mode.BICYCLING if distance_m <= BICYCLE_UP_TO_M else Mode.IN_VEHICLE


def _cuts(chance: RandomState, parts: int) -> list[float]:
    """Rising numbers from 0 to 1 with `parts` gaps, none less than a third of another."""
    weights = [float(w) for w in chance.uniform(0.5, 1.5, parts)]
    inner = [sum(weights[:i]) / sum(weights) for i in range(1, parts)]
    return [0.0, *inner, 1.0]


def street_path(chance: RandomState, a: Place, b: Place, turns: int) -> tuple[LonLat, ...]:
    """A way from a to b with that many right-angled turns (1 or more); it never leaves the rectangle of the two."""
    legs = turns + 1
    east_first = chance.random_sample() < 0.5
    easts, norths = _cuts(chance, (legs + east_first) // 2), _cuts(chance, (legs + (not east_first)) // 2)
    e = n = 0
    path = [(a.lon, a.lat)]
    for leg in range(legs):
        if (leg % 2 == 0) == east_first:
            e += 1
        else:
            n += 1
        path.append((a.lon + (b.lon - a.lon) * easts[e], a.lat + (b.lat - a.lat) * norths[n]))
    return (*path[:-1], (b.lon, b.lat))


def path_distance_m(path: Sequence[LonLat]) -> float:
    """The length of a path along the ground, every corner counted, in metres."""
    return sum(haversine_m(*p, *q) for p, q in itertools.pairwise(path))


def travel(chance: RandomState, path: Sequence[LonLat], mode: Mode, start_ts: float) -> tuple[Knot, ...]:
    """The movement along `path` from `start_ts` on: one speed with 10 % of change from street to street, and waits."""
    pace = PACES[mode]
    speed_mps = chance.uniform(*pace.speed_mps)
    ts = start_ts
    knots = [Knot(ts, *path[0])]
    for here, there in itertools.pairwise(path):
        ts += haversine_m(*here, *there) / (speed_mps * chance.uniform(0.9, 1.1))
        knots.append(Knot(round(ts, 3), *there))
        ts += chance.uniform(0, pace.wait_s)
        knots.append(Knot(round(ts, 3), *there))
    return tuple(knots[:-1])


def journey(chance: RandomState, start: Place, end: Place, path: tuple[LonLat, ...], mode: Mode, ts: float) -> Journey:
    """One trip along `path`, begun at `ts`."""
    knots = travel(chance, path, mode, ts)
    trip = TrueTrip(knots[0].ts, knots[-1].ts, mode, path_distance_m(path), start, end, path)
    return Journey(trip, knots)
