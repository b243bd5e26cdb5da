"""The parts of a trip in one motion each, from what the phone took its movement for. Imports numpy.

The method is e-mission's: samples with enough confidence say what moves; where they change, a section ends, unless it
is a flip. A section keeps the points between its first and last sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlab.entries.codes import Motion, Transition
from emlab.intake import flipflop
from emlab.intake.flipflop import Change
from emlab.intake.tracks import Fixes, Integers, Motions, Transitions

MOVING = (Motion.IN_VEHICLE, Motion.BICYCLING, Motion.ON_FOOT, Motion.WALKING, Motion.RUNNING)
TIME_CONFIDENCE, DISTANCE_CONFIDENCE = 60.0, 49.0
TIME_REAL_M, DISTANCE_REAL_M = 100.0, 50.0  # a trip without motions is one if it ends so far from where it began
VISIT_WITHIN_S = 300.0  # the news that a visit has ended may come so long after a short trip


@dataclass(frozen=True, slots=True)
class Part:
    """One section as positions of its first and last point in the trip, and its motion (a `codes.Motion`)."""

    start: int
    end: int
    kind: int


def parts(
    points: Fixes, motions: Motions, transitions: Transitions, *, by_distance: bool, from_place_m: float
) -> list[Part]:
    """The sections of a trip, in order; the first starts and the last ends with it. None if it was no trip.

    Args:
        points: of the trip, at least one.
        from_place_m: how far it ends from the place where it started.
    """
    changes = _changes(points, motions, DISTANCE_CONFIDENCE if by_distance else TIME_CONFIDENCE)
    changes = flipflop.merged(changes, points, by_distance=by_distance) if changes else []
    if by_distance:
        found = _by_distance(points, changes, _visited(points, transitions, from_place_m))
    else:
        found = _by_time(points, changes, from_place_m)
    if found:
        found[0] = Part(0, found[0].end, found[0].kind)
        found[-1] = Part(found[-1].start, len(points) - 1, found[-1].kind)
    return found


def _by_time(points: Fixes, changes: list[Change], from_place_m: float) -> list[Part]:
    spans = [(*_span(points, change.start_ts, change.end_ts), change.kind) for change in changes]
    found = [Part(lo, hi - 1, kind) for lo, hi, kind in spans if hi > lo]
    if found or len(changes) > 1:
        return found
    if changes:
        whole = changes[0].kind == changes[0].end_kind
        return [Part(0, len(points) - 1, changes[0].kind)] if whole else []
    return [Part(0, len(points) - 1, int(Motion.UNKNOWN))] if from_place_m > TIME_REAL_M else []


def _by_distance(points: Fixes, changes: list[Change], visited: bool) -> list[Part]:  # noqa: FBT001
    if not changes:
        return [Part(0, len(points) - 1, int(Motion.UNKNOWN))] if visited else []
    changes[0].start_ts, changes[-1].end_ts = float(points.ts[0]), float(points.ts[-1])
    spans = [(*_span(points, change.start_ts, change.end_ts), change.kind) for change in changes]
    return [Part(lo, hi - 1, kind) for lo, hi, kind in spans if hi - lo > 1]


def _visited(points: Fixes, transitions: Transitions, from_place_m: float) -> bool:
    """Whether the state machine tells that a trip without motions was one."""
    lo = np.searchsorted(transitions.ts, points.ts[0])
    hi = np.searchsorted(transitions.ts, points.ts[-1] + VISIT_WITHIN_S, side="right")
    kinds = transitions.kind[lo:hi]
    return len(kinds) > 0 and (from_place_m > DISTANCE_REAL_M or bool((kinds == Transition.VISIT_ENDED).any()))


def _span(points: Fixes, start_ts: float, end_ts: float) -> tuple[int, int]:
    return int(np.searchsorted(points.ts, start_ts)), int(np.searchsorted(points.ts, end_ts, side="right"))


def _changes(points: Fixes, motions: Motions, confidence: float) -> list[Change]:
    """The times in one motion each, by the samples during the trip that are sure enough."""
    lo = np.searchsorted(motions.ts, points.ts[0])
    hi = np.searchsorted(motions.ts, points.ts[-1], side="right")
    kinds = motions.kind[lo:hi]
    sure = (motions.confidence[lo:hi] > confidence) & np.isin(kinds, MOVING)
    ts = motions.ts[lo:hi][sure]
    kinds = np.where(kinds[sure] == Motion.RUNNING, Motion.WALKING, kinds[sure])
    if not len(ts):
        return []
    begins = np.flatnonzero(np.diff(kinds)) + 1
    nodes = [0, *(_node(kinds, int(begin)) for begin in begins), len(ts) - 1]
    numbers = _numbers(ts, nodes, begins)
    heads = [int(kinds[0]), *(int(kinds[begin]) for begin in begins)]
    tails = [*heads[1:], heads[-1]]
    return [
        Change(float(ts[nodes[i]]), float(ts[nodes[i + 1]]), numbers[i], numbers[i + 1], heads[i], tails[i])
        for i in range(len(heads))
    ]


def _node(kinds: Integers, begin: int) -> int:
    """Which sample parts two motions: the last of the old one if a faster one follows, else the first of the new."""
    before, after = int(kinds[begin - 1]), int(kinds[begin])
    faster = before != Motion.IN_VEHICLE and after == Motion.IN_VEHICLE
    faster |= flipflop.is_walking(before) and after == Motion.BICYCLING
    return begin - 1 if faster else begin


def _numbers(ts: np.ndarray[tuple[int], np.dtype[np.float64]], nodes: list[int], begins: Integers) -> list[int]:
    """The nodes' numbers; of samples at the same moment, the last before the next change counts."""
    until = [*(int(begin) for begin in begins), len(ts) - 1]
    same = np.searchsorted(ts, ts[nodes[:-1]], side="right") - 1
    since = [0, *(int(begin) for begin in begins)]
    numbers = [
        max(node, min(int(last), end)) if last > begin else node
        for node, last, end, begin in zip(nodes[:-1], same, until, since, strict=True)
    ]
    return [*numbers, nodes[-1]]
