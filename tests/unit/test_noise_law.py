"""Half widths and tails of sums of noise, against the laws themselves, convolved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import stats

from emlab import noise, privacy, tails
from emlab.errors import BadQuery
from emlab.loss import Loss
from emlab.noise import Gaussian, Laplace, NoNoise, noises, share, spread
from emlab.queries.count_users import CountUsers
from emlab.queries.mean_distance import MeanDistance

Law = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
ALPHAS = [0.5, 0.05, 1e-3, 1e-6, 1e-10]
NOT_NUMBERS = [math.nan, math.inf, -math.inf, True, "1", None]


def laplace(scale: float) -> Law:
    k = np.arange(-math.ceil(60 * scale) - 2, math.ceil(60 * scale) + 3)
    p = math.exp(-1.0 / scale)
    law: Law = (1 - p) / (1 + p) * p ** np.abs(k)
    return law


def gaussian(sigma: float) -> Law:
    k = np.arange(-math.ceil(13 * sigma) - 2, math.ceil(13 * sigma) + 3)
    law: Law = np.exp(-0.5 * (k / sigma) ** 2)
    scaled: Law = law / law.sum()
    return scaled


def of_sum(law: Law, n: int) -> Law:
    """The law of the sum of n draws."""
    total = law
    for _ in range(n - 1):
        total = np.convolve(total, law)
    return total


def outside(law: Law) -> Law:
    """P(|S| > t) for t = 0, 1, ... ."""
    middle = len(law) // 2
    sides: Law = law[middle + 1 :] + law[:middle][::-1]
    return np.cumsum(sides[::-1])[::-1]


def variance_of(law: Law) -> float:
    return float((law * (np.arange(len(law)) - len(law) // 2) ** 2).sum())


def smallest(law: Law, alpha: float) -> int:
    """The smallest t with P(|S| > t) <= alpha."""
    return int(np.argmax(np.append(outside(law), 0.0) <= alpha))


class TestSumsOfLaplaceNoise:
    @pytest.mark.parametrize(("scale", "n"), list(product([0.05, 0.3, 1.0, 2.5, 20.0], [1, 2, 3, 4, 10, 30])))
    def test_the_half_width_is_the_smallest_that_is_enough(self, scale: float, n: int) -> None:
        law = of_sum(laplace(scale), n)
        found = [tails.laplace_sum_half_width(alpha, scale, n) for alpha in ALPHAS]
        assert found == [smallest(law, alpha) for alpha in ALPHAS]

    @pytest.mark.parametrize(("scale", "n"), list(product([0.3, 2.5, 20.0], [2, 3, 5, 30])))
    def test_the_tail_is_that_of_the_law(self, scale: float, n: int) -> None:
        tail, exact = tails.laplace_tail(scale, n), outside(of_sum(laplace(scale), n))
        for t in range(0, min(len(exact), 400), 7):
            assert exact[t] - 1e-13 <= tail(t) <= exact[t] + 3e-14 + 1e-12 * exact[t]

    @pytest.mark.parametrize(("scale", "n"), [(1e6, 10**6), (1e3, 10**5), (privacy.SCALE_MAX, tails.N_MAX)])
    def test_of_many_draws_it_is_the_normal_one(self, scale: float, n: int) -> None:
        sigma = math.sqrt(2.0 * n) * scale
        found = tails.laplace_sum_half_width(0.05, scale, n)
        assert found == pytest.approx(stats.norm.isf(0.025) * sigma, rel=1e-4)

    @pytest.mark.parametrize("n", [2, 3, 100])
    def test_it_is_narrower_than_what_is_known_without_the_law(self, n: int) -> None:
        assert tails.laplace_sum_half_width(0.05, 100.0, n) < 0.85 * tails._laplace_bound(0.05, 100.0, n)


class TestSumsOfGaussianNoise:
    @pytest.mark.parametrize(("sigma", "n"), list(product([0.2, 0.5, 0.8, 1.0, 1.3, 5.0, 39.0], [1, 2, 3, 10, 30])))
    def test_the_half_width_is_the_smallest_that_is_enough(self, sigma: float, n: int) -> None:
        law = of_sum(gaussian(sigma), n)
        for alpha in ALPHAS:
            found = tails.gaussian_half_width(alpha, sigma, n)
            assert smallest(law, alpha) <= found <= smallest(law, alpha) + (sigma * math.sqrt(n) > 40)

    @pytest.mark.parametrize(("sigma", "n"), list(product([41.0, 80.0], [1, 2, 5])))
    def test_of_a_large_sigma_it_is_that_or_one_more(self, sigma: float, n: int) -> None:
        law = of_sum(gaussian(sigma), n)
        for alpha in ALPHAS:
            assert 0 <= tails.gaussian_half_width(alpha, sigma, n) - smallest(law, alpha) <= 1

    @pytest.mark.parametrize("sigma", [0.3, 1.0, 7.7, 40.0, 41.0, 300.0])
    def test_the_tail_is_never_below_that_of_the_law(self, sigma: float) -> None:
        exact = outside(gaussian(sigma))
        for t in range(0, len(exact), max(1, int(sigma / 5))):
            assert exact[t] * (1 - 1e-13) - 1e-33 <= tails.gaussian_tail(sigma, t)

    @pytest.mark.parametrize("sigma", [0.8, 1.0, 1.5])
    @pytest.mark.parametrize("n", [2, 5, 20])
    def test_how_far_a_sum_is_from_one_wide_draw_is_known(self, sigma: float, n: int) -> None:
        """The bound holds for each number, and is not far from what it bounds where floats can tell."""
        total = of_sum(gaussian(sigma), n)
        k = np.arange(len(total)) - len(total) // 2
        wide = np.exp(-0.5 * (k / (sigma * math.sqrt(n))) ** 2)
        near = np.abs(k) <= 6 * sigma * math.sqrt(n)
        ratio = np.abs(np.log(total[near] / (wide / wide.sum())[near])).max()
        assert ratio <= tails._excess(sigma, n) + 1e-9

    @pytest.mark.parametrize(
        ("sigma", "n"), [(1e6, 10**6), (1.0, tails.N_MAX), (0.7, 10**8), (privacy.SIGMA_MAX, tails.N_MAX)]
    )
    def test_of_many_draws_it_is_the_normal_one(self, sigma: float, n: int) -> None:
        variance = (
            (outside(gaussian(sigma)) * (2 * np.arange(len(outside(gaussian(sigma)))) + 1)).sum()
            if sigma < 2
            else sigma**2
        )
        found = tails.gaussian_half_width(0.05, sigma, n)
        assert found == pytest.approx(stats.norm.isf(0.025) * math.sqrt(variance * n), rel=1e-4)


HALF_WIDTHS: list[Callable[[float, float, int], int]] = [tails.laplace_sum_half_width, tails.gaussian_half_width]


@pytest.mark.parametrize("half_width", HALF_WIDTHS)
class TestBothHalfWidths:
    @pytest.mark.parametrize("width", [5e-324, 1e-3, 0.01, 1.0, 1e5, 2.0**53])
    @pytest.mark.parametrize("n", [1, 2, 3, 1000, tails.N_MAX])
    def test_they_are_found_at_once_and_grow_with_certainty(
        self, half_width: Callable[[float, float, int], int], width: float, n: int
    ) -> None:
        start = time.perf_counter()
        found = [half_width(alpha, width, n) for alpha in (0.999, 0.05, 1e-6, 1e-12)]
        assert time.perf_counter() - start < 5.0  # it takes milliseconds; a hundredfold is for machines that do more
        assert found == sorted(found)
        assert found[0] >= 0

    @pytest.mark.parametrize("alpha", [*NOT_NUMBERS, 0.0, 1.0, -0.1, 9e-13])
    def test_an_alpha_is_a_probability_that_can_be_promised(
        self, half_width: Callable[[float, float, int], int], alpha: float
    ) -> None:
        with pytest.raises(BadQuery, match="alpha"):
            half_width(alpha, 1.0, 2)

    @pytest.mark.parametrize("width", [*NOT_NUMBERS, 0.0, -1.0, 2.0**54])
    def test_a_width_is_positive_and_bounded(
        self, half_width: Callable[[float, float, int], int], width: float
    ) -> None:
        with pytest.raises(BadQuery, match=r"scale|sigma"):
            half_width(0.05, width, 2)

    @pytest.mark.parametrize("n", [0, -1, 1.0, True, tails.N_MAX + 1])
    def test_draws_are_counted(self, half_width: Callable[[float, float, int], int], n: int) -> None:
        with pytest.raises(BadQuery, match="n must"):
            half_width(0.05, 1.0, n)


class TestNoiseOfAQuery:
    def test_each_part_has_noise_for_its_sensitivity_and_share(self) -> None:
        query = MeanDistance(0.0, 1e9, 5, 20_000)
        loss = Loss(epsilon_micro=1_000_000)
        for part, one in zip(query.parts, noises(query, loss), strict=True):
            assert isinstance(one, Laplace)
            mine = share(loss, part, query)
            assert one.scale == privacy.noise_scale(part.sensitivity, mine.epsilon_micro)
        total = [share(loss, part, query).epsilon_micro for part in query.parts]
        assert sum(total) <= loss.epsilon_micro

    def test_a_rho_buys_gaussian_noise(self) -> None:
        (one,) = noises(CountUsers(None, 0.0, 1.0), Loss(rho_nano=500_000_000))
        assert one == Gaussian(1.0)
        assert one.half_width(0.05) == tails.gaussian_half_width(0.05, 1.0)

    def test_a_loss_too_small_to_split_is_refused(self) -> None:
        with pytest.raises(BadQuery, match="cannot be split"):
            noises(MeanDistance(0.0, 1e9, 5, 20_000), Loss(epsilon_micro=1))

    def test_none_is_named(self) -> None:
        assert noise.is_exact((NoNoise(), NoNoise()))
        assert not noise.is_exact((NoNoise(), Laplace(1.0)))
        assert [spread(one) for one in (NoNoise(), Laplace(2.0), Gaussian(3.0))] == [0.0, 2.0, 3.0]
        assert NoNoise().draws(3) == [0, 0, 0]
        assert NoNoise().half_width(0.05, 7) == 0
