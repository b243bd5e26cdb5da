"""What a phone notes of a life: positions with noise, motions, transitions, its battery.

It tracks only around a trip, as phones that save their battery do: from some minutes before the movement to some after,
then nothing until the next. May import entry_form, geo, life, routes, seeds and truth; imports numpy when it measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from emlab.simulate.entry_form import (
    FILTERED_LOCATION,
    LOCATION,
    Fix,
    Motion,
    Observation,
    Transition,
    battery,
    location,
    motion,
    transition,
)
from emlab.simulate.life import Setting
from emlab.simulate.routes import METRES_PER_DEGREE, Journey
from emlab.simulate.seeds import stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.random import RandomState
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PERIOD_S = 30.0  # between two positions
STILL_POINTS = 12  # at rest before the movement, and again after it; e-mission needs 10 to see the end of a trip
ACCURACY_M = (3.0, 12.0)  # the 68 % radius of a good position
POOR_SHARE, POOR_ACCURACY_M = 0.04, (60.0, 150.0)  # positions from radio cells, between good ones
RADIUS_PER_SIGMA = math.sqrt(-2 * math.log(0.32))  # 68 % of a round normal cloud lie within this many sigmas
BATTERY_HOURS = (7.2, 11.4, 15.1, 18.2, 22.8)
MAX_DELAY_S = 9.0  # of writing a position; below half a period, so that the order stays


def _fix_times(chance: RandomState, journey: Journey) -> tuple[Floats, NDArray[np.bool_]]:
    """When positions are noted, rising, in whole milliseconds; and which of them are good."""
    import numpy as np

    before_s, moving = STILL_POINTS * PERIOD_S, math.ceil(journey.trip.duration_s / PERIOD_S)
    count = 2 * STILL_POINTS + moving + 1
    good = journey.trip.start_ts - before_s + PERIOD_S * np.arange(count) + chance.uniform(-1.5, 1.5, count)
    poor = good[:-1][chance.random_sample(count - 1) < POOR_SHARE] + 0.5 * PERIOD_S
    times = np.round(np.concatenate([good, poor]), 3)
    order = np.argsort(times, kind="stable")
    return times[order], order < count


def _positions(journey: Journey, times: Floats) -> tuple[Floats, Floats]:
    """True longitudes and latitudes; before the trip its start, after it its end."""
    import numpy as np

    knots = np.array([(k.ts, k.lon, k.lat) for k in journey.knots])
    return np.interp(times, knots[:, 0], knots[:, 1]), np.interp(times, knots[:, 0], knots[:, 2])


def _movement(journey: Journey, times: Floats) -> tuple[Floats, Floats]:
    """True speed in m/s and heading in degrees from north, over the two seconds around each time."""
    import numpy as np

    (lon1, lat1), (lon2, lat2) = _positions(journey, times - 1), _positions(journey, times + 1)
    east_m = (lon2 - lon1) * METRES_PER_DEGREE * np.cos(np.radians(lat1))
    north_m = (lat2 - lat1) * METRES_PER_DEGREE
    return np.hypot(east_m, north_m) / 2, np.degrees(np.arctan2(east_m, north_m)) % 360


def _fixes(chance: RandomState, journey: Journey, times: Floats, good: NDArray[np.bool_], boot_ts: float) -> list[Fix]:
    """What the phone measures at each time: the truth plus noise, of which the accuracy says the size."""
    import numpy as np

    count = len(times)
    fine_m = np.clip(5.5 * np.exp(0.35 * chance.standard_normal(count)), *ACCURACY_M)
    accuracy_m = np.round(np.where(good, fine_m, chance.uniform(*POOR_ACCURACY_M, count)), 3)
    east_m, north_m = chance.standard_normal((2, count)) * accuracy_m / RADIUS_PER_SIGMA
    lons, lats = _positions(journey, times)
    speeds, headings = _movement(journey, times)
    speeds = np.where(good, speeds * chance.uniform(0.93, 1.07, count), 0.0)
    columns = (
        np.round(lons + east_m / (METRES_PER_DEGREE * np.cos(np.radians(lats))), 7),
        np.round(lats + north_m / METRES_PER_DEGREE, 7),
        accuracy_m,
        np.round(40 + 4 * chance.standard_normal(count), 1),
        np.round(speeds, 2),
        np.round(np.where(speeds > 0, headings, 0.0), 1),
        np.round((times - boot_ts) * 1e3).astype(np.int64) * 1_000_000,
    )
    return [Fix(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def _locations(chance: RandomState, journey: Journey, boot_ts: float) -> Iterator[Observation]:
    """Every position under `background/location`, the good ones also under `background/filtered_location`."""
    times, good = _fix_times(chance, journey)
    fixes = _fixes(chance, journey, times, good, boot_ts)
    delays = chance.uniform(0.1, MAX_DELAY_S, len(times)).tolist()
    for fix, ts, delay_s, is_good in zip(fixes, times.tolist(), delays, good.tolist(), strict=True):
        yield location(fix, ts, round(ts + delay_s, 3), key=LOCATION)
        if is_good:
            yield location(fix, ts, round(ts + delay_s + 0.6, 3), key=FILTERED_LOCATION)


def _motions(chance: RandomState, journey: Journey) -> Iterator[Observation]:
    """About one a minute: STILL at rest, the trip's own motion from its first seconds to its last."""
    trip, half_s = journey.trip, STILL_POINTS * PERIOD_S
    moving = max(1, int((trip.duration_s - 12) // 60) + 1)
    planned = [(trip.start_ts - half_s + 30 + 60 * k, Motion.STILL) for k in range(int(half_s // 60))]
    planned += [(trip.start_ts + 8 + 60 * k, Motion[trip.mode.name]) for k in range(moving)]
    planned += [(trip.end_ts + 6 + 60 * k, Motion.STILL) for k in range(int(half_s // 60))]
    for ts, kind in planned:
        yield motion(kind, int(chance.randint(65, 101)), round(ts + float(chance.uniform(-3, 3)), 3))


def track(setting: Setting, index: int, journeys: Iterable[Journey]) -> Iterator[Observation]:
    """All that the phone notes of these journeys (the first of a person's first), not yet in order."""
    boot_ts = setting.local_ts(-1, 5.0)
    for number, journey in enumerate(journeys):
        chance = stream(setting.seed, index, "phone", number)
        seen = list(_locations(chance, journey, boot_ts))
        yield from seen
        yield from _motions(chance, journey)
        yield transition(Transition.EXITED_GEOFENCE, round(seen[0].ts - float(chance.uniform(2, 8)), 3))
        yield transition(Transition.STOPPED_MOVING, round(seen[-1].ts + float(chance.uniform(5, 20)), 3))


def charge(setting: Setting, index: int) -> Iterator[Observation]:
    """The battery's state a few times a day: it empties until the phone hangs on its charger at night."""
    for day in range(setting.days):
        chance = stream(setting.seed, index, "battery", day)
        drain_pct = chance.uniform(2.5, 4.5)
        for hour in BATTERY_HOURS:
            at = hour + float(chance.uniform(-0.3, 0.3))
            level_pct = round(98 - drain_pct * (at - 6.5), 1)
            temperature, voltage_mv = int(chance.randint(240, 340)), round(3500 + 7 * level_pct)
            charging = hour == BATTERY_HOURS[-1]
            yield battery(level_pct, temperature, voltage_mv, setting.local_ts(day, at), charging=charging)
