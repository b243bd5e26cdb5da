"""The idle rules: who is paused, locked or woken, and who never is."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import ConfigError
from emlab.idle import (
    BINS,
    KEPT_GAPS,
    NO_GAPS,
    AtMost,
    Gaps,
    Histogram,
    IdleRule,
    LockRule,
    Never,
    PauseAfter,
    Use,
    WakeRule,
)

NOW = 1_700_000_000.0
TIMES = st.floats(NOW - 1e6, NOW + 1e6)
LEASES = st.lists(st.one_of(TIMES, st.just(math.inf)), max_size=3).map(tuple)


def gaps_of(lengths_s: Sequence[float]) -> Gaps:
    gaps = NO_GAPS
    for gap_s in lengths_s:
        gaps = gaps.plus(gap_s)
    return gaps


EVEN = st.builds(lambda gap_s, n: gaps_of([gap_s] * n), st.floats(1.0, 1e6), st.integers(0, 40))
GAPS = st.one_of(EVEN, st.lists(st.floats(0.0, 1e6), max_size=40).map(gaps_of))
USES = st.lists(
    st.builds(Use, st.uuids().map(lambda u: u.hex), TIMES, LEASES, GAPS),
    max_size=20,
    unique_by=lambda use: use.cloud,
)
SPANS = st.floats(1e-3, 1e6)
RULES = st.one_of(
    st.builds(PauseAfter, SPANS),
    st.builds(lambda idle_s, more_s: PauseAfter(idle_s, lock_after_s=idle_s + more_s), SPANS, SPANS),
    st.just(Never()),
    st.builds(AtMost, st.integers(1, 20)),
    st.builds(AtMost, st.integers(1, 20), SPANS),
    st.builds(Histogram, SPANS),
    st.builds(Histogram, SPANS, least=st.just(1), spread=st.just(1e9), margin=st.floats(0, 0.9)),
)


def answers(rule: IdleRule, clouds: Sequence[Use], now: float) -> list[list[str]]:
    """All that the rule decides: whom to pause, to lock, to wake."""
    locks = rule.due_to_lock(clouds, now) if isinstance(rule, LockRule) else []
    wakes = rule.due_to_wake(clouds, now) if isinstance(rule, WakeRule) else []
    return [rule.due(clouds, now), locks, wakes]


@given(RULES, USES)
def test_every_rule_names_given_clouds_once_and_the_longest_idle_first(rule: IdleRule, clouds: list[Use]) -> None:
    last = {use.cloud: use.last_use_ts for use in clouds}
    for named in answers(rule, clouds, NOW):
        assert len(set(named)) == len(named)
        times = [last[cloud] for cloud in named]  # a cloud that was not given fails here
        assert times == sorted(times)


@given(RULES, USES)
def test_no_rule_pauses_or_locks_a_leased_cloud(rule: IdleRule, clouds: list[Use]) -> None:
    leased = {use.cloud for use in clouds if any(until_ts > NOW for until_ts in use.leases)}
    paused, locked, _ = answers(rule, clouds, NOW)
    assert not leased & {*paused, *locked}


@given(RULES, USES, st.randoms(use_true_random=False))
def test_every_rule_says_the_same_again_and_in_whatever_order_it_is_told(
    rule: IdleRule, clouds: list[Use], order: random.Random
) -> None:
    shuffled = order.sample(clouds, len(clouds))
    assert answers(rule, clouds, NOW) == answers(rule, clouds, NOW) == answers(rule, shuffled, NOW)


@given(RULES, USES, st.floats(0, 1e7))
def test_a_clock_that_was_set_back_harms_nobody_whose_last_use_lies_ahead(
    rule: IdleRule, clouds: list[Use], back_s: float
) -> None:
    ahead = {use.cloud for use in clouds if use.last_use_ts > NOW - back_s}
    assert not ahead & {cloud for named in answers(rule, clouds, NOW - back_s) for cloud in named}


@given(USES, SPANS)
def test_exactly_the_clouds_that_are_idle_and_unleased_are_due(clouds: list[Use], idle_s: float) -> None:
    due = PauseAfter(idle_s).due(clouds, NOW)
    for use in clouds:
        free = max(use.leases, default=-math.inf) <= NOW
        assert (use.cloud in due) == (free and NOW - use.last_use_ts >= idle_s)
    assert len(due) == len(set(due))


@given(USES, SPANS, st.floats(0, 1e6))
def test_a_cloud_that_is_due_stays_due_until_it_is_used(clouds: list[Use], idle_s: float, later_s: float) -> None:
    rule = PauseAfter(idle_s)
    assert set(rule.due(clouds, NOW)) <= set(rule.due(clouds, NOW + later_s))


def test_a_cloud_is_due_at_the_second_and_not_before() -> None:
    rule, use = PauseAfter(60.0), [Use("a", NOW)]
    assert rule.due(use, NOW + 59.999) == []
    assert rule.due(use, NOW + 60.0) == ["a"]


def test_a_lease_holds_until_it_expires() -> None:
    rule, use = PauseAfter(1.0), [Use("a", NOW - 100.0, leases=(NOW - 50.0, NOW))]
    assert rule.due(use, NOW - 0.001) == []
    assert rule.due(use, NOW) == ["a"]


@pytest.mark.parametrize("expiry_ts", [math.inf, math.nan])
def test_a_lease_without_an_end_keeps_a_cloud_awake(expiry_ts: float) -> None:
    assert PauseAfter(1.0).due([Use("a", 0.0, leases=(expiry_ts,))], NOW) == []


def test_a_clock_that_was_set_back_pauses_nobody() -> None:
    assert PauseAfter(1.0).due([Use("a", NOW + 3600.0)], NOW) == []


@given(USES)
def test_never_pauses_nobody(clouds: list[Use]) -> None:
    assert Never().due(clouds, NOW) == []


@pytest.mark.parametrize("idle_s", [0, -1.0, math.nan, math.inf, True, "60", None])
def test_a_time_that_is_none_is_refused(idle_s: float) -> None:
    with pytest.raises(ConfigError, match="positive number of seconds"):
        PauseAfter(idle_s)


def test_rules_are_values_that_show_themselves() -> None:
    rules: list[IdleRule] = [PauseAfter(60.0), Never(), AtMost(4), AtMost(4, 60.0), Histogram()]
    shown = ["PauseAfter(60 s)", "Never()", "AtMost(4)", "AtMost(4, 60 s)"]
    assert [repr(rule) for rule in rules] == [*shown, "Histogram(60 s, or p5 to p99 of past gaps)"]
    assert PauseAfter(60.0) == PauseAfter(60)
    assert len({PauseAfter(60.0), PauseAfter(60.0), Never(), Never(), AtMost(4), AtMost(4)}) == 3


@given(USES, SPANS, SPANS)
def test_exactly_the_clouds_that_are_idle_for_longer_and_unleased_are_due_to_lock(
    clouds: list[Use], idle_s: float, more_s: float
) -> None:
    rule = PauseAfter(idle_s, lock_after_s=idle_s + more_s)
    assert rule.due(clouds, NOW) == PauseAfter(idle_s).due(clouds, NOW)
    assert rule.due_to_lock(clouds, NOW) == PauseAfter(idle_s + more_s).due(clouds, NOW)
    assert set(rule.due_to_lock(clouds, NOW)) <= set(rule.due(clouds, NOW))


def test_nothing_is_locked_unless_that_is_asked_for() -> None:
    assert isinstance(PauseAfter(1.0), LockRule)
    assert not isinstance(Never(), LockRule)
    assert PauseAfter(1.0).due_to_lock([Use("a", NOW - 1e9)], NOW) == []


@pytest.mark.parametrize("lock_after_s", [0, -1.0, 59.9, math.nan, math.inf, "3600", True])
def test_a_cloud_is_not_locked_before_it_is_paused(lock_after_s: object) -> None:
    with pytest.raises(ConfigError, match="lock_after_s"):
        PauseAfter(60.0, lock_after_s=lock_after_s)  # type: ignore[arg-type]


def test_a_rule_says_what_it_does() -> None:
    assert repr(PauseAfter(60.0)) == "PauseAfter(60 s)"
    assert repr(PauseAfter(60.0, lock_after_s=3600.0)) == "PauseAfter(60 s, lock after 3600 s)"


@given(USES, st.integers(1, 20))
def test_at_most_n_run_unless_more_are_in_use(clouds: list[Use], n: int) -> None:
    past = [replace(use, last_use_ts=min(use.last_use_ts, NOW)) for use in clouds]
    due = AtMost(n).due(past, NOW)
    leased = sum(use.leased(NOW) for use in past)
    assert len(past) - len(due) == max(min(n, len(past)), leased)


@given(USES, st.integers(1, 20), SPANS)
def test_with_room_for_all_only_those_pause_that_are_idle_for_long(clouds: list[Use], n: int, idle_s: float) -> None:
    due = set(AtMost(n, idle_s).due(clouds, NOW))
    assert due == set(AtMost(n).due(clouds, NOW)) | set(PauseAfter(idle_s).due(clouds, NOW))
    assert AtMost(len(clouds) + 1, idle_s).due(clouds, NOW) == PauseAfter(idle_s).due(clouds, NOW)


def test_the_least_recently_used_is_the_first_to_make_room() -> None:
    clouds = [Use("a", NOW - 1), Use("b", NOW - 3), Use("c", NOW - 2, leases=(NOW + 1,)), Use("d", NOW - 4)]
    assert AtMost(2).due(clouds, NOW) == ["d", "b"]
    assert AtMost(1).due(clouds, NOW) == ["d", "b", "a"]
    assert AtMost(4).due(clouds, NOW) == []


def test_a_cloud_that_is_used_like_clockwork_sleeps_in_between_and_wakes_just_before() -> None:
    rule, use = Histogram(60.0), [Use("a", NOW, gaps=gaps_of([3600.0] * 10))]
    paused = [s for s in range(0, 8000, 10) if rule.due(use, NOW + s)]
    woken = [s for s in range(0, 8000, 10) if rule.due_to_wake(use, NOW + s)]
    assert rule.due(use, NOW + 0.9) == []  # it may be in the middle of something
    assert rule.due(use, NOW + 1.0) == ["a"]
    assert 0.85 * 3600 <= woken[0] <= 0.9 * 3600
    assert 1.1 * 3600 <= woken[-1] <= 1.15 * 3600
    assert woken == list(range(woken[0], woken[-1] + 10, 10))  # without an end in between
    assert paused == [s for s in range(10, 8000, 10) if s not in woken]


def test_a_cloud_whose_gaps_may_be_short_is_awake_until_nearly_all_have_passed() -> None:
    gaps = gaps_of([40.0, 45.0, 50.0, 55.0, 60.0] * 20)
    rule, use = Histogram(10.0), [Use("a", NOW, gaps=gaps)]
    assert rule.due_to_wake([replace(use[0], gaps=gaps_of([12.0] * 20))], NOW + 9.0) == []  # 12 s is no sleep
    short = [Use("a", NOW, gaps=gaps_of([8.0, 9.0, 10.0, 11.0, 12.0] * 20))]
    assert rule.due(short, NOW + 13.0) == []
    assert rule.due(short, NOW + 14.0) == ["a"]
    assert rule.due(use, NOW + 20.0) == ["a"]  # here the shortest usual gap is long
    assert rule.due(use, NOW + 38.0) == []
    assert rule.due_to_wake(use, NOW + 38.0) == ["a"]


@pytest.mark.parametrize(
    "gaps_s",
    [
        [],
        [3600.0] * 9,  # too few
        [2.0, 2000.0] * 20,  # too different
        [random.Random(k).expovariate(1 / 600) for k in range(100)],
        [1e9] * 20,  # beyond the last bin, whose end nobody knows
    ],
)
def test_gaps_that_say_nothing_leave_the_fixed_time(gaps_s: list[float]) -> None:
    use = [Use("a", NOW, gaps=gaps_of(gaps_s))]
    for s in (0.0, 1.0, 59.9, 60.0, 3000.0, 3600.0, 1e6):
        assert Histogram(60.0).due(use, NOW + s) == PauseAfter(60.0).due(use, NOW + s)
        assert Histogram(60.0).due_to_wake(use, NOW + s) == []


@pytest.mark.parametrize(
    "wrong",
    [
        *({"idle_s": value} for value in (0, -1.0, math.nan, math.inf, True, "60", None)),
        *({"spread": value} for value in (0, -1.0, math.nan, None)),
        *({"head": value} for value in (-0.1, 0.99, 1.0, math.nan, True, "0")),
        *({"tail": value} for value in (0.05, 1.01, math.nan)),
        *({"margin": value} for value in (-0.1, 1.0, math.nan)),
        *({"least": value} for value in (0, 129, 1.5, True)),
    ],
)
def test_a_histogram_of_wrong_numbers_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Histogram(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "4", None])
def test_a_number_of_clouds_that_is_none_is_refused(n: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        AtMost(n)
    with pytest.raises(ConfigError, match="idle_s"):
        AtMost(1, idle_s=math.nan)


@given(st.lists(st.one_of(st.floats(1.0, 9e5), st.floats(allow_nan=True)), max_size=60))
def test_gaps_lie_in_the_span_that_was_counted(lengths_s: list[float]) -> None:
    real = [gap_s for gap_s in lengths_s if gap_s >= 1.0]
    gaps = gaps_of(lengths_s)
    assert gaps.total == len(real)
    low, high = gaps.span(0.0, 1.0)
    assert all(low <= gap_s < high or high == math.inf for gap_s in real)
    if real and max(real) < 9e5:
        assert low <= min(real) < low * 1.05
        assert max(real) < high <= max(real) * 1.05


@given(st.lists(st.floats(1.0, 9e5), min_size=2, max_size=60))
def test_the_spread_is_that_of_the_gaps_within_a_bin_s_width(lengths_s: list[float]) -> None:
    mean = sum(lengths_s) / len(lengths_s)
    spread = math.sqrt(sum((gap_s - mean) ** 2 for gap_s in lengths_s) / len(lengths_s)) / mean
    assert gaps_of(lengths_s).spread == pytest.approx(spread, rel=0.03, abs=0.05)


def test_however_many_gaps_there_were_they_take_the_same_room_and_old_habits_fade() -> None:
    gaps = gaps_of([600.0] * 1000)
    assert (len(gaps.counts), gaps.total <= KEPT_GAPS) == (1, True)
    changed = gaps
    for _ in range(4 * KEPT_GAPS):
        changed = changed.plus(3600.0)
    assert changed.span(0.05, 0.99)[0] > 3000.0
    draw = random.Random(1)
    assert len(gaps_of([draw.lognormvariate(8, 4) for _ in range(5000)]).counts) <= min(BINS, KEPT_GAPS)
    assert math.isinf(NO_GAPS.spread)
    assert NO_GAPS.span(0.05, 0.99) == (0.0, math.inf)
