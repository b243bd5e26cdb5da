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
DRAWS_MAX = 1_000_000  # at once


def check_number(what: str, value: float, low: float, high: float) -> None:
    """Returns if `value` is a number in [low, high]; NaN and truth values are not. Raises BadQuery."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise BadQuery(f"{what} must be a number from {low:g} to {high:g}, not {value!r}")


def check_whole(what: str, value: int, low: int, high: int) -> None:
    """Returns if `value` is an integer in [low, high]. Raises BadQuery."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadQuery(f"{what} must be a whole number from {low} to {high}, not {value!r}")


def check_alpha(alpha: float) -> None:
    """Returns if `alpha` is a probability that can be promised. Raises BadQuery."""
    check_number("alpha", alpha, ALPHA_MIN, math.nextafter(1.0, 0.0))


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
    check_number("epsilon", epsilon, EPSILON_MIN, EPSILON_MAX)
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
    check_whole("sensitivity", sensitivity, 1, SENSITIVITY_MAX)
    check_whole("epsilon_micro", epsilon_micro, EPSILON_MICRO_MIN, EPSILON_MICRO_MAX)
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
    check_number("t", t, -(2.0**63), 2.0**63)
    check_number("scale", scale, math.ulp(0.0), SCALE_MAX)
    if t < 0:
        return 1.0
    return min(1.0, 2.0 * math.exp(-(math.floor(t) + 1) / scale) / (1.0 + math.exp(-1.0 / scale)))


def first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The smallest integer in [low, high] for which `holds`, high + 1 if none; once true it must stay true."""
    high += 1
    while low < high:  # bisect counts to 2**63 only
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


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
    check_alpha(alpha)
    check_number("scale", scale, math.ulp(0.0), SCALE_MAX)
    enough = math.ceil(scale * math.log(2.0 / alpha)) + 1
    return first(0, enough, lambda t: exceeds(t, scale) <= alpha)


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
    check_whole("sensitivity", sensitivity, 1, SENSITIVITY_MAX)
    check_number("offset", offset, 0.0, OFFSET_MAX)
    check_alpha(alpha)
    found = first(
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
def _laplace(scale: float) -> Callable[[list[int]], list[int]]:
    """OpenDP's mechanism that adds discrete Laplace noise of this scale to integers of 64 bits."""
    import opendp.prelude as dp

    dp.enable_features("contrib")  # OpenDP wants this said aloud: it has not vetted the mechanism's proof itself
    # T=int would mean 32 bits, and OpenDP clamps a sum that does not fit.
    mechanism: Callable[[list[int]], list[int]] = dp.m.make_laplace(
        dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64"), scale=scale
    )
    return mechanism


def discrete_laplace(scale: float, n: int = 1) -> list[int]:
    """Independent draws of discrete Laplace noise, from the system's random source. Thread-safe.

    Many at once take a tenth of the time that they would take one by one, or less.

    Args:
        scale: of the noise, in the unit of the sum; above 0, at most 2**53. n: draws, 1 to DRAWS_MAX.
    Returns:
        whole numbers, each k with probability (1 - p) / (1 + p) * p^|k|, p = exp(-1 / scale).
    Raises:
        BadQuery: an argument is out of its bounds.
    Source: Canonne, Kamath, Steinke (2020), as implemented by OpenDP.
    """
    check_number("scale", scale, math.ulp(0.0), SCALE_MAX)
    check_whole("n", n, 1, DRAWS_MAX)
    return [int(one) for one in _laplace(float(scale))([0] * n)]


RHO_NANO_MAX = 5000 * 10**9  # of an epsilon of 100
SIGMA_MAX = 2.0**53


def nano_rho(rho: float) -> int:
    """The zero-concentrated privacy loss `rho` in whole billionths, rounded up; as `micro_epsilon`.

    Args:
        rho: no unit; 1e-9 to 5000.
    Raises:
        BadQuery: `rho` is not a number in these bounds.
    """
    check_number("rho", rho, 1e-9, RHO_NANO_MAX / 1e9)
    return int((Decimal(repr(float(rho))) * 10**9).to_integral_value(ROUND_CEILING))


def gaussian_sigma(sensitivity2: int, rho_nano: int) -> float:
    """The sigma of discrete Gaussian noise that makes integer sums rho-zCDP for one person.

    Args:
        sensitivity2: most by which the sum of squared changes grows when one person is replaced; 1 to 2**66.
        rho_nano: zero-concentrated privacy loss, in billionths; 1 to 5e12.
    Returns:
        the smallest float that is not below sqrt(sensitivity2 / (2 rho)).
    Raises:
        BadQuery: an argument is not a whole number in its bounds.
    Source: Canonne, Kamath, Steinke (2020), theorem 14.
    """
    check_whole("sensitivity2", sensitivity2, 1, 2 * SENSITIVITY_MAX**2)
    check_whole("rho_nano", rho_nano, 1, RHO_NANO_MAX)
    exact = Fraction(sensitivity2 * 10**9, 2 * rho_nano)
    sigma = math.sqrt(exact)
    while Fraction(sigma) ** 2 < exact:
        sigma = math.nextafter(sigma, math.inf)
    return sigma


@functools.lru_cache(maxsize=64)
def _gaussian(sigma: float) -> Callable[[list[int]], list[int]]:
    """OpenDP's mechanism that adds discrete Gaussian noise of this sigma to integers of 64 bits."""
    import opendp.prelude as dp

    dp.enable_features("contrib")
    mechanism: Callable[[list[int]], list[int]] = dp.m.make_gaussian(
        dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64"), scale=sigma
    )
    return mechanism


def discrete_gaussian(sigma: float, n: int = 1) -> list[int]:
    """Independent draws of discrete Gaussian noise, from the system's random source; as `discrete_laplace`.

    Args:
        sigma: above 0, at most 2**53; P(X = k) is proportional to exp(-k^2 / (2 sigma^2)). n: draws, 1 to DRAWS_MAX.
    Raises:
        BadQuery: an argument is out of its bounds.
    Source: Canonne, Kamath, Steinke (2020), as implemented by OpenDP.
    """
    check_number("sigma", sigma, math.ulp(0.0), SIGMA_MAX)
    check_whole("n", n, 1, DRAWS_MAX)
    return [int(one) for one in _gaussian(float(sigma))([0] * n)]


DELTA_MIN, DELTA_MAX = 1e-15, 1e-3


def rho_nano(epsilon_micro: int, delta: float) -> int:
    """The largest zero-concentrated loss that implies (epsilon, delta)-differential privacy, rounded down.

    Args:
        epsilon_micro: in millionths; 0 to 100000000. delta: 1e-15 to 1e-3.
    Returns:
        rho in billionths, 0 or more.
    Raises:
        BadQuery: an argument is out of its bounds.
    Source: Bun, Steinke (2016), proposition 1.3: epsilon = rho + 2 sqrt(rho ln(1 / delta)), solved for rho.
    """
    check_whole("epsilon_micro", epsilon_micro, 0, EPSILON_MICRO_MAX)
    check_number("delta", delta, DELTA_MIN, DELTA_MAX)
    log = math.log(1.0 / delta)
    root = epsilon_micro / MICRO / (math.sqrt(log + epsilon_micro / MICRO) + math.sqrt(log))
    return max(0, math.floor(root * root * 1e9 * (1 - 1e-12)))
