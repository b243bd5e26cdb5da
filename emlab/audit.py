"""The audit log: who did what with whose cloud, and what was refused. Rows are added and never changed or removed.

It is in the lab's registry, where the database itself refuses to change or remove a row.
"""

from __future__ import annotations

import logging
import math
import threading
from contextvars import ContextVar
from dataclasses import dataclass

import msgspec

from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.errors import StoreError
from emlab.registry import Registry
from emlab.wire.control import MAX_ROWS, AuditRow

log = logging.getLogger(__name__)
OK = "ok"
NOBODY = "nobody"
USE = "use"
MANY = 200  # kinds of rows that wait to be written together; from then on strangers are not told apart
_NO_CHANGE = "BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY AUTOINCREMENT, ts REAL NOT NULL, actor TEXT NOT NULL, "
    "action TEXT NOT NULL, user TEXT NOT NULL, outcome TEXT NOT NULL, n INTEGER NOT NULL, about TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS audit_begins (cloud TEXT PRIMARY KEY, seq INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS audit_user ON audit (user, seq)",
    f"CREATE TRIGGER IF NOT EXISTS audit_update BEFORE UPDATE ON audit {_NO_CHANGE}",
    f"CREATE TRIGGER IF NOT EXISTS audit_delete BEFORE DELETE ON audit {_NO_CHANGE}",
    # a row in the place of another is a change, and fires no other trigger; -1 is of one whose number is still to come
    f"CREATE TRIGGER IF NOT EXISTS audit_insert BEFORE INSERT ON audit WHEN NEW.seq <> -1 {_NO_CHANGE}",
)


@dataclass(slots=True)
class Incoming:
    """A request from elsewhere, while it is answered.

    Attributes:
        address: whence it came. actor: who sent it, once a token told.
        user: whose cloud it uses, once its token was found right; None if none, or if the use is on record.
        refused: whether a refusal of it is on record.
    """

    address: str
    actor: str = ""
    user: str | None = None
    refused: bool = False


INCOMING: ContextVar[Incoming | None] = ContextVar("incoming", default=None)


def nobody(address: str) -> str:
    """The actor of whom no more is known than this address."""
    return f"{NOBODY} {address}".strip()


def actor() -> str:
    """Who sent the request that is being answered, as far as is known now."""
    incoming = INCOMING.get()
    return NOBODY if incoming is None else incoming.actor or nobody(incoming.address)


def knows(kind: str, name: str) -> str:
    """The actor who showed a token of that kind; whom a request that is being answered is of from now on."""
    incoming, found = INCOMING.get(), f"{kind} {name}"
    if incoming is not None:
        incoming.actor = found
    return found


class Audit:
    """The audit log of one lab. Thread-safe.

    Args:
        registry: open.
    """

    def __init__(self, registry: Registry, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, str, str, str], tuple[int, float]] = {}  # how often, and when it was last so
        for statement in _SCHEMA:
            registry.run(statement)

    def note(self, actor: str, action: str, *, user: str = "", outcome: str = OK, about: str = "") -> None:
        """The row is on disk. Arguments as of AuditRow."""
        self._add(self._clock.now(), actor, action, user, outcome, 1, about)
        _is_refused(outcome)

    def count(self, actor: str, action: str, *, user: str = "", outcome: str = OK) -> None:
        """The same for what happens often: it is on disk, together with others like it, after the next `flush`."""
        now = self._clock.now()
        with self._lock:
            kind = (actor, action, user, outcome)
            if actor.startswith(NOBODY) and len(self._pending) >= MANY and kind not in self._pending:
                # nobody without a token makes the log grow faster than that
                kind = (f"{NOBODY} (of many addresses)", action, user, outcome)
            self._pending[kind] = (self._pending.get(kind, (0, now))[0] + 1, now)
        _is_refused(outcome)

    def flush(self) -> None:
        """What was counted is on disk: a row for each kind, with how often, and when last.

        Raises: as the registry; then it still waits to be written.
        """
        with self._lock:
            counted, self._pending = self._pending, {}

        def write() -> bool:
            for kind, (n, ts) in counted.items():
                self._add(ts, *kind, n, "")
            return True

        try:
            if counted:
                self._registry.together(write)
        except BaseException:
            with self._lock:
                for kind, (n, ts) in counted.items():
                    more, last_ts = self._pending.get(kind, (0, ts))
                    self._pending[kind] = (n + more, max(ts, last_ts))
            raise

    def last(self) -> int:
        """The number of the last row on disk; 0 without one."""
        return int(self._registry.run("SELECT coalesce(max(seq), 0) AS seq FROM audit")[0]["seq"])

    def begin(self, cloud: str, after: int) -> None:
        """What concerns the user of this new cloud is later than that row: before, somebody else bore the name.

        If that cannot be kept, the time decides.
        """
        try:
            self._registry.run("INSERT INTO audit_begins VALUES (?, ?)", cloud, after)
        except StoreError as exc:  # whoever has signed up is to get the token in spite of it
            log.error("where the part of the audit log of a new cloud begins is not kept: %s", exc)

    def rows(self, *, user: str | None = None, after: int = 0, limit: int = MAX_ROWS) -> list[AuditRow]:
        """Rows after that number, oldest first; those about one user's cloud only if a user is named.

        Of a user they begin with the cloud that there is now: before, somebody else may have borne the name. What
        cannot be written at the moment is not among them.
        """
        try:
            self.flush()
        except StoreError as exc:
            log.error("the audit log is read without what cannot be written now: %s", exc)
        if user is None:
            found = self._registry.run("SELECT * FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
        else:
            begun, since_ts = self._begun(user)
            # who has forgotten a cloud may say so after somebody else bears the name
            other = "NOT (action = 'forget' AND outcome = 'ok')"
            sql = f"SELECT * FROM audit WHERE user = ? AND ts >= ? AND seq > ? AND {other} ORDER BY seq LIMIT ?"  # noqa: S608
            found = self._registry.run(sql, user, since_ts, max(begun, after), limit)
        return [msgspec.convert(dict(row), AuditRow) for row in found]

    def _begun(self, user: str) -> tuple[int, float]:
        """After which row, and when at the earliest, there is something about the cloud that there is now.

        The time alone would not tell, if the clock was set back; it is for clouds that were made in the lab's process.
        """
        row = self._registry.cloud(user)
        if row is None:
            return 0, math.inf
        begun = self._registry.run("SELECT seq FROM audit_begins WHERE cloud = ?", row.cloud)
        return (int(begun[0]["seq"]), -math.inf) if begun else (0, row.created_ts)

    def since(self, user: str) -> float:
        """When the user's cloud was made (UTC seconds); infinite without one."""
        row = self._registry.cloud(user)
        return math.inf if row is None else row.created_ts

    def _add(self, *row: str | float) -> None:
        sql = "INSERT INTO audit (ts, actor, action, user, outcome, n, about) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._registry.run(sql, *row)


def _is_refused(outcome: str) -> None:
    """If that is a refusal of the request that is being answered, it is on record from now on."""
    incoming = INCOMING.get()
    if incoming is not None and outcome != OK:
        incoming.refused = True
