"""What a phone notes besides positions: motions, the steps of its state machine, its battery, its restarts.

May import diary, entry_form, phone, seeds and truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emlab.entries.codes import Motion, State, Transition
from emlab.simulate.choices import Choices
from emlab.simulate.diary import WEEK, Week
from emlab.simulate.entry_form import ANDROID, IOS, Observation, battery, motion, transition
from emlab.simulate.phone import LEAD_S, STILL_S, Track
from emlab.simulate.truth import SENSED, TrueTrip

BATTERY_HOURS = (7.2, 11.4, 15.1, 18.2, 22.8)
IDLE_PCT_H, TRACKING_PCT_H = (1.2, 2.6), 7.0  # how fast a battery empties at rest and on the way; chosen
RESTART_SHARE = 0.03  # of days; a phone restarts at night
UNSURE_SHARE = 0.08  # of motions that the phone is not sure of; those may be wrong
UNSURE_KINDS = (Motion.UNKNOWN, Motion.TILTING, Motion.STILL, Motion.IN_VEHICLE)
IOS_UNSURE_KINDS = (Motion.UNKNOWN, Motion.WALKING, Motion.STILL, Motion.IN_VEHICLE)
LEAST_WAIT_S = 12.0  # a shorter stop between two sections is not noted
_LEAVING = ((State.WAITING_FOR_TRIP_START, Transition.EXITED_GEOFENCE),)
_IOS_LEAVING = (
    *_LEAVING,
    (State.WAITING_FOR_TRIP_START, Transition.TRIP_STARTED),
    (State.ONGOING_TRIP, Transition.TRIP_STARTED),
    (State.ONGOING_TRIP, Transition.TRIP_RESTARTED),
)
_ARRIVED = ((State.ONGOING_TRIP, Transition.STOPPED_MOVING),)
_IOS_ARRIVED = (
    (State.ONGOING_TRIP, Transition.TRIP_END_DETECTED),
    (State.ONGOING_TRIP, Transition.END_TRIP_TRACKING),
    *_ARRIVED,
    (State.WAITING_FOR_TRIP_START, Transition.STOPPED_MOVING),
)
_INSTALLED = ((State.START, Transition.INITIALIZE),)
_IOS_INSTALLED = (*_INSTALLED, (State.START, Transition.INIT_COMPLETE))
_BOOTED = (
    (State.TRACKING_STOPPED, Transition.BOOTED),
    (State.WAITING_FOR_TRIP_START, Transition.INITIALIZE),
)
Steps = tuple[tuple[State, Transition], ...]


def motions(choices: Choices, week: Week, platform: str) -> Iterator[Observation]:
    """About one a minute: STILL at rest and while waiting to board, a section's own from its first seconds on."""
    planned = [moment for trip in week.trips for moment in _planned_motions(trip)]
    draws = choices.stream("motion", week.number).table(len(planned), 4).tolist()
    for (ts, kind, is_first), (shift, unsure, confidence, other) in zip(planned, draws, strict=True):
        at = round(ts + 6 * shift - 3, 3)
        if unsure < UNSURE_SHARE and not is_first:
            kinds = UNSURE_KINDS if platform == ANDROID else IOS_UNSURE_KINDS
            yield motion(kinds[int(other * 4)], 30 + int(confidence * 25), at, platform=platform)
        else:
            yield motion(kind, 65 + int(confidence * 36), at, platform=platform)


def _planned_motions(trip: TrueTrip) -> Iterator[tuple[float, Motion, bool]]:
    """When about, what, and whether it is the first of its section, which is always noted well."""
    still = int(STILL_S // 60)
    yield trip.start_ts - LEAD_S + 30, Motion.STILL, True
    before_ts = trip.start_ts
    for section in trip.sections:
        waits = max(0, int((section.start_ts - before_ts + 60 - LEAST_WAIT_S) // 60))
        yield from ((before_ts + 6 + 60 * k, Motion.STILL, k == 0) for k in range(waits))
        count = max(1, int((section.end_ts - section.start_ts - 12) // 60) + 1)
        yield from ((section.start_ts + 8 + 60 * k, SENSED[section.mode], k == 0) for k in range(count))
        before_ts = section.end_ts
    yield from ((trip.end_ts + 6 + 60 * k, Motion.STILL, k == 0) for k in range(still))


def transitions(choices: Choices, week: Week, track: Track, platform: str) -> Iterator[Observation]:
    """The state machine leaves before the first position of each trip, and stops after the last one."""
    import numpy as np

    ios = platform == IOS
    numbers = np.arange(len(week.trips))
    firsts = track.ts[np.searchsorted(track.trip, numbers)].tolist()
    lasts = track.ts[np.searchsorted(track.trip, numbers, side="right") - 1].tolist()
    draws = choices.stream("steps", week.number).table(len(week.trips), 2).tolist()
    for first_ts, last_ts, (early, late) in zip(firsts, lasts, draws, strict=True):
        yield from _steps(_IOS_LEAVING if ios else _LEAVING, first_ts - 3 - 5 * early, platform)
        yield from _steps(_IOS_ARRIVED if ios else _ARRIVED, last_ts + 5 + 15 * late, platform)


def _steps(steps: Steps, ts: float, platform: str, *, apart_s: float = 0.4) -> Iterator[Observation]:
    for k, (state, kind) in enumerate(steps):
        yield transition(state, kind, round(ts + k * apart_s, 3), platform=platform)


def boots(choices: Choices, number: int) -> dict[int, float]:
    """When the phone started anew in a week, by day; on the first of all days it was just installed."""
    draws = choices.stream("boots", number).table(WEEK, 2).tolist()
    days = zip(range(WEEK * number, choices.setting.days), draws, strict=False)
    return {
        day: round(choices.setting.local_ts(day, 4.3 + 0.5 * when), 3)
        for day, (share, when) in days
        if choices.setting.exists(day) and (day == 0 or share < RESTART_SHARE)
    }


def starts(boot_ts: dict[int, float], platform: str) -> Iterator[Observation]:
    """What the state machine says when the app is installed, and when its phone starts again."""
    installed = _INSTALLED if platform == ANDROID else _IOS_INSTALLED
    booted = _BOOTED if platform == ANDROID else _IOS_INSTALLED
    for day, ts in boot_ts.items():
        yield from _steps(booted if day else installed, ts, platform, apart_s=9.0)


def charge(choices: Choices, number: int, week: Week | None, platform: str) -> Iterator[Observation]:
    """The battery's state a few times a day: it empties, faster on the way, until it hangs on its charger at night."""
    setting, trips = choices.setting, week.trips if week else ()
    for day in range(WEEK * number, min(WEEK * (number + 1), setting.days)):
        if not setting.exists(day):
            continue
        draws = choices.stream("battery", day).table(len(BATTERY_HOURS) + 1, 2).tolist()
        idle_pct_h = IDLE_PCT_H[0] + (IDLE_PCT_H[1] - IDLE_PCT_H[0]) * draws[-1][0]
        morning_ts = setting.local_ts(day, 4.0)
        for hour, (shift, warmth) in zip(BATTERY_HOURS, draws[:-1], strict=True):
            at = hour + 0.6 * shift - 0.3
            ts = setting.local_ts(day, at)
            on_the_way_h = _tracked_s(trips, morning_ts, ts) / 3600
            level_pct = max(4, round(99 - idle_pct_h * (at - 6.5) - TRACKING_PCT_H * on_the_way_h))
            charging = hour == BATTERY_HOURS[-1]
            yield battery(level_pct, 240 + int(100 * warmth), ts, charging=charging, platform=platform)


def _tracked_s(trips: Sequence[TrueTrip], start_ts: float, end_ts: float) -> float:
    """Seconds on the way between two times."""
    seconds = 0.0
    for trip in trips:
        if trip.start_ts >= start_ts:
            seconds += min(max(0.0, end_ts - trip.start_ts), trip.duration_s)
    return seconds
