"""Debits for tests of ledgers, and what cuts one off between two writes, as the end of its program does."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

from emlab.ask import new_id
from emlab.ledger import Ledger, MongoLedger, Note
from emlab.loss import Accounting, Loss, Terms

Client = MongoClient[dict[str, object]]
NOTE = Note(provider="planner", query="count_users", purpose="test", ts=1.0)
LIMIT = 1_000_000
DIGEST, OTHER = "d" * 64, "e" * 64
PLANNER, CLIMATE = "a" * 64, "b" * 64
HOUR = 3600.0
NOON = 12 * HOUR


def pure(micro: int) -> Loss:
    return Loss(epsilon_micro=micro)


def gaussian(nano: int) -> Loss:
    return Loss(rho_nano=nano)


def terms(
    limit: int = LIMIT,
    *,
    quota: int | None = None,
    provider: str = PLANNER,
    accounting: Accounting = "pure",
    renew_s: float | None = None,
    ts: float = NOON,
) -> Terms:
    return Terms(accounting=accounting, limit=limit, quota=quota, provider=provider, renew_s=renew_s, ts=ts)


def debit(ledger: Ledger, micro: int, under: Terms | None = None) -> str:
    """An answered ask of that cost; its id."""
    ask = new_id()
    assert ledger.reserve(ask, DIGEST, pure(micro), under or terms(), NOTE) is None
    ledger.commit(ask, b"answer")
    return ask


def spent(ledger: Ledger) -> int:
    return ledger.balance().spent.micro


def fresh(client: Client) -> MongoLedger:
    """The ledger in that mongod, as it is after a start."""
    ledger = MongoLedger(client)
    ledger.recover()
    return ledger


WRITES = ("insert_one", "update_one", "update_many", "delete_one", "delete_many", "replace_one", "bulk_write")


class Cut(PyMongoError):
    """The program ended here."""


@contextmanager
def cut_after(steps: int) -> Iterator[None]:
    """From the n-th write on, every write of the driver fails: what a crash between two writes leaves."""
    counter = itertools.count()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in WRITES:
            real = getattr(Collection, name)

            @functools.wraps(real)
            def write(self: object, *args: object, _real: object = real, **options: object) -> object:
                if next(counter) >= steps:
                    raise Cut
                return _real(self, *args, **options)  # type: ignore[operator]

            monkeypatch.setattr(Collection, name, write)
        yield
