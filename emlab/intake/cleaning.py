"""The trajectory of a section: no jumps, joined to the places at the trip's ends, a point every 30 s. Imports numpy.

The method is e-mission's. A phone notices late that somebody has left, so that a trip begins away from its place: the
way from there is added at the speed of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emlab.entries.codes import Motion
from emlab.intake import smoothing
from emlab.intake.flipflop import BICYCLING_MPS, WALKING_MPS, is_walking
from emlab.intake.sphere import Floats, distance_m, headings, hops_m, speeds_mps
from emlab.intake.tracks import Booleans, Fixes, Texts

STEP_S = 30.0
MOST_STEPS = 20_000  # of a section, a week; longer steps beyond that, so that no clock can fill the memory
JOINED_S = 180.0  # at most so long after its arrival somebody leaves a place whose exit nobody saw
LONGEST_WAY_S = 12 * 3600.0  # from a place to where a trip was noticed
AIR_MPS = 100 / 3.6
ON_FOOT_M, ON_FOOT_MPS = 10_000.0, 10 / 3.6  # nobody walks further and faster
BICYCLE_M, BICYCLE_MPS = 100_000.0, 20 / 3.6


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where a trip's end is joined to: a place, in degrees and metres, with its zone.

    Attributes:
        enter_ts: when it was entered, None for the first of all. stay_s: from then to the trip's first point.
    """

    lon: float
    lat: float
    altitude: float
    zone: str
    enter_ts: float | None
    stay_s: float


@dataclass(frozen=True, slots=True)
class Path:
    """Points in order of time: UTC seconds, degrees, metres, IANA names."""

    ts: Floats
    lon: Floats
    lat: Floats
    altitude: Floats
    zone: Texts

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(slots=True)
class Leg:
    """A section as it was cleaned.

    Attributes:
        start_ts, end_ts, start_zone, end_zone, start, end: of its ends; positions as (longitude, latitude).
        kind: a `codes.Motion`. located: the motion that its points were taken in.
        path: its points. hops_m, speeds, turns: how each was reached, as `hops_m`, `speeds_mps` and `headings` say.
        distance_m, duration_s: in metres and seconds.
        deleted: which of the raw points are false; None if that could not be told.
    """

    start_ts: float
    end_ts: float
    start_zone: str
    end_zone: str
    start: tuple[float, float]
    end: tuple[float, float]
    kind: int
    located: int
    path: Path
    hops_m: list[float]
    speeds: list[float]
    turns: list[float]
    distance_m: float
    duration_s: float
    deleted: Booleans | None


def leg(points: Fixes, kind: int, *, by_distance: bool, start: Anchor | None, end: Anchor | None) -> Leg:
    """A section's cleaned form.

    Args:
        points: of the section, at least one.
        kind: a `codes.Motion`.
        start, end: what the first section starts from and the last one ends at; None for a section within a trip.
    """
    false = smoothing.jumps(points, by_distance=by_distance)
    good = points if false is None else points.take(~false)
    if not len(good):
        return _empty(points, kind, false)
    path = Path(good.ts, good.lon, good.lat, good.altitude, good.zone)
    located = kind
    if start is not None and not _is_doubtful(points, 0, false, start):
        path = _from_place(path, start, kind)
        if path.ts[0] != points.ts[0] and _is_jump(path):
            located = int(Motion.UNKNOWN)
    if end is not None and not _is_doubtful(points, -1, false, end):
        path = _to_place(path, end)
    return _measured(path, resampled(path), located, false)


def _empty(points: Fixes, kind: int, false: Booleans | None) -> Leg:
    """A section all of whose points are false stays at its start."""
    ts, zone, at = float(points.ts[0]), str(points.zone[0]), (float(points.lon[0]), float(points.lat[0]))
    none = np.empty(0)
    path = Path(none, none, none, none, np.empty(0, dtype=object))
    return Leg(ts, ts, zone, zone, at, at, kind, kind, path, [], [], [], 0.0, 0.0, false)


def _measured(path: Path, fine: Path, located: int, false: Booleans | None) -> Leg:
    hops = hops_m(fine.lon, fine.lat)
    speeds = speeds_mps(hops, fine.ts)
    start_ts, end_ts, distance = float(path.ts[0]), float(path.ts[-1]), float(sum(hops.tolist()))
    return Leg(
        start_ts=start_ts,
        end_ts=end_ts,
        start_zone=str(path.zone[0]),
        end_zone=str(path.zone[-1]),
        start=(float(path.lon[0]), float(path.lat[0])),
        end=(float(path.lon[-1]), float(path.lat[-1])),
        kind=_checked(located, distance, end_ts - start_ts),
        located=located,
        path=fine,
        hops_m=hops.tolist(),
        speeds=speeds.tolist(),
        turns=headings(fine.lon, fine.lat).tolist(),
        distance_m=distance,
        duration_s=end_ts - start_ts,
        deleted=false,
    )


def _checked(kind: int, distance: float, duration_s: float) -> int:
    """The motion, unless speed and distance say that it was another."""
    if not distance or not duration_s:
        return kind
    speed = distance / duration_s
    if speed > AIR_MPS:
        return int(Motion.AIR_OR_HSR)
    too_far = kind == Motion.ON_FOOT and distance > ON_FOOT_M and speed > ON_FOOT_MPS
    too_far |= kind == Motion.BICYCLING and distance > BICYCLE_M and speed > BICYCLE_MPS
    return int(Motion.UNKNOWN) if too_far else kind


def _is_doubtful(points: Fixes, index: int, false: Booleans | None, place: Anchor) -> bool:
    """Whether a section's end was false and its place, being there too, probably is."""
    if false is None or not false[index]:
        return False
    return distance_m(points.lon[index], points.lat[index], place.lon, place.lat) < smoothing.SAME_PLACE_M


def _from_place(path: Path, place: Anchor, kind: int) -> Path:
    """The path with the place in front, left so early that the way from there was as fast as the rest."""
    way_m = distance_m(path.lon[0], path.lat[0], place.lon, place.lat)
    before_s = _time_for(way_m, path, kind)
    if not before_s:
        return path
    start_ts = float(path.ts[0]) - min(before_s, LONGEST_WAY_S)
    if place.enter_ts is not None and start_ts < place.enter_ts:
        start_ts = place.enter_ts + min(place.stay_s / 2, JOINED_S)
    return _joined((max(start_ts, 0.0), place), path)


def _time_for(way_m: float, path: Path, kind: int) -> float:
    """Seconds for a way at the path's usual speed; 0 if it never moved."""
    hops = hops_m(path.lon, path.lat)
    speeds = speeds_mps(hops, path.ts)
    usual = float(np.median(speeds))
    if usual <= 0:
        moving = speeds[speeds != 0]
        return way_m / float(np.median(moving)) if len(moving) else 0.0
    limit = WALKING_MPS if is_walking(kind) else BICYCLING_MPS
    little_known = way_m > 2 * float(hops.sum()) and kind != Motion.IN_VEHICLE
    if little_known and usual > limit >= 0.9 * usual:
        return way_m  # just too fast for its mode: e-mission takes 1 m/s
    return way_m / usual


def _to_place(path: Path, place: Anchor) -> Path:
    """The path with the place at the end, where the trip is known to have ended."""
    if place.enter_ts is None or not distance_m(path.lon[-1], path.lat[-1], place.lon, place.lat):
        return path
    return _joined(path, (place.enter_ts, place))


def _joined(first: Path | tuple[float, Anchor], second: Path | tuple[float, Anchor]) -> Path:
    ends = [end if isinstance(end, Path) else _point(*end) for end in (first, second)]
    columns = (np.concatenate([getattr(end, name) for end in ends]) for name in Path.__slots__)
    return Path(*columns)


def _point(ts: float, place: Anchor) -> Path:
    return Path(
        np.array([ts]),
        np.array([place.lon]),
        np.array([place.lat]),
        np.array([place.altitude]),
        np.array([place.zone], dtype=object),
    )


def _is_jump(path: Path) -> bool:
    """Whether the way from the place to the first point was faster than the rest ever is."""
    speeds = speeds_mps(hops_m(path.lon, path.lat), path.ts)
    return len(speeds) > 2 and bool(speeds[1] > smoothing.outlier_speed(speeds[2:], smoothing.OUT))


def resampled(path: Path) -> Path:
    """The path with a point every 30 s from its start, and its end, each on the line between its neighbours."""
    if len(path) < 2:
        return path
    step_s = max(STEP_S, (path.ts[-1] - path.ts[0]) / MOST_STEPS)
    ts = np.append(np.arange(path.ts[0], path.ts[-1], step_s), path.ts[-1])
    lon, lat, altitude = (np.interp(ts, path.ts, values) for values in (path.lon, path.lat, path.altitude))
    return Path(ts, lon, lat, altitude, _zones(path, ts))


def _zones(path: Path, ts: Floats) -> Texts:
    """The zone of each point: that of the last point of the path at or before it."""
    if len(set(path.zone.tolist())) == 1:
        return np.full(len(ts), path.zone[0], dtype=object)
    return np.asarray(path.zone[np.searchsorted(path.ts, ts, side="right") - 1])
