"""Weeks of a life: which trips somebody makes, by which ways, and when exactly. Truth, without a phone.

May import activities, choices, movement, routes, seeds, setting and truth; imports numpy. Work goes week by week, so
that many trips are computed at once and nothing but the current week is held.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlab.entries.codes import Mode
from emlab.simulate.activities import Stop, Tour, plan_for
from emlab.simulate.choices import Choices
from emlab.simulate.households import HOME, LUNCH, WORK
from emlab.simulate.movement import Movement, move
from emlab.simulate.routes import Route
from emlab.simulate.truth import Place, TrueSection, TrueTrip

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEEK = 7
MIN_STAY_S = 1_200.0  # longer than the still points after one trip and before the next
PEAKS = ((7.0, 9.2), (15.8, 18.3))  # local hours in which traffic is slow


@dataclass(frozen=True, slots=True)
class Outing:
    """A trip as planned.

    Attributes:
        planned_ts: when it shall begin; None: when the stay before it is over. hour: about the local hour of that.
        stay_s: how long one stays at its start.
    """

    start: str
    end: str
    mode: Mode
    planned_ts: float | None
    stay_s: float
    hour: float


@dataclass(frozen=True, eq=False)
class Week:
    """The trips of one week, and their movement; `begins_ts` has the start of each segment of it."""

    number: int
    trips: tuple[TrueTrip, ...]
    movement: Movement
    begins_ts: NDArray[np.float64]


def weeks(choices: Choices) -> Iterator[tuple[int, Week | None]]:
    """The number of each week of one person, and what happens in it: None if nobody leaves the house."""
    free_ts = -math.inf
    for number in range(math.ceil(choices.setting.days / WEEK)):
        outings = [outing for day in _days(choices, number) for outing in _outings(choices, day)]
        week = _week(choices, number, outings, free_ts) if outings else None
        free_ts = week.trips[-1].end_ts + MIN_STAY_S if week else free_ts
        yield number, week


def _days(choices: Choices, number: int) -> range:
    return range(WEEK * number, min(WEEK * (number + 1), choices.setting.days))


def _outings(choices: Choices, day: int) -> Iterator[Outing]:
    """The trips that are planned for a day, in their order; on the first day there are some."""
    setting = choices.setting
    if not setting.exists(day):
        return
    chance = choices.stream("day", day)
    plan = plan_for(chance, choices.kind, setting.weekday(day), setting.trips_per_day, goes_out=day == 0)
    habit_h = 0.7 * (2 * choices.habit - 1)
    for tour in plan.tours:
        jitter = chance.some(1 + len(tour.stops))
        late = Tour(tour.hour + habit_h + 0.5 * (jitter[0] - 0.5), _stays(choices, tour, jitter[1:]))
        for part in _feasible(choices, late):
            yield from _legs(choices, day, part)


def _stays(choices: Choices, tour: Tour, jitter: Sequence[float]) -> tuple[Stop, ...]:
    """The tour's stops for as long as today; who cannot walk to lunch works through."""
    stops = [Stop(stop.place, stop.stay_h * (0.85 + 0.3 * u)) for stop, u in zip(tour.stops, jitter, strict=True)]
    if LUNCH in (stop.place for stop in stops) and not choices.walks_to_lunch():
        at_work = 0.0
        for stop in stops:
            at_work += stop.stay_h
        return (Stop(WORK, at_work),)
    return tuple(stops)


def _feasible(choices: Choices, tour: Tour) -> list[Tour]:
    """The tour, or one from home for each of its stops if no mode suits them all."""
    if choices.modes(tour):
        return [tour]
    hour, parts = tour.hour, []
    for place in dict.fromkeys(stop.place for stop in tour.stops):
        stop = next(stop for stop in tour.stops if stop.place == place)
        parts.append(Tour(hour, (stop,)))
        hour += stop.stay_h + 1.5
    return parts


def _legs(choices: Choices, day: int, tour: Tour) -> Iterator[Outing]:
    modes = choices.modes(tour)
    if modes is None:
        return
    names, stays_h = [HOME, *(stop.place for stop in tour.stops), HOME], [stop.stay_h for stop in tour.stops]
    hour = tour.hour
    for k, mode in enumerate(modes):
        planned_ts = choices.setting.local_ts(day, hour) if k == 0 else None
        stay_s = MIN_STAY_S if k == 0 else max(MIN_STAY_S, stays_h[k - 1] * 3600)
        hour += stays_h[k - 1] + 0.4 if k else 0
        yield Outing(names[k], names[k + 1], mode, planned_ts, stay_s, hour)


def _week(choices: Choices, number: int, outings: Sequence[Outing], free_ts: float) -> Week:
    import numpy as np

    routes = [choices.route(outing.start, outing.end, outing.mode) for outing in outings]
    chance = choices.stream("move", number)
    own = choices.stream("pace").some(2)
    tempo = (0.97 + 0.06 * choices.stream("tempo", number).table(len(outings), 2)).tolist()
    slow = [choices.setting.city.peak_slowdown if _is_peak(outing.hour) else 1.0 for outing in outings]
    movement = move(
        routes,
        [(0.91 + 0.16 * own[0]) * each[0] for each in tempo],
        [(0.93 + 0.14 * own[1]) * each[1] * peak for each, peak in zip(tempo, slow, strict=True)],
        chance.table(sum(len(route.segments) for route in routes), 3),
    )
    starts = _starts(outings, movement.durations_s.tolist(), free_ts)
    begins_ts = np.array(starts)[movement.trip] + movement.since_start_s
    trips = _trips(choices, outings, routes, movement, begins_ts)
    return Week(number, trips, movement, begins_ts)


def _is_peak(hour: float) -> bool:
    return any(start <= hour <= end for start, end in PEAKS)


def _starts(outings: Sequence[Outing], durations_s: Sequence[float], free_ts: float) -> list[float]:
    """When each trip begins, in whole milliseconds: as planned, or later if the one before took long."""
    starts, end_ts = [], free_ts - MIN_STAY_S
    for outing, duration_s in zip(outings, durations_s, strict=True):
        ready_ts = end_ts + outing.stay_s
        starts.append(round(ready_ts if outing.planned_ts is None else max(outing.planned_ts, ready_ts), 3))
        end_ts = starts[-1] + duration_s
    return starts


def _trips(
    choices: Choices,
    outings: Sequence[Outing],
    routes: Sequence[Route],
    movement: Movement,
    begins_ts: NDArray[np.float64],
) -> tuple[TrueTrip, ...]:
    import numpy as np

    places = {place.name: place for place in places_of(choices)}
    lasts = np.flatnonzero(movement.fixed["ends_leg"])
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    legs = iter(
        zip(
            np.round(begins_ts[firsts], 3).tolist(),
            np.round(begins_ts[lasts] + movement.moves_s[lasts], 3).tolist(),
            strict=True,
        )
    )
    trips = []
    for outing, route in zip(outings, routes, strict=True):
        sections = tuple(
            TrueSection(*next(legs), mode, metres, path)
            for mode, metres, path in zip(route.modes, route.distances_m, route.paths, strict=True)
        )
        purpose = outing.end.replace("market", "shop").replace("friend", "leisure")
        trips.append(TrueTrip(places[outing.start], places[outing.end], purpose, sections))
    return tuple(trips)


def places_of(choices: Choices) -> tuple[Place, ...]:
    """All places of the person, home first."""
    lattice = choices.lattice
    return tuple(Place(name, *lattice.lonlat(lattice.point(spot))) for name, spot in choices.addresses.items())
