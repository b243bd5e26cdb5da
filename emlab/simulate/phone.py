"""What a phone measures of a week: positions with noise, by time (android) or by distance (ios).

It tracks only around a trip, as phones that save their battery do: from some minutes before the movement to some after,
then nothing until the next. May import arithmetic, diary, movement, seeds, setting and streets; imports numpy when it
measures. All positions of a week are computed at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

from emlab.simulate.arithmetic import bearing, ground_m, growth, normal
from emlab.simulate.choices import Choices
from emlab.simulate.diary import Week
from emlab.simulate.entry_form import ANDROID, IOS
from emlab.simulate.streets import METRES_PER_DEGREE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

STILL_S = 360.0  # of points at rest after a trip; e-mission needs ten to see its end
LEAD_S = 75.0  # and before it; from 270 s on e-mission takes them for a dwelling, and a walk from there for its noise
IOS_FILTER_M = 50.0  # from one position to the next at least, as measured, at a period of 30 s
IOS_STEP_M = 51.0  # and on the way: the next one is noted in the second after
IOS_REST_S = (
    -20.0,
    -4.0,
    14.0,
    632.0,
)  # around start and end: leaving the geofence, arriving, checking that it is over
RADIUS_PER_SIGMA = 1.5095921854516636  # 68 % of a round normal cloud lie within so many sigmas: sqrt(-2 ln 0.32)
ACROSS = (
    1.5180052  # so much larger an error across the way alone has the same radius of 68 %: RADIUS_PER_SIGMA / 0.9944579
)
SLOW_S = 90.0  # positions so near in time have related errors
POOR_SHARE, POOR_M = 0.04, (60.0, 150.0)  # positions from radio cells, between good ones
LIAR_SHARE, LIAR_M = 0.002, 110.0  # good ones in movement that are that far off, whatever they say
OUTAGE_SHARE, OUTAGE_S = 0.05, (90.0, 240.0)  # trips during which the satellites are lost for a while
LEAST_OUTAGE_TRIP_S = 900.0
DRAWS = 10  # numbers drawn for each position


@dataclass(frozen=True, eq=False)
class Phone:
    """A person's phone: its platform, how often it measures, how well, and when it notes what it measured."""

    platform: str
    period_s: float
    noise: float

    @property
    def lag_s(self) -> tuple[float, float]:
        """The least and the most time from measuring to writing; below half a period, so that the order stays."""
        return (0.1, 0.3 * self.period_s) if self.platform == ANDROID else (0.05, 0.35)

    @property
    def filter_m(self) -> float:
        """How far apart positions are that a moving ios phone notes, at least."""
        return IOS_FILTER_M * self.period_s / 30


@dataclass(frozen=True, eq=False)
class Track:
    """Positions in order of time, an array for each quantity.

    Attributes:
        ts, write_ts: UTC seconds, measured and written. trip: number of the trip in the week.
        lon, lat: degrees; true_lon, true_lat: where the phone was.
        accuracy_m: radius that holds the truth in 68 of 100 cases. altitude_m, speed_mps, heading_deg: as measured.
        good: whether it also stands among the filtered ones.
    """

    ts: Floats
    write_ts: Floats
    trip: Ints
    lon: Floats
    lat: Floats
    true_lon: Floats
    true_lat: Floats
    accuracy_m: Floats
    altitude_m: Floats
    speed_mps: Floats
    heading_deg: Floats
    good: Bools


def phone_of(choices: Choices) -> Phone:
    """The phone of a person, ios in the setting's share of cases."""
    setting = choices.setting
    is_ios = choices.stream("platform").one() < setting.ios_share
    return Phone(IOS if is_ios else ANDROID, setting.period_s, setting.noise)


def measure(choices: Choices, phone: Phone, week: Week) -> Track:
    """All positions of a week."""
    import numpy as np

    moments = _Moments(phone, week)
    times, trip = moments.by_time() if phone.platform == ANDROID else moments.by_distance()
    draws = choices.stream("phone", week.number).table(len(times), DRAWS)
    times = np.round(times + 0.1 * phone.period_s * (draws[:, 0] - 0.5) * (phone.platform == ANDROID), 3)
    seen = ~_is_lost(choices, week, times, trip)
    poor = seen & (draws[:, 1] < POOR_SHARE) & (phone.platform == ANDROID)
    times, trip, draws, good = _with_poor(times, trip, draws, seen, poor, 0.5 * phone.period_s)
    segment = _segments(week, times, trip)
    track = _track(choices, phone, week, _Fixes(times, trip, segment, draws, good))
    return track if phone.platform == ANDROID else _thinned(track, phone.filter_m)


def _thinned(track: Track, filter_m: float) -> Track:
    """Without what a moving ios phone would not have noted: positions too near to the one before, as after a bend."""
    import numpy as np

    moves, kept = track.speed_mps > 0, np.arange(len(track.ts))
    while True:
        near = np.append(False, ground_m(track.lon[kept], track.lat[kept]) < filter_m) & moves[kept]
        first = near & ~np.append(False, near[:-1])  # the next one may be far enough without it
        if not first.any():
            return Track(*(getattr(track, one.name)[kept] for one in fields(Track)))
        kept = kept[~first]


class _Moments:
    """When positions are noted, for all trips of a week."""

    def __init__(self, phone: Phone, week: Week) -> None:
        self.phone = phone
        self.week = week
        self.starts = week.begins_ts[week.movement.first[:-1]]
        self.ends = self.starts + week.movement.durations_s

    def by_time(self) -> tuple[Floats, Ints]:
        """One each period, from LEAD_S before each trip to STILL_S after it."""
        import numpy as np

        period_s = self.phone.period_s
        counts = np.ceil((self.ends - self.starts + LEAD_S + STILL_S) / period_s).astype("int64") + 1
        trip, step = _numbered(counts)
        return self.starts[trip] - LEAD_S + period_s * step, trip

    def by_distance(self) -> tuple[Floats, Ints]:
        """One each IOS_STEP_M of the way, at most one a second, and some around start and end."""
        import numpy as np

        movement, every_m = self.week.movement, IOS_STEP_M * self.phone.period_s / 30
        ends_m = np.cumsum(movement.length_m)
        before_m = np.append(0.0, ends_m)[movement.first[:-1]]
        trip, step = _numbered(((ends_m[movement.first[1:] - 1] - before_m) / every_m).astype("int64"))
        goal_m = before_m[trip] + every_m * (step + 1)
        segment = np.minimum(np.searchsorted(ends_m, goal_m), len(ends_m) - 1)
        gone_m = goal_m - (ends_m[segment] - movement.length_m[segment])
        moving = self.week.begins_ts[segment] + movement.reached_s(segment, gone_m)
        rest = np.array(IOS_REST_S)
        around = np.where(rest[None, :] < 0, self.starts[:, None], self.ends[:, None]) + rest[None, :]
        times = np.concatenate([moving, around.ravel()])
        trips = np.concatenate([trip, np.repeat(np.arange(len(self.starts)), len(rest))])
        order = np.argsort(times, kind="stable")
        times, trips = times[order], trips[order]
        apart = np.append(True, np.floor(times[1:]) > np.floor(times[:-1]))
        return times[apart], trips[apart]


def _numbered(counts: Ints) -> tuple[Ints, Ints]:
    """For counts 2, 3: whose each item is (0 0 1 1 1), and its number there (0 1 0 1 2)."""
    import numpy as np

    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)


def _segments(week: Week, times: Floats, trip: Ints) -> Ints:
    """The segment of its trip that each time falls on; the first one before the trip, the last one after it."""
    import numpy as np

    found = np.searchsorted(week.begins_ts, times, side="right") - 1
    return np.clip(found, week.movement.first[trip], week.movement.first[trip + 1] - 1)


def _is_lost(choices: Choices, week: Week, times: Floats, trip: Ints) -> Bools:
    """Whether there is no reception: in tunnels, and for some minutes in the middle of some trips."""
    draws = choices.stream("outage", week.number).table(len(week.trips), 3)
    movement = week.movement
    segment = _segments(week, times, trip)
    after_s = times - week.begins_ts[segment]
    tunnel = (movement.fixed["is_tunnel"][segment] > 0) & (after_s > 0) & (after_s < movement.moves_s[segment])
    lasts_s = OUTAGE_S[0] + (OUTAGE_S[1] - OUTAGE_S[0]) * draws[:, 2]
    begins_s = (movement.durations_s - lasts_s) * (0.2 + 0.6 * draws[:, 1])
    happens = (draws[:, 0] < OUTAGE_SHARE) & (movement.durations_s > LEAST_OUTAGE_TRIP_S)
    since_s = times - week.begins_ts[movement.first[trip]] - begins_s[trip]
    return tunnel | (happens[trip] & (since_s > 0) & (since_s < lasts_s[trip]))


def _with_poor(
    times: Floats, trip: Ints, draws: Floats, seen: Bools, poor: Bools, later_s: float
) -> tuple[Floats, Ints, Floats, Bools]:
    """The positions that were seen, and after each one marked `poor` a poor one, in order of time."""
    import numpy as np

    both = np.concatenate([np.flatnonzero(seen), np.flatnonzero(poor)])
    good = np.arange(len(both)) < np.count_nonzero(seen)
    all_times = times[both] + np.where(good, 0.0, later_s)
    order = np.argsort(all_times, kind="stable")
    return np.round(all_times[order], 3), trip[both][order], draws[both][order], good[order]


@dataclass(frozen=True, eq=False)
class _Fixes:
    """When and on which segment positions were noted, the numbers drawn for them, and whether they are good."""

    times: Floats
    trip: Ints
    segment: Ints
    draws: Floats
    good: Bools

    @cached_property
    def normals(self) -> Floats:
        return normal(self.draws[:, 2:7])


def _track(choices: Choices, phone: Phone, week: Week, fixes: _Fixes) -> Track:
    """What is measured at these moments: the truth plus an error, of which the accuracy says the size."""
    import numpy as np

    movement, segment, draws, lattice = week.movement, fixes.segment, fixes.draws, choices.lattice
    after_s = fixes.times - week.begins_ts[segment]
    gone = movement.gone_m(segment, after_s) / movement.length_m[segment]
    x0, y0, x1, y1 = (movement.fixed[name][segment] for name in ("x0", "y0", "x1", "y1"))
    x, y = x0 + (x1 - x0) * gone, y0 + (y1 - y0) * gone
    across, along = lattice.city.turn
    east, north = x * across - y * along, x * along + y * across
    step_x, step_y = x1 - x0, y1 - y0
    step_east, step_north = step_x * across - step_y * along, step_x * along + step_y * across
    heading = bearing(step_east, step_north)
    true_speed = movement.speed_mps(segment, after_s)
    moves = true_speed > 0
    accuracy = _accuracy_m(phone, fixes, moves)
    error_east, error_north = _errors(choices, week, fixes, accuracy, moves)
    if phone.platform == IOS:
        error_east, error_north = _across(error_east, error_north, step_east, step_north, moves)
    sensed, unknown = fixes.good & moves, 0.0 if phone.platform == ANDROID else -1.0
    speed = np.where(sensed, true_speed * (0.93 + 0.14 * draws[:, 8]), unknown)
    low, high = phone.lag_s
    lon0, lat0 = lattice.center
    return Track(
        ts=fixes.times,
        write_ts=np.round(fixes.times + low + (high - low) * draws[:, 9], 3),
        trip=fixes.trip,
        lon=np.round(lon0 + (east + error_east) / lattice.metres_per_lon, 7),
        lat=np.round(lat0 + (north + error_north) / METRES_PER_DEGREE, 7),
        true_lon=np.round(lon0 + east / lattice.metres_per_lon, 7),
        true_lat=np.round(lat0 + north / METRES_PER_DEGREE, 7),
        accuracy_m=accuracy,
        altitude_m=np.round(40 + x / 400 + y / 700 + 2.5 * fixes.normals[:, 0], 1),
        speed_mps=_rounded(speed, 2),
        heading_deg=_rounded(np.where(sensed, heading, unknown), 1),
        good=fixes.good,
    )


def _across(east: Floats, north: Floats, step_east: Floats, step_north: Floats, moves: Bools) -> tuple[Floats, Floats]:
    """Errors of a moving phone that are across its way: along it, the phone waits until it measures enough metres."""
    import numpy as np

    length = np.sqrt(step_east * step_east + step_north * step_north)
    across = ACROSS * (north * step_east - east * step_north) / (length * length)
    return np.where(moves, -across * step_north, east), np.where(moves, across * step_east, north)


def _rounded(values: NDArray[np.floating], digits: int) -> Floats:
    import numpy as np

    return np.asarray(np.round(values, digits), dtype=np.float64)


def _accuracy_m(phone: Phone, fixes: _Fixes, moves: Bools) -> Floats:
    """The 68 % radius: about 6 m outdoors, more indoors, tens of metres without satellites.

    Source: van Diggelen and Enge, "The World's first GPS MOOC and Worldwide Laboratory using Smartphones" (2015): 4.9 m
    under open sky. Indoors and by radio cells: chosen.
    """
    import numpy as np

    fine = np.where(moves, 5.5, 8.0) * growth(0.35 * fixes.normals[:, 1])
    poor = POOR_M[0] + (POOR_M[1] - POOR_M[0]) * fixes.draws[:, 7]
    return _rounded(np.maximum(phone.noise * np.where(fixes.good, np.clip(fine, 3.0, 25.0), poor), 0.1), 3)


def _errors(choices: Choices, week: Week, fixes: _Fixes, accuracy_m: Floats, moves: Bools) -> tuple[Floats, Floats]:
    """Metres east and north from the truth: two thirds of the variance drift slowly, one third is new each time.

    The drift is a line between independent normal numbers every SLOW_S, divided by its own deviation.
    """
    import numpy as np

    since = (fixes.times - week.begins_ts[week.movement.first[fixes.trip]] + 2 * STILL_S) / SLOW_S
    counts = np.ceil((week.movement.durations_s + 5 * STILL_S) / SLOW_S).astype("int64") + 2
    drawn = normal(choices.stream("drift", week.number).table(int(np.cumsum(counts)[-1]), 2))
    knot = since.astype("int64")
    share, place = since - knot, (np.cumsum(counts) - counts)[fixes.trip] + knot
    deviation = np.sqrt(share * share + (1 - share) * (1 - share))
    lies = fixes.good & moves & (fixes.draws[:, 7] < LIAR_SHARE)
    scale = np.where(lies, LIAR_M, accuracy_m / RADIUS_PER_SIGMA)
    slow, new = 0.816496580927726, 0.5773502691896258  # square roots of 2/3 and 1/3
    east, north = (
        (
            (drawn[place, axis] * (1 - share) + drawn[place + 1, axis] * share) / deviation * slow
            + fixes.normals[:, 2 + axis] * new
        )
        * scale
        for axis in (0, 1)
    )
    return np.asarray(east, dtype=np.float64), np.asarray(north, dtype=np.float64)
