"""One contract for ledgers, over memory and a real mongod; then what only a real one can show: crashes and races."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pymongo import MongoClient, timeout
from pymongo.errors import PyMongoError

from emlab.ask import new_id
from emlab.engines.rundir import make_run_dir
from emlab.errors import BudgetExhausted, DiskFull, NotPermitted, StoreError
from emlab.ledger import Ledger, MemoryLedger, MongoLedger, Note
from emlab.mongod import Mongod

NOTE = Note(provider="planner", query="count_users", purpose="test", ts=1.0)
LIMIT = 1_000_000
DIGEST, OTHER = "d" * 64, "e" * 64


@pytest.fixture
def mongod(home: Path, need: Callable[[str], None]) -> Iterator[Mongod]:
    need("mongod")
    (home / "db").mkdir()
    server = Mongod(home / "db", make_run_dir(home, new_id()))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(mongod: Mongod) -> Iterator[MongoClient[dict[str, object]]]:
    with mongod.client() as client:
        yield client


@pytest.fixture(params=["memory", "mongo"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return MemoryLedger() if request.param == "memory" else fresh(request.getfixturevalue("client"))


def fresh(client: MongoClient[dict[str, object]]) -> MongoLedger:
    ledger = MongoLedger(client)
    ledger.recover()
    return ledger


class TestLedger:
    def test_a_debit_is_counted_once_however_often_it_is_asked(self, ledger: Ledger) -> None:
        ask = new_id()
        assert [ledger.reserve(ask, DIGEST, 300_000, LIMIT, NOTE) for _ in range(3)] == [None] * 3
        assert (ledger.balance().spent_micro, ledger.balance().seq) == (300_000, 1)

    def test_the_same_ask_gets_the_same_bytes(self, ledger: Ledger) -> None:
        ask = new_id()
        ledger.reserve(ask, DIGEST, 1, LIMIT, NOTE)
        ledger.commit(ask, b"sealed \x00 bytes")
        assert ledger.reserve(ask, DIGEST, 1, LIMIT, NOTE) == b"sealed \x00 bytes"
        assert ledger.balance().seq == 1

    def test_an_id_used_for_another_ask_is_refused(self, ledger: Ledger) -> None:
        ask = new_id()
        ledger.reserve(ask, DIGEST, 1, LIMIT, NOTE)
        with pytest.raises(NotPermitted, match="another ask"):
            ledger.reserve(ask, OTHER, 1, LIMIT, NOTE)
        assert ledger.balance().spent_micro == 1

    def test_the_last_micro_epsilon_can_be_spent_but_not_one_more(self, ledger: Ledger) -> None:
        ledger.reserve(new_id(), DIGEST, LIMIT - 1, LIMIT, NOTE)
        refused = new_id()
        with pytest.raises(BudgetExhausted):
            ledger.reserve(refused, DIGEST, 2, LIMIT, NOTE)
        ledger.reserve(new_id(), DIGEST, 1, LIMIT, NOTE)
        assert (ledger.balance().spent_micro, ledger.balance().seq) == (LIMIT, 2)
        assert refused not in {row.id for row in ledger.rows()}

    def test_an_ask_refused_for_its_cost_may_be_put_again_when_the_limit_is_higher(self, ledger: Ledger) -> None:
        ask = new_id()
        with pytest.raises(BudgetExhausted):
            ledger.reserve(ask, DIGEST, LIMIT + 1, LIMIT, NOTE)
        assert ledger.reserve(ask, DIGEST, LIMIT + 1, 2 * LIMIT, NOTE) is None

    def test_the_owner_reads_each_debit(self, ledger: Ledger) -> None:
        first, second = new_id(), new_id()
        ledger.reserve(first, DIGEST, 5, LIMIT, NOTE)
        ledger.commit(first, b"x")
        ledger.reserve(second, OTHER, 7, LIMIT, NOTE)
        rows = {row.id: row for row in ledger.rows()}
        assert (rows[first].cost_micro, rows[first].answered, rows[first].provider) == (5, True, "planner")
        assert (rows[second].cost_micro, rows[second].answered) == (7, False)

    def test_what_was_spent_before_is_never_less(self, ledger: Ledger) -> None:
        ledger.carry(900_000)
        ledger.carry(100)
        with pytest.raises(BudgetExhausted):
            ledger.reserve(new_id(), DIGEST, 100_001, LIMIT, NOTE)
        assert ledger.balance().spent_micro == 900_000

    def test_a_kept_value_is_found_again(self, ledger: Ledger) -> None:
        assert ledger.kept("key") is None
        ledger.keep("key", b"\x00\x01")
        ledger.keep("key", b"\x02")
        assert ledger.kept("key") == b"\x02"

    def test_asks_at_once_never_exceed_the_limit_together(self, ledger: Ledger) -> None:
        def debit(_: int) -> bool:
            try:
                ledger.reserve(new_id(), DIGEST, 100_000, LIMIT, NOTE)
            except BudgetExhausted:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            granted = sum(pool.map(debit, range(60)))
        assert granted == 10
        assert ledger.balance().spent_micro == LIMIT


class Cut(PyMongoError):
    """The program ended here."""


WRITES = ("insert_one", "update_one", "delete_one")


def cut_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """From the n-th write on, every write of the driver fails: what a crash between two writes leaves."""
    from pymongo.collection import Collection

    counter = itertools.count()
    for name in WRITES:
        real = getattr(Collection, name)

        def write(self: object, *args: object, _real: object = real, **options: object) -> object:
            if next(counter) >= steps:
                raise Cut
            return _real(self, *args, **options)  # type: ignore[operator]

        monkeypatch.setattr(Collection, name, write)


@pytest.mark.parametrize("steps", range(5))
def test_after_a_crash_between_any_two_writes_the_ask_is_debited_exactly_once(
    client: MongoClient[dict[str, object]], steps: int
) -> None:
    ask = new_id()
    ledger = fresh(client)
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut_after(monkeypatch, steps)
        with contextlib.suppress(StoreError):
            ledger.reserve(ask, DIGEST, 400_000, LIMIT, NOTE)
            ledger.commit(ask, b"answer")
    again = fresh(client)
    spent_before = again.balance().spent_micro
    assert spent_before in (0, 400_000)
    assert {row.id for row in again.rows()} == ({ask} if spent_before else set())
    again.reserve(ask, DIGEST, 400_000, LIMIT, NOTE)
    again.commit(ask, b"answer")
    assert again.reserve(ask, DIGEST, 400_000, LIMIT, NOTE) == b"answer"
    assert (again.balance().spent_micro, again.balance().seq) == (400_000, 1)
    budget = client["emlab"]["budget"].find_one({"_id": "budget"})
    assert budget is not None
    assert budget["open"] == {}


def test_the_crash_test_really_cuts_each_write(client: MongoClient[dict[str, object]]) -> None:
    ledger = fresh(client)
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut_after(monkeypatch, 4)
        ledger.reserve(new_id(), DIGEST, 1, LIMIT, NOTE)  # row, debit, mark, clear
        with pytest.raises(StoreError, match="could not keep an answer: Cut"):
            ledger.commit(new_id(), b"x")


def test_refusals_are_on_record_and_bounded(client: MongoClient[dict[str, object]]) -> None:
    ledger = fresh(client)
    ledger.refuse(new_id(), "PolicyRefused", NOTE)
    audit = client["emlab"]["audit"]
    assert [row["kind"] for row in audit.find()] == ["PolicyRefused"]
    assert audit.options()["capped"] is True


DOINGS: dict[str, Callable[[MongoLedger], object]] = {
    "open": MongoLedger.recover,
    "debit": lambda ledger: ledger.reserve(new_id(), DIGEST, 1, LIMIT, NOTE),
    "keep an answer": lambda ledger: ledger.commit(new_id(), b"secret"),
    "record a refusal": lambda ledger: ledger.refuse(new_id(), "PolicyRefused", NOTE),
    "read the ledger": MongoLedger.balance,
    "read": MongoLedger.rows,
    "carry": lambda ledger: ledger.carry(1),
    "keep a value": lambda ledger: ledger.keep("key", b"secret"),
    "read a value": lambda ledger: ledger.kept("key"),
}


def test_a_mongod_that_ended_is_a_store_error_in_every_method(home: Path, mongod: Mongod) -> None:
    with mongod.client() as client:
        ledger = fresh(client)
        mongod.stop()
        for doing, call in DOINGS.items():
            with timeout(0.5), pytest.raises(StoreError, match=f"could not {doing}") as caught:
                call(ledger)
            assert "secret" not in str(caught.value)
            assert "planner" not in str(caught.value)


def test_a_full_disk_is_told_from_other_faults(
    client: MongoClient[dict[str, object]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = MongoLedger(client, data_dir=home)
    ledger.recover()
    cut_after(monkeypatch, 0)
    monkeypatch.setattr("emlab.mongo_errors.FULL_BELOW_BYTES", 1 << 62)  # as if little were free
    with pytest.raises(DiskFull, match=str(home)):
        ledger.reserve(new_id(), DIGEST, 1, LIMIT, NOTE)


def test_what_mongod_quotes_of_a_document_is_left_out(client: MongoClient[dict[str, object]]) -> None:
    ledger = fresh(client)
    client["emlab"]["kept"].create_index("value", unique=True)
    ledger.keep("one", b"a secret value")
    with pytest.raises(StoreError, match=r"keep a value: DuplicateKeyError \(code 11000\)") as caught:
        ledger.keep("two", b"a secret value")
    assert "dup key" not in f"{caught.value} {caught.value.__cause__}"
