"""A city's streets: a lattice turned against north, with arterials, fast roads, a river and its bridges.

Places have addresses on the lattice; ways are lists of corners. May import arithmetic, city and truth; imports numpy
when a lattice is laid out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from emlab.geo import EARTH_RADIUS_M
from emlab.simulate.arithmetic import cosine
from emlab.simulate.city import City
from emlab.simulate.seeds import Stream
from emlab.simulate.truth import LonLat

METRES_PER_DEGREE = EARTH_RADIUS_M * (3.141592653589793 / 180)
DOOR_M = 10.0  # a door is at least so far from a corner
Node = tuple[int, int]
Point = tuple[float, float]  # metres in the lattice's own directions, from the center


@dataclass(frozen=True, slots=True)
class Address:
    """A point on a street: at node (i, j), or that many metres from it on the street towards the next j or i."""

    i: int
    j: int
    offset_m: float = 0.0
    on_column: bool = True

    def corner(self, goal: Address) -> Node:
        """The end of this block that lies towards the goal."""
        if not self.offset_m:
            return self.i, self.j
        if self.on_column:
            return self.i, self.j + (goal.j > self.j)
        return self.i + (goal.i > self.i), self.j

    def shares_block(self, other: Address) -> bool:
        """Whether both lie on the same block of the same street, so that no corner lies between them."""
        return (self.i, self.j, self.on_column) == (other.i, other.j, other.on_column)


class Lattice:
    """The streets of a city around a center."""

    def __init__(self, city: City, center: LonLat) -> None:
        self.city = city
        self.center = center
        self.metres_per_lon = METRES_PER_DEGREE * cosine(center[1])

    def lonlat(self, point: Point) -> LonLat:
        """Longitude and latitude to 1e-7 degrees, of a point in metres of the lattice."""
        (x, y), (across, along) = point, self.city.turn
        east, north = x * across - y * along, x * along + y * across
        lon, lat = self.center[0] + east / self.metres_per_lon, self.center[1] + north / METRES_PER_DEGREE
        return round(lon, 7), round(lat, 7)

    def plane(self, east_m: float, north_m: float) -> Point:
        """A point so far from the center, in metres of the lattice."""
        across, along = self.city.turn
        return east_m * across + north_m * along, north_m * across - east_m * along

    def point(self, address: Address) -> Point:
        """Where an address is, in metres of the lattice."""
        x, y = address.i * self.city.block_m, address.j * self.city.block_m
        return (x, y + address.offset_m) if address.on_column else (x + address.offset_m, y)

    def address(self, point: Point, *, on_column: bool) -> Address:
        """The door that is about there, on a street of the given direction and not in the river."""
        block_m = self.city.block_m
        x, y = point if on_column else point[::-1]
        line, cell = round(x / block_m), int(y // block_m)
        offset_m = round(min(max(y - cell * block_m, DOOR_M), block_m - DOOR_M), 1)
        if on_column:
            return Address(line, cell - (cell == self.city.river_row), offset_m)
        return Address(cell, line, offset_m, on_column=False)

    def nearest_line(self, metres: float, every: int) -> int:
        """The line that is a multiple of `every` and nearest to a coordinate."""
        return round(metres / self.city.block_m / every) * every

    def way(self, chance: Stream, a: Address, b: Address, *, every: int = 1, turns: int = 3) -> list[Point]:
        """A way from a to b: its start, each corner, its end.

        Args:
            every: which lines it prefers; 1 any street, `arterial_every` for cars.
            turns: about how often it turns between two bridges, as the most.
        """
        ends = self.point(a), self.point(b)
        if a.shares_block(b):
            return [*ends]
        start, *banks, goal = self._landmarks(a, b)
        nodes: list[Node] = []
        for here, there in zip([start, *banks[1::2]], [*banks[::2], goal], strict=True):
            nodes += _staircase(chance, here, there, every, turns)
        block_m = self.city.block_m
        return _straightened([ends[0], *((i * block_m, j * block_m) for i, j in nodes), ends[1]])

    def way_m(self, a: Address, b: Address) -> float:
        """Metres of any way from a to b: all have the same length."""
        if a.shares_block(b):
            return abs(a.offset_m - b.offset_m)
        block_m = self.city.block_m
        nodes = [(i * block_m, j * block_m) for i, j in self._landmarks(a, b)]
        stops = [self.point(a), *nodes, self.point(b)]
        total_m = 0.0
        for p, q in itertools.pairwise(stops):
            total_m += apart_m(p, q)
        return total_m

    def _landmarks(self, a: Address, b: Address) -> list[Node]:
        """The corner next to a, both ends of the bridge if there is a river in between, the corner next to b."""
        row = self.city.river_row
        if row is None or (a.j <= row) == (b.j <= row):
            return [a.corner(b), b.corner(a)]
        bridge = self._bridge(a.i, b.i)
        near, far = (row, row + 1) if a.j <= row else (row + 1, row)
        return [a.corner(Address(bridge, near)), (bridge, near), (bridge, far), b.corner(Address(bridge, far))]

    def _bridge(self, start: int, goal: int) -> int:
        """The column of the bridge between these two columns that makes the least detour, the first one if several."""
        step = self.city.bridge_every
        lines = range(min(start, goal) // step * step, max(start, goal) + step + 1, step)
        return min(lines, key=lambda i: (abs(i - start) + abs(i - goal), abs(i - start)))


def apart_m(a: Point, b: Point) -> float:
    """Metres along streets, as if no river lay between."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def _between(a: int, b: int, every: int) -> list[int]:
    """The multiples of `every` strictly between a and b, as one meets them going from a to b; else any lines."""
    low, high = min(a, b) + 1, max(a, b)
    lines = [k for k in range(low, high) if k % every == 0] or list(range(low, high))
    return lines if a < b else lines[::-1]


def _strata(chance: Stream, lines: Sequence[int], count: int) -> list[int]:
    """That many of the lines, in their order, one from each of `count` equal parts."""
    n = len(lines)
    return [lines[min(int((k + u) * n / count), (k + 1) * n // count - 1)] for k, u in enumerate(chance.some(count))]


def _staircase(chance: Stream, start: Node, goal: Node, every: int, turns: int) -> list[Node]:
    """Corners from node to node that never lead back: soon onto a preferred line, and from one at the end."""
    across = chance.one() < 0.5
    (a, c), (b, d) = (start, goal) if across else (start[::-1], goal[::-1])
    firsts, seconds = _between(a, b, every), _between(c, d, every)
    count = min(1 + int(chance.one() * turns / 2), len(firsts), len(seconds)) if a != b and c != d else 0
    cuts, rows = (_strata(chance, firsts, count), _strata(chance, seconds, count)) if count else ([], [])
    if count and every > 1:
        cuts[0], rows[-1] = firsts[0], seconds[-1]
    path, here = [(a, c)], (a, c)
    for cut, row in zip([*cuts, b], [*rows, d], strict=True):
        path += [(cut, here[1]), (cut, row)]
        here = (cut, row)
    return path if across else [(i, j) for j, i in path]


def _straightened(points: Sequence[Point]) -> list[Point]:
    """The same way without points that repeat or lie on a straight stretch."""
    path: list[Point] = []
    for point in points:
        if path and point == path[-1]:
            continue
        if len(path) > 1 and _goes_on(path[-2], path[-1], point):
            path.pop()
        path.append(point)
    return path


def _goes_on(a: Point, b: Point, c: Point) -> bool:
    """Whether b lies between a and c on one street."""
    return (a[0] == b[0] == c[0] and (b[1] - a[1]) * (c[1] - b[1]) > 0) or (
        a[1] == b[1] == c[1] and (b[0] - a[0]) * (c[0] - b[0]) > 0
    )
