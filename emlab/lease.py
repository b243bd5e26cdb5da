"""Leases: a cloud is in use until a time, or until a block ends."""

from __future__ import annotations

from emlab.lifecycle import Lifecycle


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
