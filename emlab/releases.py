"""An aggregator's folder: its keys, and what it has released, of which it gives the same bytes again for ever.

One process at a time. Keys are in a file of mode 0600; a release is on disk before it is returned. There is no
contribution and no exact total in any file.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec

from emlab.errors import ConfigError
from emlab.files import read_private, replacing
from emlab.key import SealingKey, SigningKey

KEYS, RELEASES, LOCK = "keys.json", "releases.sqlite", "owner.lock"
_Raw = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The private keys in hex. Never shown."""

    sealing: _Raw
    signing: _Raw

    def __repr__(self) -> str:
        return "_Keys(not shown)"


class Releases:
    """The folder of one aggregator. Thread-safe. `open` before use, `close` after; a context manager does both.

    Attributes:
        sealing, signing: its pairs, made when the folder was opened for the first time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """This process owns the folder. Raises ConfigError: another one does, it cannot be read, or others can too."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own()
            self.sealing, self.signing = _keys(self._folder / KEYS)
            path = self._folder / RELEASES
            path.touch(mode=0o600)
            database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database = database
            # FULL: what was given to somebody is still known after a power cut
            database.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                "CREATE TABLE IF NOT EXISTS releases (name TEXT PRIMARY KEY, value BLOB NOT NULL);"
            )
        except (OSError, sqlite3.Error) as exc:
            self.close()
            raise ConfigError(f"the folder {self._folder} cannot be used: {exc}") from exc
        except ConfigError:
            self.close()
            raise

    def _own(self) -> None:
        owner = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(owner)
            raise ConfigError(f"the folder {self._folder} is in use by another aggregator; end that first") from None
        self._owner = owner

    def close(self) -> None:
        """The folder is free for another process. Idempotent."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None
            if self._owner is not None:
                os.close(self._owner)
                self._owner = None

    def __enter__(self) -> Releases:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gave when it was called for this name the first time, ever; it is kept before it is returned.

        Two threads may both call `make` for a new name; what the first one kept counts. Raises ConfigError.
        """
        kept = self._kept(name)
        if kept is None:
            self._run("INSERT OR IGNORE INTO releases VALUES (?, ?)", name, make())
            kept = self._kept(name)
        if kept is None:
            raise ConfigError(f"the folder {self._folder} does not keep what is written to it")
        return kept

    def _kept(self, name: str) -> bytes | None:
        found = self._run("SELECT value FROM releases WHERE name = ?", name)
        return bytes(found[0][0]) if found else None

    def _run(self, sql: str, *values: object) -> list[tuple[bytes]]:
        with self._lock:
            if self._database is None:
                raise ConfigError(f"the folder {self._folder} is closed")
            try:
                return self._database.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise ConfigError(f"the folder {self._folder} failed: {exc}") from exc


def _keys(path: Path) -> tuple[SealingKey, SigningKey]:
    """The keys in the file, which are made and are on disk if there are none."""
    if not path.exists():
        fresh = _Keys(SealingKey().raw().hex(), SigningKey().raw().hex())
        with replacing(path) as file:
            file.write(msgspec.json.encode(fresh))
    keys = _read(path)
    return SealingKey(bytes.fromhex(keys.sealing)), SigningKey(bytes.fromhex(keys.signing))


def _read(path: Path) -> _Keys:
    try:
        return msgspec.json.decode(read_private(path, "keys"), type=_Keys)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ConfigError(f"{path} does not hold an aggregator's keys") from None  # whose text would be in the cause
