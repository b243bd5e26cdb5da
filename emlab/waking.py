"""Waking clouds for those who cannot wait in a thread: one wake for all who wait for the same cloud. No HTTP here."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from emlab.errors import EmlabError, Unreachable
from emlab.lifecycle import Lifecycle

log = logging.getLogger(__name__)
WORKERS = 4  # of an engine's calls more than about four at once begin to fail: Docker's "unable to freeze"
BUSY_S = 30.0


class Waker:
    """Wakes clouds in a few threads, first come first served. For one event loop.

    Args:
        workers: how many wakes are under way at once; others wait for their turn.
        busy_s: how long a wake waits while another thread starts, pauses or locks the cloud, before it gives up.
    """

    def __init__(self, *, workers: int = WORKERS, busy_s: float = BUSY_S) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="emlab-wake")
        self._busy_s = busy_s
        self._wakes: dict[Lifecycle, asyncio.Future[None]] = {}

    async def awake(self, life: Lifecycle, timeout_s: float) -> None:
        """The engine says that the cloud runs. For who holds a lease: else it may be paused again by now.

        Raises: Locked, EngineError and what else a wake raises; Unreachable: it took longer than `timeout_s` (the wake
            itself goes on), the cloud was busy, or the waker was closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._joined(life)
                while not life.runs:  # what was joined had ended, and the cloud was paused before there was a lease
                    await self._joined(life)
        except TimeoutError as exc:
            raise Unreachable(f"the cloud of {life.spec.user} does not run yet after {timeout_s:g} s") from exc

    async def _joined(self, life: Lifecycle) -> None:
        wake = self._wakes.get(life)
        if wake is None or wake.done():  # one that has ended says nothing of now
            wake = self._begun(life)
        try:
            await asyncio.shield(wake)
        except asyncio.CancelledError:
            if wake.cancelled():
                raise Unreachable("no cloud is woken any more: the service ends") from None
            raise

    def _begun(self, life: Lifecycle) -> asyncio.Future[None]:
        try:
            wake = asyncio.get_running_loop().run_in_executor(self._pool, life.wake, self._busy_s)
        except RuntimeError as exc:
            raise Unreachable("no cloud is woken any more: the service ends") from exc
        self._wakes[life] = wake
        wake.add_done_callback(lambda done: self._ended(life, done))
        return wake

    def _ended(self, life: Lifecycle, wake: asyncio.Future[None]) -> None:
        if self._wakes.get(life) is wake:
            del self._wakes[life]
        if not wake.cancelled() and (error := wake.exception()) is not None:
            # nobody may wait for it any more
            level = logging.INFO if isinstance(error, EmlabError) else logging.ERROR
            log.log(level, "the cloud of %s was not woken: %s", life.spec.user, type(error).__name__)

    def close(self) -> None:
        """No wake begins any more; those under way end by themselves. Idempotent."""
        self._pool.shutdown(wait=False, cancel_futures=True)
