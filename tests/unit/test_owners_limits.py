"""Owners may want their clouds to sleep sooner than the lab's rule says."""

from __future__ import annotations

import pytest

from emlab.idle import AtMost, Histogram, IdleRule, Limits, Never, PauseAfter, Sooner, Use, WakeRule

NOW = 1_000.0


def use(cloud: str, idle_s: float, *leases: float) -> Use:
    return Use(cloud, NOW - idle_s, leases)


@pytest.mark.parametrize("rule", [Never(), PauseAfter(60.0, 120.0), AtMost(2), Histogram()])
def test_without_limits_a_rule_decides_as_before(rule: IdleRule) -> None:
    clouds = [use("a", 10.0), use("b", 70.0), use("c", 200.0), use("d", 300.0, 2 * NOW)]
    sooner = Sooner(rule, {})
    assert sorted(sooner.due(clouds, NOW)) == sorted(rule.due(clouds, NOW))
    if isinstance(rule, PauseAfter):
        assert sooner.due_to_lock(clouds, NOW) == rule.due_to_lock(clouds, NOW) == ["c"]
    if isinstance(rule, WakeRule):
        assert sooner.due_to_wake(clouds, NOW) == rule.due_to_wake(clouds, NOW)


def test_a_cloud_is_due_at_its_owner_s_limit_and_not_before() -> None:
    sooner = Sooner(Never(), {"a": Limits(5.0, 20.0), "b": Limits(None, 20.0)})
    assert sooner.due([use("a", 4.9), use("b", 500.0)], NOW) == []
    assert sooner.due([use("a", 5.0), use("b", 500.0)], NOW) == ["a"]
    assert sooner.due_to_lock([use("a", 19.0), use("b", 20.0)], NOW) == ["b"]
    assert sooner.due_to_lock([use("a", 30.0), use("b", 20.0), use("c", 99.0)], NOW) == ["a", "b"]


def test_a_lease_wins_over_its_owner_s_limit() -> None:
    sooner = Sooner(Never(), {"a": Limits(5.0, 5.0)})
    leased = [use("a", 100.0, NOW + 1)]
    assert (sooner.due(leased, NOW), sooner.due_to_lock(leased, NOW)) == ([], [])


def test_an_owner_s_limit_lengthens_nothing() -> None:
    assert Sooner(PauseAfter(10.0), {"a": Limits(1000.0)}).due([use("a", 10.0)], NOW) == ["a"]


class WakeAll(Never):
    def due_to_wake(self, sleeping: list[Use], now: float) -> list[str]:
        return [one.cloud for one in sleeping]


def test_nobody_is_woken_only_to_be_paused_again() -> None:
    sooner = Sooner(WakeAll(), {"a": Limits(5.0)})
    assert sooner.due_to_wake([use("a", 10.0), use("b", 10.0)], NOW) == ["b"]
