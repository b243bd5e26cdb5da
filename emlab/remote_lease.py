"""Leases of clouds elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from emlab.arguments import check_lease
from emlab.errors import ConfigError, EmlabError, UnknownUser
from emlab.wire.control import LeaseEnd, LeaseReport, LeaseRequest

log = logging.getLogger(__name__)


class RemoteLease:
    """A cloud elsewhere stays awake until `until_ts` (UTC seconds), or until the lease is released.

    Args:
        call: a route of the controller that answers with a lease, by its name, and what is sent there.
    Raises: ConfigError, UnknownUser, Locked, NotPermitted, Unreachable.
    """

    def __init__(self, call: Callable[[str, LeaseRequest | LeaseEnd], LeaseReport], user: str, ttl_s: float) -> None:
        check_lease(ttl_s)
        self._call = call
        self._user = user
        report = call("lease", LeaseRequest(ttl_s=ttl_s, user=user))
        self._id = report.id
        self.until_ts = report.until_ts
        self._released = False

    def __repr__(self) -> str:
        until = "released" if self._released else f"until {datetime.fromtimestamp(self.until_ts, UTC):%H:%M:%SZ}"
        return f"RemoteLease(user={self._user!r}, {until})"

    def extend(self, ttl_s: float) -> None:
        """It lasts at least that long from now (at most a day). Raises ConfigError: it has ended."""
        check_lease(ttl_s)
        self.until_ts = self._call("lease", LeaseRequest(ttl_s=ttl_s, id=self._id, user=self._user)).until_ts

    def release(self) -> None:
        """The lease has ended. Idempotent. Raises NotPermitted, Unreachable: it may go on until its time is over."""
        if self._released:
            return
        with suppress(ConfigError, UnknownUser):  # there is no such lease any more, or no such cloud
            self._call("release_lease", LeaseEnd(id=self._id, user=self._user))
        self._released = True

    def __enter__(self) -> RemoteLease:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.release()
        except EmlabError as exc:  # no reason for a block to fail, or to hide why it did: the lease ends by itself
            log.warning("%r could not be released: %s", self, exc)
