"""Cities as parameters: where, how large, how dense, how people move in them. Values only.

Every city here is made up: it has the place, the clock and about the size of a real one and nothing of its map.
"""

from __future__ import annotations

from dataclasses import dataclass

from emlab.errors import ConfigError
from emlab.simulate.truth import LonLat


@dataclass(frozen=True, slots=True)
class City:
    """A city's form and habits.

    Streets form a lattice that is turned against north; every `arterial_every`-th line is an arterial street, every
    `expressway_every`-th a fast road, and trains and buses run along lines too. A river crosses the city; only every
    `bridge_every`-th line bridges it.

    Attributes:
        name: for tables.
        center: (longitude, latitude) in degrees.
        timezone: IANA name.
        box_m: metres, side of the square around the center that holds all places.
        block_m: metres from street to street.
        turn: (cosine, sine) of the angle by which the lattice is turned against north.
        arterial_every, expressway_every, bridge_every, bus_every, train_every: lattice lines from one to the next.
        bus_stop_every, station_every: blocks from stop to stop along a line.
        river_row: the river runs between this lattice line and the next, counted from the center; None: no river.
        centrality: share of homes and workplaces that crowd around the center, 0 to 1; the others are spread evenly.
        commute_m: metres, the median distance from home to work as the crow flies.
        walk, bike, car, bus, train: weights of the modes where more than one fits a tour; 0: nobody uses it.
        walk_mps, bike_mps, bus_mps, train_mps: usual cruising speeds, metres per second. Walking: Bohannon,
            "Comfortable and maximum walking speed of adults" (1997), 1.3 to 1.4 m/s; the others are chosen.
        car_mps: the same of cars on streets, arterials and expressways.
        peak_slowdown: what remains of a car's or bus's speed in the rush hours, 0.3 to 1.
    """

    name: str
    center: LonLat
    timezone: str
    box_m: float = 12_000.0
    block_m: float = 100.0
    turn: tuple[float, float] = (0.96, 0.28)
    arterial_every: int = 5
    expressway_every: int = 25
    bridge_every: int = 10
    bus_every: int = 10
    bus_stop_every: int = 5
    train_every: int = 40
    station_every: int = 20
    river_row: int | None = 12
    centrality: float = 0.5
    commute_m: float = 4_500.0
    walk: float = 3.0
    bike: float = 0.4
    car: float = 5.0
    bus: float = 0.8
    train: float = 1.5
    walk_mps: float = 1.38
    bike_mps: float = 4.6
    car_mps: tuple[float, float, float] = (8.3, 13.9, 22.0)
    bus_mps: float = 11.5
    train_mps: float = 25.0
    peak_slowdown: float = 0.82

    def __post_init__(self) -> None:
        wrong = [name for name, (low, high) in BOUNDS.items() if not low <= getattr(self, name) <= high]
        if wrong:
            low, high = BOUNDS[wrong[0]]
            raise ConfigError(f"{wrong[0]} of city {self.name!r} must be {low:g} to {high:g}")
        across, along = self.turn
        if abs(across * across + along * along - 1) > 1e-9:
            raise ConfigError(f"turn of city {self.name!r} must be the cosine and the sine of one angle")
        if self.walk <= 0 or self.bike <= 0 or self.car <= 0:
            raise ConfigError(f"people of city {self.name!r} need a weight above 0 for walk, bike and car")


BOUNDS: dict[str, tuple[float, float]] = {
    "block_m": (40, 400),
    "arterial_every": (2, 20),
    "expressway_every": (4, 200),
    "bridge_every": (1, 40),
    "bus_every": (2, 60),
    "bus_stop_every": (2, 20),
    "train_every": (4, 200),
    "station_every": (4, 60),
    "centrality": (0, 1),
    "commute_m": (1_000, 40_000),
    **dict.fromkeys(("walk", "bike", "car", "bus", "train"), (0, 1_000)),
    "walk_mps": (0.8, 1.6),
    "bike_mps": (2.5, 8),
    "bus_mps": (5, 20),
    "train_mps": (10, 60),
    "peak_slowdown": (0.3, 1),
}

CITIES: dict[str, City] = {
    city.name: city
    for city in (
        # Weights, sizes and speeds are chosen so that modes have about the shares that one expects of such a city.
        City("bay", (-122.27, 37.87), "America/Los_Angeles"),
        City(
            "harbour",  # European, dense: half the ways on foot or by bicycle
            (9.99, 53.55),
            "Europe/Berlin",
            box_m=16_000.0,
            turn=(0.8, 0.6),
            block_m=90.0,
            centrality=0.6,
            bike=2.5,
            car=2.0,
            bus=1.2,
            train=3.0,
        ),
        City(
            "sprawl",  # wide and made for cars
            (-112.07, 33.45),
            "America/Phoenix",
            box_m=40_000.0,
            turn=(1.0, 0.0),
            block_m=160.0,
            river_row=None,
            centrality=0.2,
            commute_m=10_000.0,
            walk=1.5,
            bike=0.3,
            car=9.0,
            bus=0.3,
            train=0.2,
        ),
        City(
            "megacity",  # a railway city of two-hour commutes at most
            (139.69, 35.69),
            "Asia/Tokyo",
            box_m=36_000.0,
            turn=(0.936, 0.352),
            block_m=80.0,
            train_every=25,
            station_every=25,
            centrality=0.7,
            commute_m=9_000.0,
            bike=1.5,
            car=1.0,
            bus=0.6,
            train=9.0,
        ),
        City(
            "town",  # small: no train
            (13.40, 47.80),
            "Europe/Vienna",
            box_m=6_000.0,
            turn=(0.6, 0.8),
            bridge_every=10,
            centrality=0.8,
            commute_m=2_500.0,
            bike=1.5,
            bus=0.4,
            train=0.0,
        ),
    )
}
"""Ready-made cities by name."""


def city_named(city: City | str) -> City:
    """The ready-made city of that name, or the city itself. Raises ConfigError."""
    if isinstance(city, City):
        return city
    if not isinstance(city, str) or city not in CITIES:
        raise ConfigError(f"city must be one of {', '.join(CITIES)}, or a City; not {city!r}")
    return CITIES[city]
