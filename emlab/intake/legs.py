"""The sections of one trip and the stops between them, as sensed and as cleaned. Imports numpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from emlab.entries.codes import Motion
from emlab.intake.cleaning import Anchor, Leg, Path, leg
from emlab.intake.sections import Part, parts
from emlab.intake.sphere import distance_m
from emlab.intake.tracks import Fixes, Motions, Transitions

LONGEST_STOP_M = 150.0  # from end to end; a longer one belongs to a section beside it


@dataclass(slots=True)
class Stop:
    """What lies between two sections: its ends, metres from end to end, seconds."""

    enter_ts: float
    enter_zone: str
    enter: tuple[float, float]
    exit_ts: float
    exit_zone: str
    exit: tuple[float, float]
    distance_m: float
    duration_s: float


@dataclass(slots=True)
class Journey:
    """The sections of a trip, as positions in its points and cleaned, and the stops between them."""

    points: Fixes | None = None
    parts: list[Part] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    early: bool = False  # whether the first point of all was put before the others by `prepend`

    @property
    def ends(self) -> tuple[Leg, Leg]:
        """The first and the last section."""
        return self.legs[0], self.legs[-1]

    @property
    def distance_m(self) -> float:
        """Metres, over sections and stops."""
        return sum(leg.distance_m for leg in self.legs) + sum(stop.distance_m for stop in self.stops)

    def prepend(self, ts: float, at: tuple[float, float], altitude: float, way_m: float, time_s: float) -> None:
        """The first section starts elsewhere and earlier, with a point of its own there."""
        if not self.legs:
            return
        first = self.legs[0]
        first.start_ts, first.start = ts, at
        first.distance_m += way_m
        first.duration_s += time_s
        first.hops_m.insert(1, way_m)
        first.speeds.insert(1, way_m / time_s)
        if not len(first.path):
            return
        self.early = True
        path = first.path
        first.turns = [0.0, *first.turns]
        first.path = Path(
            np.insert(path.ts, 0, ts),
            np.insert(path.lon, 0, at[0]),
            np.insert(path.lat, 0, at[1]),
            np.insert(path.altitude, 0, altitude),
            np.concatenate([path.zone[:1], path.zone]),
        )


def journey(
    points: Fixes,
    motions: Motions,
    transitions: Transitions,
    *,
    by_distance: bool,
    start: Anchor,
    end: Anchor,
) -> Journey:
    """The sections and stops of a trip; none if it was none.

    Args:
        points: of the trip, at least one. start, end: the places at its ends.
    """
    from_place_m = distance_m(start.lon, start.lat, end.lon, end.lat)
    found = parts(points, motions, transitions, by_distance=by_distance, from_place_m=from_place_m)
    legs = [
        leg(
            section_points(points, part),
            part.kind,
            by_distance=by_distance,
            start=start if index == 0 else None,
            end=end if index == len(found) - 1 else None,
        )
        for index, part in enumerate(found)
    ]
    stops = [_stop(before, after, points) for before, after in pairwise(legs)]
    return Journey(points, found, legs, stops)


def section_points(points: Fixes, part: Part) -> Fixes:
    """The points of a section: all from the time of its first to that of its last."""
    lo = np.searchsorted(points.ts, points.ts[part.start])
    hi = np.searchsorted(points.ts, points.ts[part.end], side="right")
    return points.take(slice(int(lo), int(hi)))


def _stop(before: Leg, after: Leg, points: Fixes) -> Stop:
    """The stop between two sections. If it is too long to be one, a section beside it takes it."""
    length_m = distance_m(*before.end, *after.start)
    stop = Stop(
        before.end_ts,
        before.end_zone,
        before.end,
        after.start_ts,
        after.start_zone,
        after.start,
        length_m,
        after.start_ts - before.end_ts,
    )
    if length_m > LONGEST_STOP_M:
        _close(stop, before, after, points)
    return stop


def _close(stop: Stop, before: Leg, after: Leg, points: Fixes) -> None:
    """The stop is a moment, and the section that is worse known reaches over it.

    Like e-mission, it adds the way to the section's distance, and takes the time from its duration.
    """
    taker = after if _is_better_known(before, after, points) else before
    if taker is after:
        after.start_ts, after.start_zone, after.start = before.end_ts, before.end_zone, before.end
    else:
        before.end_ts, before.end_zone, before.end = after.start_ts, after.start_zone, after.start
    time_s = stop.enter_ts - stop.exit_ts
    taker.distance_m += stop.distance_m
    taker.duration_s += time_s
    taker.hops_m.append(stop.distance_m)
    taker.speeds.append(stop.distance_m / time_s if time_s else 0.0)
    stop.enter_ts = stop.exit_ts = before.end_ts
    stop.enter_zone = stop.exit_zone = before.end_zone
    stop.enter = stop.exit = before.end
    stop.distance_m = stop.duration_s = 0.0


def _is_better_known(before: Leg, after: Leg, points: Fixes) -> bool:
    """Whether the section before a stop is known better: it is not motorised, or has more points for its length."""
    motors = (before.kind == Motion.IN_VEHICLE, after.kind == Motion.IN_VEHICLE)
    if motors[0] != motors[1]:
        return motors[1]
    return _density(before, points) > _density(after, points)


def _density(section: Leg, points: Fixes) -> float:
    lo = np.searchsorted(points.ts, section.start_ts)
    hi = np.searchsorted(points.ts, section.end_ts, side="right")
    return float(hi - lo) / (section.distance_m + 1)
