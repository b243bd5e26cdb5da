"""What people do on a day: tours from home over one or more activities and back, by kind of person and of day.

Values and their weights only; may import households, seeds and setting.

The plans and their weights are chosen, so that together they give about what travel surveys find: 3.4 trips a day for
each person (US National Household Travel Survey 2017: 3.37; in 2022, after the pandemic: 2.28), a working day of
eight to nine hours with departures around eight, two peaks of traffic, shopping and leisure as the largest purposes
besides work and school, and about one day in eight without any trip.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from emlab.simulate.households import (
    ESCORT,
    FRIEND,
    LEISURE,
    LUNCH,
    MARKET,
    SCHOOL,
    SHOP,
    WORK,
    Kind,
)
from emlab.simulate.seeds import Stream, pick


@dataclass(frozen=True, slots=True)
class Stop:
    """An activity away from home: at which place, for how many hours."""

    place: str
    stay_h: float


@dataclass(frozen=True, slots=True)
class Tour:
    """Out at a local hour, over the stops in their order, and home again."""

    hour: float
    stops: tuple[Stop, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A day's tours, and how often such a day occurs among others of its kind (before `trips_per_day` weighs in)."""

    weight: float
    tours: tuple[Tour, ...] = ()

    @property
    def trips(self) -> int:
        """How many trips that day has."""
        return sum(len(tour.stops) + 1 for tour in self.tours)


def _tour(hour: float, *stops: tuple[str, float]) -> Tour:
    return Tour(hour, tuple(Stop(*stop) for stop in stops))


_OFFICE = (WORK, 8.7)
_MORNING = ((WORK, 3.8), (LUNCH, 0.7), (WORK, 4.3))
_EVENING = _tour(19.2, (LEISURE, 1.8))
WORKDAY = (
    Plan(0.07),
    Plan(0.27, (_tour(7.9, _OFFICE),)),
    Plan(0.15, (_tour(7.9, _OFFICE, (SHOP, 0.6)),)),
    Plan(0.12, (_tour(8.1, *_MORNING),)),
    Plan(0.12, (_tour(7.8, _OFFICE), _EVENING)),
    Plan(0.07, (_tour(7.6, (ESCORT, 0.4), (WORK, 8.0), (ESCORT, 0.4)),)),
    Plan(0.06, (_tour(8.2, _OFFICE, (LEISURE, 1.5)),)),
    Plan(0.05, (_tour(12.3, (SHOP, 0.6)),)),  # at home in between: works there
    Plan(0.05, (_tour(12.2, (SHOP, 0.6)), _tour(18.4, (LEISURE, 1.8)))),
    Plan(0.04, (_tour(8.0, *_MORNING), _tour(19.4, (FRIEND, 1.7)))),
)
SCHOOLDAY = (
    Plan(0.07),
    Plan(0.36, (_tour(7.7, (SCHOOL, 6.7)),)),
    Plan(0.18, (_tour(7.7, (SCHOOL, 6.7), (LEISURE, 1.6)),)),
    Plan(0.22, (_tour(7.8, (SCHOOL, 6.2)), _tour(16.6, (LEISURE, 1.8)))),
    Plan(0.08, (_tour(7.8, (SCHOOL, 6.4), (SHOP, 0.5)),)),
    Plan(0.06, (_tour(7.8, (SCHOOL, 6.4)), _tour(17.5, (FRIEND, 2.2)))),
    Plan(0.03, (_tour(7.8, (SCHOOL, 5.5)), _tour(15.3, (SHOP, 0.5)), _tour(18.2, (FRIEND, 2.0)))),
)
OWN_DAY = (
    Plan(0.16),
    Plan(0.22, (_tour(10.2, (SHOP, 0.8)),)),
    Plan(0.12, (_tour(14.0, (LEISURE, 1.8)),)),
    Plan(0.16, (_tour(10.0, (SHOP, 0.7)), _tour(15.2, (LEISURE, 2.0)))),
    Plan(0.12, (_tour(10.4, (MARKET, 1.0), (SHOP, 0.5)),)),
    Plan(0.10, (_tour(11.0, (FRIEND, 2.2)),)),
    Plan(0.08, (_tour(9.6, (LEISURE, 1.2), (SHOP, 0.6)), _tour(16.0, (FRIEND, 2.0)))),
    Plan(0.04, (_tour(9.5, (SHOP, 0.6)), _tour(13.2, (LEISURE, 1.2)), _tour(17.8, (FRIEND, 2.2)))),
)
WEEKEND = (
    Plan(0.16),
    Plan(0.20, (_tour(11.2, (LEISURE, 2.2)),)),
    Plan(0.12, (_tour(10.6, (MARKET, 1.2)),)),
    Plan(0.10, (_tour(13.5, (FRIEND, 3.0)),)),
    Plan(0.18, (_tour(10.4, (SHOP, 0.7)), _tour(15.4, (LEISURE, 2.2)))),
    Plan(0.10, (_tour(11.0, (LEISURE, 1.8), (SHOP, 0.6)),)),
    Plan(0.08, (_tour(10.4, (MARKET, 1.0), (SHOP, 0.5)), _tour(18.0, (FRIEND, 2.5)))),
    Plan(0.06, (_tour(10.0, (SHOP, 0.6)), _tour(13.6, (LEISURE, 1.5)), _tour(18.2, (FRIEND, 2.4)))),
)
WEEKDAYS: Mapping[Kind, tuple[Plan, ...]] = {
    Kind.WORKER: WORKDAY,
    Kind.STUDENT: SCHOOLDAY,
    Kind.OTHER: OWN_DAY,
}
LEAST_TRIPS, MOST_TRIPS = 1.0, 5.0  # a day, on average, that the plans can give


def plan_for(chance: Stream, kind: Kind, weekday: int, trips_per_day: float, *, goes_out: bool) -> Plan:
    """One day's plan.

    Args:
        weekday: Monday is 0.
        trips_per_day: of a population of all kinds in equal parts, on average.
        goes_out: whether a day without any trip is excluded.
    """
    plans = WEEKDAYS[kind] if weekday < 5 else WEEKEND
    tilt = tilt_for(trips_per_day)
    weights = [0.0 if goes_out and not plan.tours else plan.weight * _power(tilt, plan.trips) for plan in plans]
    return plans[pick(chance, weights)]


@functools.lru_cache(maxsize=64)
def tilt_for(trips_per_day: float) -> float:
    """The factor t for which plans weighted by t ** trips have that many trips on average; found by halving."""
    low, high = 0.05, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_trips(middle) < trips_per_day else (low, middle)
    return (low + high) / 2


def _mean_trips(tilt: float) -> float:
    """Trips a day over all kinds of people and a whole week."""
    on_weekdays = (_mean(WORKDAY, tilt) + _mean(SCHOOLDAY, tilt) + _mean(OWN_DAY, tilt)) / 3
    return (5 * on_weekdays + 2 * _mean(WEEKEND, tilt)) / 7


def _mean(plans: tuple[Plan, ...], tilt: float) -> float:
    trips = total = 0.0
    for plan in plans:
        weight = plan.weight * _power(tilt, plan.trips)
        trips, total = trips + weight * plan.trips, total + weight
    return trips / total


def _power(base: float, times: int) -> float:
    """By multiplication, so that it is the same on every machine."""
    power = 1.0
    for _ in range(times):
        power *= base
    return power
