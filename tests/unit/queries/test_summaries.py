"""The one number that cells give, and its interval: it holds whenever the intervals of all cells do."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.queries.mean_distance import MeanDistance
from emlab.queries.quantile import Quantile
from emlab.queries.trip_histogram import TripHistogram
from emlab.query import Estimate
from tests.unit.queries.examples import EVER

EDGES = (0, 10, 20, 50, 100)
ERRORS = st.integers(-30, 30)
HALVES = st.integers(0, 30)


def seen(truth: int, error: int, half: int) -> Estimate:
    """A released number that errs by so much, with an interval that has the truth."""
    value = truth + error
    return Estimate(value, value - max(half, abs(error)), value + max(half, abs(error)))


def certain(*values: int) -> list[Estimate]:
    return [Estimate(value, value, value) for value in values]


@given(
    distances=st.lists(st.integers(0, 50_000), min_size=1, max_size=40), errors=st.tuples(ERRORS, ERRORS), half=HALVES
)
def test_the_interval_of_a_mean_has_the_exact_mean(distances: list[int], errors: tuple[int, int], half: int) -> None:
    query = MeanDistance(*EVER, 10, 50_000)
    cells = [seen(sum(distances), 1000 * errors[0], 1000 * half), seen(len(distances), errors[1], half)]
    found = query.summary(cells)
    assert 0 <= found.low <= found.value <= found.high <= 50_000
    assert found.low - 1e-6 <= statistics.fmean(distances) <= found.high + 1e-6


def test_a_mean_without_noise_is_exact_and_of_nothing_anything() -> None:
    query = MeanDistance(*EVER, 10, 50_000)
    assert query.summary(certain(12_000, 8)) == Estimate(1_500.0, 1_500.0, 1_500.0)
    assert query.summary([Estimate(5, -900_000, 900_000), Estimate(-3, -9, 3)]).low == 0.0
    assert query.summary([Estimate(5, -900_000, 900_000), Estimate(-3, -9, 3)]).high == 50_000


@given(
    values=st.lists(st.integers(0, 120), min_size=1, max_size=60),
    errors=st.tuples(ERRORS, ERRORS, ERRORS, ERRORS),
    half=HALVES,
    q=st.sampled_from([0.05, 0.25, 0.5, 0.75, 0.95]) | st.floats(0.01, 0.99),
)
def test_the_interval_of_a_quantile_has_the_exact_quantile(
    values: list[int], errors: tuple[int, int, int, int], half: int, q: float
) -> None:
    query = Quantile(q, "people", *EVER, EDGES)
    counts = [0] * 4
    for value in values:
        counts[query._bin(value)] += 1
    found = query.summary([seen(count, error, half) for count, error in zip(counts, errors, strict=True)])
    assert found.low <= found.value <= found.high
    clamped = sorted(min(max(value, EDGES[0]), EDGES[-1]) for value in values)
    rank = next(n for n in range(1, len(clamped) + 1) if n >= q * len(clamped) - 1e-9)
    assert found.low <= clamped[rank - 1] <= found.high


def test_a_quantile_without_noise_lies_in_its_bin_in_proportion() -> None:
    query = Quantile(0.5, "people", *EVER, EDGES)
    assert query.summary(certain(0, 4, 0, 0)) == Estimate(15.0, 10.0, 20.0)
    assert query.summary(certain(3, 4, 0, 0)) == Estimate(11.25, 10.0, 20.0)
    assert query.summary(certain(3, 3, 0, 0)) == Estimate(10.0, 0.0, 20.0)  # a tie: it may be called of either bin
    assert Quantile(0.9, "people", *EVER, EDGES).summary(certain(0, 0, 0, 10)) == Estimate(95.0, 50.0, 100.0)


def test_a_quantile_of_nobody_is_anywhere() -> None:
    assert Quantile(0.5, "people", *EVER, EDGES).summary(certain(0, 0, 0, 0)) == Estimate(50.0, 0.0, 100.0)
    drowned = [Estimate(-5, -20, 10)] * 4
    found = Quantile(0.5, "people", *EVER, EDGES).summary(drowned)
    assert (found.low, found.high) == (0.0, 100.0)


def test_a_histogram_is_no_single_number() -> None:
    assert TripHistogram("hour", *EVER, 10).summary(certain(*range(24))) is None


@pytest.mark.parametrize("noise", [1, 10])
def test_less_noise_makes_an_interval_no_wider(noise: int) -> None:
    query = Quantile(0.5, "people", *EVER, EDGES)
    counts = (40, 100, 60, 20)
    wide, narrow = (query.summary([Estimate(n, n - half, n + half) for n in counts]) for half in (5 * noise, noise))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
