"""Noise as values: which law, how wide, how far from zero it gets, and a draw of it. L1.

Imports opendp when noise is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from emlab import privacy, tails
from emlab.errors import BadQuery
from emlab.loss import Loss
from emlab.query import Part, Query, cells


class Noise(msgspec.Struct, frozen=True, tag_field="law"):
    """One law of noise on whole numbers, symmetric around zero."""

    def draw(self) -> int:
        """One draw, from the system's random source."""
        (one,) = self.draws(1)
        return one

    def draws(self, n: int) -> list[int]:
        """Independent draws: many at once are faster than one by one. Raises BadQuery: n is out of its bounds."""
        raise NotImplementedError

    def half_width(self, alpha: float, n: int = 1) -> int:
        """Some t such that the sum of `n` draws is farther than t from zero with probability alpha at most.

        The smallest such t, or hardly more; see `tails`.
        Raises BadQuery: alpha is not within [1e-12, 1).
        """
        raise NotImplementedError


class NoNoise(Noise, frozen=True, tag_field="law", tag="none"):
    """None at all: not private."""

    def draws(self, n: int) -> list[int]:
        """Zeros."""
        return [0] * n

    def half_width(self, alpha: float, n: int = 1) -> int:
        """Zero."""
        return 0


class Laplace(Noise, frozen=True, forbid_unknown_fields=True, tag_field="law", tag="laplace"):
    """Discrete Laplace noise; see `privacy`."""

    scale: float

    def draws(self, n: int) -> list[int]:
        """See Noise."""
        return privacy.discrete_laplace(self.scale, n)

    def half_width(self, alpha: float, n: int = 1) -> int:
        """See Noise."""
        return tails.laplace_sum_half_width(alpha, self.scale, n)


class Gaussian(Noise, frozen=True, forbid_unknown_fields=True, tag_field="law", tag="gaussian"):
    """Discrete Gaussian noise; see `privacy`."""

    sigma: float

    def draws(self, n: int) -> list[int]:
        """See Noise."""
        return privacy.discrete_gaussian(self.sigma, n)

    def half_width(self, alpha: float, n: int = 1) -> int:
        """See Noise."""
        return tails.gaussian_half_width(alpha, self.sigma, n)


AnyNoise = NoNoise | Laplace | Gaussian


def noises(query: Query, loss: Loss) -> tuple[AnyNoise, ...]:
    """The noise of each part's cells, so that an answer reveals no more of a person than that. Raises BadQuery."""
    return tuple(_noise(part, share(loss, part, query)) for part in query.parts)


def _noise(part: Part, loss: Loss) -> AnyNoise:
    if loss.epsilon_micro:
        return Laplace(privacy.noise_scale(part.sensitivity, loss.epsilon_micro))
    return Gaussian(privacy.gaussian_sigma(part.sensitivity2, loss.rho_nano))


def share(loss: Loss, part: Part, query: Query) -> Loss:
    """What of a query's loss is spent on one of its parts. Raises BadQuery: nothing is left for it."""
    whole = sum(one.share for one in query.parts)
    mine = Loss(epsilon_micro=loss.epsilon_micro * part.share // whole, rho_nano=loss.rho_nano * part.share // whole)
    if not (mine.epsilon_micro or mine.rho_nano):
        raise BadQuery(f"so small a loss cannot be split over the {len(query.parts)} parts of the query")
    return mine


def half_widths(query: Query, laws: Sequence[AnyNoise], alpha: float, draws: int) -> list[int]:
    """Of each part: with probability `alpha` at most, the noise of any cell of the query exceeds that of its part.

    Args:
        alpha: 1e-12 to below 1; shared over the cells, of which each has 1e-12 at least.
        draws: noises in the sum of a cell: 1 in the central model, the number of clouds in the local one.
    Raises BadQuery: alpha is not within [1e-12, 1).
    """
    privacy.check_alpha(alpha)
    each = max(alpha / cells(query), privacy.ALPHA_MIN)
    return [law.half_width(each, draws) for law in laws]


def is_exact(noise: tuple[AnyNoise, ...]) -> bool:
    """Whether nothing was added."""
    return all(isinstance(one, NoNoise) for one in noise)


def spread(noise: AnyNoise) -> float:
    """Scale or sigma, for people to read; 0 for none."""
    match noise:
        case Laplace(scale=width) | Gaussian(sigma=width):
            return width
    return 0.0
