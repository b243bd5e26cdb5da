"""Leases: a cloud is in use until a time, or until a block ends."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from emlab.arguments import MAX_LEASE_S
from emlab.clock import Clock
from emlab.errors import ConfigError, UnknownUser
from emlab.lifecycle import Lifecycle
from emlab.registry import Registry

MAX_NAMED = 100  # of one user
_SCHEMA = "CREATE TABLE IF NOT EXISTS leases (name TEXT PRIMARY KEY, user TEXT NOT NULL, until_ts REAL NOT NULL)"


class AnyLease(AbstractContextManager["AnyLease"], Protocol):
    """What every lease has, wherever its cloud is."""

    until_ts: float

    def release(self) -> None:
        """The lease has ended. Idempotent."""


class Lease:
    """A cloud stays awake until `until_ts` (UTC seconds), or until the lease is released (or its `with` ends)."""

    def __init__(self, life: Lifecycle, until_ts: float) -> None:
        self.until_ts = until_ts
        self._life = life
        self._number = life.lease(until_ts)

    def release(self) -> None:
        """The lease has ended. Idempotent."""
        self._life.release(self._number)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class NamedLeases:
    """Leases of those who are elsewhere and know them by name; they outlive this process. Thread-safe.

    Args:
        make: a lease of a user's cloud for so many seconds; raises UnknownUser, ConfigError.
        registry: open; keeps the leases.
    """

    def __init__(self, make: Callable[[str, float], Lease], registry: Registry, *, clock: Clock) -> None:
        self._make = make
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[str, Lease]] = {}
        registry.run(_SCHEMA)
        now = clock.now()
        registry.run("DELETE FROM leases WHERE until_ts <= ?", now)
        for row in registry.run("SELECT * FROM leases"):
            left_s = min(row["until_ts"] - now, MAX_LEASE_S)  # more than was asked for, if the clock went back
            with suppress(UnknownUser):  # whose cloud was forgotten
                lease = make(row["user"], left_s)
                self._held[row["name"]] = (row["user"], lease)
                if lease.until_ts < row["until_ts"]:
                    registry.run("UPDATE leases SET until_ts = ? WHERE name = ?", lease.until_ts, row["name"])

    def keep(self, user: str, ttl_s: float, name: str | None = None) -> tuple[str, float]:
        """A new lease, or that one, holds at least so long from now; its name and until when. Raises ConfigError."""
        with self._lock:
            self._drop_ended()
            before = None if name is None else self._lease(user, name)
            if before is None and sum(holder == user for holder, _ in self._held.values()) >= MAX_NAMED:
                raise ConfigError(f"there are {MAX_NAMED} leases of {user} already: release some")
            lease = self._make(user, ttl_s)
            if before is not None:
                lease, shorter = (lease, before) if before.until_ts < lease.until_ts else (before, lease)
                shorter.release()
            name = secrets.token_hex(8) if name is None else name
            self._held[name] = (user, lease)
            self._registry.run("INSERT OR REPLACE INTO leases VALUES (?, ?, ?)", name, user, lease.until_ts)
            return name, lease.until_ts

    def users(self) -> set[str]:
        """Whose clouds are leased."""
        now = self._clock.now()
        with self._lock:
            return {user for user, lease in self._held.values() if lease.until_ts > now}

    def end(self, user: str, name: str) -> tuple[str, float]:
        """That lease has ended; its name and when. Raises ConfigError: there is none."""
        with self._lock:
            lease = self._lease(user, name)
            lease.release()
            del self._held[name]
            self._registry.run("DELETE FROM leases WHERE name = ?", name)
            return name, min(lease.until_ts, self._clock.now())

    def _lease(self, user: str, name: str) -> Lease:
        holder, lease = self._held.get(name, ("", None))
        if lease is None or holder != user:
            raise ConfigError(f"there is no lease {name[:80]!r} of {user}; it may have ended")
        return lease

    def _drop_ended(self) -> None:
        now = self._clock.now()
        for name in [name for name, (_, lease) in self._held.items() if lease.until_ts <= now]:
            self._held.pop(name)[1].release()
        self._registry.run("DELETE FROM leases WHERE until_ts <= ?", now)
