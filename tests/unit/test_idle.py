"""The idle rules: who is paused, and who never is."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import ConfigError
from emlab.idle import IdleRule, LockRule, Never, PauseAfter, Use

NOW = 1_700_000_000.0
TIMES = st.floats(NOW - 1e6, NOW + 1e6)
USES = st.lists(
    st.builds(
        Use,
        st.uuids().map(lambda u: u.hex),
        TIMES,
        st.lists(st.one_of(TIMES, st.just(math.inf)), max_size=3).map(tuple),
    ),
    max_size=20,
    unique_by=lambda use: use.cloud,
)
SPANS = st.floats(1e-3, 1e6)


@given(USES, SPANS)
def test_exactly_the_clouds_that_are_idle_and_unleased_are_due(clouds: list[Use], idle_s: float) -> None:
    due = PauseAfter(idle_s).due(clouds, NOW)
    for use in clouds:
        free = max(use.leases, default=-math.inf) <= NOW
        assert (use.cloud in due) == (free and NOW - use.last_use_ts >= idle_s)
    assert len(due) == len(set(due))


@given(USES, SPANS)
def test_the_longest_idle_comes_first(clouds: list[Use], idle_s: float) -> None:
    last = {use.cloud: use.last_use_ts for use in clouds}
    times = [last[cloud] for cloud in PauseAfter(idle_s).due(clouds, NOW)]
    assert times == sorted(times)


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
    rules: list[IdleRule] = [PauseAfter(60.0), Never()]
    assert [repr(rule) for rule in rules] == ["PauseAfter(60 s)", "Never()"]
    assert PauseAfter(60.0) == PauseAfter(60)
    assert len({PauseAfter(60.0), PauseAfter(60.0), Never(), Never()}) == 2


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
