"""Distances and headings between points as arrays, on the sphere that e-mission takes the earth for. Imports numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RADIUS_M = 6_371_000.0  # e-mission's; emlab.geo's is that of the ellipsoid, 1.4 millionths longer


def distances_m(lon1: Floats, lat1: Floats, lon2: Floats, lat2: Floats) -> Floats:
    """The lengths of the great circles between points, in metres; degrees in.

    Source: Sinnott, "Virtues of the Haversine", Sky and Telescope 68 (1984).
    """
    lat1, lat2 = np.radians(lat1), np.radians(lat2)
    north, east = np.sin((lat2 - lat1) / 2), np.sin(np.radians(np.subtract(lon2, lon1)) / 2)
    half_chord2 = np.minimum(north * north + np.cos(lat1) * np.cos(lat2) * east * east, 1.0)
    return np.asarray(2 * RADIUS_M * np.arctan2(np.sqrt(half_chord2), np.sqrt(1 - half_chord2)))


def distance_m(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """The length of the great circle between two points, in metres; degrees in."""
    ends = np.array([lon1, lat1, lon2, lat2]).reshape(4, 1)
    return float(distances_m(*ends)[0])


def hops_m(lon: Floats, lat: Floats) -> Floats:
    """How far each point of a track is from the one before it, in metres; 0 for the first."""
    hops = np.zeros(len(lon))
    hops[1:] = distances_m(lon[:-1], lat[:-1], lon[1:], lat[1:])
    return hops


def speeds_mps(hops: Floats, ts: Floats) -> Floats:
    """How fast each point of a track was reached from the one before it, in m/s; 0 for the first, and in no time."""
    steps = np.zeros(len(ts))
    steps[1:] = np.diff(ts)
    return np.divide(hops, steps, out=np.zeros(len(ts)), where=steps != 0)


def headings(lon: Floats, lat: Floats) -> Floats:
    """In which direction each point of a track was reached, in degrees from north, -180 to 180; 0 for the first."""
    turned = np.zeros(len(lon))
    east, north1, north2 = np.radians(np.diff(lon)), np.radians(lat[:-1]), np.radians(lat[1:])
    x = np.cos(north1) * np.sin(north2) - np.sin(north1) * np.cos(north2) * np.cos(east)
    turned[1:] = np.degrees(np.arctan2(np.sin(east) * np.cos(north2), x))
    return turned
