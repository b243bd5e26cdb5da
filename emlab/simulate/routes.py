"""Routes: a trip's legs, each in one mode, as segments from stop to stop with the speeds that are usual there.

May import arithmetic, city, streets, transit and truth; draws from the generators that it is given; imports numpy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlab.entries.codes import Mode
from emlab.simulate.arithmetic import ground_m
from emlab.simulate.seeds import Stream
from emlab.simulate.streets import Address, Lattice, Point
from emlab.simulate.transit import best_ride
from emlab.simulate.truth import LonLat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Columns of a route's segments: from where to where (metres of the lattice), cruising speed and acceleration, the
# chance of a stop at its end and how long it lasts, the speed of passing without a stop, whether a leg ends there,
# whether it lies in a tunnel, the mode.
COLUMNS = (
    *("x0", "y0", "x1", "y1", "cruise_mps", "accel_mps2"),
    *("stop_share", "least_wait_s", "most_wait_s", "pass_mps", "ends_leg", "is_tunnel", "mode"),
)
BOARDING_S = (25.0, 140.0)  # e-mission takes five minutes in one place for the end of a trip
TUNNEL_M = 1_200.0  # trains run underground within this distance from the center, in each direction


@dataclass(frozen=True, slots=True)
class Gait:
    """How a mode moves: acceleration, chance and seconds of a stop at a crossing or stop, speed through a corner.

    Chosen; accelerations are those of comfort in vehicles (cars 1 to 2 m/s², buses about 1, trains 0.5 to 0.8).
    """

    accel_mps2: float
    stop_share: float
    wait_s: tuple[float, float]
    pass_mps: float


GAITS = {
    Mode.WALKING: Gait(1.5, 0.25, (3.0, 25.0), 2.0),
    Mode.BICYCLING: Gait(0.8, 0.30, (4.0, 30.0), 3.2),
    Mode.CAR: Gait(1.6, 0.35, (5.0, 45.0), 5.0),
    Mode.BUS: Gait(1.0, 0.75, (8.0, 25.0), 4.5),
    Mode.TRAIN: Gait(0.7, 1.00, (20.0, 40.0), 8.0),
}


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """The way of a trip.

    Attributes:
        modes, paths, distances_m: of each leg; points as (longitude, latitude).
        segments: a row for each stretch between two possible stops, in COLUMNS.
    """

    modes: tuple[Mode, ...]
    paths: tuple[tuple[LonLat, ...], ...]
    distances_m: tuple[float, ...]
    segments: Floats


def make_route(lattice: Lattice, chance: Stream, mode: Mode, a: Address, b: Address) -> Route:
    """A way from a to b by that mode; by bus and train with the ways on foot to the first stop and from the last.

    Where no ride is worth it, a bus or train is a car.
    """
    ride = best_ride(lattice, mode, a, b) if mode in (Mode.BUS, Mode.TRAIN) else None
    if ride is None:
        legs = [(mode, _broken(lattice, _way(lattice, chance, mode, a, b), mode))]
    else:
        first, last = Address(*ride.nodes[0]), Address(*ride.nodes[-1])
        on_board = [(i * lattice.city.block_m, j * lattice.city.block_m) for i, j in ride.nodes]
        walks = (_way(lattice, chance, Mode.WALKING, p, q) for p, q in ((a, first), (last, b)))
        access, egress = (_broken(lattice, walk, Mode.WALKING) for walk in walks)
        legs = [(Mode.WALKING, access), (mode, _broken(lattice, on_board, mode)), (Mode.WALKING, egress)]
    return _route(lattice, legs)


def _way(lattice: Lattice, chance: Stream, mode: Mode, a: Address, b: Address) -> list[Point]:
    every = lattice.city.arterial_every if mode in (Mode.CAR, Mode.BUS, Mode.TRAIN) else 1
    return lattice.way(chance, a, b, every=every, turns=4 if every > 1 else 6)


def _broken(lattice: Lattice, path: Sequence[Point], mode: Mode) -> list[Point]:
    """The same way with a point wherever one may have to stop: at arterials, bus stops, stations."""
    city = lattice.city
    every = {Mode.BUS: city.bus_stop_every, Mode.TRAIN: city.station_every}.get(mode, city.arterial_every)
    step_m = every * city.block_m
    points = [path[0]]
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        points += [(x0, y) for y in _marks(y0, y1, step_m)] if x0 == x1 else [(x, y0) for x in _marks(x0, x1, step_m)]
        points.append((x1, y1))
    return points


def _marks(a: float, b: float, step: float) -> list[float]:
    """The multiples of `step` between a and b, not within 15 m of either, as one meets them."""
    low, high = min(a, b), max(a, b)
    first = int(low // step)
    marks = [k * step for k in range(first, first + int((high - low) // step) + 2)]
    marks = [mark for mark in marks if low + 15 < mark < high - 15]
    return marks if a < b else marks[::-1]


def _route(lattice: Lattice, legs: Sequence[tuple[Mode, list[Point]]]) -> Route:
    import numpy as np

    rows: list[tuple[float, ...]] = []
    for number, (mode, points) in enumerate(legs):
        rows += _segments(lattice, mode, points, boards=number + 1 < len(legs) and legs[number + 1][0])
    paths = tuple(tuple(lattice.lonlat(point) for point in points) for _, points in legs)
    lengths = [ground_m(*np.array(path).T) for path in paths]
    metres = tuple(round(float(np.cumsum(each)[-1]), 3) for each in lengths)
    return Route(tuple(mode for mode, _ in legs), paths, metres, np.array(rows))


def _segments(lattice: Lattice, mode: Mode, points: Sequence[Point], *, boards: Mode | bool) -> list[tuple[float, ...]]:
    """A leg's rows. At its end one waits to board, or steps off and walks on."""
    gait = GAITS[mode]
    rows: list[tuple[float, ...]] = []
    last = len(points) - 2
    for k, ((x0, y0), (x1, y1)) in enumerate(itertools.pairwise(points)):
        corner = k < last and (x0 == x1) != (x1 == points[k + 2][0])
        wait, share, slow = gait.wait_s, gait.stop_share, gait.pass_mps if corner else 99.0
        if corner and mode in (Mode.BUS, Mode.TRAIN):  # one changes to the line that crosses here
            wait, share = BOARDING_S, 1.0
        if k == last:
            wait, share = (BOARDING_S if boards in (Mode.BUS, Mode.TRAIN) else (2.0, 8.0)), 1.0
            wait = wait if boards else (0.0, 0.0)
        tunnel = mode is Mode.TRAIN and max(abs(x0 + x1), abs(y0 + y1)) < 2 * TUNNEL_M
        speed = _cruise_mps(lattice, mode, x0 if x0 == x1 else y0)
        rows.append((x0, y0, x1, y1, speed, gait.accel_mps2, share, *wait, slow, k == last, tunnel, mode))
    return rows


def _cruise_mps(lattice: Lattice, mode: Mode, line_m: float) -> float:
    """The usual speed of a mode on the street that is that line of the lattice."""
    city = lattice.city
    if mode is Mode.CAR:
        line = round(line_m / city.block_m)
        road = 2 if line % city.expressway_every == 0 else 1 if line % city.arterial_every == 0 else 0
        return city.car_mps[road]
    return {
        Mode.WALKING: city.walk_mps,
        Mode.BICYCLING: city.bike_mps,
        Mode.BUS: city.bus_mps,
        Mode.TRAIN: city.train_mps,
    }[mode]
