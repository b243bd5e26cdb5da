"""What only a ledger in a real mongod can show: crashes between writes, how large it is, faults of the database."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from pymongo import timeout

from emlab.ask import new_id
from emlab.engines.rundir import make_run_dir
from emlab.errors import BudgetExhausted, DiskFull, StoreError
from emlab.ledger import DATABASE, MongoLedger
from emlab.ledger.base import MAX_PROVIDERS
from emlab.loss import MOST, NOTHING, Left, Spent
from emlab.mongod import Mongod
from tests.ledgers import DIGEST, HOUR, LIMIT, NOON, NOTE, Client, cut_after, debit, fresh, pure, spent, terms


@pytest.mark.parametrize("steps", range(5))
def test_after_a_crash_between_any_two_writes_the_ask_is_debited_exactly_once(client: Client, steps: int) -> None:
    ask = new_id()
    ledger = fresh(client)
    with cut_after(steps), contextlib.suppress(StoreError):
        ledger.reserve(ask, DIGEST, pure(400_000), terms(), NOTE)
        ledger.commit(ask, b"answer")
    again = fresh(client)
    spent_before = spent(again)
    assert spent_before in (0, 400_000)
    assert {row.id for row in again.rows()} == ({ask} if spent_before else set())
    again.reserve(ask, DIGEST, pure(400_000), terms(), NOTE)
    again.commit(ask, b"answer")
    assert again.reserve(ask, DIGEST, pure(400_000), terms(), NOTE) == b"answer"
    assert (spent(again), again.balance().seq) == (400_000, 1)
    budget = client[DATABASE]["budget"].find_one({"_id": "budget"})
    assert budget is not None
    assert budget["open"] == {}


@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize("renew_s", [None, HOUR])
def test_after_a_crash_between_any_two_writes_of_a_refund_it_is_done_once_or_not_at_all(
    client: Client, steps: int, renew_s: float | None
) -> None:
    under, ask = terms(quota=LIMIT, renew_s=renew_s), new_id()
    ledger = fresh(client)
    debit(ledger, 100_000, under)
    ledger.reserve(ask, DIGEST, pure(400_000), under, NOTE)
    with cut_after(steps), contextlib.suppress(StoreError):
        ledger.refund(ask)
    again = fresh(client)
    refunded = {row.id: row.refunded for row in again.rows()}[ask]
    assert refunded == (steps > 0)
    rest = LIMIT - (100_000 if refunded else 500_000)
    assert again.left(under) == Left(limit=rest, quota=rest)
    assert spent(again) == (100_000 if refunded else 500_000)
    assert again.refund(ask)
    assert again.refund(ask)
    assert (spent(again), again.balance().seq) == (100_000, 2)
    assert again._read().refunded == {}


@pytest.mark.parametrize("steps", range(6))
def test_after_a_crash_where_a_period_begins_nothing_is_renewed_twice_or_lost(client: Client, steps: int) -> None:
    ask, ledger = new_id(), fresh(client)
    debit(ledger, 700, terms(1000, renew_s=HOUR, ts=HOUR))
    ledger.carry(Spent(micro=900), now=HOUR)
    late = terms(1000, quota=1000, renew_s=HOUR, ts=2 * HOUR)
    with cut_after(steps), contextlib.suppress(StoreError):
        ledger.reserve(ask, DIGEST, pure(800), late, NOTE)
    again = fresh(client)
    stands = ask in {row.id for row in again.rows()}
    assert spent(again) == (1700 if stands else 900)
    assert again.left(late) == (Left(limit=200, quota=200) if stands else Left(limit=1000, quota=1000))
    again.reserve(ask, DIGEST, pure(800), late, NOTE)
    with pytest.raises(BudgetExhausted):
        debit(again, 201, late)


def size_of_budget(client: Client) -> int:
    """Bytes of the budget document."""
    (found,) = client[DATABASE]["budget"].aggregate([{"$project": {"size": {"$bsonSize": "$$ROOT"}}}])
    assert isinstance(found["size"], int)
    return found["size"]


def test_ten_years_of_hourly_periods_leave_a_small_document(client: Client) -> None:
    """Only the present period is in it: of 200 periods with 100 providers each as much as of ten years."""
    ledger = fresh(client)
    sizes = []
    for hour in range(1, 201):
        providers = range(100) if hour in (1, 100, 200) else range(hour % 100, hour % 100 + 1)
        for number in providers:
            under = terms(10**8, quota=10**6, provider=f"{number:064x}", renew_s=HOUR, ts=hour * HOUR)
            ledger.reserve(new_id(), DIGEST, pure(1), under, NOTE)
        if hour in (1, 100, 200):
            sizes.append(size_of_budget(client))
    assert sizes[0] == sizes[1] == sizes[2] < 64_000


def test_the_largest_document_that_there_can_be_is_far_below_the_bound_of_mongod(client: Client) -> None:
    ledger = fresh(client)
    most = msgspec.to_builtins(Spent(micro=MOST, nano=MOST, gaussians=MOST))
    by = {f"{number:064x}": most for number in range(MAX_PROVIDERS)}
    window = {"renew_s": HOUR, "number": 12, "spent": msgspec.to_builtins(NOTHING), "by": by}
    client[DATABASE]["budget"].update_one({"_id": "budget"}, {"$set": {"by": by, "window": window}})
    assert size_of_budget(client) < 2_000_000
    with pytest.raises(BudgetExhausted, match="so many"):
        debit(ledger, 1, terms(renew_s=HOUR, provider="f" * 64))


def test_the_crash_test_really_cuts_each_write(client: Client) -> None:
    ledger = fresh(client)
    with cut_after(4):
        ledger.reserve(new_id(), DIGEST, pure(1), terms(), NOTE)  # row, debit, mark, clear
        with pytest.raises(StoreError, match="could not keep an answer: Cut"):
            ledger.commit(new_id(), b"x")


def test_refusals_are_on_record_and_bounded(client: Client) -> None:
    ledger = fresh(client)
    ledger.refuse(new_id(), "PolicyRefused", NOTE)
    audit = client[DATABASE]["audit"]
    assert [one.kind for one in ledger.denials()] == ["PolicyRefused"]
    assert audit.options()["capped"] is True


DOINGS: dict[str, Callable[[MongoLedger], object]] = {
    "open": MongoLedger.recover,
    "debit": lambda ledger: ledger.reserve(new_id(), DIGEST, pure(1), terms(), NOTE),
    "keep an answer": lambda ledger: ledger.commit(new_id(), b"secret"),
    "record a refusal": lambda ledger: ledger.refuse(new_id(), "PolicyRefused", NOTE),
    "read the ledger": MongoLedger.balance,
    "read": MongoLedger.rows,
    "refund": lambda ledger: ledger.refund(new_id()),
    "read the refusals": MongoLedger.denials,
    "carry": lambda ledger: ledger.carry(Spent(micro=1), now=NOON),
    "keep a value": lambda ledger: ledger.keep("key", b"secret"),
    "read a value": lambda ledger: ledger.kept("key"),
}


@pytest.mark.needs("mongod")
def test_a_mongod_that_ended_is_a_store_error_in_every_method(home: Path) -> None:
    (home / "db").mkdir()
    mongod = Mongod(home / "db", make_run_dir(home, new_id()))
    mongod.start()
    with mongod.client() as client:
        ledger = fresh(client)
        mongod.stop()
        for doing, call in DOINGS.items():
            with timeout(0.5), pytest.raises(StoreError, match=f"could not {doing}") as caught:
                call(ledger)
            assert "secret" not in str(caught.value)
            assert "planner" not in str(caught.value)


def test_a_full_disk_is_told_from_other_faults(client: Client, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = MongoLedger(client, data_dir=home)
    ledger.recover()
    monkeypatch.setattr("emlab.mongo_errors.FULL_BELOW_BYTES", 1 << 62)  # as if little were free
    with cut_after(0), pytest.raises(DiskFull, match=str(home)):
        ledger.reserve(new_id(), DIGEST, pure(1), terms(), NOTE)


def test_what_mongod_quotes_of_a_document_is_left_out(client: Client) -> None:
    ledger = fresh(client)
    client[DATABASE]["kept"].create_index("value", unique=True)
    ledger.keep("one", b"a secret value")
    with pytest.raises(StoreError, match=r"keep a value: DuplicateKeyError \(code 11000\)") as caught:
        ledger.keep("two", b"a secret value")
    assert "dup key" not in f"{caught.value} {caught.value.__cause__}"
