"""The ledger: what has been spent, kept inside the cloud, debited before data is read.

One budget document holds the sum and the debits in flight; one row per ask holds its digest and, later, the sealed
answer. The debit is one conditional update of the budget document, so that no two asks together can exceed the
limit. The order of writes (row, debit, mark, clear) is such that after a crash anywhere `recover` knows whether an
ask was debited: its id stands in `open` or its row says "reserved".
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from emlab.errors import BudgetExhausted, NotPermitted
from emlab.mongo_errors import wrapped

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

DATABASE = "emlab"
AUDIT_BYTES = 1 << 20
Document = dict[str, object]
P = ParamSpec("P")
T = TypeVar("T")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked what, for the owner to read."""

    provider: str
    query: str
    purpose: str
    ts: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One debit as the owner sees it. `answered` is False for a debit without an answer (a crash in between)."""

    id: str
    provider: str
    query: str
    purpose: str
    ts: float
    cost_micro: int
    answered: bool


def merged(*ledgers: Iterable[Row]) -> list[Row]:
    """The rows of several ledgers, oldest first, each ask once: the first that has it."""
    of_ask: dict[str, Row] = {}
    for row in itertools.chain(*ledgers):
        of_ask.setdefault(row.id, row)
    return sorted(of_ask.values(), key=lambda row: (row.ts, row.id))


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent, and how many debits there were."""

    spent_micro: int
    seq: int


class Ledger(Protocol):
    """Blocks; acknowledged means journaled; threads may debit different asks at once, never the same one.

    Raises StoreError when the database cannot be reached, DiskFull (with path and free bytes) when it has no room.
    """

    def reserve(self, ask_id: str, digest: str, cost_micro: int, limit_micro: int, note: Note) -> bytes | None:
        """The ask is debited, exactly once; returns the answer if it was given before.

        Raises: BudgetExhausted (nothing is debited), NotPermitted (the id was used for another ask).
        """

    def commit(self, ask_id: str, answer: bytes) -> None:
        """The answer is kept, so that the same ask always gets the same bytes."""

    def refuse(self, ask_id: str, kind: str, note: Note) -> None:
        """A refusal is on record (the oldest are forgotten beyond 1 MiB)."""

    def balance(self) -> Balance:
        """Spent and count now."""

    def rows(self) -> Sequence[Row]:
        """All debits, oldest first."""

    def carry(self, spent_micro: int) -> None:
        """The ledger says at least this much."""

    def keep(self, name: str, value: bytes) -> None:
        """A small value of the custodian's own (its key, the policy) is kept under this name."""

    def kept(self, name: str) -> bytes | None:
        """That value, or None."""


def _wrapped(
    doing: str,
) -> Callable[[Callable[Concatenate[MongoLedger, P], T]], Callable[Concatenate[MongoLedger, P], T]]:
    """A method of MongoLedger whose database errors leave it as StoreError."""

    def decorate(method: Callable[Concatenate[MongoLedger, P], T]) -> Callable[Concatenate[MongoLedger, P], T]:
        @functools.wraps(method)
        def call(self: MongoLedger, /, *args: P.args, **options: P.kwargs) -> T:
            with wrapped(doing, self._data_dir):
                return method(self, *args, **options)

        return call

    return decorate


class MongoLedger:
    """A ledger in the cloud's own MongoDB, database `emlab`.

    Args:
        client: a client of the cloud's mongod; stays the caller's.
        data_dir: where that mongod keeps its files, to tell a full disk from other faults.
    """

    def __init__(self, client: MongoClient[Document], *, data_dir: Path | None = None) -> None:
        from pymongo import WriteConcern

        self._data_dir = data_dir
        database = client.get_database(DATABASE, write_concern=WriteConcern(w=1, j=True))
        self._database = database
        self._budget: Collection[Document] = database["budget"]
        self._rows: Collection[Document] = database["ledger"]
        self._audit: Collection[Document] = database["audit"]
        self._kept: Collection[Document] = database["kept"]

    @_wrapped("open the ledger")
    def recover(self) -> None:
        """The collections exist, and what a crash left half done is finished or undone."""
        if "audit" not in self._database.list_collection_names():
            self._database.create_collection("audit", capped=True, size=AUDIT_BYTES)
        self._budget.update_one(
            {"_id": "budget"}, {"$setOnInsert": {"spent_micro": 0, "seq": 0, "open": {}}}, upsert=True
        )
        for ask_id in self._in_flight():
            self._mark(ask_id)
        self._rows.delete_many({"state": "opened"})

    @_wrapped("debit an ask")
    def reserve(self, ask_id: str, digest: str, cost_micro: int, limit_micro: int, note: Note) -> bytes | None:
        """See Ledger."""
        from pymongo.errors import DuplicateKeyError

        try:
            self._rows.insert_one(
                {"_id": ask_id, "digest": digest, "cost_micro": cost_micro, "state": "opened", "answer": None}
                | msgspec.structs.asdict(note)
            )
        except DuplicateKeyError:
            row = self._rows.find_one({"_id": ask_id}) or {}
            if row.get("digest") != digest:
                raise NotPermitted("this ask id was used for another ask") from None
            if row["state"] != "opened":
                return _bytes(row["answer"])
        self._debit(ask_id, cost_micro, limit_micro)
        self._mark(ask_id)
        return None

    def _debit(self, ask_id: str, cost_micro: int, limit_micro: int) -> None:
        flight = f"open.{ask_id}"
        done = self._budget.update_one(
            {"_id": "budget", "spent_micro": {"$lte": limit_micro - cost_micro}, flight: {"$exists": False}},
            {"$inc": {"spent_micro": cost_micro, "seq": 1}, "$set": {flight: cost_micro}},
        )
        if done.modified_count == 0 and ask_id not in self._in_flight():
            self._rows.delete_one({"_id": ask_id, "state": "opened"})
            raise BudgetExhausted("what remains of the owner's privacy budget does not cover this ask")

    def _mark(self, ask_id: str) -> None:
        self._rows.update_one({"_id": ask_id, "state": "opened"}, {"$set": {"state": "reserved"}})
        self._budget.update_one({"_id": "budget"}, {"$unset": {f"open.{ask_id}": ""}})

    def _in_flight(self) -> list[str]:
        budget = self._budget.find_one({"_id": "budget"}, {"open": 1}) or {}
        flights = budget.get("open")
        return list(flights) if isinstance(flights, dict) else []

    @_wrapped("keep an answer")
    def commit(self, ask_id: str, answer: bytes) -> None:
        """See Ledger."""
        self._rows.update_one({"_id": ask_id}, {"$set": {"state": "answered", "answer": answer}})

    @_wrapped("record a refusal")
    def refuse(self, ask_id: str, kind: str, note: Note) -> None:
        """See Ledger."""
        self._audit.insert_one({"ask": ask_id, "kind": kind} | msgspec.structs.asdict(note))

    @_wrapped("read the ledger")
    def balance(self) -> Balance:
        """See Ledger."""
        return msgspec.convert(self._budget.find_one({"_id": "budget"}), Balance)

    @_wrapped("read the ledger")
    def rows(self) -> list[Row]:
        """See Ledger."""
        found = self._rows.find({"state": {"$ne": "opened"}}, {"answer": 0, "digest": 0}).sort([("ts", 1), ("_id", 1)])
        return [msgspec.convert(row | {"id": row["_id"], "answered": row["state"] == "answered"}, Row) for row in found]

    @_wrapped("carry a debit over")
    def carry(self, spent_micro: int) -> None:
        """See Ledger."""
        self._budget.update_one({"_id": "budget"}, {"$max": {"spent_micro": spent_micro}})

    @_wrapped("keep a value")
    def keep(self, name: str, value: bytes) -> None:
        """See Ledger."""
        self._kept.replace_one({"_id": name}, {"value": value}, upsert=True)

    @_wrapped("read a value")
    def kept(self, name: str) -> bytes | None:
        """See Ledger."""
        found = self._kept.find_one({"_id": name})
        return None if found is None else _bytes(found["value"])


def _bytes(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, bytes) else None


class MemoryLedger:
    """The same in this process's memory, for unit tests and MemoryEngine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent_micro = self._seq = 0
        self._rows: dict[str, tuple[str, Row, bytes | None]] = {}
        self._kept: dict[str, bytes] = {}
        self.refusals: list[tuple[str, str, Note]] = []

    def reserve(self, ask_id: str, digest: str, cost_micro: int, limit_micro: int, note: Note) -> bytes | None:
        """See Ledger."""
        with self._lock:
            if ask_id in self._rows:
                if self._rows[ask_id][0] != digest:
                    raise NotPermitted("this ask id was used for another ask")
                return self._rows[ask_id][2]
            if self._spent_micro + cost_micro > limit_micro:
                raise BudgetExhausted("what remains of the owner's privacy budget does not cover this ask")
            self._spent_micro += cost_micro
            self._seq += 1
            row = Row(id=ask_id, cost_micro=cost_micro, answered=False, **msgspec.structs.asdict(note))
            self._rows[ask_id] = (digest, row, None)
            return None

    def commit(self, ask_id: str, answer: bytes) -> None:
        """See Ledger."""
        with self._lock:
            digest, row, _ = self._rows[ask_id]
            self._rows[ask_id] = (digest, msgspec.structs.replace(row, answered=True), answer)

    def refuse(self, ask_id: str, kind: str, note: Note) -> None:
        """See Ledger."""
        self.refusals.append((ask_id, kind, note))

    def balance(self) -> Balance:
        """See Ledger."""
        with self._lock:
            return Balance(spent_micro=self._spent_micro, seq=self._seq)

    def rows(self) -> list[Row]:
        """See Ledger."""
        with self._lock:
            return sorted((row for _, row, _ in self._rows.values()), key=lambda row: (row.ts, row.id))

    def carry(self, spent_micro: int) -> None:
        """See Ledger."""
        with self._lock:
            self._spent_micro = max(self._spent_micro, spent_micro)

    def keep(self, name: str, value: bytes) -> None:
        """See Ledger."""
        self._kept[name] = value

    def kept(self, name: str) -> bytes | None:
        """See Ledger."""
        return self._kept.get(name)
