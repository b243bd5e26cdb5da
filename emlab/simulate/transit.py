"""Buses and trains: lines along the lattice, their stops, and the best ride between two addresses.

May import streets. Lines of both kinds run in both directions; where two cross, one can change.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from emlab.entries.codes import Mode
from emlab.simulate.streets import Address, Lattice, Node, apart_m

WALK_M = {Mode.BUS: (120.0, 750.0), Mode.TRAIN: (120.0, 1_300.0)}  # to the first stop and from the last one
RIDE_M = {Mode.BUS: 2_800.0, Mode.TRAIN: 5_500.0}  # shorter ones are no use, and unseen by e-mission below 5 minutes


@dataclass(frozen=True, slots=True)
class Ride:
    """From stop to stop along one line, or along two with a change at the middle node; metres walked and ridden."""

    nodes: tuple[Node, ...]
    walked_m: float
    ridden_m: float


def best_ride(lattice: Lattice, mode: Mode, a: Address, b: Address) -> Ride | None:
    """The ride by bus or train that costs least effort, a metre on foot counting five times; None if none is worth it.

    A ride is worth it if both walks keep within WALK_M, it is at least RIDE_M long and not twice the way on foot.
    """
    city = lattice.city
    weight = city.bus if mode is Mode.BUS else city.train
    if not weight:
        return None
    direct_m = apart_m(lattice.point(a), lattice.point(b))
    rides = [ride for ride in _rides(lattice, mode, a, b) if _is_worth_it(ride, direct_m, mode)]
    return min(rides, key=lambda ride: 5 * ride.walked_m + ride.ridden_m, default=None)


def _is_worth_it(ride: Ride, direct_m: float, mode: Mode) -> bool:
    return ride.ridden_m >= RIDE_M[mode] and ride.ridden_m + ride.walked_m < 1.6 * direct_m


def _rides(lattice: Lattice, mode: Mode, a: Address, b: Address) -> list[Ride]:
    lines, stops = _spacing(lattice, mode)
    (ax, ay), (bx, by) = lattice.point(a), lattice.point(b)
    column_a, row_a = lattice.nearest_line(ax, lines), lattice.nearest_line(ay, lines)
    column_b, row_b = lattice.nearest_line(bx, lines), lattice.nearest_line(by, lines)
    stop_ax, stop_ay = lattice.nearest_line(ax, stops), lattice.nearest_line(ay, stops)
    stop_bx, stop_by = lattice.nearest_line(bx, stops), lattice.nearest_line(by, stops)
    ways: list[tuple[Node, ...]] = [
        ((column_a, stop_ay), (column_a, row_b), (stop_bx, row_b)),
        ((stop_ax, row_a), (column_b, row_a), (column_b, stop_by)),
    ]
    if column_a == column_b:
        ways.append(((column_a, stop_ay), (column_a, stop_by)))
    if row_a == row_b:
        ways.append(((stop_ax, row_a), (stop_bx, row_a)))
    rides = [_ride(lattice, mode, a, b, way) for way in ways]
    return [ride for ride in rides if ride]


def _ride(lattice: Lattice, mode: Mode, a: Address, b: Address, way: tuple[Node, ...]) -> Ride | None:
    """The ride along these nodes, if each of its walks and each of its lines is long enough and no walk too long."""
    block_m = lattice.city.block_m
    points = [(i * block_m, j * block_m) for i, j in way]
    least_m, most_m = WALK_M[mode]
    walks = apart_m(lattice.point(a), points[0]), apart_m(points[-1], lattice.point(b))
    rides = [apart_m(p, q) for p, q in itertools.pairwise(points)]
    if not (least_m <= min(walks) and max(walks) <= most_m and min(rides) >= RIDE_M[mode] / 3):
        return None
    return Ride(way, sum(walks), sum(rides))


def network(lattice: Lattice, box_m: float) -> dict[str, object]:
    """All stops of buses and of trains, as GeoJSON: a feature for each kind, whose `route` is "bus" or "train".

    From each stop one reaches each other one with at most one change, so each kind counts as one line.
    """
    reach_m = 0.75 * box_m  # of a box that may be turned by an eighth, and of stops just outside of it
    features = []
    for mode, weight in ((Mode.BUS, lattice.city.bus), (Mode.TRAIN, lattice.city.train)):
        stops = [lattice.lonlat(point) for point in _stops(lattice, mode, reach_m)] if weight else []
        if stops:
            geometry = {"type": "MultiPoint", "coordinates": [[lon, lat] for lon, lat in stops]}
            features.append({"type": "Feature", "properties": {"route": mode.name.lower()}, "geometry": geometry})
    return {"type": "FeatureCollection", "features": features}


def _stops(lattice: Lattice, mode: Mode, reach_m: float) -> list[tuple[float, float]]:
    """Where the vehicles of a kind stop, up to that distance from the center in each direction."""
    block_m = lattice.city.block_m
    lines, stops = _spacing(lattice, mode)
    most = int(reach_m / block_m)
    nodes = {
        node
        for line in range(-(most // lines) * lines, most + 1, lines)
        for stop in range(-(most // stops) * stops, most + 1, stops)
        for node in ((line, stop), (stop, line))
    }
    return [(i * block_m, j * block_m) for i, j in sorted(nodes)]


def _spacing(lattice: Lattice, mode: Mode) -> tuple[int, int]:
    """Lattice lines from line to line, and from stop to stop along one."""
    city = lattice.city
    if mode is Mode.BUS:
        return city.bus_every, city.bus_stop_every
    return city.train_every, city.station_every
