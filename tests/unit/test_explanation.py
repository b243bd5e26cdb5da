"""A policy in words: all that it permits, and of an ask exactly what comes of it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from emlab.errors import BudgetExhausted, PolicyRefused
from emlab.explanation import Explanation
from emlab.ledger import MemoryLedger
from emlab.loss import Left, Spent
from emlab.policy import Policy
from emlab.queries.count_users import CountUsers
from emlab.queries.sum_distance import SumDistance
from emlab.query import Region
from tests.unit.asks import NOW, World
from tests.unit.test_policy import FULL, reserve


def test_a_policy_tells_everything_about_itself() -> None:
    told = FULL.explain()
    for text in ("planning", "count_users, sum_distance", "50 or more", "22:00 to 06:00 (Europe/Berlin)", "2 places"):
        assert text in told
    for text in ("365 days", "gocryptfs", "paused after 300 s", "in this cloud", "epsilon 1 in all", "every 1 days"):
        assert text in told
    assert FULL.providers[0][:12] in told
    assert "<b>" not in Policy.open(purposes=["<b>"])._repr_html_()


def test_every_reason_is_told_and_not_only_the_first() -> None:
    world = World()
    narrow = CountUsers(Region.box(0.0, 0.0, 0.001, 0.001), 0.0, 10.0)
    policy = Policy.careful(
        purposes=["planning"], queries=[SumDistance], models=["local"], total_epsilon=0.1, quota_epsilon=0.01
    )
    said = policy.explain(world.ask(narrow, epsilon_micro=200_000))
    parts = ("provider planner", "aggregator", "groups of 50", "purpose 'test'", "query count_users", "central model")
    for part in (*parts, "m wide", "about 10 s", "epsilon 0.2, and epsilon 0.1 is left"):
        assert any(part in reason for reason in said.reasons), part
    assert len(said.reasons) == 9
    assert not said.permitted
    assert "no" in str(said)
    assert "Because" in said._repr_html_()


def test_a_quota_is_a_reason_of_its_own() -> None:
    world = World()
    policy = Policy.open(quota_epsilon=0.05)
    (why,) = policy.explain(world.ask()).reasons
    assert "provider's quota" in why
    own = policy.but(quotas={world.provider.public: 0.1})
    assert own.explain(world.ask()).permitted


def test_gaussian_noise_has_no_cost_in_epsilon() -> None:
    world = World()
    (why,) = Policy.open().explain(world.ask(rho_nano=1000)).reasons
    assert "Gaussian" in why
    assert Policy.open(accounting="zcdp").explain(world.ask(rho_nano=1000)).permitted


def test_what_is_permitted_says_what_it_leaves() -> None:
    said = Policy.open(total_epsilon=1.0).explain(World().ask(), Left(limit=300_000))
    assert (said.permitted, said.cost, said.leaves) == (True, 100_000, 200_000)
    assert "Left afterwards: epsilon 0.2" in str(said)
    assert msgspec.json.decode(msgspec.json.encode(said), type=Explanation) == said


@given(
    total=st.integers(1, 300_000),
    quota=st.none() | st.integers(1, 300_000),
    least=st.integers(1, 3),
    zcdp=st.booleans(),
    asked=st.lists(st.tuples(st.integers(1, 200_000), st.booleans(), st.booleans(), st.integers(1, 3)), max_size=8),
)
def test_an_ask_is_explained_as_permitted_if_and_only_if_it_is(
    total: int, quota: int | None, least: int, *, zcdp: bool, asked: list[tuple[int, bool, bool, int]]
) -> None:
    worlds = (World(), World())
    policy = replace(Policy.open(), total_epsilon_micro=total, quota_epsilon_micro=quota, min_users=least)
    policy = replace(policy, accounting="zcdp" if zcdp else "pure")
    ledger = MemoryLedger()
    for amount, second, gaussian, users in asked:
        ask = worlds[second].ask(epsilon_micro=amount, rho_nano=amount if gaussian else None, min_users=users)
        said = policy.explain(ask, ledger.left(policy.terms(ask.provider, NOW)))
        before = ledger.balance().spent
        try:
            policy.check(ask)
            reserve(ledger, policy, ask)
        except (PolicyRefused, BudgetExhausted):
            assert not said.permitted
            assert said.reasons
            assert ledger.balance().spent == before
        else:
            assert said.permitted
            assert said.reasons == ()
            assert said.leaves == ledger.left(policy.terms("", NOW)).limit
            assert ledger.balance().spent == before + Spent.of(ask.loss)
