"""The ledger in the cloud's own MongoDB.

One budget document holds the sums and what is in flight; one row per ask holds its digest and, later, the sealed
answer. A debit is one conditional update of the budget document, so that no two asks together can exceed a limit. The
order of writes is such that after a crash anywhere `recover` knows what an ask has cost:

* debit: row "opened", budget (sums, id in `open`), row "reserved", id out of `open`;
* refund: row "refunding", budget (sums, id in `refunded`), row "refunded", id out of `refunded`.

Only the write after which something is promised waits for the journal, as that is one sequence: what came before is in
it too (WiredTiger, "Log-based durability": a log is recovered up to its first gap).

The document holds the sums of all time and of one period, the present one, and is bounded. When a period begins, or
the owner chooses another length, the sums of it are made anew from the rows. `writes` counts what changes sums, so that
a change meanwhile is noticed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast

import msgspec

from emlab.errors import BudgetExhausted, NotPermitted, StoreError
from emlab.ledger.base import (
    CARRIED_MOST,
    CROWDED,
    MAX_DENIALS,
    MAX_PROVIDERS,
    REUSED,
    UNDEBITED,
    Balance,
    Denial,
    Note,
    Row,
    check,
)
from emlab.ledger.budget import Budget, Document, Window, conditions, increments, negative, same_window, sums
from emlab.loss import NOTHING, Left, Loss, Spent, Terms
from emlab.mongo_errors import wrapped

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection

DATABASE = "emlab"
AUDIT_BYTES = 1 << 20
TRIES = 1000  # of a change that others' changes may overtake
P = ParamSpec("P")
T = TypeVar("T")


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
    """A ledger in the cloud's own MongoDB.

    Args:
        client: a client of the cloud's mongod; stays the caller's.
        data_dir: where that mongod keeps its files, to tell a full disk from other faults.
        database: its name there.
    """

    def __init__(
        self, client: MongoClient[Document], *, data_dir: Path | None = None, database: str = DATABASE
    ) -> None:
        from pymongo import WriteConcern

        self._data_dir = data_dir
        self._database = client.get_database(database, write_concern=WriteConcern(w=1, j=True))
        self._budget: Collection[Document] = self._database["budget"]
        self._rows: Collection[Document] = self._database["ledger"]
        self._audit: Collection[Document] = self._database["audit"]
        self._kept: Collection[Document] = self._database["kept"]
        soon = WriteConcern(w=1, j=False)  # journaled with the next write that is
        self._budget_soon = self._budget.with_options(write_concern=soon)
        self._rows_soon = self._rows.with_options(write_concern=soon)

    @_wrapped("open the ledger")
    def recover(self) -> None:
        """The collections exist, and what a crash left half done is finished or undone."""
        if "audit" not in self._database.list_collection_names():
            self._database.create_collection("audit", capped=True, size=AUDIT_BYTES)
        self._budget.update_one(
            {"_id": "budget"}, {"$setOnInsert": msgspec.to_builtins(Budget()) | {"window": None}}, upsert=True
        )
        for ask_id in self._read("open").open:
            self._mark(ask_id)
        self._close({"state": "opened"})
        for row in self._rows.find({"state": "refunding"}):
            self._give_back(row)
        for ask_id in self._read("refunded").refunded:
            self._mark_refunded(ask_id)

    def _read(self, *names: str) -> Budget:
        """The budget document, or only these fields of it."""
        found = self._budget.find_one({"_id": "budget"}, dict.fromkeys(names, 1) or None)
        return msgspec.convert(found, Budget)

    def _head(self) -> Budget:
        return self._read("latest", "writes", "window.renew_s", "window.number")

    # -- debits ------------------------------------------------------------------------------------------------

    @_wrapped("debit an ask")
    def reserve(self, ask_id: str, digest: str, loss: Loss, terms: Terms, note: Note) -> bytes | None:
        """See Ledger."""
        check(ask_id, terms)
        at = self._head().at(terms.ts)
        fresh = {"loss": msgspec.to_builtins(loss), "key": terms.provider, "at": at, "state": "opened", "answer": None}
        row = self._open(ask_id, {"digest": digest, **fresh, **msgspec.structs.asdict(note)})
        if row["state"] == "opened":
            self._debit(ask_id, loss, terms, cast(float, row["at"]))
            self._mark(ask_id)
        return cast("bytes | None", row["answer"])

    def _open(self, ask_id: str, fresh: Document) -> Document:
        """The ask's row, made or opened again unless it stands. Raises NotPermitted."""
        from pymongo.errors import DuplicateKeyError

        try:
            self._rows_soon.insert_one({"_id": ask_id, **fresh})
        except DuplicateKeyError:
            row = self._rows.find_one({"_id": ask_id}) or {}
            if row.get("digest") != fresh["digest"]:
                raise NotPermitted(REUSED) from None
            if row["state"] not in ("refunding", "refunded"):
                return row
            self._give_back(row)
            self._rows_soon.update_one({"_id": ask_id, "state": "refunded"}, {"$set": fresh | {"again": True}})
        return fresh

    def _debit(self, ask_id: str, loss: Loss, terms: Terms, written_at: float) -> None:
        """The sums have the ask in them. Raises BudgetExhausted; then its row is as if it had not been asked."""
        for _ in range(TRIES):
            head = self._head()
            at = head.at(terms.ts)
            if terms.period(at) != terms.period(written_at):
                self._rows_soon.update_one({"_id": ask_id, "state": "opened"}, {"$set": {"at": at}})
                written_at = at
            if head.lacks(terms, at):
                self._turn(terms, at)
                continue
            if self._debited(ask_id, loss, terms, at):
                return
            budget = self._read()
            if ask_id in budget.open:
                return
            if budget.lacks(terms, budget.at(terms.ts)):
                continue
            objection = terms.objection(loss, *sums(budget, terms))
            if objection is None and terms.provider not in budget.by and len(budget.by) >= MAX_PROVIDERS:
                objection = CROWDED
            if objection:
                self._close({"_id": ask_id, "state": "opened"})
                raise BudgetExhausted(objection)
        raise StoreError("others change the ledger so fast that an ask was not debited")

    def _close(self, rows: Document) -> None:
        """Of opened rows that are not debited stays what was refunded before."""
        self._rows_soon.update_many({**rows, "again": True}, {"$set": {"state": "refunded"}})
        self._rows_soon.delete_many(rows)

    def _debited(self, ask_id: str, loss: Loss, terms: Terms, at: float) -> bool:
        """Whether the one update of a debit was done."""
        cost = terms.cost(loss)
        if cost is None or (terms.quota is not None and cost > terms.quota):
            return False
        counted = increments(Spent.of(loss), terms.provider, in_window=terms.renew_s is not None)
        change: dict[str, Document] = {
            "$inc": {**counted, "seq": 1, "writes": 1},
            "$set": {f"open.{ask_id}": True},
            "$max": {"latest": at},
        }
        if terms.renew_s is None:
            change["$set"]["window"] = None  # which does not have this debit
        free: Document = {f"{name}.{ask_id}": {"$exists": False} for name in ("open", "refunded")}
        done = self._budget.update_one({"_id": "budget", **free, "$and": list(conditions(loss, terms, at))}, change)
        return done.modified_count == 1

    def _turn(self, terms: Terms, at: float) -> None:
        """The document has the sums of the period of that time, unless others changed it meanwhile."""
        budget = self._read()
        window = msgspec.to_builtins(self._window(budget, terms, at))
        self._budget_soon.update_one({"_id": "budget", "writes": budget.writes}, {"$set": {"window": window}})

    def _window(self, budget: Budget, terms: Terms, at: float) -> Window:
        """The sums of the period of that time, from the rows. Right if `writes` still is as in this budget."""
        number = terms.period(at) or 0
        by: dict[str, Spent] = {}
        self._rows.create_index("at")
        fields = {"state": 1, "loss": 1, "key": 1, "at": 1}
        for row in self._rows.find({"at": {"$gte": terms.start_ts(at) - 1.0}}, fields):
            stands = row["state"] in ("reserved", "answered", "refunding") or row["_id"] in budget.open
            if stands and row["_id"] not in budget.refunded and (terms.period(cast(float, row["at"])) or 0) >= number:
                key = cast(str, row["key"])
                by[key] = by.get(key, NOTHING) + msgspec.convert(row["loss"], Loss)
        carried = budget.carried.spent if (terms.period(budget.carried.at) or 0) >= number else NOTHING
        return Window(cast(float, terms.renew_s), number, sum(by.values(), carried), by)

    def _mark(self, ask_id: str) -> None:
        self._rows_soon.update_one({"_id": ask_id, "state": "opened"}, {"$set": {"state": "reserved"}})
        self._budget_soon.update_one({"_id": "budget"}, {"$unset": {f"open.{ask_id}": ""}})

    @_wrapped("keep an answer")
    def commit(self, ask_id: str, answer: bytes) -> None:
        """See Ledger."""
        done = self._rows.update_one(
            {"_id": ask_id, "$or": [{"state": "reserved"}, {"state": "answered", "answer": answer}]},
            {"$set": {"state": "answered", "answer": answer}},
        )
        if done.matched_count == 0:
            raise StoreError(UNDEBITED)

    # -- refunds -----------------------------------------------------------------------------------------------

    @_wrapped("refund a debit")
    def refund(self, ask_id: str) -> bool:
        """See Ledger."""
        self._rows_soon.update_one({"_id": ask_id, "state": "reserved"}, {"$set": {"state": "refunding"}})
        row = self._rows.find_one({"_id": ask_id, "state": {"$in": ["refunding", "refunded"]}})
        if row is not None and row["state"] == "refunding":
            self._give_back(row)
        return row is not None

    def _give_back(self, row: Document) -> None:
        """The row is refunded, and the sums are without it."""
        if row["state"] == "refunding":
            self._take_out(row)
        self._mark_refunded(cast(str, row["_id"]))

    def _take_out(self, row: Document) -> None:
        marker = f"refunded.{row['_id']}"
        less = negative(Spent.of(msgspec.convert(row["loss"], Loss)))
        for _ in range(TRIES):
            budget = self._read("refunded", "writes", "window.renew_s", "window.number")
            if row["_id"] in budget.refunded:
                return
            window = budget.window
            counted = window is not None and int(cast(float, row["at"]) // window.renew_s) >= window.number
            self._budget_soon.update_one(
                {"_id": "budget", marker: {"$exists": False}, **same_window(window)},
                {"$inc": {**increments(less, cast(str, row["key"]), in_window=counted), "writes": 1}}
                | {"$set": {marker: True}},
            )
        raise StoreError("others change the ledger so fast that a debit was not refunded")

    def _mark_refunded(self, ask_id: str) -> None:
        self._rows_soon.update_one({"_id": ask_id, "state": "refunding"}, {"$set": {"state": "refunded"}})
        self._budget.update_one({"_id": "budget"}, {"$unset": {f"refunded.{ask_id}": ""}})

    # -- what others spent -------------------------------------------------------------------------------------

    @_wrapped("carry a debit over")
    def carry(self, spent: Spent, *, now: float) -> None:
        """See Ledger."""
        for _ in range(TRIES):
            budget = self._read("spent", "latest", "writes")
            more = (spent - (spent - CARRIED_MOST)) - budget.spent
            if more == NOTHING:
                return
            names = ("spent", "carried.spent")
            amounts = {f"{sum_}.{name}": n for sum_ in names for name, n in msgspec.to_builtins(more).items()}
            self._budget.update_one(
                {"_id": "budget", "writes": budget.writes},
                {"$inc": amounts | {"writes": 1}, "$max": dict.fromkeys(("latest", "carried.at"), budget.at(now))}
                | {"$set": {"window": None}},  # which may not have what was carried in an earlier period
            )
        raise StoreError("others change the ledger so fast that nothing was carried over")

    # -- what it says ------------------------------------------------------------------------------------------

    @_wrapped("record a refusal")
    def refuse(self, ask_id: str, kind: str, note: Note) -> None:
        """See Ledger."""
        self._audit.insert_one({"ask": ask_id, "kind": kind} | msgspec.structs.asdict(note))

    @_wrapped("read the refusals")
    def denials(self) -> list[Denial]:
        """See Ledger."""
        last = list(self._audit.find().sort("$natural", -1).limit(MAX_DENIALS))
        return [msgspec.convert(one | {"id": one["ask"]}, Denial) for one in reversed(last)]

    @_wrapped("read the ledger")
    def balance(self) -> Balance:
        """See Ledger."""
        budget = self._read("spent", "seq")
        return Balance(spent=budget.spent, seq=budget.seq)

    def remaining(self, terms: Terms) -> int:
        """See Ledger."""
        return self.left(terms).least

    @_wrapped("read the ledger")
    def left(self, terms: Terms) -> Left:
        """See Ledger."""
        budget = self._read()
        at = budget.at(terms.ts)
        if budget.lacks(terms, at):
            budget = msgspec.structs.replace(budget, window=self._window(budget, terms, at))
        return terms.left(*sums(budget, terms))

    @_wrapped("read the ledger")
    def rows(self) -> list[Row]:
        """See Ledger."""
        found = self._rows.find({"state": {"$ne": "opened"}}, {"answer": 0, "digest": 0}).sort([("ts", 1), ("_id", 1)])
        return [_row(one) for one in found]

    @_wrapped("keep a value")
    def keep(self, name: str, value: bytes) -> None:
        """See Ledger."""
        self._kept.replace_one({"_id": name}, {"value": value}, upsert=True)

    @_wrapped("read a value")
    def kept(self, name: str) -> bytes | None:
        """See Ledger."""
        found = self._kept.find_one({"_id": name})
        return None if found is None else cast(bytes, found["value"])


def _row(found: Document) -> Row:
    outcome = {"answered": found["state"] == "answered", "refunded": found["state"] == "refunded"}
    return msgspec.convert(found | outcome | {"id": found["_id"]}, Row)
