"""What a share of so many trials says of a probability. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from emlab.errors import ConfigError

STEPS = 60  # halvings of an interval of length 1


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of all probabilities under which so many hits of n trials, or farther ones, are not too unlikely.

    Args:
        hits: 0 to n. n: independent trials, 1 or more. confidence: above 0, below 1.
    Returns:
        low and high; they contain the true probability with at least this confidence, whatever it is.
    Raises: ConfigError.
    Source: Clopper, Pearson, "The use of confidence or fiducial limits" (1934).
    """
    if not 0 <= hits <= n or n < 1 or not 0 < confidence < 1:
        raise ConfigError(f"{hits} of {n} trials at a confidence of {confidence} have no interval")
    miss = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _root(lambda p: _at_least(hits, n, p) >= miss)
    high = 1.0 if hits == n else _root(lambda p: _at_least(n - hits, n, 1 - p) < miss)
    return low, high


def _root(reached: Callable[[float], bool]) -> float:
    """The smallest number within 0..1 from which on it is reached."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return (low + high) / 2


def _at_least(hits: int, n: int, p: float) -> float:
    """The probability of so many hits or more in n trials."""
    if p <= 0.0 or p >= 1.0:
        return float(p >= 1.0 or hits == 0)
    whole = math.lgamma(n + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p))
        for k in range(hits, n + 1)
    )
