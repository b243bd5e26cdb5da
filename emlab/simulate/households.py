"""Who lives with whom, what they do, and where: households with a home, and each member's own places.

May import arithmetic, seeds, setting, streets and truth. A person's household follows from the person's index alone,
so it does not depend on how many people a simulation has.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from emlab.simulate.arithmetic import growth, normal
from emlab.simulate.seeds import Stream, pick, stream
from emlab.simulate.setting import Setting
from emlab.simulate.streets import METRES_PER_DEGREE, Address, Lattice, Point
from emlab.simulate.truth import LonLat

HOME, WORK, SCHOOL, SHOP, MARKET = "home", "work", "school", "shop", "market"
LEISURE, FRIEND, LUNCH, ESCORT = "leisure", "friend", "lunch", "escort"
SIZE_SHARES = (0.29, 0.345, 0.15, 0.125, 0.06, 0.03)
"""Of households of 1 to 6 people. Source: US Census Bureau, Current Population Survey 2022, table HH-4 (rounded;
larger ones counted as 6)."""
NEIGHBOURS = 60  # people, who are parted into households together
APART_M = 350.0  # below this, two places of somebody could be one to a phone
# Places are either around the corner or a ride away, as the crow flies; chosen, so that cars have their share.
NEAR_M, FAR_M = (450.0, 1_300.0), (3_000.0, 6_000.0)
NEAR_SHARE = 0.5
PATIENCE = 60  # tries before one looks further away


class Kind(enum.StrEnum):
    """What somebody's weekdays turn around."""

    WORKER = "worker"
    STUDENT = "student"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Household:
    """People with one home; `words` name its streams of chance, `members` are indices of persons."""

    words: tuple[str | int, ...]
    members: tuple[int, ...]


def household_of(setting: Setting, index: int) -> Household:
    """The household of the person with that index."""
    group, place = divmod(index, NEIGHBOURS)
    chance = stream(setting.seed, "households", group)
    first = number = 0
    while True:
        size = min(1 + pick(chance, SIZE_SHARES), NEIGHBOURS - first)
        if place < first + size:
            members = tuple(group * NEIGHBOURS + first + k for k in range(size))
            return Household(("household", group, number), members)
        first, number = first + size, number + 1


def kind_of(setting: Setting, index: int) -> Kind:
    """What the person does, by the setting's shares."""
    share = stream(setting.seed, index, "kind").one()
    if share < setting.workers:
        return Kind.WORKER
    return Kind.STUDENT if share < setting.workers + setting.students else Kind.OTHER


def settle(setting: Setting, lattice: Lattice, index: int) -> dict[str, Address]:
    """All places of a person by name, home first: where they live, work or learn, shop and meet."""
    house = household_of(setting, index)
    shared = stream(setting.seed, *house.words)
    town = _Town(setting, lattice)
    known = {HOME: town.somewhere(shared, setting.district.homes if setting.district else None)}
    known[SHOP] = town.near(shared, known, HOME, *NEAR_M)
    known[MARKET] = town.near(shared, known, HOME, *FAR_M)
    chance, kind = stream(setting.seed, index, "places"), kind_of(setting, index)
    if kind is Kind.WORKER:
        known[WORK] = town.workplace(chance, known)
        known[LUNCH] = town.near(chance, known, WORK, 380, 850)
        known[ESCORT] = town.near(chance, known, HOME, *NEAR_M)
    if kind is Kind.STUDENT:
        known[SCHOOL] = town.near(chance, known, HOME, *_either(chance, NEAR_SHARE))
    known[LEISURE] = town.near(chance, known, HOME, *_either(chance, NEAR_SHARE))
    known[FRIEND] = town.near(chance, known, HOME, *_either(chance, NEAR_SHARE / 2))
    return known


class _Town:
    """Finds places: in the box, on a street, inside or outside of the district."""

    def __init__(self, setting: Setting, lattice: Lattice) -> None:
        self.setting = setting
        self.lattice = lattice
        self.half_m = setting.box_m / 2

    def somewhere(self, chance: Stream, district_share: float | None) -> Address:
        """Anywhere in the city, in the district with that chance and otherwise not; None: there is no district."""
        if district_share is None:
            return self._first(chance, self._anywhere, lambda lonlat: True)
        district = self.setting.district
        assert district is not None
        if chance.one() < district_share:
            return self._first(chance, self._in_district, district.holds)
        return self._first(chance, self._anywhere, lambda lonlat: not district.holds(lonlat))

    def workplace(self, chance: Stream, known: Mapping[str, Address]) -> Address:
        """Of eight places, which lie as densely as homes do, the one whose distance from home suits best."""
        target_m = self.setting.city.commute_m * float(growth(0.6 * normal(chance.table(1, 1)))[0, 0])
        home = self.lattice.point(known[HOME])
        share = self.setting.district.works if self.setting.district else None
        best: tuple[float, Address] | None = None
        for _ in range(8):
            spot = self.somewhere(chance, share)
            far_m = _metres(home, self.lattice.point(spot))
            if self._is_apart(spot, known) and (best is None or abs(far_m - target_m) < best[0]):
                best = abs(far_m - target_m), spot
        return best[1] if best else self.near(chance, known, HOME, 900, 4_000)

    def near(self, chance: Stream, known: Mapping[str, Address], origin: str, least_m: float, most_m: float) -> Address:
        """A new place at about that distance from a known one, near ones preferred, and apart from all known ones.

        After some tries in vain it may lie further away: the box is small, or much is taken.
        """
        center = self.lattice.point(known[origin])
        reach = [least_m, min(most_m, self.setting.box_m / 2)]

        def propose(draw: Stream) -> Point:
            reach[1] += (self.setting.box_m - reach[1]) / (20 * PATIENCE)
            share = draw.one()
            far_m = reach[0] + (max(reach[1], reach[0]) - reach[0]) * share * share
            x, y = _direction(draw)
            reach[0] *= 1 - 1 / (20 * PATIENCE)
            return center[0] + far_m * x, center[1] + far_m * y

        while True:
            spot = self._first(chance, propose, lambda lonlat: True)
            if self._is_apart(spot, known):
                return spot

    def _is_apart(self, spot: Address, known: Mapping[str, Address]) -> bool:
        point = self.lattice.point(spot)
        return all(_metres(point, self.lattice.point(other)) >= APART_M for other in known.values())

    def _first(self, chance: Stream, propose: Callable[[Stream], Point], wanted: Callable[[LonLat], bool]) -> Address:
        """The first proposed address that lies in the box and is wanted."""
        while True:
            spot = self.lattice.address(propose(chance), on_column=bool(chance.one() < 0.5))
            lonlat = self.lattice.lonlat(self.lattice.point(spot))
            if self._in_box(lonlat) and wanted(lonlat):
                return spot

    def _in_box(self, lonlat: LonLat) -> bool:
        east_m = (lonlat[0] - self.setting.center[0]) * self.lattice.metres_per_lon
        north_m = (lonlat[1] - self.setting.center[1]) * METRES_PER_DEGREE
        return max(abs(east_m), abs(north_m)) <= self.half_m

    def _anywhere(self, chance: Stream) -> Point:
        u = chance.some(5)
        crowds = u[0] < self.setting.city.centrality
        east, north = (u[1] + u[2] - 1, u[3] + u[4] - 1) if crowds else (2 * u[1] - 1, 2 * u[3] - 1)
        return self.lattice.plane(east * self.half_m, north * self.half_m)

    def _in_district(self, chance: Stream) -> Point:
        district = self.setting.district
        assert district is not None
        lon = district.west + (district.east - district.west) * chance.one()
        lat = district.south + (district.north - district.south) * chance.one()
        east_m = (lon - self.setting.center[0]) * self.lattice.metres_per_lon
        return self.lattice.plane(east_m, (lat - self.setting.center[1]) * METRES_PER_DEGREE)


def _either(chance: Stream, near_share: float) -> tuple[float, float]:
    return NEAR_M if chance.one() < near_share else FAR_M


def _direction(chance: Stream) -> Point:
    """A direction as a step of one metre; all directions are equally likely."""
    while True:
        x, y = (2 * u - 1 for u in chance.some(2))
        square = x * x + y * y
        if 0.01 < square <= 1:
            return x / math.sqrt(square), y / math.sqrt(square)


def _metres(a: Point, b: Point) -> float:
    east, north = a[0] - b[0], a[1] - b[1]
    return math.sqrt(east * east + north * north)
