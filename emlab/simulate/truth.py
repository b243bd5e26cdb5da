"""What really happened in a simulated life: places and trips, without noise. Values only."""

from __future__ import annotations

import enum
from dataclasses import dataclass

LonLat = tuple[float, float]


class Mode(enum.StrEnum):
    """How a trip is made, by e-mission's name of the motion that a phone senses."""

    WALKING = "WALKING"
    BICYCLING = "BICYCLING"
    IN_VEHICLE = "IN_VEHICLE"


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody stays: its name in that person's life, longitude and latitude in degrees."""

    name: str
    lon: float
    lat: float


@dataclass(frozen=True, slots=True)
class TrueTrip:
    """One trip as it was.

    Attributes:
        start_ts, end_ts: first and last moment of movement, UTC seconds.
        mode: the one mode of the whole trip.
        distance_m: length of `path` along the ground.
        start, end: the places that it joins.
        path: (longitude, latitude) of its start, each corner, its end.
    """

    start_ts: float
    end_ts: float
    mode: Mode
    distance_m: float
    start: Place
    end: Place
    path: tuple[LonLat, ...]

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last movement, waiting at corners included."""
        return self.end_ts - self.start_ts
