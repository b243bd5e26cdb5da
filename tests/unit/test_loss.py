from __future__ import annotations

import functools
import math
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab import privacy
from emlab.errors import BadQuery
from emlab.loss import MOST, NOTHING, Accounting, Left, Loss, Spent, Terms

EPSILONS = st.builds(Loss, epsilon_micro=st.integers(1, privacy.EPSILON_MICRO_MAX))
RHOS = st.builds(Loss, rho_nano=st.integers(1, privacy.RHO_NANO_MAX))
LOSSES = st.one_of(EPSILONS, RHOS)
SPENT = st.builds(Spent, micro=st.integers(0, MOST), nano=st.integers(0, MOST), gaussians=st.integers(0, MOST))
KEY = "a" * 64


def terms(
    limit: int = 100, *, quota: int | None = None, accounting: Accounting = "pure", renew_s: float | None = None
) -> Terms:
    return Terms(accounting=accounting, limit=limit, quota=quota, provider=KEY, renew_s=renew_s, ts=0.0)


class TestLoss:
    @pytest.mark.parametrize(
        "loss",
        [
            Loss(),
            Loss(epsilon_micro=1, rho_nano=1),
            Loss(epsilon_micro=-1),
            Loss(epsilon_micro=-1, rho_nano=1),
            Loss(epsilon_micro=privacy.EPSILON_MICRO_MAX + 1),
            Loss(rho_nano=privacy.RHO_NANO_MAX + 1),
        ],
    )
    def test_it_is_of_one_currency_and_bounded(self, loss: Loss) -> None:
        with pytest.raises(BadQuery):
            loss.check()

    @given(LOSSES)
    def test_it_survives_the_wire(self, loss: Loss) -> None:
        loss.check()
        assert msgspec.json.decode(msgspec.json.encode(loss), type=Loss) == loss

    @given(EPSILONS)
    def test_the_rho_of_an_epsilon_is_half_its_square_rounded_up(self, loss: Loss) -> None:
        exact = Fraction(loss.epsilon_micro, 10**6) ** 2 / 2
        assert exact <= Fraction(loss.as_rho_nano, 10**9) < exact + Fraction(1, 10**9)

    def test_the_largest_epsilon_is_the_largest_rho(self) -> None:
        assert Loss(epsilon_micro=privacy.EPSILON_MICRO_MAX).as_rho_nano == privacy.RHO_NANO_MAX


class TestSpent:
    @given(st.lists(LOSSES, max_size=20))
    def test_both_sums_are_kept(self, losses: list[Loss]) -> None:
        spent = functools.reduce(Spent.__add__, losses, NOTHING)
        assert spent.micro == sum(loss.epsilon_micro for loss in losses)
        assert spent.nano == sum(loss.as_rho_nano for loss in losses)
        assert spent.gaussians == sum(loss.rho_nano > 0 for loss in losses)

    @given(st.integers(0, MOST // 2), LOSSES)
    def test_what_is_taken_back_is_what_was_added(self, before: int, loss: Loss) -> None:
        spent = Spent(micro=before, nano=before, gaussians=before)
        assert spent + loss - loss == spent

    @given(SPENT, SPENT)
    def test_sums_stay_within_what_can_be_written_and_read(self, one: Spent, other: Spent) -> None:
        for spent in (one + other, one - other, one.at_least(other)):
            assert msgspec.json.decode(msgspec.json.encode(spent), type=Spent) == spent

    @given(SPENT, SPENT)
    def test_at_least_is_the_larger_of_each(self, one: Spent, other: Spent) -> None:
        both = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
        assert msgspec.structs.astuple(one.at_least(other)) == tuple(map(max, both))
        assert one.at_least(other) == other.at_least(one)
        assert one.at_least(one) == one


class TestTerms:
    @pytest.mark.parametrize("key", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "a.b"])
    def test_only_a_key_can_be_debited(self, key: str) -> None:
        with pytest.raises(BadQuery, match="64 hex digits"):
            msgspec.structs.replace(terms(), provider=key).check()

    def test_a_period_begins_at_the_multiples_of_its_length(self) -> None:
        hourly = terms(renew_s=3600.0)
        assert [hourly.period(ts) for ts in (0.0, 3599.9, 3600.0)] == [0, 0, 1]
        assert hourly.start_ts(7199.0) == 3600.0
        assert terms().period(1e9) is None
        assert terms().start_ts(1e9) == -math.inf

    @given(st.integers(0, 100), st.integers(0, 100), st.one_of(st.none(), st.integers(0, 100)), st.integers(1, 100))
    def test_an_objection_is_made_exactly_when_the_cost_exceeds_what_is_left(
        self, everyone: int, mine: int, quota: int | None, cost: int
    ) -> None:
        spent = Spent(micro=everyone), Spent(micro=everyone), Spent(micro=min(mine, everyone))
        objection = terms(quota=quota).objection(Loss(epsilon_micro=cost), *spent)
        covered = everyone + cost <= 100 and (quota is None or min(mine, everyone) + cost <= quota)
        assert (objection is None) == covered
        assert (terms(quota=quota).left(*spent).least >= cost) == covered
        assert objection is None or not any(letter.isdigit() for letter in objection)

    def test_after_gaussian_noise_nothing_is_left_of_an_epsilon(self) -> None:
        spent = Spent(nano=1, gaussians=1)
        assert terms(quota=50).left(spent, NOTHING, NOTHING) == Left(limit=0)
        assert "Gaussian" in str(terms().objection(Loss(epsilon_micro=1), spent, NOTHING, NOTHING))
        assert terms(accounting="zcdp").left(spent, spent, NOTHING) == Left(limit=99)

    def test_gaussian_noise_has_no_cost_in_epsilon(self) -> None:
        assert terms().cost(Loss(rho_nano=1)) is None
        assert "Gaussian" in str(terms().objection(Loss(rho_nano=1), NOTHING, NOTHING, NOTHING))
        assert terms(accounting="zcdp").cost(Loss(epsilon_micro=1_000_000)) == 500_000_000
