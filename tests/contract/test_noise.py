"""What is really drawn follows the law that intervals and prices are computed with, and keeps what was promised.

Each random test states with which probability it fails although nothing is wrong.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from scipy import stats

from emlab import aggregate, privacy
from emlab.aggregate import drawn
from emlab.errors import BadQuery
from emlab.loss import NOTHING, Loss, Spent
from emlab.noise import Gaussian, Laplace, noises
from emlab.queries.count_users import CountUsers
from emlab.queries.sum_distance import SumDistance
from emlab.queries.trip_histogram import TripHistogram
from emlab.query import Query, clamp
from tests.unit.asks import World

# so many that the variance is within 2 % but with probability 1e-9: 6.1 standard errors, sqrt((kurtosis - 1) / n)
MANY_LAPLACE, MANY_GAUSSIAN = 470_000, 190_000
N = 100_000


@functools.cache
def laplace(scale: float, n: int = N) -> list[int]:
    return privacy.discrete_laplace(scale, n)


@functools.cache
def gaussian(sigma: float, n: int = N) -> list[int]:
    return privacy.discrete_gaussian(sigma, n)


def laplace_law(scale: float) -> list[float]:
    """P(X = k) for k = 0, 1, ... ."""
    p = math.exp(-1.0 / scale)
    return [(1.0 - p) / (1.0 + p) * p**k for k in range(math.ceil(50 * scale) + 5)]


def gaussian_law(sigma: float) -> list[float]:
    terms = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(math.ceil(12 * sigma) + 5)]
    return [term / (2.0 * math.fsum(terms) - 1.0) for term in terms]


def variance_of(law: Sequence[float]) -> float:
    return 2.0 * math.fsum(k * k * p for k, p in enumerate(law))


def chi_square(draws: Sequence[int], law: Sequence[float]) -> float:
    """The p-value of so many draws: a cell for each number that is expected 25 times or more, one for all others."""
    n, counts = len(draws), Counter(draws)
    far = next(k for k, p in enumerate(law) if n * p < 25)
    numbers = range(-far + 1, far)
    observed, expected = [counts[k] for k in numbers], [n * law[abs(k)] for k in numbers]
    assert len(observed) > 4 or far < 3
    return float(stats.chisquare([*observed, n - sum(observed)], [*expected, n - sum(expected)]).pvalue)


class TestDraws:
    @pytest.mark.parametrize(("scale", "n"), [(0.4, N), (2.0, MANY_LAPLACE), (12.5, N)])
    def test_laplace_noise_follows_its_law(self, scale: float, n: int) -> None:
        """Chi-square of 100,000 draws or more; fails by chance with probability 1e-9."""
        assert chi_square(laplace(scale, n), laplace_law(scale)) > 1e-9

    @pytest.mark.parametrize(("sigma", "n"), [(0.6, N), (2.0, MANY_GAUSSIAN), (11.0, N)])
    def test_gaussian_noise_follows_its_law(self, sigma: float, n: int) -> None:
        """Chi-square of 100,000 draws or more; fails by chance with probability 1e-9."""
        assert chi_square(gaussian(sigma, n), gaussian_law(sigma)) > 1e-9

    @pytest.mark.parametrize(
        ("draw", "law", "n"),
        [(laplace, laplace_law, MANY_LAPLACE), (gaussian, gaussian_law, MANY_GAUSSIAN)],
        ids=["laplace", "gaussian"],
    )
    def test_its_variance_is_right_within_two_percent(
        self, draw: Callable[[float, int], list[int]], law: Callable[[float], list[float]], n: int
    ) -> None:
        """Fails by chance with probability 1e-9."""
        found = math.fsum(k * k for k in draw(2.0, n)) / n
        assert found == pytest.approx(variance_of(law(2.0)), rel=0.02)

    def test_the_test_of_the_law_tells_neighbouring_laws_apart(self) -> None:
        """A scale or sigma that is a twelfth too small is seen in so many draws, but with probability 1e-9."""
        assert chi_square(laplace(1.83), laplace_law(2.0)) < 1e-9
        assert chi_square(gaussian(1.83), gaussian_law(2.0)) < 1e-9

    @pytest.mark.parametrize("noise", [Laplace(2.0**40), Gaussian(2.0**40)])
    def test_they_are_not_cut_at_32_bits(self, noise: Laplace | Gaussian) -> None:
        """Twenty draws all stay within 32 bits with probability below 1e-50."""
        assert max(map(abs, noise.draws(20))) > 2**31

    @pytest.mark.parametrize("noise", [Laplace(0.01), Gaussian(0.05)])
    def test_they_are_integers_and_zero_where_noise_vanishes(self, noise: Laplace | Gaussian) -> None:
        """A draw differs from 0 with probability 2 exp(-100)."""
        assert type(noise.draw()) is int
        assert noise.draws(5) == [0] * 5

    def test_draws_of_one_call_do_not_depend_on_each_other(self) -> None:
        """The correlation of neighbours is within 6.1 standard errors of 0, but with probability 1e-9."""
        draws = laplace(2.0, MANY_LAPLACE)
        products = math.fsum(one * next_ for one, next_ in pairwise(draws))
        correlation = products / len(draws) / variance_of(laplace_law(2.0))
        assert abs(correlation) < 6.1 / math.sqrt(len(draws))

    @pytest.mark.parametrize("n", [0, -1, 1.5, privacy.DRAWS_MAX + 1])
    def test_draws_are_counted(self, n: int) -> None:
        with pytest.raises(BadQuery, match="n must"):
            Laplace(1.0).draws(n)


class TestFloats:
    """Mironov (2012): noise made of floats leaves gaps, by which one tells which total it was added to."""

    @pytest.mark.parametrize("noise", [Laplace(2.0**k) for k in (20, 40, 53)] + [Gaussian(2.0**k) for k in (20, 53)])
    def test_the_lowest_bits_of_noise_are_as_likely_as_each_other(self, noise: Laplace | Gaussian) -> None:
        """Of floats beyond 2**53 the lowest ones would be 0. Fails by chance with probability 1e-9 each."""
        assert stats.chisquare(_residues(noise.draws(40_000), 64)).pvalue > 1e-9

    @pytest.mark.parametrize("total", [0, 1, 2**53, 2**53 + 1, 2**62 - 1])
    def test_a_released_number_tells_nothing_of_how_its_total_would_be_rounded(self, total: int) -> None:
        """The total is added as an integer: whichever it is, all residues stay as likely as each other (1e-9)."""
        ask = World().ask(_Wide(), epsilon_micro=privacy.EPSILON_MICRO_MIN)
        released = [aggregate.release(ask, [(total,)], [], trust="test").values[0] for _ in range(1200)]
        assert all(type(value) is int for value in released)
        assert stats.chisquare(_residues(released, 16)).pvalue > 1e-9

    def test_noise_is_the_same_whatever_it_is_added_to(self) -> None:
        """Of both totals the same numbers can come out: all near ones do, 4000 times each (missing one: 1e-9)."""
        ask = World().ask(epsilon_micro=1_000_000)
        for total in (2**53 - 1, 2**53 + 1):
            released = Counter(aggregate.release(ask, [(total,)], [], trust="t").values[0] - total for _ in range(4000))
            assert {-2, -1, 0, 1, 2} <= set(released)


class _Wide(CountUsers, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="test_wide"):
    """One number, so large a sensitivity that its noise has 53 bits."""

    region: None = None
    start_ts: float = 0.0
    end_ts: float = 1.0

    @property
    def parts(self) -> tuple[Any, ...]:
        (part,) = super().parts
        return (type(part).number("wide", "", privacy.SENSITIVITY_MAX),)


def _residues(values: Sequence[int], modulus: int) -> list[int]:
    counts = Counter(value % modulus for value in values)
    return [counts[residue] for residue in range(modulus)]


BLOCKS, TRIALS = 8, 800
Event = Callable[[Sequence[int]], bool]


def lower_bound(hits: int, other_hits: int) -> float:
    """What epsilon is at least, with 95 %, if an event came so often in so many trials of one and the other person.

    Source: Clopper, Pearson (1934), each with 97.5 %.
    """
    low = stats.beta.ppf(0.025, hits, TRIALS - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, other_hits + 1, TRIALS - other_hits) if other_hits < TRIALS else 1.0
    return math.log(low / high) if low > 0 else 0.0


class Attack:
    """Somebody who wants to tell two people apart by one answer, and knows all others."""

    def __init__(self, query: Query, one: Sequence[int], other: Sequence[int], event: Event, epsilon: float) -> None:
        self.epsilon = epsilon
        self._people = [clamp(query, one), clamp(query, other)]
        self._event = event
        self._ask = World().ask(query, epsilon_micro=privacy.micro_epsilon(epsilon))
        self._local = World().ask(query, epsilon_micro=privacy.micro_epsilon(epsilon), model="local")

    def central(self, person: Sequence[int]) -> Sequence[int]:
        """A release of this person alone, by the aggregator's own code."""
        return aggregate.release(self._ask, [person], [], trust="test").values

    def local(self, person: Sequence[int]) -> Sequence[int]:
        """What this person's cloud tells, as the custodian makes it."""
        added = drawn(self._local, noises(self._local.query, self._local.loss))
        told = [value + draw for value, draw in zip(person, added, strict=True)]
        return aggregate.release(self._local, [told], [], trust="test").values

    def exceeded(self, answer: Callable[[Sequence[int]], Sequence[int]]) -> int:
        """In how many of 8 repetitions the lower bound on epsilon is above the claim."""
        return sum(self._bound(answer) > self.epsilon for _ in range(BLOCKS))

    def _bound(self, answer: Callable[[Sequence[int]], Sequence[int]]) -> float:
        hits, others = (sum(self._event(answer(person)) for _ in range(TRIALS)) for person in self._people)
        return lower_bound(hits, others)


TRIPS = TripHistogram("distance", 0.0, 1e9, per_person=10, edges_m=(0, 2000, 100_000))

# Each event is one whose probabilities are as different as the claim permits, or next to it.
ATTACKS = {
    "count": Attack(CountUsers(None, 0.0, 1.0), [1], [0], lambda values: values[0] >= 1, 1.0),
    "sum": Attack(SumDistance(0.0, 1.0, cap_m=5000), [5000], [0], lambda values: values[0] >= 5000, 1.0),
    "histogram": Attack(TRIPS, [10, 0], [0, 10], lambda values: values[0] >= 10 and values[1] <= 0, 1.0),
}
PARTS = [(name, model) for name in ATTACKS for model in ("central", "local")]


@pytest.mark.parametrize(("name", "model"), PARTS)
class TestLossOfOnePerson:
    def test_what_an_attack_finds_stays_within_the_claim(self, name: str, model: str) -> None:
        """A bound that holds with 95 % is above the claim in 7 of 8 repetitions with probability 6e-9 at most."""
        attack = ATTACKS[name]
        assert attack.exceeded(getattr(attack, model)) < 7

    def test_an_attack_finds_noise_of_half_the_scale(
        self, name: str, model: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The planted bug: in 7 of 8 repetitions the bound is above the claim. Fails by chance with about 1e-5."""
        real = privacy.noise_scale
        monkeypatch.setattr(privacy, "noise_scale", lambda sensitivity, micro: real(sensitivity, micro) / 2)
        attack = ATTACKS[name]
        assert attack.exceeded(getattr(attack, model)) >= 7


class TestOracles:
    """Libraries that others wrote, and that know nothing of this one."""

    @pytest.mark.parametrize(("most", "micro"), [(1, 500_000), (3, 7), (2**33, 1), (14, 333_333)])
    def test_opendp_states_the_same_epsilon(self, most: int, micro: int) -> None:
        dp = _opendp()
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
        mechanism = dp.m.make_laplace(*space, scale=privacy.noise_scale(most, micro))
        assert mechanism.map(most) == pytest.approx(micro / privacy.MICRO, rel=1e-15)  # it rounds its division up

    @pytest.mark.parametrize(("most", "nano"), [(1, 500_000_000), (30, 7), (2**20, 1), (5, privacy.RHO_NANO_MAX)])
    def test_opendp_states_the_same_rho(self, most: int, nano: int) -> None:
        dp = _opendp()
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
        mechanism = dp.m.make_gaussian(*space, scale=privacy.gaussian_sigma(most * most, nano))
        assert mechanism.map(float(most)) == pytest.approx(nano / 1e9, rel=1e-14)

    @pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-12), (1.0, 1e-9), (3.0, 1e-6), (100.0, 1e-9)])
    def test_opendp_finds_no_more_than_epsilon_in_the_rho_that_it_buys(self, epsilon: float, delta: float) -> None:
        """And not much less: the formula for it is simple, and wastes up to 14 %."""
        dp = _opendp()
        rho = privacy.rho_nano(privacy.micro_epsilon(epsilon), delta) / 1e9
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
        profile = dp.c.make_zCDP_to_approxDP(dp.m.make_gaussian(*space, scale=1.0)).map(math.sqrt(2 * rho))
        assert 0.86 * epsilon < profile.epsilon(delta) <= epsilon

    @pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-12), (1.0, 1e-9), (3.0, 1e-6)])
    def test_dp_accounting_finds_no_more_than_epsilon_in_the_rho_that_it_buys(
        self, epsilon: float, delta: float
    ) -> None:
        dpa = _dp_accounting()
        orders = [1 + step / 10 for step in range(1, 2000)] + [300.0, 1000.0, 5000.0]
        accountant = dpa.rdp.RdpAccountant(orders=orders)
        accountant.compose(dpa.ZCDpEvent(privacy.rho_nano(privacy.micro_epsilon(epsilon), delta) / 1e9))
        assert 0.86 * epsilon < accountant.get_epsilon(delta) <= epsilon

    @pytest.mark.parametrize("asks", [1, 10, 30])
    def test_dp_accounting_finds_no_more_than_the_sum_of_epsilons_in_laplace_noise(self, asks: int) -> None:
        """Exactly that, for a handful of asks; of many a little is lost to its own grid."""
        loss, most = Loss(epsilon_micro=50_000), 3
        scale = privacy.noise_scale(most, loss.epsilon_micro)
        found = _pld().from_discrete_laplace_mechanism(1.0 / scale, sensitivity=most).self_compose(asks)
        spent = functools.reduce(Spent.__add__, [loss] * asks, NOTHING).micro / privacy.MICRO
        assert found.get_delta_for_epsilon(spent * 1.001) <= 1e-12
        assert found.get_delta_for_epsilon(spent * 0.9) > 0

    @pytest.mark.parametrize("asks", [1, 5, 40])
    @pytest.mark.parametrize("delta", [1e-6, 1e-9])
    def test_dp_accounting_finds_no_more_than_the_budget_in_a_zcdp_ledger_that_is_spent(
        self, asks: int, delta: float
    ) -> None:
        """Each ask costs an equal share of the rho of epsilon 3; half of them have Laplace noise."""
        budget_micro = 3_000_000
        each = privacy.rho_nano(budget_micro, delta) // asks
        epsilon_micro = math.isqrt(each * 2000)  # whose rho is that at most
        assert Loss(epsilon_micro=epsilon_micro).as_rho_nano <= each
        pld, total = _pld(), None
        for number in range(asks):
            one = (
                pld.from_discrete_laplace_mechanism(1.0 / privacy.noise_scale(1, epsilon_micro), sensitivity=1)
                if number % 2
                else pld.from_discrete_gaussian_mechanism(privacy.gaussian_sigma(1, each), sensitivity=1)
            )
            total = one if total is None else total.compose(one)
        assert total is not None
        assert 0.2 * budget_micro / privacy.MICRO < total.get_epsilon_for_delta(delta) <= budget_micro / privacy.MICRO


def _opendp() -> Any:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    return dp


def _dp_accounting() -> Any:
    import dp_accounting

    return dp_accounting


def _pld() -> Any:
    return _dp_accounting().pld.privacy_loss_distribution
