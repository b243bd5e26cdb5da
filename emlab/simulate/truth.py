"""What really happened in a simulated life: places, trips and their sections, without noise. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from emlab.entries.codes import Mode, Motion

LonLat = tuple[float, float]
SENSED = {
    Mode.WALKING: Motion.WALKING,
    Mode.BICYCLING: Motion.BICYCLING,
    Mode.CAR: Motion.IN_VEHICLE,
    Mode.BUS: Motion.IN_VEHICLE,
    Mode.TRAIN: Motion.IN_VEHICLE,
}
"""What a phone takes each mode for."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody stays: its name in that person's life, longitude and latitude in degrees."""

    name: str
    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class TrueSection:
    """A part of a trip in one mode, from the first to the last movement in it.

    Attributes:
        start_ts, end_ts: UTC seconds. What lies between two sections is a wait.
        distance_m: length of `path` along the ground.
        path: (longitude, latitude) of its start, each corner, crossing or stop, its end.
    """

    start_ts: float
    end_ts: float
    mode: Mode
    distance_m: float
    path: tuple[LonLat, ...]


@dataclass(frozen=True, slots=True)
class TrueTrip:
    """One trip as it was: its places, what it was for, and its sections in order of time.

    Attributes:
        purpose: what its traveller does at its end: home, work, school, shop, leisure, lunch, escort.
    """

    start: Place
    end: Place
    purpose: str
    sections: tuple[TrueSection, ...]

    @property
    def start_ts(self) -> float:
        """First moment of movement, UTC seconds."""
        return self.sections[0].start_ts

    @property
    def end_ts(self) -> float:
        """Last moment of movement, UTC seconds."""
        return self.sections[-1].end_ts

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last movement, all waits included."""
        return self.end_ts - self.start_ts

    @property
    def distance_m(self) -> float:
        """Metres along the ground, over all sections."""
        return round(sum(section.distance_m for section in self.sections), 3)

    @property
    def mode(self) -> Mode:
        """The mode of the longest section."""
        return max(self.sections, key=lambda section: section.distance_m).mode

    @property
    def path(self) -> tuple[LonLat, ...]:
        """(longitude, latitude) all along; where a section ends and the next begins, the point stands once."""
        first, *others = (section.path for section in self.sections)
        return first + tuple(point for path in others for point in path[1:])
