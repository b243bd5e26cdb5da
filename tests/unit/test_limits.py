"""Limits: how often a key may do something, and that no clock and no number of keys breaks them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import ConfigError, TooMany
from emlab.limits import MAX_KEYS, Limit


def taken(limit: Limit, key: str, now: float, tries: int) -> int:
    """How many of so many tries at once were let through."""
    done = 0
    for _ in range(tries):
        try:
            limit.take(key, now)
            done += 1
        except TooMany:
            continue
    return done


def test_a_burst_then_one_for_each_span() -> None:
    limit = Limit("requests", per_s=2.0, burst=5)
    assert taken(limit, "a", 100.0, 20) == 5
    assert taken(limit, "a", 100.49, 20) == 0
    assert taken(limit, "a", 100.5, 20) == 1
    assert taken(limit, "a", 102.0, 20) == 3
    assert taken(limit, "b", 100.0, 20) == 5
    assert taken(limit, "a", 1000.0, 20) == 5


def test_who_asks_too_often_is_told_when_to_ask_again() -> None:
    limit = Limit("sign-ups", per_s=0.5, burst=1)
    limit.take("a", 7.0)
    with pytest.raises(TooMany, match="too many sign-ups: ask again in 2 s") as refused:
        limit.check("a", 7.0)
    limit.take("a", 7.0 + refused.value.retry_after_s)


def test_to_look_takes_nothing() -> None:
    limit = Limit("requests", per_s=1.0, burst=1)
    for _ in range(3):
        limit.check("a", 1.0)
    assert taken(limit, "a", 1.0, 2) == 1


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    limit = Limit("requests", per_s=1.0, burst=3)
    assert taken(limit, "a", 1e9, 5) == 3
    assert taken(limit, "a", 1e6, 5) == 3


def test_the_oldest_keys_are_forgotten_and_memory_is_bounded() -> None:
    limit = Limit("requests", per_s=0.001, burst=1)
    for number in range(MAX_KEYS + 1):
        limit.take(str(number), 5.0)
    assert taken(limit, "0", 5.0, 1) == 1
    assert taken(limit, str(MAX_KEYS), 5.0, 1) == 0
    assert len(limit._empty_at) <= MAX_KEYS


@given(
    st.floats(0.01, 100),
    st.integers(1, 20),
    st.lists(st.floats(0, 50), min_size=1, max_size=60).map(sorted),
)
def test_never_more_than_the_burst_and_what_the_time_allows(per_s: float, burst: int, times: list[float]) -> None:
    limit = Limit("requests", per_s=per_s, burst=burst)
    done = [now for now in times if taken(limit, "a", now, 1)]
    for first, start in enumerate(done):
        for last in range(first, len(done)):
            assert last - first + 1 <= burst + (done[last] - start) * per_s + 1e-6


@pytest.mark.parametrize(("per_s", "burst"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_a_limit_that_makes_no_sense(per_s: float, burst: int) -> None:
    with pytest.raises(ConfigError, match="a limit of"):
        Limit("requests", per_s=per_s, burst=burst)


def test_what_is_rounded_is_no_clock_that_was_set_back() -> None:
    limit = Limit("requests", per_s=3.0, burst=2)  # 32 + 1/3 + 1/3 is more than 32 + 2/3 there
    assert [taken(limit, "a", 32.0, 1) for _ in range(4)] == [True, True, False, False]
