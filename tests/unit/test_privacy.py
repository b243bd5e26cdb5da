"""The noise: its law, its draws, and what an accuracy costs."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from emlab import privacy
from emlab.errors import BadQuery

MICROS = st.integers(1, 100 * privacy.MICRO)
SENSITIVITIES = st.one_of(st.integers(1, 1000), st.integers(1, privacy.SENSITIVITY_MAX))
ALPHAS = st.one_of(st.floats(1e-12, 0.999), st.sampled_from([0.01, 0.05, 0.1, 0.2]))
SCALES = st.one_of(st.floats(1e-3, 100.0), st.floats(1.0, privacy.SCALE_MAX))
NOT_NUMBERS = [math.nan, math.inf, -math.inf, True, False, "1", None, 1j, 10**400]


def outside(t: int, scale: float, terms: int = 5000) -> float:
    """P(|X| > t) as a plain sum over the law, far beyond where its terms matter."""
    p = math.exp(-1.0 / scale)
    return 2.0 * math.fsum((1.0 - p) / (1.0 + p) * p**k for k in range(t + 1, t + 1 + terms))


class TestEpsilonInMillionths:
    @pytest.mark.parametrize(
        ("epsilon", "micro"),
        [
            (1, 1_000_000),
            (0.1, 100_000),
            (0.3, 300_000),
            (1e-6, 1),
            (100, 100_000_000),
            (0.0000011, 2),
            (1 / 3, 333_334),
        ],
    )
    def test_a_decimal_costs_what_it_says_and_the_rest_is_rounded_up(self, epsilon: float, micro: int) -> None:
        assert privacy.micro_epsilon(epsilon) == micro

    @given(MICROS)
    def test_a_whole_number_of_millionths_comes_back_unchanged(self, micro: int) -> None:
        assert privacy.micro_epsilon(micro / privacy.MICRO) == micro

    @given(st.floats(1e-6, 100.0))
    def test_the_charge_covers_the_epsilon_and_exceeds_it_by_less_than_a_millionth(self, epsilon: float) -> None:
        charge = Fraction(privacy.micro_epsilon(epsilon), privacy.MICRO)
        asked = Fraction(repr(epsilon))
        assert asked <= charge < asked + Fraction(1, privacy.MICRO)

    @pytest.mark.parametrize("epsilon", [*NOT_NUMBERS, 0, -1, -5.0, 9.9e-7, 100.0000001])
    def test_what_is_no_epsilon_is_refused(self, epsilon: float) -> None:
        with pytest.raises(BadQuery, match="epsilon"):
            privacy.micro_epsilon(epsilon)


class TestScale:
    @given(SENSITIVITIES, MICROS)
    def test_the_loss_is_never_above_the_claim_and_the_scale_is_the_smallest_such(self, most: int, micro: int) -> None:
        scale, epsilon = privacy.noise_scale(most, micro), Fraction(micro, privacy.MICRO)
        assert Fraction(most) / Fraction(scale) <= epsilon
        assert Fraction(most) / Fraction(math.nextafter(scale, 0.0)) > epsilon

    @pytest.mark.parametrize("sensitivity", [0, -1, 1.0, True, 2**33 + 1, math.nan, "1"])
    def test_a_sensitivity_is_a_positive_whole_number(self, sensitivity: int) -> None:
        with pytest.raises(BadQuery, match="sensitivity"):
            privacy.noise_scale(sensitivity, privacy.MICRO)

    @pytest.mark.parametrize("micro", [0, -1, 0.5, True, 100_000_001, math.nan])
    def test_an_amount_is_a_whole_number_of_millionths_in_bounds(self, micro: int) -> None:
        with pytest.raises(BadQuery, match="epsilon_micro"):
            privacy.noise_scale(1, micro)

    def test_every_permitted_scale_can_be_drawn(self) -> None:
        largest = privacy.noise_scale(privacy.SENSITIVITY_MAX, privacy.EPSILON_MICRO_MIN)
        assert largest <= privacy.SCALE_MAX
        assert privacy.exceeds(2**63, privacy.SCALE_MAX) < 1e-300

    @pytest.mark.parametrize(("most", "micro"), [(1, 500_000), (3, 7), (2**33, 1), (1, 100_000_000), (14, 333_333)])
    def test_opendp_states_the_same_loss(self, most: int, micro: int) -> None:
        import opendp.prelude as dp

        dp.enable_features("contrib")
        space = dp.atom_domain(T="i64"), dp.absolute_distance(T="i64")
        mechanism = dp.m.make_laplace(*space, scale=privacy.noise_scale(most, micro))
        loss = mechanism.map(most)  # type: ignore[no-untyped-call]  # opendp has no types here
        assert loss == pytest.approx(micro / privacy.MICRO, rel=1e-15)  # OpenDP rounds its own division up


class TestTails:
    @pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 2.5, 33.4, 100.0])
    @pytest.mark.parametrize("t", [0, 1, 2, 7, 100])
    def test_they_are_the_sum_of_the_law(self, t: int, scale: float) -> None:
        assert privacy.exceeds(t, scale) == pytest.approx(outside(t, scale), rel=1e-11, abs=1e-300)

    def test_they_are_exact_at_a_rational_base(self) -> None:
        scale = 1.0 / math.log(2.0)  # p = 1/2, so P(|X| > t) = 2 (1/2)^(t+1) / (3/2)
        for t in range(40):
            exact = 2 * Fraction(1, 2) ** (t + 1) / Fraction(3, 2)
            assert privacy.exceeds(t, scale) == pytest.approx(float(exact), rel=1e-13)

    @given(st.integers(0, 10**6), st.floats(0.05, 1e6))
    def test_they_agree_with_another_implementation(self, t: int, scale: float) -> None:
        theirs = 2.0 * stats.dlaplace.sf(t, 1.0 / scale)
        assert privacy.exceeds(t, scale) == pytest.approx(theirs, rel=1e-9, abs=1e-15)  # theirs is 1 - cdf

    @given(st.floats(0.0, 1e15), SCALES)
    def test_only_whole_errors_count(self, t: float, scale: float) -> None:
        assert privacy.exceeds(t, scale) == privacy.exceeds(math.floor(t), scale)

    @given(st.integers(0, 2**60), SCALES)
    def test_they_are_probabilities_that_never_grow(self, t: int, scale: float) -> None:
        assert 0.0 <= privacy.exceeds(t + 1, scale) <= privacy.exceeds(t, scale) <= 1.0

    def test_everything_is_farther_than_a_negative_distance(self) -> None:
        assert privacy.exceeds(-0.5, 1.0) == 1.0

    def test_a_huge_scale_keeps_its_digits(self) -> None:
        scale = privacy.SCALE_MAX
        assert privacy.exceeds(2**53 - 1, scale) == pytest.approx(math.exp(-1.0), rel=1e-14)
        assert privacy.exceeds(0, scale) == pytest.approx(1.0)

    @pytest.mark.parametrize("scale", [*NOT_NUMBERS, 0.0, -1.0, 2.0**54])
    def test_a_scale_is_positive_and_bounded(self, scale: float) -> None:
        with pytest.raises(BadQuery, match="scale"):
            privacy.exceeds(1, scale)
        with pytest.raises(BadQuery, match="scale"):
            privacy.half_width(0.05, scale)
        with pytest.raises(BadQuery, match="scale"):
            privacy.discrete_laplace(scale)

    @pytest.mark.parametrize("t", NOT_NUMBERS)
    def test_a_distance_is_a_number(self, t: float) -> None:
        with pytest.raises(BadQuery, match="t must"):
            privacy.exceeds(t, 1.0)


class TestHalfWidth:
    @given(ALPHAS, SCALES)
    @example(alpha=1e-12, scale=privacy.SCALE_MAX)
    @example(alpha=0.05, scale=5e-324)
    def test_it_is_the_smallest_that_is_enough(self, alpha: float, scale: float) -> None:
        t = privacy.half_width(alpha, scale)
        assert privacy.exceeds(t, scale) <= alpha
        assert privacy.exceeds(t - 1, scale) > alpha

    @pytest.mark.parametrize("alpha", [*NOT_NUMBERS, 0, 1, 1.0, 0.0, -0.05, 9e-13])
    def test_an_alpha_is_a_probability_that_can_be_promised(self, alpha: float) -> None:
        with pytest.raises(BadQuery, match="alpha"):
            privacy.half_width(alpha, 1.0)
        with pytest.raises(BadQuery, match="alpha"):
            privacy.solve_epsilon(1, 100.0, alpha)


class TestEpsilonForAnAccuracy:
    @given(SENSITIVITIES, st.floats(0.0, 1e12), ALPHAS)
    def test_it_is_the_least_that_is_accurate_enough(self, most: int, offset: float, alpha: float) -> None:
        def miss(micro: int) -> float:
            return privacy.exceeds(offset, privacy.noise_scale(most, micro))

        try:
            micro = privacy.solve_epsilon(most, offset, alpha)
        except BadQuery:
            assert miss(privacy.EPSILON_MICRO_MAX) > alpha
        else:
            assert miss(micro) <= alpha
            assert micro == 1 or miss(micro - 1) > alpha

    @given(st.integers(1, 100), st.integers(1, 10_000), ALPHAS)
    def test_the_interval_of_its_noise_fits_into_the_offset(self, most: int, offset: int, alpha: float) -> None:
        try:
            micro = privacy.solve_epsilon(most, offset, alpha)
        except BadQuery:
            micro = privacy.EPSILON_MICRO_MAX
            assert privacy.half_width(alpha, privacy.noise_scale(most, micro)) > offset
        else:
            assert privacy.half_width(alpha, privacy.noise_scale(most, micro)) <= offset

    def test_the_ancestors_budget_of_one_lasts_for_as_many_queries(self) -> None:
        """Offset 100, alpha 0.05, sensitivity 1: by the continuous law a query costs 0.029957, by ours 0.029808.

        The continuous law counts errors between 100 and 101, which whole numbers cannot make. Both pay 33 queries
        out of a budget of 1 and refuse the 34th; ours leaves 0.016336, the ancestor's 0.011408.
        """
        continuous = -math.log(0.05) / 100
        ours = privacy.solve_epsilon(1, 100.0, 0.05)
        assert ours == 29_808
        assert math.floor(1 / continuous) == privacy.MICRO // ours == 33
        assert 1 - 33 * continuous == pytest.approx(0.011408, abs=5e-7)
        assert privacy.MICRO - 33 * ours == 16_336

    def test_the_ancestors_noise_was_too_small_for_a_sensitivity_above_one(self) -> None:
        """Its scale was 1 / epsilon whatever one person could change: at sensitivity 10 it must be ten times that."""
        micro = privacy.solve_epsilon(10, 100.0, 0.05)
        assert micro > 9 * privacy.solve_epsilon(1, 100.0, 0.05)
        assert privacy.exceeds(100, privacy.noise_scale(10, micro)) <= 0.05

    @pytest.mark.parametrize("offset", [*NOT_NUMBERS, -1, -1e-9, 2.0**54])
    def test_an_offset_is_a_distance(self, offset: float) -> None:
        with pytest.raises(BadQuery, match="offset"):
            privacy.solve_epsilon(1, offset, 0.05)

    def test_what_no_epsilon_reaches_is_refused_with_advice(self) -> None:
        with pytest.raises(BadQuery, match="allow a larger offset or alpha"):
            privacy.solve_epsilon(10_000, 1.0, 0.05)

    def test_an_offset_that_is_almost_free_costs_one_millionth(self) -> None:
        assert privacy.solve_epsilon(1, 1e12, 0.05) == 1
