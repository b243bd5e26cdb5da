"""The audit log: who did what with whose cloud, and what was refused. Rows are added and never changed or removed.

It is in the lab's registry, where the database itself refuses to change or remove a row.
"""

from __future__ import annotations

import threading
from collections import Counter

import msgspec

from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.registry import Registry
from emlab.wire.control import MAX_ROWS, AuditRow

OK = "ok"
USE = "use"
MAX_PENDING = 10_000  # kinds of uses that wait to be written together
_NO_CHANGE = "BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts REAL NOT NULL, actor TEXT NOT NULL, "
    "action TEXT NOT NULL, user TEXT NOT NULL, outcome TEXT NOT NULL, n INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS audit_user ON audit (user, seq)",
    f"CREATE TRIGGER IF NOT EXISTS audit_update BEFORE UPDATE ON audit {_NO_CHANGE}",
    f"CREATE TRIGGER IF NOT EXISTS audit_delete BEFORE DELETE ON audit {_NO_CHANGE}",
)


class Audit:
    """The audit log of one lab. Thread-safe.

    Args:
        registry: open.
    """

    def __init__(self, registry: Registry, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: Counter[tuple[str, str, str, str]] = Counter()
        for statement in _SCHEMA:
            registry.run(statement)

    def note(self, actor: str, action: str, *, user: str = "", outcome: str = OK, n: int = 1) -> None:
        """The row is on disk. Arguments as of AuditRow."""
        values = (self._clock.now(), actor, action, user, outcome, n)
        self._registry.run("INSERT INTO audit (ts, actor, action, user, outcome, n) VALUES (?, ?, ?, ?, ?, ?)", *values)

    def count(self, actor: str, action: str, *, user: str = "", outcome: str = OK) -> None:
        """The same for what happens often: it is on disk, together with others like it, after the next `flush`."""
        with self._lock:
            self._pending[actor, action, user, outcome] += 1
            full = len(self._pending) >= MAX_PENDING
        if full:
            self.flush()

    def flush(self) -> None:
        """What was counted is on disk: a row for each kind, with how often."""
        with self._lock:
            counted, self._pending = self._pending, Counter()
        for (actor, action, user, outcome), n in counted.items():
            self.note(actor, action, user=user, outcome=outcome, n=n)

    def rows(self, *, user: str | None = None, after: int = 0, limit: int = MAX_ROWS) -> list[AuditRow]:
        """Rows after that number, oldest first; those about one user's cloud only if a user is named."""
        self.flush()
        where, values = ("user = ? AND", (user,)) if user is not None else ("", ())
        sql = f"SELECT * FROM audit WHERE {where} seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 (no value is in it)
        return [msgspec.convert(dict(row), AuditRow) for row in self._registry.run(sql, *values, after, limit)]
