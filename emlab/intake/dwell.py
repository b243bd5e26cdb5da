"""Where trips start and end: where somebody has dwelt long enough, or tracking has begun anew. Imports numpy.

The method is e-mission's: a phone with a time filter goes on noting points while it rests, so a trip ends when these
stay together; one with a distance filter falls silent, so a trip ends before a gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlab.entries.codes import State, Transition
from emlab.intake.sphere import Floats, distances_m, hops_m, speeds_mps
from emlab.intake.tracks import Booleans, Fixes, Integers, Motions, Transitions

TIME_DWELL_S, TIME_DWELL_M, TIME_POINTS = 300.0, 100.0, 9
TIME_FUZZ_S = 30.0  # older phones stop noting after five minutes, so that never quite five are seen
TIME_SOON_S = 60.0  # a near point so soon after a trip's end still belongs to it
DISTANCE_DWELL_S, DISTANCE_DWELL_M = 600.0, 50.0
DISTANCE_SLOW_MPS = 2 * DISTANCE_DWELL_M / (DISTANCE_DWELL_S / 2)
LONG_GAP_S = 12 * 3600.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """One trip as positions of its first and last point.

    Attributes:
        by_distance: whether the points come from a distance filter.
        settled: whether points after it have shown that it has ended; else later points may end it elsewhere.
    """

    start: int
    end: int
    by_distance: bool
    settled: bool


@dataclass(frozen=True, slots=True)
class _Run:
    """Consecutive points of the same filter, what happened just before each, and until when it lasts."""

    ts: Floats
    lon: Floats
    lat: Floats
    steps_s: Floats
    hops_m: Floats
    speeds: Floats
    restarted: Booleans
    moving: Booleans
    stops: bool
    last: bool


def restarts(transitions: Transitions) -> Floats:
    """When tracking began anew: it had been switched off, the phone booted, or a visit ended while nothing went on."""
    kind, state = transitions.kind, transitions.state
    visit_ended = (kind == Transition.VISIT_ENDED) & (state == State.WAITING_FOR_TRIP_START)
    began = (kind == Transition.STOP_TRACKING) | (kind == Transition.BOOTED) | visit_ended
    return np.asarray(transitions.ts[began])


def stretches(fixes: Fixes, motions: Motions, transitions: Transitions) -> list[Stretch]:
    """The trips in order of time. They do not overlap; a new filter begins a new one."""
    found: list[Stretch] = []
    used = np.flatnonzero(~fixes.late)
    changes = np.flatnonzero(np.diff(fixes.by_distance[used])) + 1
    for part in np.split(used, changes):
        if len(part):
            last = part[-1] == used[-1]
            until = np.inf if last else float(fixes.ts[part[-1] + 1])
            found += _stretches(fixes, part, motions, transitions, until)
    return found


def _stretches(fixes: Fixes, part: Integers, motions: Motions, transitions: Transitions, until: float) -> list[Stretch]:
    run = _run(fixes.take(part), motions, transitions, until)
    by_distance = bool(fixes.by_distance[part[0]])
    trips = _by_distance(run) if by_distance else _by_time(run)
    return [Stretch(int(part[start]), int(part[end]), by_distance, settled) for start, end, settled in trips]


def _run(points: Fixes, motions: Motions, transitions: Transitions, until: float) -> _Run:
    hops = hops_m(points.lon, points.lat)
    after = (transitions.ts > points.ts[-1]) & (transitions.ts <= until)
    return _Run(
        ts=points.ts,
        lon=points.lon,
        lat=points.lat,
        steps_s=np.diff(points.ts, prepend=points.ts[0]),
        hops_m=hops,
        speeds=speeds_mps(hops, points.ts),
        restarted=_before(points.ts, restarts(transitions)),
        moving=_before(points.ts, motions.ts),
        stops=bool((transitions.kind[after] == Transition.STOPPED_MOVING).any()),
        last=until == np.inf,
    )


def _before(ts: Floats, events: Floats) -> Booleans:
    """For each point whether an event came after the point before it, and not after itself."""
    flags = np.zeros(len(ts) + 1, dtype=bool)
    flags[np.searchsorted(ts, events)] = True
    return flags[:-1]


def _by_distance(run: _Run) -> list[tuple[int, int, bool]]:
    """First and last positions of trips: each lasts until a gap in which nothing much can have happened."""
    idle = run.restarted | ~run.moving | (run.steps_s > LONG_GAP_S) | (run.speeds < DISTANCE_SLOW_MPS)
    ends = np.flatnonzero((run.steps_s > DISTANCE_DWELL_S) & idle)
    starts = np.flatnonzero(run.hops_m >= DISTANCE_DWELL_M)  # nearer points are noise at the place
    trips: list[tuple[int, int, bool]] = []
    start = 0
    while (gap := _next(ends, start + 1)) is not None:
        trips.append((start, gap - 1, True))
        begun = _next(starts, gap)
        if begun is None:
            return trips
        start = begun
    if run.stops:
        trips.append((start, len(run.ts) - 1, not run.last))
    return trips


def _next(positions: Integers, at_least: int) -> int | None:
    index = int(np.searchsorted(positions, at_least))
    return int(positions[index]) if index < len(positions) else None


def _by_time(run: _Run) -> list[tuple[int, int, bool]]:
    """First and last positions of trips: each lasts until the points stay together, or a gap."""
    long = run.steps_s > 2 * TIME_DWELL_S
    slow = run.speeds < TIME_DWELL_M / TIME_DWELL_S
    gaps = run.restarted | (run.steps_s > LONG_GAP_S) | (long & (~run.moving | slow))
    leaving = np.flatnonzero((run.hops_m >= TIME_DWELL_M) | (run.steps_s > TIME_SOON_S))
    oldest = np.searchsorted(run.ts, run.ts - TIME_DWELL_S, side="right")  # of the last five minutes
    far = _last_far(run, oldest)
    trips: list[tuple[int, int, bool]] = []
    start, last, settled = 0, len(run.ts) - 1, True
    while (found := _first_end(run, start, gaps, oldest, far)) is not None:
        end, restarts_here = _end(found, start, int(oldest[found]))
        trips.append((start, end, settled))
        begun = found if restarts_here else _next(leaving, found + 1)
        if begun is None:  # nobody has left yet; what comes may show that the next trip begins later
            begun, settled = found + 1, not run.last
        start = begun
    if run.stops and start < last:
        trips.append((start, _end(last, start, int(oldest[last]))[0], not run.last))
    return trips


def _first_end(run: _Run, start: int, gaps: Booleans, oldest: Integers, far: Integers) -> int | None:
    """The first position after `start` at which a trip from there has ended.

    Looked for in ever longer pieces, so that many trips cost no more than their points.
    """
    lo, width = start + 1, 64
    while lo < len(run.ts):
        hi = min(lo + width, len(run.ts))
        here = np.arange(lo, hi)
        since = np.maximum(oldest[lo:hi], start)
        enough = here - np.maximum(here - TIME_POINTS, start) + 1 >= TIME_POINTS - 1
        old_enough = run.ts[lo:hi] - run.ts[since] >= TIME_DWELL_S - TIME_FUZZ_S
        ended = gaps[lo:hi] | (enough & old_enough & (far[lo:hi] < start))
        if ended.any():
            return lo + int(np.argmax(ended))
        lo, width = hi, 2 * width
    return None


def _end(found: int, start: int, oldest: int) -> tuple[int, bool]:
    """Where a trip ended that was found to have ended at a position, and whether that already is the next one's start.

    In the middle of the points that stayed together: of the last ones, or of those of the last five minutes.
    """
    middle = (max(found - TIME_POINTS, start) + found) / 2
    since = max(oldest, start)
    if since >= found:
        return int(middle), True
    return int(min(middle, (since + found - 1) / 2)), False


def _last_far(run: _Run, oldest: Integers) -> Integers:
    """For each position the last one, of those that count for it, that is a dwelling's width away; -1 for none.

    Also -1 where too little time has passed to tell a dwelling, so that many points at one moment cost no more.
    """
    here = np.arange(len(run.ts))
    lowest = np.minimum(np.maximum(here - TIME_POINTS, 0), oldest)
    far = np.full(len(here), -1)
    open_ = here[run.ts - run.ts[oldest] >= TIME_DWELL_S - TIME_FUZZ_S]
    lag = 1
    while len(open_ := open_[open_ - lag >= lowest[open_]]):
        other = open_ - lag
        away = distances_m(run.lon[other], run.lat[other], run.lon[open_], run.lat[open_]) >= TIME_DWELL_M
        far[open_[away]] = other[away]
        open_ = open_[~away]
        lag += 1
    return far
