"""Motions that flip to another one and back too fast to be true, merged with their neighbours. Imports numpy.

The method is e-mission's: a change of motion that rests on few samples, or whose speed or duration its mode never has,
becomes part of the change before or after it, whichever its speed resembles more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from emlab.entries.codes import Motion
from emlab.intake.sphere import distance_m, hops_m, speeds_mps
from emlab.intake.tracks import Fixes

WALKING_MPS, BICYCLING_MPS = 1.7, 8.5
SHORTEST_RIDE_S = {Motion.BICYCLING: 60.0, Motion.IN_VEHICLE: 300.0}
SHORTEST_TRANSITION_S = 60.0
REAL_SHARE = 0.25  # a change that lasts longer, as a share of all of them, is real
LONGEST_STREAK = 4  # more flips than that are a ride by bicycle
_Action = Literal["", "before", "after", "bicycle", "vehicle"]
# a streak stays; the change before or after it takes it; it was a bicycle; and so was the vehicle after it


@dataclass(slots=True)
class Change:
    """A time in one motion: from one sample to another.

    Attributes:
        start_ts, end_ts: UTC seconds. first, last: the samples' numbers in the trip.
        kind: a `codes.Motion`. end_kind: what the last sample was taken for.
    """

    start_ts: float
    end_ts: float
    first: int
    last: int
    kind: int
    end_kind: int

    @property
    def duration_s(self) -> float:
        """Seconds."""
        return self.end_ts - self.start_ts


def is_walking(kind: int) -> bool:
    """Whether a motion is one on foot."""
    return kind in (Motion.WALKING, Motion.ON_FOOT, Motion.RUNNING)


def merged(changes: list[Change], points: Fixes, *, by_distance: bool) -> list[Change]:
    """The changes without flips, neighbours of the same kind as one.

    Args:
        changes: in order of time, at least one. They are changed in place.
        points: of the trip.
        by_distance: whether they come from a distance filter, whose phone tells a motion only when it changes.
    """
    total_s = changes[-1].end_ts - changes[0].start_ts
    flips = [_is_flip(change, points, total_s) for change in changes]
    if len(changes) == 2 and not by_distance:
        flips[1] |= _is_doubtful_end(changes[1], points)
    actions = [(*streak, _action(changes, *streak, points)) for streak in _streaks(flips)]
    taken: set[int] = set()
    for first, last, action in actions:
        _apply(changes, first, last, action, taken)
    kept = [change for index, change in enumerate(changes) if index not in taken]
    return _united(kept)


def _is_flip(change: Change, points: Fixes, total_s: float) -> bool:
    if total_s > 0 and change.duration_s > REAL_SHARE * total_s:
        return False
    samples = change.last - change.first
    if samples <= 1 or (not is_walking(change.kind) and samples <= 2):
        return True
    return not _is_plausible(change, points) or len(_within(points, change.start_ts, change.end_ts)) == 0


def _is_doubtful_end(change: Change, points: Fixes) -> bool:
    """Whether the last of two changes is a ride on one sample, too short to be one, however long a share it is.

    A ride is dated from the sample before its first one, which makes a wrong sample at a trip's end look long. That
    e-mission's server sees through this is known from the second trip of its own example day of 2015-08-27.
    """
    return change.last - change.first <= 1 and not is_walking(change.kind) and not _is_plausible(change, points)


def _is_plausible(change: Change, points: Fixes) -> bool:
    if change.duration_s < SHORTEST_RIDE_S.get(Motion(change.kind), 0.0):
        return False
    if change.kind == Motion.IN_VEHICLE:
        return True
    track = _within(points, change.start_ts, change.end_ts)
    limit = BICYCLING_MPS if change.kind == Motion.BICYCLING else WALKING_MPS
    return len(track) == 0 or not _median_speed(track) > limit


def _streaks(flips: list[bool]) -> list[tuple[int, int]]:
    """First and last positions of consecutive flips.

    The last change of all takes what comes before it in its streak, as a real one would. It is a flip itself only
    where there are no more than two changes.
    """
    streaks: list[tuple[int, int]] = []
    first, last = 0, len(flips) - 1
    for index, flip in enumerate(flips):
        if not flip:
            if index != first:
                streaks.append((first, index - 1))
            first = index + 1
    if last <= 1 and flips[last]:
        streaks.append((last, last))
    elif first < last:
        streaks.append((first, last - 1))
    return streaks


def _action(changes: list[Change], first: int, last: int, points: Fixes) -> _Action:
    """What becomes of a streak."""
    if last - first <= 1:
        if _is_fast_bicycle(changes, first, last):
            return "vehicle"
        alone = len(_within(points, changes[first].start_ts, changes[first].end_ts)) <= 1
        return _neighbour(changes, first, last, points) if alone or not is_walking(changes[first].kind) else ""
    if last - first >= LONGEST_STREAK:
        return "bicycle"
    doubtful = not all(_is_plausible(change, points) for change in changes[first : last + 1])
    return _neighbour(changes, first, last, points) if doubtful else ""


def _is_fast_bicycle(changes: list[Change], first: int, last: int) -> bool:
    """Whether a flip to a bicycle before a short time in a vehicle shows that the latter was the bicycle too."""
    if last + 1 == len(changes):
        return False
    flip, end, after = changes[first], changes[last], changes[last + 1]
    samples = end.first - flip.first
    share = (end.start_ts - flip.start_ts) / (after.duration_s + 1)
    return (
        flip.kind == Motion.BICYCLING
        and after.kind == Motion.IN_VEHICLE
        and samples <= 1
        and after.last - after.first <= 2
        and end.start_ts - flip.end_ts < SHORTEST_TRANSITION_S
        and (samples == 0 or share > 0.75)
    )


def _neighbour(changes: list[Change], first: int, last: int, points: Fixes) -> _Action:
    """Which neighbour should take a streak: the one that its speed resembles; its only one, if there is but one.

    None takes a walk from one vehicle to another.
    """
    if first == 0:
        return "after" if last + 1 < len(changes) else ""
    if last + 1 == len(changes):
        return "before"
    before, after = changes[first - 1], changes[last + 1]
    if before.kind == after.kind:
        changing = before.kind == Motion.IN_VEHICLE and is_walking(changes[first].kind)
        return "" if changing else "before"
    track_before = _within(points, before.start_ts, before.end_ts)
    track_after = _within(points, after.start_ts, after.end_ts)
    track = _within(points, changes[first].start_ts, changes[last].end_ts)
    speed = _median_speed(track) if len(track) > 1 else _speed_between(track_before, track_after)
    if speed > WALKING_MPS and is_walking(after.kind):
        return "before"
    if speed > WALKING_MPS and is_walking(before.kind):
        return "after"
    nearer = abs(speed - _median_speed(track_before)) < abs(speed - _median_speed(track_after))
    return "before" if nearer else "after"


def _apply(changes: list[Change], first: int, last: int, action: _Action, taken: set[int]) -> None:
    """A streak is part of what takes it; `taken` names the changes that are no more."""
    if not action:
        return
    streak = range(first, last + 1)
    start, end = changes[first], changes[last]
    if action == "before":
        before = changes[first - 1]
        before.end_ts, before.last, before.end_kind = end.end_ts, end.last, end.end_kind
    elif action == "bicycle":
        start.end_ts, start.last, start.kind = end.end_ts, end.last, int(Motion.BICYCLING)
        streak = range(first + 1, last + 1)
    else:
        after = changes[last + 1]
        if action == "vehicle":
            after.kind = start.kind
        after.start_ts, after.first = start.start_ts, start.first
    taken.update(streak)


def _united(changes: list[Change]) -> list[Change]:
    united = changes[:1]
    for change in changes[1:]:
        if change.kind == united[-1].kind:
            united[-1].end_ts, united[-1].last, united[-1].end_kind = change.end_ts, change.last, change.end_kind
        else:
            united.append(change)
    return united


def _within(points: Fixes, start_ts: float, end_ts: float) -> Fixes:
    lo, hi = np.searchsorted(points.ts, start_ts), np.searchsorted(points.ts, end_ts, side="right")
    return points.take(slice(int(lo), max(int(lo), int(hi))))


def _median_speed(track: Fixes) -> float:
    if not len(track):
        return math.nan
    return float(np.median(speeds_mps(hops_m(track.lon, track.lat), track.ts)))


def _speed_between(before: Fixes, after: Fixes) -> float:
    if not len(before) or not len(after):
        return 0.0
    way_m = distance_m(before.lon[-1], before.lat[-1], after.lon[0], after.lat[0])
    time_s = float(after.ts[0] - before.ts[-1])
    return way_m / time_s if time_s else math.inf
