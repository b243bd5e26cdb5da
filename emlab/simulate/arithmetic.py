"""Numbers that come out the same to the last bit on every machine: for what mathematics libraries round differently.

IEEE 754 fixes the results of + - * / and of the square root, but not those of exp, log, cos, atan2: their last bit
changes with the library, the processor and the version of numpy. A simulation that draws a person anew everywhere can
therefore use only the former; the rest is made of them here. Nor does the simulator use functions that may fuse a
multiplication with an addition (np.interp, np.dot) or that sum in an order of their own (np.sum over floats).
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 4096  # of the table of normal quantiles
_DEGREE = math.pi / 180  # one division of constants


@functools.cache
def _quantiles() -> Floats:
    """The standard normal quantiles of k / BINS, to six decimals, its ends at those of half a bin.

    No entry lies so near to a tie of rounding that another library's last bit could change it.
    """
    import numpy as np

    shares = [min(max(k / BINS, 0.5 / BINS), 1 - 0.5 / BINS) for k in range(BINS + 1)]
    return np.array([round(NormalDist().inv_cdf(share), 6) for share in shares])


def normal(uniform: Floats) -> Floats:
    """Standard normal numbers from uniform ones in [0, 1), by a table; none beyond 3.7."""
    import numpy as np

    table, place = _quantiles(), uniform * BINS
    k = place.astype("int64")
    below, above = table[k], table[k + 1]
    return np.asarray(below + (above - below) * (place - k))


def growth(x: Floats) -> Floats:
    """About e to the power of x for |x| < 3: (1 + x/1024) ** 1024, off by at most x²/2048 of itself."""
    y = 1 + x / 1024
    for _ in range(10):
        y = y * y
    return y


def cosines(degrees: Floats) -> Floats:
    """The cosines of angles from -90 to 90 degrees, to 1e-12."""
    square = (degrees * _DEGREE) * (degrees * _DEGREE)
    total = 0 * square + 1.0
    for k in range(20, 0, -2):  # 1 - x²/2! + x⁴/4! - ..., from the inside out
        total = 1.0 - square / (k * (k - 1)) * total
    return total


def cosine(degrees: float) -> float:
    """The cosine of an angle from -90 to 90 degrees, to 1e-12."""
    import numpy as np

    return float(cosines(np.array([degrees]))[0])


def bearing(east: Floats, north: Floats) -> Floats:
    """The direction of a step in degrees from north by east, 0 to 360, to about 0.3 degrees; 0 for no step.

    Source: the rational approximation x / (1 + 0.28 x²) of the arc tangent for |x| <= 1 (error below 0.005).
    """
    import numpy as np

    e, n = np.abs(east), np.abs(north)
    longer = np.maximum(np.maximum(e, n), 1e-12)
    ratio = np.minimum(e, n) / longer
    acute = ratio / (1 + 0.28 * (ratio * ratio)) / _DEGREE
    acute = np.where(e > n, 90 - acute, acute)
    turned = np.where(north < 0, 180 - acute, acute)
    return np.where(east < 0, 360 - turned, turned) % 360


def ground_m(lons: Floats, lats: Floats) -> Floats:
    """Metres along the ground from each point to the next: within 1e-6 of the great circle for steps below 10 km."""
    import numpy as np

    from emlab.geo import EARTH_RADIUS_M

    north = lats[1:] - lats[:-1]
    east = (lons[1:] - lons[:-1]) * cosines((lats[1:] + lats[:-1]) / 2)
    return np.sqrt(north * north + east * east) * (EARTH_RADIUS_M * _DEGREE)
