from __future__ import annotations

import msgspec
import pytest

from emlab.errors import BadQuery, PolicyRefused
from emlab.key import SealingKey, SigningKey
from emlab.policy import Policy
from tests.unit.asks import World


def test_the_open_policy_allows_anyone() -> None:
    Policy.open().check(World().ask())


def test_the_research_policy_allows_nobody_until_the_owner_permits() -> None:
    world = World()
    ask = world.ask(min_users=10)
    with pytest.raises(PolicyRefused, match="provider planner"):
        Policy.research().check(ask)
    with pytest.raises(PolicyRefused, match="aggregator"):
        Policy.research(providers=[world.provider]).check(ask)
    Policy.research().permitting(providers=[world.provider], aggregators=[world.aggregator]).check(ask)


def test_a_group_smaller_than_the_owner_wants_is_refused() -> None:
    world = World()
    policy = Policy.research([world.provider], [world.aggregator], min_users=5)
    policy.check(world.ask(min_users=5))
    with pytest.raises(PolicyRefused, match="groups of 5"):
        policy.check(world.ask(min_users=4))


def test_pinned_keys_let_nobody_else_in() -> None:
    world = World()
    policy = Policy.research([SigningKey()], [SealingKey()])
    with pytest.raises(PolicyRefused):
        policy.check(world.ask(min_users=10))


def test_permitting_adds_to_those_before_and_leaves_anyone_alone() -> None:
    one, two = SigningKey(), SigningKey()
    policy = Policy.research([one]).permitting(providers=[two, one])
    assert policy.providers == (one.public, two.public)
    assert Policy.open().permitting(providers=[one]).providers == "anyone"


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), 101.0])
def test_a_budget_out_of_bounds_is_refused(epsilon: float) -> None:
    with pytest.raises(BadQuery):
        Policy.research(total_epsilon=epsilon)


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(BadQuery):
        Policy.research(providers=["not a key"])


def test_a_policy_survives_the_wire() -> None:
    policy = Policy.research([SigningKey()], [SealingKey()])
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy
