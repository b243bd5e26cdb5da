"""The registry: what the controller remembers of a lab, in one SQLite file (WAL), and the lock of its one owner.

A cache for clouds (the engine is the truth), the only place for token hashes, public keys, tombstones and the
controller's own secrets; the file has mode 0600.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import msgspec

from emlab.errors import ConfigError, DiskFull, LabInUse, StoreError
from emlab.idle import Past
from emlab.loss import NOTHING, Loss, Spent

log = logging.getLogger(__name__)
LEAVING = ("signup", "forget")  # intents after whose interruption the cloud is removed; no ask reaches it meanwhile
_OWNED: set[int] = set()  # descriptors of the locks that this process holds


def _disown() -> None:
    """A forked child holds no lab: its copy of a descriptor would keep the lock after the owner's death."""
    for owner in _OWNED:
        os.close(owner)
    _OWNED.clear()


os.register_at_fork(after_in_child=_disown)

SCHEMA_VERSION = 4
_SCHEMA = """
CREATE TABLE IF NOT EXISTS clouds (
  user TEXT PRIMARY KEY, cloud TEXT UNIQUE NOT NULL, generation INTEGER NOT NULL,
  marker TEXT NOT NULL, public TEXT NOT NULL, ledger_seq INTEGER NOT NULL,
  granted BLOB NOT NULL, carried BLOB NOT NULL, intent TEXT NOT NULL, created_ts REAL NOT NULL);
CREATE TABLE IF NOT EXISTS providers (name TEXT PRIMARY KEY, public TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS tombstones (
  person TEXT PRIMARY KEY, spent BLOB NOT NULL, generation INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS uses (cloud TEXT PRIMARY KEY, past BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS releases (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


def owner_of(lab_dir: Path) -> int | None:
    """The pid of the process that has the lab in this directory open now; None if none has."""
    try:
        lock = os.open(lab_dir / "owner.lock", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        written = os.read(lock, 20)
        return int(written) if written.isdigit() else None
    finally:
        os.close(lock)
    return None


def check_free(lab_dir: Path) -> None:
    """Returns if nobody has the lab in this directory open. Raises LabInUse, naming the owner's pid."""
    if (pid := owner_of(lab_dir)) is not None:
        raise _in_use(lab_dir, pid)


def _in_use(lab_dir: Path, pid: int | str) -> LabInUse:
    return LabInUse(f"the lab {lab_dir.name} is in use by process {pid}; close it there first")


def _knows(database: sqlite3.Connection) -> bool:
    """Whether anything is remembered of the lab."""
    return any(database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ("settings", "clouds"))  # noqa: S608


def _lay(database: sqlite3.Connection) -> None:
    """The tables are there. Raises ConfigError if they are of another version."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and version != SCHEMA_VERSION:
        raise ConfigError(
            f"it was made by another version of emlab (its tables are version {version}, this one's {SCHEMA_VERSION})"
        )
    database.executescript(_SCHEMA + f"PRAGMA user_version={SCHEMA_VERSION};")


@dataclass(frozen=True, slots=True)
class CloudRow:
    """What is remembered of one cloud.

    Attributes:
        marker: what the open vault's marker file holds.
        public: the cloud's Ed25519 key, empty until its first start.
        ledger_seq: the newest ledger head that was seen; an older one is refused at start.
        granted: sum of all asks that the controller admitted; the ledger never spent more than this and `carried`, what
            the person had spent in earlier clouds.
        intent: "signup", "forget", "lock" or "unlock" while that is under way, else empty.
    """

    user: str
    cloud: str
    generation: int
    marker: str
    created_ts: float
    public: str = ""
    ledger_seq: int = 0
    granted: Spent = NOTHING
    carried: Spent = NOTHING
    intent: str = ""

    @classmethod
    def of(cls, row: sqlite3.Row) -> CloudRow:
        """The row of the table."""
        amounts = {name: msgspec.json.decode(row[name], type=Spent) for name in ("granted", "carried")}
        return cls(**{**dict(row), **amounts})


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stays of a forgotten person: how much was spent and how many clouds there were."""

    spent: Spent = NOTHING
    generation: int = 0


class Registry:
    """The registry of the lab in this directory. Thread-safe. `open` before use, `close` after.

    It is the opening process's alone: in a forked child it can neither be used nor closed.
    """

    def __init__(self, lab_dir: Path) -> None:
        self._dir = lab_dir
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._pid = 0
        self._database: sqlite3.Connection | None = None
        self._waiting: deque[tuple[Callable[[], bool], Future[bool]]] = deque()  # changes for the next commit
        self._committing = threading.Lock()
        self._aliases = b""  # the secret, once it was read
        self._known_by: dict[str, dict[str, str]] = {}  # cloud by alias, for each provider that asked

    def open(self, *, bereft: bool = False) -> None:
        """This process owns the lab. Raises LabInUse (naming the owner's pid), ConfigError.

        Args:
            bereft: also if there are clouds of which nothing is remembered: somebody lost the file, which would say
                whether they were to be kept.
        """
        try:
            self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as exc:
            raise ConfigError(
                f"{self._dir} cannot be made ({exc.strerror}): let EMLAB_HOME name a folder of yours"
            ) from exc
        owner = os.open(self._dir / "owner.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(owner, 20).decode(errors="replace").strip() or "?"
            os.close(owner)
            raise _in_use(self._dir, pid) from None
        os.ftruncate(owner, 0)
        os.write(owner, str(os.getpid()).encode())
        self._owner, self._pid = owner, os.getpid()
        _OWNED.add(owner)
        path, database = self._dir / "registry.sqlite", None
        try:
            path.touch(mode=0o600)
            database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            database.row_factory = sqlite3.Row
            # FULL: what a forgotten person had spent is still known after a power cut
            database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            _lay(database)
            if not bereft and not _knows(database) and any((self._dir / "clouds").glob("*")):
                raise ConfigError(
                    f"there are clouds, and nothing is in it: restore it, or emlab clean --lab {self._dir.name}"
                )
        except (OSError, sqlite3.Error, ConfigError) as exc:
            if database is not None:
                database.close()
            self.close()
            raise ConfigError(f"the registry {path} cannot be opened: {exc}") from exc
        self._database = database

    def close(self) -> None:
        """The lab is free for another owner. Idempotent."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
            if self._owner is not None:
                _OWNED.discard(self._owner)
                os.close(self._owner)
                self._owner = None

    def remove(self) -> None:
        """Nothing is left of it, nor of its directory if there is nothing else; still to be closed."""
        for path in (*self._dir.glob("registry.sqlite*"), self._dir / "owner.lock"):
            path.unlink()
        with suppress(OSError):  # somebody has put something there
            self._dir.rmdir()

    def run(self, sql: str, *values: object, clash: str | None = None) -> list[sqlite3.Row]:
        """The rows; for modules that keep tables of their own in this file.

        Raises: ConfigError, saying `clash` if a value has to be unique and is not; DiskFull, StoreError.
        """
        if self._pid != os.getpid():
            raise ConfigError(f"the lab {self._dir.name} belongs to process {self._pid}, of which this is a fork")
        with self._lock:
            if self._database is None:
                raise ConfigError(f"the lab {self._dir.name} is closed")
            try:
                return self._database.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                if clash is not None and isinstance(exc, sqlite3.IntegrityError):
                    raise ConfigError(clash) from exc
                full = exc.sqlite_errorname == "SQLITE_FULL"
                raise (DiskFull if full else StoreError)(f"the registry of the lab {self._dir.name}: {exc}") from exc

    def together(self, change: Callable[[], bool]) -> bool:
        """What the change gave. It is on disk, with those of all threads that came while others' were written.

        Many clouds are asked side by side, and a commit of each one's own would make all of them wait for the disk.
        """
        result: Future[bool] = Future()
        self._waiting.append((change, result))
        with self._committing:
            batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if batch:  # else another thread has written this change meanwhile
                self._commit(batch)
        return result.result()

    def _commit(self, batch: list[tuple[Callable[[], bool], Future[bool]]]) -> None:
        with self._lock:  # nobody else's statement falls into this transaction
            try:
                self.run("BEGIN IMMEDIATE")
                given = [change() for change, _result in batch]
                self.run("COMMIT")
            except BaseException as exc:
                if self._database is not None and self._database.in_transaction:
                    self._database.rollback()
                for _change, result in batch:
                    result.set_exception(exc)
                return
        for (_change, result), value in zip(batch, given, strict=True):
            result.set_result(value)

    def add(self, row: CloudRow) -> None:
        """The cloud is remembered. Raises ConfigError if the user has one."""
        names = [field.name for field in fields(CloudRow)]
        marks = ", ".join("?" * len(names))
        sql = f"INSERT INTO clouds ({', '.join(names)}) VALUES ({marks})"  # noqa: S608 (the dataclass's names)
        values = [msgspec.json.encode(value) if isinstance(value, Spent) else value for value in astuple(row)]
        self.run(sql, *values, clash=f"{row.user} has a cloud in this lab already")

    def cloud(self, user: str) -> CloudRow | None:
        """What is remembered of this user's cloud."""
        return next((CloudRow.of(row) for row in self.run("SELECT * FROM clouds WHERE user = ?", user)), None)

    def by_cloud(self, cloud: str) -> CloudRow | None:
        """What is remembered of the cloud with this id."""
        return next((CloudRow.of(row) for row in self.run("SELECT * FROM clouds WHERE cloud = ?", cloud)), None)

    def by_alias(self, alias: str, provider: str) -> CloudRow | None:
        """What is remembered of the cloud that this provider knows by that alias."""
        known = self._known_by.get(provider, {})
        if alias not in known:  # of a cloud that came since, or of none
            rows = self.run("SELECT cloud FROM clouds")
            known = self._known_by[provider] = {self.alias(row["cloud"], provider): row["cloud"] for row in rows}
        return self.by_cloud(known[alias]) if alias in known else None

    def clouds(self) -> list[CloudRow]:
        """All clouds, in order of sign-up."""
        return [CloudRow.of(row) for row in self.run("SELECT * FROM clouds ORDER BY created_ts, user")]

    def public_keys(self, provider: str) -> dict[str, str]:
        """Public key by alias for this provider, of all clouds that were started once, in order of sign-up."""
        rows = self.run("SELECT cloud, public FROM clouds WHERE public != '' ORDER BY created_ts, user")
        return {self.alias(row["cloud"], provider): row["public"] for row in rows}

    def alias(self, cloud: str, provider: str) -> str:
        """What this provider knows the cloud by, 32 hex digits: others know it by other ones."""
        secret = self._aliases = self._aliases or self.secret("aliases")
        return hmac.new(secret, f"{provider}\0{cloud}".encode(), hashlib.sha256).hexdigest()[:32]

    # Changes name the cloud by its id, since another one may have come to bear the user's name meanwhile.

    def born(self, cloud: str, public: str) -> bool:
        """The cloud has started for the first time. False: it is being forgotten, or is not remembered."""
        sql = "UPDATE clouds SET public = ?, intent = '' WHERE cloud = ? AND intent = 'signup' RETURNING user"
        return bool(self.run(sql, public, cloud))

    def leave(self, cloud: str) -> CloudRow | None:
        """The cloud is being forgotten: from now on nothing is granted, and whoever attaches after a crash goes on.

        Returns:
            its row; None if it is not remembered.
        """
        done = self.run("UPDATE clouds SET intent = 'forget' WHERE cloud = ? RETURNING *", cloud)
        return CloudRow.of(done[0]) if done else None

    def turn(self, cloud: str, intent: str) -> None:
        """The cloud's vault is to be closed ("lock"), is being opened ("unlock"), or neither ("").

        A sign-up or a forgetting that is under way goes before.
        """
        self.run("UPDATE clouds SET intent = ? WHERE cloud = ? AND intent NOT IN (?, ?)", intent, cloud, *LEAVING)

    def grant(self, cloud: str, loss: Loss) -> bool:
        """A capability of that loss is granted. False: the cloud comes or goes."""
        return self._regrant(cloud, lambda granted: granted + loss)

    def take_back(self, cloud: str, loss: Loss) -> bool:
        """What was granted was refused. False: the cloud comes or goes."""
        return self._regrant(cloud, lambda granted: granted - loss)

    def _regrant(self, cloud: str, change: Callable[[Spent], Spent]) -> bool:
        def regrant() -> bool:
            row = self.by_cloud(cloud)
            if row is None or row.intent in LEAVING:
                return False
            self.run("UPDATE clouds SET granted = ? WHERE cloud = ?", msgspec.json.encode(change(row.granted)), cloud)
            return True

        return self.together(regrant)

    def seen(self, cloud: str, ledger_seq: int) -> None:
        """The cloud's ledger has come to this head."""
        sql = "UPDATE clouds SET ledger_seq = max(ledger_seq, ?) WHERE cloud = ?"
        self.together(lambda: not self.run(sql, ledger_seq, cloud))

    def drop(self, cloud: str) -> None:
        """The cloud is not remembered. Idempotent."""
        self.run("DELETE FROM uses WHERE cloud = ?", cloud)
        self.run("DELETE FROM clouds WHERE cloud = ?", cloud)

    def past(self, cloud: str) -> Past | None:
        """What was remembered of the cloud's uses; None also if that is damaged."""
        found = self.run("SELECT past FROM uses WHERE cloud = ?", cloud)
        try:
            return msgspec.json.decode(found[0]["past"], type=Past) if found else None
        except (msgspec.DecodeError, TypeError) as exc:  # it decides when the cloud is paused, and nothing else
            log.warning("when the cloud %s was used is not known: %s", cloud, exc)
            return None

    def remember(self, pasts: Mapping[str, Past]) -> None:
        """So the clouds were used, those that are remembered. All at once. Raises DiskFull, StoreError."""
        sql = "INSERT OR REPLACE INTO uses SELECT cloud, ? FROM clouds WHERE cloud = ?"

        def write() -> bool:
            for cloud, past in pasts.items():
                self.run(sql, msgspec.json.encode(past), cloud)
            return True

        self.together(write)

    def tombstone(self, user: str) -> Tombstone:
        """What this person had spent in forgotten clouds of this lab."""
        found = self.run("SELECT spent, generation FROM tombstones WHERE person = ?", self._person(user))
        if not found:
            return Tombstone()
        return Tombstone(msgspec.json.decode(found[0]["spent"], type=Spent), found[0]["generation"])

    def bury(self, user: str, tombstone: Tombstone) -> None:
        """What was spent is remembered under a keyed hash of the name; it never shrinks."""
        with self._lock:
            before = self.tombstone(user)
            spent = msgspec.json.encode(before.spent.at_least(tombstone.spent))
            generation = max(before.generation, tombstone.generation)
            self.run("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?)", self._person(user), spent, generation)

    def _person(self, user: str) -> str:
        return hmac.new(self.secret("tombstones"), user.encode(), hashlib.sha256).hexdigest()

    def secret(self, name: str) -> bytes:
        """32 random bytes of this lab, the same each time."""
        self.run("INSERT OR IGNORE INTO secrets VALUES (?, ?)", name, secrets.token_bytes(32))
        return bytes(self.run("SELECT value FROM secrets WHERE name = ?", name)[0]["value"])

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gave when it was called for this name the first time, ever; it is kept before it is returned."""
        query = "SELECT value FROM releases WHERE name = ?"
        if not self.run(query, name):
            self.run("INSERT OR IGNORE INTO releases VALUES (?, ?)", name, make())
        return bytes(self.run(query, name)[0]["value"])

    def add_provider(self, name: str, public: str) -> None:
        """The provider is registered. Again: nothing changes. Raises ConfigError: name or key belong to another."""
        done = self.run(
            "INSERT INTO providers VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET public = excluded.public "
            "WHERE public = excluded.public RETURNING name",
            name,
            public,
            clash=f"the key of the provider {name} is registered under another name; give that name, or another key",
        )
        if not done:
            raise ConfigError(f"the provider {name} is registered with another key; give that key, or another name")

    def provider(self, public: str) -> str | None:
        """The name of the provider with this public key."""
        found = self.run("SELECT name FROM providers WHERE public = ?", public)
        return str(found[0]["name"]) if found else None

    def key_of(self, provider: str) -> str:
        """The public key of the provider of this name. Raises ConfigError."""
        found = self.run("SELECT public FROM providers WHERE name = ?", provider)
        if not found:
            raise ConfigError(f"there is no provider {provider}")
        return str(found[0]["public"])

    def known(self, name: str) -> str | None:
        """The lab's setting of this name, None if it was never given."""
        found = self.run("SELECT value FROM settings WHERE name = ?", name)
        return str(found[0]["value"]) if found else None

    def setting(self, name: str, value: str) -> str:
        """The lab's setting of this name: what was given at first, `value` if it is asked for the first time."""
        self.run("INSERT OR IGNORE INTO settings VALUES (?, ?)", name, value)
        return str(self.run("SELECT value FROM settings WHERE name = ?", name)[0]["value"])

    def set(self, name: str, value: str) -> None:
        """The lab's setting of this name has this value."""
        self.run("INSERT OR REPLACE INTO settings VALUES (?, ?)", name, value)
