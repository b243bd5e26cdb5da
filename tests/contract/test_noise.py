"""What OpenDP draws follows the law that intervals and prices are computed with."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from scipy import stats

from emlab import privacy


class TestDraws:
    @pytest.mark.parametrize("scale", [0.4, 2.0, 12.5])
    def test_they_follow_the_law(self, scale: float) -> None:
        """Chi-square of 20,000 draws; fails by chance with a probability of about 1e-7 at each scale."""
        n, p = 20_000, math.exp(-1.0 / scale)
        expected = {k: n * (1.0 - p) / (1.0 + p) * p**k for k in range(1000)}
        far = max(k for k in expected if expected[k] >= 25)  # enough in each cell, and the rest in one
        drawn = Counter(privacy.discrete_laplace(scale) for _ in range(n))
        near = [drawn[k] for k in range(-far + 1, far)]
        law = [expected[abs(k)] for k in range(-far + 1, far)]
        tail = n * privacy.exceeds(far - 1, scale)
        assert stats.chisquare([*near, n - sum(near)], [*law, tail]).pvalue > 1e-7

    def test_they_are_not_cut_at_32_bits(self) -> None:
        """At scale 2**40, twenty draws all stay within 32 bits with probability below 1e-50."""
        draws = [privacy.discrete_laplace(2.0**40) for _ in range(20)]
        assert max(abs(draw) for draw in draws) > 2**31

    def test_they_are_integers_and_zero_where_noise_vanishes(self) -> None:
        """At scale 0.01 a draw differs from 0 with probability 2 exp(-100)."""
        draw = privacy.discrete_laplace(0.01)
        assert type(draw) is int
        assert draw == 0
