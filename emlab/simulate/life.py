"""Where somebody lives and what their days are like: places, tours, and the journeys that come of them.

May import routes, seeds and truth. A tour goes out to a place and comes back the same way, so that no bicycle or car
is left behind, and none is taken for a few hundred metres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from emlab.geo import haversine_m
from emlab.simulate.routes import PACES, Journey, journey, mode_for, shifted, street_distance_m, street_path
from emlab.simulate.seeds import stream
from emlab.simulate.truth import LonLat, Mode, Place

if TYPE_CHECKING:
    from numpy.random import RandomState

HOME, WORK, THIRD = "home", "work", "third"
PLACE_NAMES = (HOME, WORK, THIRD)
MIN_DWELL_S = 1_800.0  # longer than the still points after one trip and before the next
_WORK_M = (1_000.0, 8_000.0)  # how far work is from home
_THIRD_M = (400.0, 1_100.0)  # how far the third place is from work
_APART_M = 400.0  # below this, two places would be one to a phone


@dataclass(frozen=True, slots=True)
class Tour:
    """Out from one place to another and back, by name, at these local hours."""

    start: str
    goal: str
    out_hour: float
    back_hour: float


Plan = tuple[Tour, ...]
WORKDAYS: tuple[Plan, ...] = (
    (Tour(HOME, WORK, 8.3, 17.5), Tour(WORK, THIRD, 12.0, 13.2)),
    (Tour(HOME, WORK, 8.6, 17.0), Tour(HOME, THIRD, 18.8, 21.0)),
    (Tour(HOME, WORK, 8.5, 19.3), Tour(WORK, THIRD, 17.1, 18.4)),
)
FREE_DAYS: tuple[Plan, ...] = (
    (Tour(HOME, THIRD, 10.5, 12.6), Tour(HOME, THIRD, 16.0, 18.4)),
    (Tour(HOME, THIRD, 11.0, 14.5),),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What all people of one simulation share.

    Attributes:
        seed: where chance begins.
        days, start, timezone: how many local days from which on, and whose clock they follow (IANA name).
        center, box_m: (longitude, latitude), and the side of the square around it that holds every place.
    """

    seed: int
    days: int
    start: date
    timezone: str
    center: LonLat
    box_m: float

    def local_ts(self, day: int, hour: float) -> float:
        """UTC seconds when the wall clock shows `hour` (8.5 is half past eight) on that day, from 0."""
        midnight = datetime.combine(self.start + timedelta(days=day), time.min, tzinfo=ZoneInfo(self.timezone))
        # Adding to an aware datetime moves its wall clock, so a clock change in between does no harm.
        return (midnight + timedelta(milliseconds=round(hour * 3_600_000))).timestamp()


@dataclass(frozen=True, slots=True)
class Leg:
    """One planned trip: from place to place by name, mode, local hour."""

    hour: float
    start: str
    end: str
    mode: Mode


def _inside(setting: Setting, point: LonLat) -> bool:
    (west, south), (east, north) = (shifted(setting.center, s, s) for s in (-setting.box_m / 2, setting.box_m / 2))
    return west <= point[0] <= east and south <= point[1] <= north


def _nearby(
    chance: RandomState, setting: Setting, name: str, reach_m: tuple[float, float], known: list[Place]
) -> Place:
    """A new place at a distance in `reach_m` from the last known one, in the box and apart from all known ones.

    Tries until one fits: at least one direction in four points into the box.
    """
    origin, least_m, most_m = known[-1], reach_m[0], min(reach_m[1], setting.box_m / 2)
    while True:
        far_m = math.exp(chance.uniform(math.log(least_m), math.log(most_m)))
        angle = chance.uniform(0, 2 * math.pi)
        lon, lat = shifted((origin.lon, origin.lat), far_m * math.cos(angle), far_m * math.sin(angle))
        apart = all(haversine_m(lon, lat, p.lon, p.lat) >= _APART_M * 0.99 for p in known)
        if apart and _inside(setting, (lon, lat)):
            return Place(name, lon, lat)


def settle(setting: Setting, index: int) -> dict[str, Place]:
    """Home, work and the third place of a person, by name."""
    chance = stream(setting.seed, index, "places")
    half_m = setting.box_m / 2
    home = Place(HOME, *shifted(setting.center, chance.uniform(-half_m, half_m), chance.uniform(-half_m, half_m)))
    work = _nearby(chance, setting, WORK, _WORK_M, [home])
    third = _nearby(chance, setting, THIRD, _THIRD_M, [home, work])
    return {place.name: place for place in (home, work, third)}


def _legs(places: Mapping[str, Place], plan: Plan) -> list[Leg]:
    """The trips of a day's plan in the order of their hours."""
    legs = []
    for tour in plan:
        mode = mode_for(street_distance_m(places[tour.start], places[tour.goal]))
        legs.append(Leg(tour.out_hour, tour.start, tour.goal, mode))
        legs.append(Leg(tour.back_hour, tour.goal, tour.start, mode))
    return sorted(legs, key=lambda leg: leg.hour)


def _usual_way(setting: Setting, index: int, places: Mapping[str, Place], leg: Leg) -> tuple[LonLat, ...]:
    """The path of a leg: a habit, the same each time, and reversed on the way back."""
    a, b = sorted((leg.start, leg.end), key=PLACE_NAMES.index)
    chance = stream(setting.seed, index, "way", a, b, leg.mode)
    least, most = PACES[leg.mode].turns
    path = street_path(chance, places[a], places[b], int(chance.randint(least, most + 1)))
    return path if leg.start == a else path[::-1]


def _plan(setting: Setting, chance: RandomState, day: int) -> Plan:
    plans = WORKDAYS if (setting.start + timedelta(days=day)).weekday() < 5 else FREE_DAYS
    return plans[int(chance.randint(len(plans)))]


def journeys(setting: Setting, index: int, places: Mapping[str, Place]) -> Iterator[Journey]:
    """All journeys of a person in order of time; each stay between two lasts at least MIN_DWELL_S."""
    habit_h = float(stream(setting.seed, index, "habit").uniform(-0.6, 0.6))
    free_ts = -math.inf
    for day in range(setting.days):
        chance = stream(setting.seed, index, "day", day)
        for leg in _legs(places, _plan(setting, chance, day)):
            planned_ts = setting.local_ts(day, leg.hour + habit_h + float(chance.uniform(-0.2, 0.2)))
            path = _usual_way(setting, index, places, leg)
            made = journey(chance, places[leg.start], places[leg.end], path, leg.mode, max(planned_ts, free_ts))
            free_ts = round(made.trip.end_ts + MIN_DWELL_S, 3)
            yield made
