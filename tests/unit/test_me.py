"""What an owner sees, gathered from a custodian in memory."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from msgspec.structs import replace

from emlab.chain import PAGE, MemoryChain
from emlab.clock import ManualClock
from emlab.custodian import Custodian
from emlab.errors import EmlabError
from emlab.ledger import MemoryLedger
from emlab.me import gather, read_log
from emlab.policy import Policy
from emlab.provision import Provision
from emlab.store import MemoryStore
from tests.unit.asks import CLOUD, NOW, World


class Owner:
    """Somebody with a cloud in memory, and a provider who may ask it."""

    def __init__(self) -> None:
        self.world, self.chain = World(), MemoryChain(CLOUD)
        provision = Provision(
            lab="lab",
            cloud=CLOUD,
            generation=1,
            owner_tokens=[],
            controller=self.world.controller.public,
            policy=Policy.research(),
            marker="0" * 64,
        )
        store, clock = MemoryStore(uuid.UUID(CLOUD)), ManualClock(NOW)
        self.custodian = Custodian(provision, store, MemoryLedger(), chain=self.chain, clock=clock)
        policy = Policy.research([self.world.provider], [self.world.aggregator], total_epsilon=1.0, min_users=1)
        self.custodian.set_policy(policy)

    def call(self, name: str, response: type, request: object = None, **_: object) -> Any:
        return getattr(self.custodian, name)(*([] if request is None else [request]))

    def ask(self, **options: Any) -> str:
        """Puts an ask; the kind of what came of it."""
        try:
            self.custodian.ask(self.world.request(self.world.ask(**options)))
        except EmlabError as exc:
            return exc.kind
        return "answered"


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_of_a_fresh_cloud_the_permitted_provider_is_shown_by_its_key(owner: Owner) -> None:
    me = gather(owner.call, "ann")
    (use,) = me.providers
    assert use.key == owner.world.provider.public
    assert use.provider == f"{use.key[:12]}…"
    assert (use.asked, use.epsilon, use.remaining, use.permitted) == (0, 0.0, 1.0, True)
    assert "nothing was refused" in me._repr_html_()


def test_costs_and_what_remains_are_told_by_provider_and_in_all(owner: Owner) -> None:
    key = owner.world.provider.public
    owner.custodian.set_policy(replace(owner.custodian.policy(), quotas={key: 300_000}))
    assert [owner.ask(epsilon_micro=100_000), owner.ask(epsilon_micro=100_000)] == ["answered", "answered"]
    assert owner.ask(epsilon_micro=150_000) == "BudgetExhausted"
    me = gather(owner.call, "ann")
    (use,) = me.providers
    assert (use.provider, use.asked, use.answered, use.refused) == ("planner", 2, 2, 1)
    assert (use.epsilon, use.rho) == (0.2, 0.0)
    assert [use.remaining, me.remaining] == pytest.approx([0.1, 0.8])
    assert [(one.why, one.purpose) for one in me.refusals] == [("BudgetExhausted", "test")]


def test_who_bears_the_name_of_another_is_shown_apart(owner: Owner) -> None:
    first, second = owner.world, World()
    second.controller = first.controller
    owner.custodian.set_policy(Policy.open())
    owner.ask(epsilon_micro=100_000)
    owner.world = second
    owner.ask(epsilon_micro=300_000)
    uses = {use.key: (use.provider, use.asked, use.epsilon) for use in gather(owner.call, "ann").providers}
    assert uses == {first.provider.public: ("planner", 1, 0.1), second.provider.public: ("planner", 1, 0.3)}


def test_gaussian_noise_is_accounted_for_as_rho(owner: Owner) -> None:
    owner.custodian.set_policy(replace(owner.custodian.policy(), accounting="zcdp"))
    assert owner.ask(rho_nano=1_000) == "answered"
    me = gather(owner.call, "ann")
    assert (me.providers[0].epsilon, me.providers[0].rho) == (0.0, 1e-6)
    assert "rho" in repr(me)
    assert me.providers[0].remaining == pytest.approx(me.remaining)


def test_a_log_that_does_not_hold_is_said_so(owner: Owner) -> None:
    owner.ask()
    remembered = read_log(owner.call).head
    owner.chain._links.pop()
    owner.chain.append("other", {}, NOW)
    assert gather(owner.call, "ann").verified
    me = gather(owner.call, "ann", [remembered])
    assert not me.verified
    assert "NOT VERIFIED" in repr(me)
    assert "NOT TO BE TRUSTED" in me._repr_html_()


def test_names_are_shown_as_text(owner: Owner) -> None:
    owner.chain.append("refused", {"provider": "<script>", "provider_key": "a" * 64, "query": "<b>", "why": "x"}, NOW)
    page = gather(owner.call, "<i>ann")._repr_html_()
    assert not any(tag in page for tag in ("<script>", "<b>", "<i>"))


def test_refusals_are_shown_with_their_time(owner: Owner) -> None:
    owner.chain.append("refused", {"provider": "planner", "why": "x"}, 1_700_000_000.0)
    assert "<td>2023-11-14 22:13:20</td><td>planner</td>" in gather(owner.call, "ann")._repr_html_()


def test_a_log_of_several_pages_is_read_whole(owner: Owner) -> None:
    for number in range(2 * PAGE):
        owner.chain.append("note", {"number": number}, NOW)
    log = read_log(owner.call)
    assert len(log.links) == log.head.seq == 2 * PAGE + 3
    assert log.verdict
    assert log.frame()["number"].max() == 2 * PAGE - 1
