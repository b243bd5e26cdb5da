"""A ledger in this process's memory, for unit tests and MemoryEngine: every sum is made anew from the rows."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

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
from emlab.loss import NOTHING, Left, Loss, Spent, Terms


@dataclass(frozen=True, slots=True)
class _Debit:
    digest: str
    provider: str
    at: float  # when it counts
    row: Row
    answer: bytes | None = None


class MemoryLedger:
    """See Ledger."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._debits: dict[str, _Debit] = {}
        self._carried, self._carried_at = NOTHING, 0.0
        self._latest = 0.0
        self._seq = 0
        self._providers: set[str] = set()
        self._kept: dict[str, bytes] = {}
        self._denials: deque[Denial] = deque(maxlen=MAX_DENIALS)

    def reserve(self, ask_id: str, digest: str, loss: Loss, terms: Terms, note: Note) -> bytes | None:
        """See Ledger."""
        check(ask_id, terms)
        with self._lock:
            known = self._debits.get(ask_id)
            if known is not None and known.digest != digest:
                raise NotPermitted(REUSED)
            if known is not None and not known.row.refunded:
                return known.answer
            self._check(loss, terms)
            self._latest = max(self._latest, terms.ts)
            self._seq += 1
            self._providers.add(terms.provider)
            row = Row(id=ask_id, loss=loss, answered=False, **msgspec.structs.asdict(note))
            self._debits[ask_id] = _Debit(digest, terms.provider, self._latest, row)
            return None

    def _check(self, loss: Loss, terms: Terms) -> None:
        if objection := terms.objection(loss, *self._sums(terms)):
            raise BudgetExhausted(objection)
        if terms.provider not in self._providers and len(self._providers) >= MAX_PROVIDERS:
            raise BudgetExhausted(CROWDED)

    def _sums(self, terms: Terms) -> tuple[Spent, Spent, Spent]:
        """Spent ever, in the present period of these terms, and in it by their provider."""
        number = terms.period(max(self._latest, terms.ts))

        def now(ts: float) -> bool:
            period = terms.period(ts)
            return number is None or period is None or period >= number

        standing = [debit for debit in self._debits.values() if not debit.row.refunded]
        here = [debit for debit in standing if now(debit.at)]
        carried = self._carried if now(self._carried_at) else NOTHING
        return (
            _sum(standing, self._carried),
            _sum(here, carried),
            _sum([debit for debit in here if debit.provider == terms.provider], NOTHING),
        )

    def remaining(self, terms: Terms) -> int:
        """See Ledger."""
        return self.left(terms).least

    def left(self, terms: Terms) -> Left:
        """See Ledger."""
        with self._lock:
            return terms.left(*self._sums(terms))

    def commit(self, ask_id: str, answer: bytes) -> None:
        """See Ledger."""
        with self._lock:
            debit = self._debits.get(ask_id)
            if debit is None or debit.row.refunded or debit.answer not in (None, answer):
                raise StoreError(UNDEBITED)
            row = msgspec.structs.replace(debit.row, answered=True)
            self._debits[ask_id] = replace(debit, row=row, answer=answer)

    def refund(self, ask_id: str) -> bool:
        """See Ledger."""
        with self._lock:
            debit = self._debits.get(ask_id)
            if debit is None or debit.row.answered:
                return False
            self._debits[ask_id] = replace(debit, row=msgspec.structs.replace(debit.row, refunded=True))
            return True

    def refuse(self, ask_id: str, kind: str, note: Note) -> None:
        """See Ledger."""
        self._denials.append(Denial(id=ask_id, kind=kind, **msgspec.structs.asdict(note)))

    def denials(self) -> list[Denial]:
        """See Ledger."""
        return list(self._denials)

    def balance(self) -> Balance:
        """See Ledger."""
        with self._lock:
            return Balance(spent=self._total(), seq=self._seq)

    def _total(self) -> Spent:
        return _sum([debit for debit in self._debits.values() if not debit.row.refunded], self._carried)

    def rows(self) -> list[Row]:
        """See Ledger."""
        with self._lock:
            return sorted((debit.row for debit in self._debits.values()), key=lambda row: (row.ts, row.id))

    def carry(self, spent: Spent, *, now: float) -> None:
        """See Ledger."""
        with self._lock:
            more = (spent - (spent - CARRIED_MOST)) - self._total()
            if more != NOTHING:
                self._latest = self._carried_at = max(self._latest, now)
                self._carried += more

    def keep(self, name: str, value: bytes) -> None:
        """See Ledger."""
        self._kept[name] = value

    def kept(self, name: str) -> bytes | None:
        """See Ledger."""
        return self._kept.get(name)


def _sum(debits: list[_Debit], start: Spent) -> Spent:
    return sum((Spent.of(debit.row.loss) for debit in debits), start)
