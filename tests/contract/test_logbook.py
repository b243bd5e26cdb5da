"""A custodian on a real mongod that dies between any two writes: nothing leaves untold, nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from pymongo import MongoClient

from emlab.ask import AskRequest, Envelope
from emlab.chain import Link, MongoChain
from emlab.clock import ManualClock
from emlab.custodian import Custodian
from emlab.errors import EmlabError, NotPermitted, PolicyRefused, StoreError
from emlab.ledger import MongoLedger
from emlab.loss import Spent
from emlab.policy import Policy
from emlab.provision import Provision
from emlab.store import MongoStore
from emlab.wire.archive import AdoptRequest
from emlab.wire.log import DeleteRequest, LinksRequest
from tests.ledgers import cut_after
from tests.unit.asks import CLOUD, NOW, World

Client = MongoClient[dict[str, object]]
ALL = 10_000  # links in a page
MOST_WRITES = 20  # of anything that is tried here; the last tries end without a crash
WORLD = World()


class Cloud:
    """One cloud whose program can be started again and again."""

    def __init__(self, client: Client) -> None:
        self.client = client
        for name in ("emlab", "Stage_database"):
            client.drop_database(name)
        self.custodian = self.start()
        self.custodian.set_policy(Policy.open())

    def start(self) -> Custodian:
        ledger, self.chain = MongoLedger(self.client), MongoChain(self.client, CLOUD)
        ledger.recover()
        self.chain.recover()
        provision = Provision(
            lab="lab",
            cloud=CLOUD,
            generation=1,
            owner_tokens=[],
            controller=WORLD.controller.public,
            policy=Policy.research(),
            marker="0" * 64,
        )
        store = MongoStore(self.client, uuid.UUID(CLOUD))
        self.custodian = Custodian(provision, store, ledger, chain=self.chain, clock=ManualClock(NOW))
        return self.custodian

    def links(self, *kinds: str) -> list[Link]:
        """Those of these kinds, of a log that is whole."""
        from emlab.chain import check

        links = self.chain.page(0, ALL)
        check(links, self.custodian.head()).demand()
        return [link for link in links if link.kind in kinds]


@pytest.fixture
def cloud(shared_client: Client) -> Cloud:
    return Cloud(shared_client)


def tried(act: Callable[[], object]) -> bool:
    """Whether it was done."""
    try:
        act()
    except StoreError:
        return False
    return True


@pytest.mark.parametrize("steps", range(MOST_WRITES))
def test_an_answer_that_leaves_is_told_and_an_ask_is_debited_once(cloud: Cloud, steps: int) -> None:
    request = WORLD.request(WORLD.ask())
    with cut_after(steps):
        done = tried(lambda: cloud.custodian.ask(request))
    cloud.start()
    assert not done or len(cloud.links("answered")) == 1
    envelope = cloud.custodian.ask(request)
    assert cloud.custodian.ask(request) == envelope
    told = [link.facts["stub"] for link in cloud.links("answered")]
    assert told[-1] == envelope.stub.digest()
    assert len(told) <= 2  # one that a crash kept from leaving, and this one
    assert cloud.custodian.ledger().spent == Spent(micro=100_000, nano=5_000_000)
    paid = cloud.custodian.ledger().rows
    assert [(row.id, row.answered) for row in paid] == [(told_of(request), True)]


def told_of(request: AskRequest) -> str:
    from emlab.ask import Ask, decode

    return decode(request.ask, Ask, "the ask").id


def test_without_a_crash_each_ask_is_told_once_with_what_its_receipt_will_show(cloud: Cloud) -> None:
    ask = WORLD.ask()
    envelope: Envelope = cloud.custodian.ask(WORLD.request(ask))
    (link,) = cloud.links("answered", "debited")
    assert link.facts == {
        "ask": ask.id,
        "provider": "planner",
        "provider_key": WORLD.provider.public,
        "query": "CountUsers",
        "purpose": "test",
        "epsilon_micro": 100_000,
        "ask_digest": envelope.stub.ask_digest,
        "model": "central",
        "ledger_seq": 1,
        "policy_version": 1,
        "stub": envelope.stub.digest(),
    }


@pytest.mark.parametrize("steps", range(6))
def test_a_refusal_is_told_with_its_reason_even_after_a_crash(cloud: Cloud, steps: int) -> None:
    cloud.custodian.set_policy(Policy.research())
    request = WORLD.request(WORLD.ask())
    with cut_after(steps), contextlib.suppress(EmlabError):
        cloud.custodian.ask(request)
    cloud.start()
    with pytest.raises(PolicyRefused):
        cloud.custodian.ask(request)
    assert [link.facts["why"] for link in cloud.links("refused")] == ["PolicyRefused"]
    assert cloud.links("answered", "debited") == []


def test_who_is_nobody_is_not_told_of(cloud: Cloud) -> None:
    """Whoever reaches the socket could fill the log otherwise: only what the controller admitted is in it."""
    request = WORLD.request(WORLD.ask())
    with pytest.raises(NotPermitted):
        cloud.custodian.ask(replace(request, capability_signature=bytes(64)))
    assert cloud.links("refused") == []


@pytest.mark.parametrize("steps", range(6))
def test_a_policy_that_holds_is_told(cloud: Cloud, steps: int) -> None:
    with cut_after(steps):
        done = tried(lambda: cloud.custodian.set_policy(Policy.research(total_epsilon=1.5)))
    cloud.start()
    policy = cloud.custodian.policy()
    assert not done or policy.total_epsilon == 1.5
    assert cloud.links("policy")[-1].facts["version"] == policy.version
    assert len(cloud.links("policy")) == policy.version + 1


@pytest.mark.parametrize("steps", range(MOST_WRITES))
def test_a_deletion_that_was_begun_is_ended_and_told_once(cloud: Cloud, steps: int) -> None:
    from tests.contract.test_period import END, GOES, START, STAYS

    cloud.custodian._store.put([*GOES.values(), *STAYS.values()])
    before = cloud.custodian.counts()
    with cut_after(steps):
        done = tried(lambda: cloud.custodian.delete_period(DeleteRequest(start_ts=START, end_ts=END)))
    cloud.start()
    begun = steps > 0
    assert (len(cloud.links("deleted")) == 1) == begun
    assert done <= begun
    if not begun:
        assert cloud.custodian.counts() == before
    cloud.custodian.delete_period(DeleteRequest(start_ts=START, end_ts=END))
    assert cloud.custodian._store.delete(START, END) == {}


def test_what_an_import_brings_and_that_all_was_taken_out_is_told(cloud: Cloud) -> None:
    cloud.custodian.adopt(AdoptRequest(spent=Spent(micro=7), rows=[]))
    head = cloud.custodian.archive().head
    assert [link.kind for link in cloud.links("imported", "exported")] == ["imported", "exported"]
    assert head is not None
    assert head.hash == cloud.links("exported")[-1].hash


def test_a_long_log_comes_in_pages(cloud: Cloud) -> None:
    for _ in range(5):
        cloud.custodian.archive()
    first = cloud.custodian.links(LinksRequest(limit=3))
    rest = cloud.custodian.links(LinksRequest(after=3))
    assert [link.seq for link in first.links + rest.links] == list(range(1, first.head.seq + 1))


def test_a_start_after_which_nothing_is_to_be_caught_up_with_adds_one_link(cloud: Cloud) -> None:
    for _ in range(3):
        cloud.custodian.ask(WORLD.request(WORLD.ask()))
    before = cloud.custodian.head().seq
    cloud.start()
    assert cloud.custodian.head().seq == before + 1
