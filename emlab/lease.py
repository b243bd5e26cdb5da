"""Leases: a cloud is in use until a time, or until a block ends."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Protocol

from emlab.arguments import MAX_LEASE_S, check_lease
from emlab.clock import Clock
from emlab.errors import ConfigError
from emlab.lifecycle import Lifecycle
from emlab.registry import Registry

MAX_NAMED = 100  # of one user
_SCHEMA = "CREATE TABLE IF NOT EXISTS named_leases (name TEXT PRIMARY KEY, cloud TEXT NOT NULL, until_ts REAL NOT NULL)"


class AnyLease(AbstractContextManager["AnyLease"], Protocol):
    """What every lease has, wherever its cloud is."""

    until_ts: float

    def extend(self, ttl_s: float) -> None:
        """It lasts at least that long from now (at most a day). Raises ConfigError: it has ended."""

    def release(self) -> None:
        """The lease has ended. Idempotent."""


class Lease:
    """A cloud stays awake until `until_ts` (UTC seconds), or until the lease is released (or its `with` ends).

    Args:
        anew: False: it was granted to somebody before this process began, whatever became of the cloud since.
    Raises: CloudGone, Locked: it is being removed, or is locked.
    """

    def __init__(self, life: Lifecycle, until_ts: float, *, clock: Clock, anew: bool = True) -> None:
        self.until_ts = until_ts
        self._life = life
        self._clock = clock
        self._number = life.lease(until_ts) if anew else life.begin_use(until_ts)

    def __repr__(self) -> str:
        return f"Lease(user={self._life.spec.user!r}, until {datetime.fromtimestamp(self.until_ts, UTC):%H:%M:%SZ})"

    def extend(self, ttl_s: float) -> None:
        """It lasts at least that long from now. Raises ConfigError (it has ended), CloudGone, Locked."""
        check_lease(ttl_s)
        now = self._clock.now()
        if self.until_ts <= now:
            raise ConfigError(f"the lease of {self._life.spec.user} has ended: take another one")
        until_ts = max(self.until_ts, now + float(ttl_s))
        before, self._number = self._number, self._life.lease(until_ts)
        self.until_ts = until_ts
        self._life.release(before)

    def release(self) -> None:
        """The lease has ended. Idempotent."""
        self._life.release(self._number)
        self.until_ts = min(self.until_ts, self._clock.now())

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class NamedLeases:
    """Leases of those who are elsewhere and know them by name; they outlive this process. Thread-safe.

    Args:
        of_user: the life of a user's cloud; raises UnknownUser. of_cloud: that of a cloud's id, None if it is gone.
        registry: open; keeps the leases.
    """

    def __init__(
        self,
        of_user: Callable[[str], Lifecycle],
        of_cloud: Callable[[str], Lifecycle | None],
        registry: Registry,
        *,
        clock: Clock,
    ) -> None:
        self._of_user = of_user
        self._of_cloud = of_cloud
        self._registry = registry
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Lifecycle, Lease]] = {}
        registry.run(_SCHEMA)
        latest_ts = clock.now() + MAX_LEASE_S
        for row in registry.run("SELECT * FROM named_leases"):
            if (life := of_cloud(row["cloud"])) is not None:
                lease = Lease(life, min(row["until_ts"], latest_ts), clock=clock, anew=False)
                self._held[row["name"]] = (life, lease)
        registry.run("UPDATE named_leases SET until_ts = ? WHERE until_ts > ?", latest_ts, latest_ts)
        self._drop_ended()

    def keep(self, user: str, ttl_s: float, name: str | None = None) -> tuple[str, float]:
        """A new lease, or that one, holds at least so long from now; its name and until when.

        Raises: UnknownUser, CloudGone, Locked, ConfigError, DiskFull.
        """
        check_lease(ttl_s)
        life = self._of_user(user)
        with self._lock:
            self._drop_ended()
            before = None if name is None else self._lease(life, name)
            if before is None and sum(holder is life for holder, _ in self._held.values()) >= MAX_NAMED:
                raise ConfigError(f"there are {MAX_NAMED} leases of {user} already: release some")
            now = self._clock.now()
            # the one there is may hold until later, but no later than it can, if the clock was set back
            until_ts = max(now + ttl_s, min(before.until_ts, now + MAX_LEASE_S) if before else 0.0)
            name = secrets.token_hex(8) if name is None else name
            lease = Lease(life, until_ts, clock=self._clock)
            try:
                sql = "INSERT OR REPLACE INTO named_leases VALUES (?, ?, ?)"
                self._registry.run(sql, name, life.spec.cloud, until_ts)
            except BaseException:
                lease.release()
                raise
            self._held[name] = (life, lease)
            if before is not None:
                before.release()
            return name, until_ts

    def users(self) -> set[str]:
        """Whose clouds are leased."""
        now = self._clock.now()
        with self._lock:
            return {life.spec.user for life, lease in self._held.values() if lease.until_ts > now}

    def end(self, user: str, name: str) -> tuple[str, float]:
        """That lease has ended; its name and when. Raises UnknownUser, ConfigError: there is none."""
        life = self._of_user(user)
        with self._lock:
            lease = self._lease(life, name)
            self._drop(name)
            return name, min(lease.until_ts, self._clock.now())

    def _lease(self, life: Lifecycle, name: str) -> Lease:
        holder, lease = self._held.get(name, (None, None))
        if lease is None or holder is not life:
            raise ConfigError(f"there is no lease {name[:80]!r} of {life.spec.user}; it may have ended")
        return lease

    def _drop(self, name: str) -> None:
        self._registry.run("DELETE FROM named_leases WHERE name = ?", name)
        self._held.pop(name)[1].release()

    def _drop_ended(self) -> None:
        """Neither here nor in the registry is a lease whose time is over, or whose cloud is gone."""
        now = self._clock.now()
        for name, (life, lease) in list(self._held.items()):
            if lease.until_ts <= now or self._of_cloud(life.spec.cloud) is not life:
                self._drop(name)
        self._registry.run("DELETE FROM named_leases WHERE until_ts <= ?", now)
