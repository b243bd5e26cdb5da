"""Whatever is asked in whatever order, and wherever the program ends: both ledgers say the same, and what is right."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from pymongo import MongoClient, timeout

from emlab.ask import new_id
from emlab.engines.rundir import make_run_dir
from emlab.errors import BudgetExhausted, StoreError
from emlab.ledger import Ledger, MemoryLedger, MongoLedger, Note
from emlab.loss import Loss, Spent, Terms
from emlab.mongod import Mongod
from tests.ledgers import cut_after

HOUR = 3600.0
DIGEST = "d" * 64
PROVIDERS = ["a" * 64, "b" * 64]
LENGTHS = [None, HOUR, 24 * HOUR]
CRASHES = st.one_of(st.none(), st.integers(0, 6))  # after how many writes the program ends
LOSSES = st.one_of(
    st.builds(Loss, epsilon_micro=st.sampled_from([1, 250_000, 600_000])),
    st.builds(Loss, rho_nano=st.sampled_from([1, 30_000_000])),
)
SPENT = st.builds(
    Spent, micro=st.integers(0, 900_000), nano=st.integers(0, 10**8), gaussians=st.sampled_from([0, 0, 0, 1])
)


@dataclass
class Standing:
    """A debit that was not refunded."""

    provider: str
    loss: Loss
    at: float


class Ledgers(RuleBasedStateMachine):
    """A ledger in memory, one in a mongod whose program ends at any write, and what this machine knows itself."""

    clients: ClassVar[list[MongoClient[dict[str, object]]]] = []
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.name = f"ledger{next(self.numbers)}"
        self.memory = MemoryLedger()
        self.restart()
        self.now = self.latest = 30 * HOUR
        self.policy = Terms(
            accounting="pure", limit=1_000_000, quota=700_000, provider=PROVIDERS[0], renew_s=None, ts=self.now
        )
        self.standing: dict[str, Standing] = {}
        self.answers: dict[str, bytes] = {}
        self.asked: dict[str, tuple[Loss, str]] = {}
        self.spent = Spent()

    def restart(self) -> None:
        """The cloud starts again."""
        self.mongo = MongoLedger(self.clients[-1], database=self.name)
        self.mongo.recover()

    def teardown(self) -> None:
        self.clients[-1].drop_database(self.name)

    def terms(self, provider: str) -> Terms:
        return msgspec.structs.replace(self.policy, provider=provider, ts=self.now)

    def note(self) -> Note:
        return Note(provider="planner", query="CountUsers", purpose="test", ts=self.now)

    def on_mongo(self, step: Callable[[Ledger], object], crash: int | None) -> object:
        """What came of the step, or StoreError if the program ended in it; it runs again then."""
        if crash is None:
            return told(lambda: step(self.mongo))
        with cut_after(crash):
            found = told(lambda: step(self.mongo))
        self.restart()
        return found

    # -- steps -------------------------------------------------------------------------------------------------

    @rule(provider=st.sampled_from(PROVIDERS), loss=LOSSES, crash=CRASHES)
    def ask(self, provider: str, loss: Loss, crash: int | None) -> None:
        ask_id = new_id()
        self.asked[ask_id] = loss, provider
        self.put(ask_id, crash)

    @rule(data=st.data(), crash=CRASHES)
    def ask_again(self, data: st.DataObject, crash: int | None) -> None:
        if self.asked:
            self.put(data.draw(st.sampled_from(sorted(self.asked))), crash)

    def put(self, ask_id: str, crash: int | None) -> None:
        loss, provider = self.asked[ask_id]
        terms, note = self.terms(provider), self.note()

        def step(ledger: Ledger) -> bytes | None:
            return ledger.reserve(ask_id, DIGEST, loss, terms, note)

        found = self.on_mongo(step, crash)
        stands = {row.id for row in self.mongo.rows() if not row.refunded}
        if found is StoreError and ask_id not in stands:
            return  # it ended before the debit
        if ask_id in stands and ask_id not in self.standing:
            self.check_debit(Standing(provider, loss, max(self.latest, self.now)), terms)
            self.latest = max(self.latest, self.now)
            self.standing[ask_id] = Standing(provider, loss, self.latest)
        here = told(lambda: step(self.memory))
        assert found in (here, StoreError)
        assert (ask_id in stands) == (ask_id in self.standing)
        if not isinstance(here, str):
            assert here == self.answers.get(ask_id)

    def check_debit(self, debit: Standing, terms: Terms) -> None:
        """The budget and the quota covered it, by what this machine knows."""
        assert terms.accounting == "zcdp" or not debit.loss.rho_nano

        def cost(loss: Loss) -> int:
            return loss.epsilon_micro if terms.accounting == "pure" else loss.as_rho_nano

        period = terms.period(debit.at)
        here = [one for one in self.standing.values() if terms.period(one.at) == period]
        assert cost(debit.loss) + sum(cost(one.loss) for one in here) <= terms.limit
        mine = [one for one in here if one.provider == debit.provider]
        assert terms.quota is not None
        assert cost(debit.loss) + sum(cost(one.loss) for one in mine) <= terms.quota

    @rule(data=st.data(), crash=CRASHES)
    def answer(self, data: st.DataObject, crash: int | None) -> None:
        if not self.asked:
            return
        ask_id = data.draw(st.sampled_from(sorted(self.asked)))

        def step(ledger: Ledger) -> None:
            ledger.commit(ask_id, b"answer")

        self.on_mongo(step, crash)
        answered = {row.id for row in self.mongo.rows() if row.answered}
        if ask_id in answered:
            assert ask_id in self.standing
            self.answers[ask_id] = b"answer"
            step(self.memory)
        elif ask_id not in self.standing:
            assert told(lambda: step(self.memory)) is StoreError

    @rule(data=st.data(), crash=CRASHES)
    def refund(self, data: st.DataObject, crash: int | None) -> None:
        if not self.asked:
            return
        ask_id = data.draw(st.sampled_from(sorted(self.asked)))
        found = self.on_mongo(lambda ledger: ledger.refund(ask_id), crash)
        refunded = {row.id for row in self.mongo.rows() if row.refunded}
        if found is StoreError and ask_id not in refunded:
            return
        assert (ask_id in refunded) == self.memory.refund(ask_id)
        if ask_id in refunded:
            assert ask_id not in self.answers
            self.standing.pop(ask_id, None)

    @rule(spent=SPENT, crash=CRASHES)
    def carry(self, spent: Spent, crash: int | None) -> None:
        before = self.mongo.balance().spent
        found = self.on_mongo(lambda ledger: ledger.carry(spent, now=self.now), crash)
        after = self.mongo.balance().spent
        assert after in (before, before.at_least(spent))
        if after != before.at_least(spent):
            assert found is StoreError
            return
        if after != before:
            self.latest = max(self.latest, self.now)
        self.memory.carry(spent, now=self.now)

    @rule(hours=st.sampled_from([0.4, 1.0, 24.0]))
    def later(self, hours: float) -> None:
        self.now += hours * HOUR

    @rule(hours=st.sampled_from([0.7, 1.0, 30.0]))
    def set_the_clock_back(self, hours: float) -> None:
        self.now = max(0.0, self.now - hours * HOUR)

    @rule(
        renew_s=st.sampled_from(LENGTHS),
        accounting=st.sampled_from(["pure", "zcdp"]),
        limit=st.sampled_from([1_000_000, 2_000_000, 10**9]),
    )
    def set_policy(self, renew_s: float | None, accounting: str, limit: int) -> None:
        self.policy = msgspec.structs.replace(
            self.policy, renew_s=renew_s, accounting=accounting, limit=limit, quota=limit * 7 // 10
        )

    @rule(crash=CRASHES)
    def start_again(self, crash: int | None) -> None:
        if crash is not None:
            with cut_after(crash):
                told(self.restart)
        self.restart()

    # -- what holds after each ---------------------------------------------------------------------------------

    @invariant()
    def both_say_the_same(self) -> None:
        assert self.mongo.balance() == self.memory.balance()
        rows = [[(one.id, one.loss, one.outcome) for one in ledger.rows()] for ledger in (self.mongo, self.memory)]
        assert sorted(rows[0]) == sorted(rows[1])
        for provider in (*PROVIDERS, ""):
            for renew_s in LENGTHS:
                terms = msgspec.structs.replace(self.terms(provider), renew_s=renew_s)
                assert self.mongo.left(terms) == self.memory.left(terms)

    @invariant()
    def nothing_is_debited_twice_or_lost(self) -> None:
        spent = self.mongo.balance().spent
        asked = sum((Spent.of(one.loss) for one in self.standing.values()), Spent())
        assert spent.at_least(asked) == spent
        assert {row.id for row in self.mongo.rows() if not row.refunded} == set(self.standing)

    @invariant()
    def nothing_is_in_flight(self) -> None:
        budget = self.mongo._read()
        assert (budget.open, budget.refunded) == ({}, {})


def told(step: Callable[[], object]) -> object:
    """What a step returns, StoreError if it raised that, and what a refusal says."""
    try:
        return step()
    except StoreError:
        return StoreError
    except BudgetExhausted as exc:
        return str(exc)


@pytest.fixture
def server(home: Path, need: Callable[[str], None]) -> Iterator[Mongod]:
    need("mongod")
    (home / "db").mkdir()
    with Mongod(home / "db", make_run_dir(home, new_id())) as server:
        yield server


def test_no_sequence_of_steps_and_crashes_makes_the_ledgers_differ_or_err(server: Mongod) -> None:
    with server.client() as client:
        Ledgers.clients.append(client)
        examples = 100 if os.environ.get("CI") else 25
        chosen = settings(  # to shrink takes too long on a real mongod
            max_examples=examples, stateful_step_count=40, deadline=None, database=None, phases=[Phase.generate]
        )
        run_state_machine_as_test(Ledgers, settings=chosen)


ROUNDS, THREADS, LIMIT = 6, 4, 3_000_000
HOURLY = Terms(accounting="pure", limit=LIMIT, quota=None, provider=PROVIDERS[0], renew_s=HOUR, ts=HOUR)
NOTE = Note(provider="planner", query="CountUsers", purpose="test", ts=HOUR)


class Told:
    """What a ledger acknowledged before its mongod died."""

    def __init__(self) -> None:
        self.debited: set[str] = set()
        self.answered: set[str] = set()
        self.refunded: set[str] = set()
        self.tried: set[str] = set()

    def use(self, ledger: MongoLedger, number: int) -> None:
        """One ask is debited and then answered or refunded, as far as it comes."""
        ask_id = new_id()
        self.tried.add(ask_id)
        ledger.reserve(ask_id, DIGEST, Loss(epsilon_micro=1000), HOURLY, NOTE)
        self.debited.add(ask_id)
        if number % 4 == 0:
            assert ledger.refund(ask_id)
            self.refunded.add(ask_id)
        else:
            ledger.commit(ask_id, b"answer")
            self.answered.add(ask_id)


def test_what_was_acknowledged_is_there_after_mongod_was_killed(home: Path, need: Callable[[str], None]) -> None:
    need("mongod")
    (home / "db").mkdir()
    server, told_ = Mongod(home / "db", make_run_dir(home, new_id())), Told()
    for round_ in range(ROUNDS):
        server.start()
        with server.client() as client:
            ledger = MongoLedger(client)
            ledger.recover()
            check(ledger, told_)
            enough = len(told_.debited) + 15 + 7 * round_

            def work(thread: int, ledger: MongoLedger = ledger, enough: int = enough) -> None:
                with timeout(2):
                    for number in itertools.count(thread):
                        if thread == 0 and len(told_.debited) > enough:
                            os.kill(server.pid, signal.SIGKILL)
                        try:
                            told_.use(ledger, number)
                        except StoreError:
                            return

            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(work, range(THREADS)))
        server.stop()
    server.start()
    with server.client() as client:
        ledger = MongoLedger(client)
        ledger.recover()
        check(ledger, told_)
    server.stop()
    assert len(told_.debited) > ROUNDS * 15


def check(ledger: MongoLedger, told_: Told) -> None:
    """All that was acknowledged stands, nothing was made up, and the sums are those of the rows."""
    rows = {row.id: row for row in ledger.rows()}
    assert told_.debited <= set(rows) <= told_.tried
    assert told_.answered <= {one for one, row in rows.items() if row.answered}
    assert told_.refunded <= {one for one, row in rows.items() if row.refunded}
    standing = sum(row.loss.epsilon_micro for row in rows.values() if not row.refunded)
    assert ledger.balance().spent.micro == standing
    assert ledger.left(HOURLY).limit == LIMIT - standing
    assert ledger.balance().seq == len(rows)
