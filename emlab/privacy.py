"""What a privacy loss costs in accuracy: epsilon, the scale of the noise, its tails, and one draw of it.

Amounts of epsilon are integers, in millionths (micro-epsilon), so that a ledger adds them without rounding. The noise
is the discrete Laplace law on the integers, P(X = k) = (1 - p) / (1 + p) * p^|k| with p = exp(-1 / scale). Nothing
here adds a float to data: the draw is an exact one by OpenDP. Not covered: what the time of a draw tells.
Imports opendp when noise is drawn, and nothing of emlab but errors.

Source: Ghosh, Roughgarden, Sundararajan, "Universally utility-maximizing privacy mechanisms" (2012), for the law;
Canonne, Kamath, Steinke, "The discrete Gaussian for differential privacy" (2020), for the sampler; Sullivan,
UC Berkeley technical report EECS-2019-69 (2019), for asking by (offset, alpha) instead of epsilon.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from numbers import Real

from emlab.errors import BadQuery

MICRO = 1_000_000
EPSILON_MIN, EPSILON_MAX = 1e-6, 100.0
EPSILON_MICRO_MIN, EPSILON_MICRO_MAX = 1, 100 * MICRO
SENSITIVITY_MAX = 2**33  # at the smallest epsilon the scale is then still under SCALE_MAX
SCALE_MAX = 2.0**53  # a draw leaves 64 bits with probability exp(-1024): never
OFFSET_MAX = 2.0**53
ALPHA_MIN = 1e-12


def _check(what: str, value: float, low: float, high: float) -> None:
    """Returns if `value` is a number in [low, high]; NaN and truth values are not. Raises BadQuery."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise BadQuery(f"{what} must be a number from {low:g} to {high:g}, not {value!r}")


def _check_whole(what: str, value: int, low: int, high: int) -> None:
    """Returns if `value` is an integer in [low, high]. Raises BadQuery."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadQuery(f"{what} must be a whole number from {low} to {high}, not {value!r}")


def _check_alpha(alpha: float) -> None:
    """Returns if `alpha` is a probability that can be promised. Raises BadQuery."""
    _check("alpha", alpha, ALPHA_MIN, math.nextafter(1.0, 0.0))


def micro_epsilon(epsilon: float) -> int:
    """The privacy loss `epsilon` in whole millionths, rounded up: what a ledger is charged.

    A float counts as the decimal number that it prints as, so that 0.1 costs 100000 and not 100001. The noise
    is made from the result and not from the argument, so the charge covers what the release reveals.

    Args:
        epsilon: privacy loss of one release, no unit; 1e-6 to 100 (usually 0.01 to 5).
    Returns:
        micro-epsilon, 1 to 100000000.
    Raises:
        BadQuery: `epsilon` is not a number in these bounds.
    """
    _check("epsilon", epsilon, EPSILON_MIN, EPSILON_MAX)
    return int((Decimal(repr(float(epsilon))) * MICRO).to_integral_value(ROUND_CEILING))


def noise_scale(sensitivity: int, epsilon_micro: int) -> float:
    """The scale b of discrete Laplace noise that makes an integer sum epsilon-private for one person.

    Args:
        sensitivity: most that one person can change the sum, in the sum's unit; 1 to 2**33.
        epsilon_micro: privacy loss of this release, in micro-epsilon; 1 to 100000000.
    Returns:
        the smallest float that is not below b = sensitivity / epsilon, in the sum's unit, so that the
        loss sensitivity / b is never above epsilon.
    Raises:
        BadQuery: an argument is not a whole number in its bounds.
    Source: Ghosh, Roughgarden, Sundararajan (2012), with p = exp(-epsilon / sensitivity).
    """
    _check_whole("sensitivity", sensitivity, 1, SENSITIVITY_MAX)
    _check_whole("epsilon_micro", epsilon_micro, EPSILON_MICRO_MIN, EPSILON_MICRO_MAX)
    exact = Fraction(sensitivity * MICRO, epsilon_micro)
    nearest = float(exact)
    return nearest if Fraction(nearest) >= exact else math.nextafter(nearest, math.inf)


def exceeds(t: float, scale: float) -> float:
    """The probability that noise of this scale is farther than `t` from zero: P(|X| > t).

    Nothing cancels in the formula, so the relative error stays near 1e-15 * (1 + t / scale) at every scale.

    Args:
        t: distance in the unit of the sum, at most 2**63; whole numbers keep every digit. 1 for a negative one.
        scale: of the noise, in the unit of the sum; above 0, at most 2**53.
    Returns:
        2 p^(floor(t) + 1) / (1 + p) with p = exp(-1 / scale).
    Raises:
        BadQuery: an argument is out of its bounds.
    Source: the sum of P(X = k) over |k| > t; Ghosh, Roughgarden, Sundararajan (2012).
    """
    _check("t", t, -(2.0**63), 2.0**63)
    _check("scale", scale, math.ulp(0.0), SCALE_MAX)
    if t < 0:
        return 1.0
    return min(1.0, 2.0 * math.exp(-(math.floor(t) + 1) / scale) / (1.0 + math.exp(-1.0 / scale)))


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest integer in [low, high] for which `holds`, high + 1 if none; once true it must stay true."""
    return low + bisect_left(range(low, high + 1), True, key=holds)


def half_width(alpha: float, scale: float) -> int:
    """The smallest t with P(|noise| > t) <= alpha: value - t to value + t covers the truth with 1 - alpha.

    Args:
        alpha: probability of a miss; 1e-12 to below 1.
        scale: of the noise, in the unit of the sum; above 0, at most 2**53.
    Returns:
        t in the unit of the sum, 0 or more.
    Raises:
        BadQuery: an argument is out of its bounds.
    """
    _check_alpha(alpha)
    _check("scale", scale, math.ulp(0.0), SCALE_MAX)
    enough = math.ceil(scale * math.log(2.0 / alpha)) + 1
    return _first(0, enough, lambda t: exceeds(t, scale) <= alpha)


def solve_epsilon(sensitivity: int, offset: float, alpha: float) -> int:
    """The least privacy loss at which the noise is farther than `offset` from zero with probability <= alpha.

    Args:
        sensitivity: most that one person can change the sum, in the sum's unit; 1 to 2**33.
        offset: largest error that is good enough, in the sum's unit; 0 to 2**53.
        alpha: probability of a larger one; 1e-12 to below 1.
    Returns:
        micro-epsilon, 1 to 100000000.
    Raises:
        BadQuery: an argument is out of its bounds, or no epsilon up to 100 is accurate enough.
    Source: Sullivan (2019) with the discrete law; the continuous one, epsilon = -ln(alpha) * sensitivity / offset,
        asks for about half a percent more at offset 100, because it counts the error between two whole numbers.
    """
    _check_whole("sensitivity", sensitivity, 1, SENSITIVITY_MAX)
    _check("offset", offset, 0.0, OFFSET_MAX)
    _check_alpha(alpha)
    found = _first(
        EPSILON_MICRO_MIN,
        EPSILON_MICRO_MAX,
        lambda micro: exceeds(offset, noise_scale(sensitivity, micro)) <= alpha,
    )
    if found > EPSILON_MICRO_MAX:
        raise BadQuery(
            f"no epsilon up to {EPSILON_MAX:g} keeps the error within {offset:g} with probability "
            f"{1 - alpha:g} at sensitivity {sensitivity}; allow a larger offset or alpha"
        )
    return found


@functools.lru_cache(maxsize=64)
def _draw(scale: float) -> Callable[[int], int]:
    """OpenDP's mechanism that adds discrete Laplace noise of this scale to an integer of 64 bits."""
    import opendp.prelude as dp

    dp.enable_features("contrib")  # OpenDP wants this said aloud: it has not vetted the mechanism's proof itself
    # T=int would mean 32 bits, and OpenDP clamps a sum that does not fit.
    mechanism: Callable[[int], int] = dp.m.make_laplace(
        dp.atom_domain(T="i64"), dp.absolute_distance(T="i64"), scale=scale
    )
    return mechanism


def discrete_laplace(scale: float) -> int:
    """One draw of discrete Laplace noise, from the system's random source. Thread-safe.

    Args:
        scale: of the noise, in the unit of the sum; above 0, at most 2**53.
    Returns:
        a whole number k with probability (1 - p) / (1 + p) * p^|k|, p = exp(-1 / scale).
    Raises:
        BadQuery: `scale` is out of its bounds.
    Source: Canonne, Kamath, Steinke (2020), as implemented by OpenDP.
    """
    _check("scale", scale, math.ulp(0.0), SCALE_MAX)
    return int(_draw(float(scale))(0))
