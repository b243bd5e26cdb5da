"""Points of a section to which nobody can have jumped. Imports numpy.

The method is e-mission's zigzag: where a speed is far above the section's others, its points part into pieces that
lie apart by turns; the shortest piece that goes anywhere is taken for true, and every other piece beside it for false.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from emlab.intake.sphere import Floats, distance_m, hops_m, speeds_mps
from emlab.intake.tracks import Booleans, Fixes, Integers

SAME_PLACE_M = 100.0
FAR_OUT, OUT = 3.0, 1.5  # interquartile ranges above the third quartile; Tukey, "Exploratory Data Analysis" (1977)
FILL_STEP_S = 60.0
_METRES_PER_DEGREE = 111_111.0


class _Hopeless(Exception):
    """The pieces do not come by turns, so that nothing can be said."""


def outlier_speed(speeds: Floats, ranges: float) -> float:
    """The speed above which one is an outlier among these: `ranges` interquartile ranges above the third quartile."""
    low, high = np.quantile(speeds, [0.25, 0.75])
    return float(high + ranges * (high - low))


def jumps(points: Fixes, *, by_distance: bool) -> Booleans | None:
    """Which points of a section are false; None if that cannot be told.

    Args:
        points: at least one.
        by_distance: gaps at one place are filled first, because a phone with a distance filter says nothing there.
    """
    lon, lat, ts, real = _filled(points) if by_distance else (points.lon, points.lat, points.ts, None)
    hops = hops_m(lon, lat)
    speeds = speeds_mps(hops, ts)
    fast = speeds > outlier_speed(speeds, FAR_OUT)
    try:
        false = _false(lon, lat, _borders(fast, hops, by_distance=by_distance))
    except _Hopeless:
        return None
    return false if real is None else false[real]


def _filled(points: Fixes) -> tuple[Floats, Floats, Floats, Booleans]:
    """The points, and made-up ones around the place where the phone was silent; and which ones are real."""
    made = [_stay(points, int(end)) for end in np.flatnonzero(np.diff(points.ts) > FILL_STEP_S) + 1]
    columns = [np.concatenate([own, *(stay[i] for stay in made)]) for i, own in enumerate(_columns(points))]
    order = np.argsort(columns[2], kind="stable")
    lon, lat, ts = (column[order] for column in columns)
    return lon, lat, ts, order < len(points)


def _columns(points: Fixes) -> tuple[Floats, Floats, Floats]:
    return points.lon, points.lat, points.ts


def _stay(points: Fixes, end: int) -> tuple[Floats, Floats, Floats]:
    """A point a minute within 100 m of the gap's end, if the gap is at one place. Made up, but always the same."""
    start = end - 1
    if distance_m(points.lon[start], points.lat[start], points.lon[end], points.lat[end]) > SAME_PLACE_M:
        return np.empty(0), np.empty(0), np.empty(0)
    ts = np.arange(points.ts[start] + FILL_STEP_S, points.ts[end], FILL_STEP_S)
    random = np.random.default_rng(int(points.ts[end] * 1000))
    away, turn = random.uniform(0, SAME_PLACE_M, len(ts)), random.uniform(0, 2 * np.pi, len(ts))
    north = away * np.sin(turn) / _METRES_PER_DEGREE
    east = away * np.cos(turn) / _METRES_PER_DEGREE / max(np.cos(np.radians(points.lat[end])), 0.01)
    return points.lon[end] + east, points.lat[end] + north, ts


def _borders(fast: Booleans, hops: Floats, *, by_distance: bool) -> list[int]:
    """Where the pieces begin and end, first and last point included."""
    if not by_distance:
        inner = np.flatnonzero(fast).tolist()
    else:
        long = np.flatnonzero(hops > SAME_PLACE_M)
        inner = [border for back in np.flatnonzero(fast & (hops > SAME_PLACE_M)) for border in _there(long, int(back))]
    borders = [0, *inner, *([len(fast)] if len(fast) not in inner else [])]
    if any(end <= start for start, end in pairwise(borders)):
        raise _Hopeless
    return borders


def _there(long: Integers, back: int) -> tuple[int, int]:
    """The jump to a false piece and the one back from it, which is the one that is too fast."""
    before = int(np.searchsorted(long, back))
    if before == 0:
        raise _Hopeless
    return int(long[before - 1]), back


def _false(lon: Floats, lat: Floats, borders: list[int]) -> Booleans:
    false = np.zeros(len(lon), dtype=bool)
    pieces = list(pairwise(borders))
    if len(pieces) == 1:
        return false
    true = _true(lon, lat, pieces)
    right = _by_turns(lon, lat, pieces[true + 1 :], forward=True)
    left = _by_turns(lon, lat, pieces[:true][::-1], forward=False)
    for start, end in right + left:
        false[start:end] = True
    return false


def _length(lon: Floats, lat: Floats, start: int, end: int) -> float:
    return distance_m(lon[start], lat[start], lon[end - 1], lat[end - 1])


def _true(lon: Floats, lat: Floats, pieces: list[tuple[int, int]]) -> int:
    """The position of the piece to trust: the shortest that goes anywhere, or a neighbour of the smallest cluster."""
    lengths = np.array([_length(lon, lat, start, end) for start, end in pieces])
    moving = np.flatnonzero(lengths >= SAME_PLACE_M)
    if len(moving):
        return int(moving[np.argmin(lengths[moving])])
    smallest = int(np.argmin(lengths))
    return smallest + 1 if smallest == 0 else smallest - 1


def _by_turns(lon: Floats, lat: Floats, pieces: list[tuple[int, int]], *, forward: bool) -> list[tuple[int, int]]:
    """The false ones among pieces in the order in which they lie away from the true one: the first, the third, ...

    A false piece is a cluster; one that goes on is cut where it leaves the cluster, and its rest is true.
    """
    false, expected_false, waiting = [], True, pieces[::-1]
    while waiting:
        start, end = waiting.pop()
        if expected_false and _length(lon, lat, start, end) >= SAME_PLACE_M:
            cut = _cut(lon, lat, start, end, forward=forward)
            near, rest = ((start, cut), (cut, end)) if forward else ((cut, end), (start, cut))
            if _length(lon, lat, *near) >= SAME_PLACE_M:
                raise _Hopeless
            start, end = near
            waiting.append(rest)
        if expected_false:
            false.append((start, end))
        expected_false = not expected_false
    return false


def _cut(lon: Floats, lat: Floats, start: int, end: int, *, forward: bool) -> int:
    """Where a piece makes its first long hop, seen from the true piece."""
    long = np.flatnonzero(hops_m(lon[start:end], lat[start:end]) > SAME_PLACE_M)
    if not len(long):
        raise _Hopeless
    return start + int(long[0] if forward else long[-1])
