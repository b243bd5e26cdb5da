"""What a custodian does with its owner's policy: sets, explains, hides, deletes; and when it cannot read it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from emlab.apps.custodian import keep_to_retention
from emlab.ask import disclose
from emlab.clock import ManualClock, wait_until
from emlab.custodian import Custodian
from emlab.entries import JsonObject
from emlab.errors import BadQuery, BudgetExhausted, ConfigError, InUse, PolicyRefused, StoreError
from emlab.key import token_hash
from emlab.ledger import MemoryLedger, Row
from emlab.loss import NOTHING, Loss, Spent
from emlab.policy import Policy, Published
from emlab.provision import OwnerToken, Provision
from emlab.queries.count_users import CountUsers
from emlab.queries.sum_trip_distance import SumTripDistance
from emlab.query import LOCATION, Query, Region
from emlab.store import MemoryStore
from emlab.wire.archive import AdoptRequest
from emlab.wire.log import LinksRequest
from emlab.wire.table import AmendRequest, RunPipeline
from tests.unit.asks import ALIAS, CLOUD, NOW, World

DAY_S = 86_400.0
LON, LAT = 13.4, 52.5
HOME = (LON, LAT, 200.0)


def location(ts: float, *, lon: float = LON) -> JsonObject:
    metadata = {"key": LOCATION, "platform": "android", "type": "sensor-data", "write_ts": ts, "time_zone": "UTC"}
    place = {"type": "Point", "coordinates": [lon, LAT]}
    data = {"ts": ts, "latitude": LAT, "longitude": lon, "loc": place}
    return {"metadata": {**metadata, "write_fmt_time": "x"}, "data": data}


@dataclass
class Cloud:
    """A custodian over memory, which can be started again."""

    world: World = field(default_factory=World)
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    store: MemoryStore = field(default_factory=lambda: MemoryStore(uuid.UUID(CLOUD)))
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    published: list[Published] = field(default_factory=list)

    def start(self) -> Custodian:
        provision = Provision(
            lab="lab",
            cloud=CLOUD,
            generation=1,
            owner_tokens=[OwnerToken(token_hash("emo_x"))],
            controller=self.world.controller.public,
            policy=Policy.closed(),
            marker="0" * 64,
        )
        return Custodian(provision, self.store, self.ledger, publish=self.published.append, clock=self.clock)

    def answer(self, custodian: Custodian, query: Query) -> tuple[int, ...]:
        self.world.now = self.clock.now()
        ask = self.world.ask(query)
        envelope = custodian.ask(self.world.request(ask))
        return disclose(envelope, ask, self.world.aggregator, ALIAS, custodian.health().public)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def test_a_cloud_is_closed_until_its_owner_has_said_something(cloud: Cloud) -> None:
    custodian = cloud.start()
    assert cloud.published == [Policy.closed().published]
    with pytest.raises(PolicyRefused):
        cloud.answer(custodian, CountUsers(None, 0.0, 2e9))
    assert custodian.set_policy(Policy.open()).version == 1
    assert cloud.published[-1].providers == "anyone"
    assert cloud.answer(custodian, CountUsers(None, 0.0, 2e9)) == (0,)


def test_the_cloud_counts_its_policies_whatever_they_say_of_themselves(cloud: Cloud) -> None:
    custodian = cloud.start()
    custodian.set_policy(msgspec.structs.replace(Policy.open(), version=900))
    threads = [threading.Thread(target=custodian.set_policy, args=(Policy.open(),)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert custodian.policy().version == 21
    assert cloud.start().policy().version == 21


def test_an_ask_about_a_place_that_makes_no_sense_is_on_record_and_costs_nothing(cloud: Cloud) -> None:
    custodian = cloud.start()
    custodian.set_policy(Policy.open())
    bow_tie = Region(((((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),),))
    with pytest.raises(BadQuery, match="the region is not acceptable"):
        cloud.answer(custodian, CountUsers(bow_tie, 0.0, 2e9))
    assert [denial.kind for denial in cloud.ledger.denials()] == ["BadQuery"]
    assert custodian.ledger().spent == NOTHING


def test_a_place_that_makes_no_sense_is_refused_and_nothing_changes(cloud: Cloud) -> None:
    custodian = cloud.start()
    bow_tie = Region(((((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),),))
    with pytest.raises(BadQuery, match=r"not valid: its lines cross or touch$"):
        custodian.set_policy(Policy.open(excluded_places=[bow_tie]))
    assert custodian.policy() == Policy.closed()


def test_a_policy_that_cannot_be_read_permits_nobody(cloud: Cloud) -> None:
    custodian = cloud.start()
    custodian.set_policy(Policy.open())
    newer = msgspec.to_builtins(Policy.open()) | {"schema": 2, "version": 41}
    cloud.ledger.keep("policy", msgspec.json.encode(newer))
    for one in (custodian, cloud.start()):
        with pytest.raises(PolicyRefused):
            cloud.answer(one, CountUsers(None, 0.0, 2e9))
        with pytest.raises(ConfigError, match="newer emlab"):
            one.policy()
    assert cloud.published[-1].providers == ()
    assert custodian.set_policy(Policy.open()).version == 42
    assert cloud.answer(custodian, CountUsers(None, 0.0, 2e9)) == (0,)


def test_an_answer_has_nothing_of_an_excluded_place_and_takes_its_slot_as_ever(cloud: Cloud) -> None:
    custodian = cloud.start()
    cloud.store.put([location(NOW - 60)])
    everywhere = CountUsers(None, 0.0, 2e9)
    took = []
    for policy, told in ((Policy.open(), 1), (Policy.open(excluded_places=[HOME]), 0)):
        custodian.set_policy(policy)
        before = cloud.clock.now()
        assert cloud.answer(custodian, everywhere) == (told,)
        took.append(cloud.clock.now() - before)
    assert took == pytest.approx([everywhere.slot_s] * 2)
    cloud.store.put([location(NOW - 30, lon=LON + 0.01)])
    assert cloud.answer(custodian, everywhere) == (1,)


def test_the_owner_is_told_what_an_ask_would_cost_and_that_is_what_it_costs(cloud: Cloud) -> None:
    custodian = cloud.start()
    custodian.set_policy(Policy.open(total_epsilon=0.25, quota_epsilon=0.15))
    cloud.world.now = cloud.clock.now()
    ask = cloud.world.ask()
    said = custodian.explain(ask)
    assert (said.permitted, said.cost, said.limit, said.quota, said.leaves) == (
        True,
        100_000,
        250_000,
        150_000,
        150_000,
    )
    assert cloud.ledger.balance().seq == 0
    custodian.ask(cloud.world.request(ask))
    assert custodian.ledger().remaining == said.leaves
    cloud.world.now = cloud.clock.now()
    again = custodian.explain(cloud.world.ask(min_users=1))
    assert (again.permitted, again.quota) == (False, 50_000)
    with pytest.raises(BudgetExhausted):
        custodian.ask(cloud.world.request(cloud.world.ask()))
    with pytest.raises(BadQuery):
        custodian.explain(msgspec.structs.replace(ask, loss=type(ask.loss)()))


def fixes(cloud: Cloud) -> int:
    return sum(cloud.store.counts().values())


def test_old_data_is_deleted_at_the_start_and_before_intake_to_the_day(cloud: Cloud) -> None:
    today = NOW // DAY_S * DAY_S
    custodian = cloud.start()
    cloud.store.put([location(today - 3 * DAY_S - 1), location(today - 3 * DAY_S + 1), location(today)])
    custodian.set_policy(Policy.open(retention_days=3))
    assert fixes(cloud) == 3
    cloud.start()
    assert fixes(cloud) == 2
    cloud.clock.advance(today + DAY_S - NOW - 1)
    cloud.start()
    assert fixes(cloud) == 2  # the same day still
    cloud.clock.advance(2)
    custodian.run_pipeline(RunPipeline())
    times = [fix[0] for fix in cloud.store.track(LOCATION, start_ts=0.0, end_ts=2e9)]
    assert times == [today]


def test_a_shorter_retention_acts_on_the_same_day(cloud: Cloud) -> None:
    today = NOW // DAY_S * DAY_S
    custodian = cloud.start()
    cloud.store.put([location(today - DAY_S * number - 1) for number in range(5)])
    for days, left in ((4, 4), (2, 2), (10, 2)):
        custodian.set_policy(Policy.open(retention_days=days))
        custodian.run_pipeline(RunPipeline())
        assert len(list(cloud.store.track(LOCATION, start_ts=0.0, end_ts=2e9))) == left


def test_no_query_sees_old_data_before_it_is_deleted(cloud: Cloud) -> None:
    """A cloud that is paused and woken again and again neither starts nor, perhaps, runs intake."""
    custodian = cloud.start()
    custodian.set_policy(Policy.open(retention_days=3))
    cloud.store.put([location(NOW)])
    everywhere = CountUsers(None, 0.0, 2e9)
    assert cloud.answer(custodian, everywhere) == (1,)
    cloud.clock.advance(4 * DAY_S)
    assert cloud.answer(custodian, everywhere) == (0,)
    assert fixes(cloud) == 1


def test_a_program_that_runs_on_deletes_old_data(cloud: Cloud) -> None:
    custodian = cloud.start()
    custodian.set_policy(Policy.open(retention_days=3))
    cloud.store.put([location(NOW)])
    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        keeping = pool.submit(keep_to_retention, custodian, ended, 0.001)
        try:
            cloud.clock.advance(3 * DAY_S)
            assert not wait_until(lambda: fixes(cloud) == 0, 0.1)
            cloud.clock.advance(DAY_S)
            assert wait_until(lambda: fixes(cloud) == 0, 10.0)
        finally:
            ended.set()
        keeping.result(10.0)


def test_retention_looks_once_a_day(cloud: Cloud) -> None:
    cloud.clock.advance(DAY_S - NOW % DAY_S)
    custodian = cloud.start()
    custodian.set_policy(Policy.open(retention_days=3))
    for days in (0, 0, 0.9, 0.2):
        cloud.clock.advance(days * DAY_S)
        custodian.retain()
        custodian.run_pipeline(RunPipeline())
    told = custodian.links(LinksRequest(after=0, limit=100)).links
    assert [link.kind for link in told].count("deleted") == 2


def test_retention_that_meets_intake_leaves_it_to_that_and_stands_in_nobodys_way(cloud: Cloud) -> None:
    custodian = cloud.start()
    goes_on, may_end = threading.Event(), threading.Event()

    def digest(request: RunPipeline) -> Any:
        goes_on.set()
        assert may_end.wait(10.0)

    custodian._digest = digest
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(custodian.run_pipeline, RunPipeline())
        assert goes_on.wait(10.0)
        with pytest.raises(InUse):
            custodian.retain()
        second = pool.submit(custodian.run_pipeline, RunPipeline())  # one may wait
        assert wait_until(lambda: custodian._digesting._waiting, 10.0)
        with pytest.raises(InUse):
            custodian.retain()
        may_end.set()
        first.result(10.0), second.result(10.0)


@pytest.mark.parametrize("error", [InUse("somebody waits"), StoreError("the disk is full")])
def test_what_could_not_be_deleted_is_deleted_later(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    custodian, ended = cloud.start(), threading.Event()
    tries = 0

    def retain() -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            ended.set()
        raise error

    monkeypatch.setattr(custodian, "retain", retain)
    keep_to_retention(custodian, ended, 0.001)
    assert tries == 2


def test_without_retention_nothing_is_deleted(cloud: Cloud) -> None:
    custodian = cloud.start()
    cloud.store.put([location(1.0)])
    custodian.set_policy(Policy.open())
    custodian.run_pipeline(RunPipeline())
    cloud.start()
    assert len(list(cloud.store.track(LOCATION, start_ts=0.0, end_ts=2e9))) == 1


class Meeting(MemoryStore):
    """A store of which a query's reading meets with something else that happens at this moment."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        super().__init__(uuid.UUID(CLOUD))
        self.then = then

    def exists(self, key: str, **where: Any) -> bool:
        self.then()
        return super().exists(key, **where)


class Held(ManualClock):
    """A clock whose first wait lasts until it is let go."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.waiting, self.let_go = threading.Event(), threading.Event()

    def wait(self, seconds: float) -> None:
        first = not self.waiting.is_set()
        self.waiting.set()
        if first:
            assert self.let_go.wait(10)
        super().wait(seconds)


EVER = CountUsers(None, 0.0, 2e9)


class TestWhileAnAskIsComputed:
    """Nothing that a provider sees depends on how long that takes, and what its owner does holds at once."""

    def test_the_debits_of_others_meanwhile_are_not_in_its_stub(self) -> None:
        cloud = Cloud(store=(store := Meeting()))
        custodian = cloud.start()
        custodian.set_policy(Policy.open())
        first, later = (cloud.world.ask(EVER, ask_id=f"{number:032x}") for number in (1, 2))

        def meanwhile() -> None:
            store.then = lambda: None
            custodian.ask(cloud.world.request(later))

        store.then = meanwhile
        stubs = [custodian.ask(cloud.world.request(ask)).stub for ask in (first, later)]
        assert [stub.ledger_seq for stub in stubs] == [1, 2]

    def test_who_shares_its_stripe_waits_until_its_slot_is_over_whatever_it_took(self) -> None:
        clock = Held()
        cloud = Cloud(clock=clock)
        custodian = cloud.start()
        custodian.set_policy(Policy.open(queries=["count_users"]))
        first = cloud.world.ask(EVER, ask_id=f"{1:032x}")
        refused = cloud.world.ask(SumTripDistance(0.0, 2e9, 10), ask_id=f"{1 + 64:032x}")
        with ThreadPoolExecutor(2) as pool:
            answer = pool.submit(custodian.ask, cloud.world.request(first))
            assert clock.waiting.wait(10)
            refusal = pool.submit(custodian.ask, cloud.world.request(refused))
            assert not wait_until(lambda: bool(cloud.ledger.denials()), 0.2)
            clock.let_go.set()
            assert answer.result(10).stub.ledger_seq == 1
            with pytest.raises(PolicyRefused):
                refusal.result(10)

    @pytest.mark.parametrize("policy", [Policy.closed(), Policy.open(excluded_places=[HOME])])
    def test_another_policy_prevents_its_answer_which_costs_nothing_then(self, policy: Policy) -> None:
        cloud = Cloud(store=(store := Meeting()))
        custodian = cloud.start()
        custodian.set_policy(Policy.open())
        store.then = lambda: custodian.set_policy(policy)
        with pytest.raises(PolicyRefused, match="changed the policy meanwhile"):
            cloud.answer(custodian, EVER)
        assert cloud.ledger.balance().spent == NOTHING
        assert [denial.kind for denial in cloud.ledger.denials()] == ["PolicyRefused"]
        assert [row.outcome for row in cloud.ledger.rows()] == ["refunded"]

    def test_a_query_that_fails_on_what_it_reads_answers_zeros_and_is_paid_for(
        self, cloud: Cloud, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail() -> None:
            raise BadQuery("a secret of the data")

        cloud.store = Meeting(fail)
        custodian = cloud.start()
        custodian.set_policy(Policy.open())
        assert cloud.answer(custodian, EVER) == (0,)
        assert cloud.ledger.balance().spent.micro == 100_000
        assert "CountUsers failed with BadQuery" in caplog.text
        assert "secret" not in caplog.text


class TestAmending:
    def test_a_policy_that_is_not_the_one_it_was_made_of_is_not_replaced(self, cloud: Cloud) -> None:
        custodian = cloud.start()
        before = custodian.set_policy(Policy.open())
        custodian.set_policy(Policy.closed())
        with pytest.raises(InUse, match="changed meanwhile: it is version 2 now"):
            custodian.amend_policy(AmendRequest(policy=before, version=before.version))
        assert custodian.policy().providers == ()
        assert custodian.amend_policy(AmendRequest(policy=before, version=2)).version == 3


class TestAdopting:
    """Rows of other clouds' ledgers; `spent` may say more than they do, of what was carried there."""

    def row(self, ask: int, micro: int) -> Row:
        loss = Loss(epsilon_micro=micro)
        return Row(id=f"{ask:032x}", provider="p", query="CountUsers", purpose="", ts=5.0, loss=loss, answered=True)

    def adopt(self, custodian: Custodian, spent: int, *rows: Row) -> int:
        return custodian.adopt(AdoptRequest(spent=Spent(micro=spent), rows=list(rows))).spent_micro

    def test_debits_of_different_clouds_add_up_and_each_counts_once(self, cloud: Cloud) -> None:
        custodian = cloud.start()
        custodian.set_policy(Policy.open())
        cloud.answer(custodian, EVER)
        assert self.adopt(custodian, 250_000, self.row(1, 250_000)) == 350_000
        assert self.adopt(custodian, 250_000, self.row(1, 250_000)) == 350_000
        assert self.adopt(custodian, 300_000, self.row(1, 250_000), self.row(2, 50_000)) == 400_000

    def test_what_no_row_explains_counts_as_the_larger_of_both(self, cloud: Cloud) -> None:
        custodian = cloud.start()
        assert self.adopt(custodian, 900_000, self.row(1, 100_000)) == 900_000
        assert self.adopt(custodian, 600_000, self.row(2, 100_000)) == 900_000

    def test_what_was_refunded_there_does_not_count(self, cloud: Cloud) -> None:
        refunded = msgspec.structs.replace(self.row(1, 250_000), answered=False, refunded=True)
        assert self.adopt(cloud.start(), 0, refunded) == 0
