"""Distances on the earth's surface, in plain Python: they run inside a cloud, which loads no numpy. Imports nothing.

Points are (longitude, latitude) in degrees, in GeoJSON's order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the WGS 84 ellipsoid, (2a + b) / 3. Source: Moritz, "Geodetic Reference System 1980" (2000)."""


def haversine_m(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """The length of the great circle between two points, in metres.

    Args:
        lon1, lat1, lon2, lat2: degrees; longitudes may be given in any turn (190 is -170).
    Returns:
        metres on a sphere of EARTH_RADIUS_M; the ellipsoid's own distance differs by at most 0.6 %.
    Source: Sinnott, "Virtues of the Haversine", Sky and Telescope 68 (1984).
    """
    north = math.sin(math.radians(lat2 - lat1) / 2)
    east = math.sin(math.radians(lon2 - lon1) / 2)
    half_chord2 = north * north + math.cos(math.radians(lat1)) * math.cos(math.radians(lat2)) * east * east
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, half_chord2)))


def path_length_m(points: Iterable[tuple[float, float]], *, step_m: float = 50.0) -> float:
    """The length of a GPS track without its jitter, in metres: a phone at rest adds nothing.

    An anchor stands at the first point. Whenever a point is at least `step_m` from the anchor, that distance is added
    and the anchor moves to the point.

    Args:
        points: (longitude, latitude) in order of time.
        step_m: metres, >= 0; above twice the usual position error (3 to 20 m), below the shortest walk of interest.
    Returns:
        metres, never more than the sum of all hops of the same points. Against a noiseless track it is too short:
        less than `step_m` is lost at the end, and at each corner less than the detour that the corner makes between
        two anchors. Noise of s metres per axis makes it longer again, by about s²/h metres for each anchor hop of
        h metres (1 % for s = 5 and h = 50).
    Raises:
        ValueError: `step_m` is negative or not finite.
    """
    if not (math.isfinite(step_m) and step_m >= 0):
        raise ValueError(f"step_m must be finite and at least 0 m, not {step_m}")
    track = iter(points)
    anchor = next(track, None)
    if anchor is None:
        return 0.0
    total_m = 0.0
    for point in track:
        hop_m = haversine_m(*anchor, *point)
        if hop_m >= step_m:
            total_m += hop_m
            anchor = point
    return total_m
