"""How somebody goes where: the modes of a tour, and the usual way between two places. Habits, so each is decided once.

May import activities, households, routes, seeds, setting, streets and transit.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from emlab.entries.codes import Mode
from emlab.simulate.activities import Tour
from emlab.simulate.households import HOME, LUNCH, Kind, kind_of, settle
from emlab.simulate.routes import Route, make_route
from emlab.simulate.seeds import Stream, pick, stream
from emlab.simulate.setting import Setting
from emlab.simulate.streets import Address, Lattice
from emlab.simulate.transit import best_ride

MODES = (Mode.WALKING, Mode.BICYCLING, Mode.CAR, Mode.BUS, Mode.TRAIN)
WALK_UP_TO_M = 1_700.0
# Metres of the way from stop to stop of a tour. A ride below five minutes would be an error to e-mission's pipeline.
REACH_M = {
    Mode.WALKING: (0.0, WALK_UP_TO_M),
    Mode.BICYCLING: (700.0, 7_000.0),
    Mode.CAR: (3_800.0, 1e9),
}


class Choices:
    """One person's places, and the modes and ways that this person is used to."""

    def __init__(self, setting: Setting, index: int) -> None:
        self.setting = setting
        self.index = index
        self.kind: Kind = kind_of(setting, index)
        self.lattice = Lattice(setting.city, setting.center)
        self.addresses: Mapping[str, Address] = settle(setting, self.lattice, index)
        self.habit = self.stream("habit").one()  # 0 to 1: up early or late
        self._modes: dict[tuple[str, ...], tuple[Mode, ...] | None] = {}
        self._routes: dict[tuple[str, str, Mode], Route] = {}
        self._rides: dict[tuple[str, str, Mode], bool] = {}

    def stream(self, *words: str | int) -> Stream:
        """This person's generator for what the words name."""
        return stream(self.setting.seed, self.index, *words)

    def walks_to_lunch(self) -> bool:
        """Whether lunch is near enough to work, and on the same side of the river."""
        return LUNCH in self.addresses and self._way_m("work", LUNCH) <= WALK_UP_TO_M

    def modes(self, tour: Tour) -> tuple[Mode, ...] | None:
        """The mode of each trip of the tour; None if no mode suits all of them."""
        names = (HOME, *(stop.place for stop in tour.stops), HOME)
        if names not in self._modes:
            fitting = [(mode, each) for mode in MODES if (each := self._fit(mode, names))]
            weights = [self._weight(mode) for mode, _ in fitting]
            choice = pick(self.stream("mode", *names), weights) if fitting else -1
            self._modes[names] = fitting[choice][1] if fitting else None
        return self._modes[names]

    def route(self, start: str, end: str, mode: Mode) -> Route:
        """The usual way from place to place by that mode."""
        key = start, end, mode
        if key not in self._routes:
            chance = self.stream("way", start, end, int(mode))
            self._routes[key] = make_route(self.lattice, chance, mode, self.addresses[start], self.addresses[end])
        return self._routes[key]

    def _weight(self, mode: Mode) -> float:
        city = self.setting.city
        weights = dict(zip(MODES, (city.walk, city.bike, city.car, city.bus, city.train), strict=True))
        return weights[mode]

    def _fit(self, mode: Mode, names: Sequence[str]) -> tuple[Mode, ...] | None:
        """The mode of each trip if the tour is made by this one: no vehicle is left behind, lunch is walked to."""
        each = [self._leg(mode, a, b) for a, b in itertools.pairwise(names)]
        modes = tuple(mode for mode in each if mode is not None)
        return modes if len(modes) == len(each) and mode in modes else None

    def _leg(self, mode: Mode, start: str, end: str) -> Mode | None:
        way_m = self._way_m(start, end)
        walks = way_m <= WALK_UP_TO_M
        if LUNCH in (start, end):
            return Mode.WALKING if walks else None
        if mode in REACH_M:
            least_m, most_m = REACH_M[mode]
            return mode if least_m <= way_m <= most_m else None
        if self._has_ride(mode, start, end):
            return mode
        return Mode.WALKING if walks else None

    def _way_m(self, start: str, end: str) -> float:
        return self.lattice.way_m(self.addresses[start], self.addresses[end])

    def _has_ride(self, mode: Mode, start: str, end: str) -> bool:
        key = start, end, mode
        if key not in self._rides:
            self._rides[key] = best_ride(self.lattice, mode, self.addresses[start], self.addresses[end]) is not None
        return self._rides[key]
