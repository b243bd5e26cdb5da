"""Waking clouds for those who cannot wait in a thread: one wake for all who wait for the same cloud. No HTTP here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from emlab.errors import EmlabError, Unreachable
from emlab.lifecycle import Lifecycle

log = logging.getLogger(__name__)
RESUMING, STARTING = 4, 8  # threads: as many as `lifecycle` lets through to an engine at once
BUSY_S = 30.0


class Waker:
    """Wakes clouds in a few threads, first come first served. For one event loop.

    A cloud that is known to sleep never waits behind one that may have to be started, which takes a hundred times as
    long.

    Args:
        resuming, starting: how many wakes of either kind are under way at once; others wait for their turn.
        busy_s: how long a wake waits while another thread starts, pauses or locks the cloud, before it gives up.
    """

    def __init__(self, *, resuming: int = RESUMING, starting: int = STARTING, busy_s: float = BUSY_S) -> None:
        self._resuming = ThreadPoolExecutor(resuming, thread_name_prefix="emlab-wake")
        self._starting = ThreadPoolExecutor(starting, thread_name_prefix="emlab-start")
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

    def begin(self, life: Lifecycle) -> asyncio.Future[None]:
        """The wake that is under way for this cloud, or a new one. Raises Unreachable: the waker was closed."""
        wake = self._wakes.get(life)
        # one that has ended says nothing of now
        return self._begun(life) if wake is None or wake.done() else wake

    async def _joined(self, life: Lifecycle) -> None:
        wake = self.begin(life)
        try:
            await asyncio.shield(wake)
        except asyncio.CancelledError:
            if wake.cancelled():
                raise Unreachable("no cloud is woken any more: the service ends") from None
            raise

    def _begun(self, life: Lifecycle) -> asyncio.Future[None]:
        first = self._called(self._resuming, life.rouse) if life.sleeps else self._called(self._starting, life.wake)
        wake = self._wakes[life] = asyncio.ensure_future(self._through(life, first))
        wake.add_done_callback(lambda done: self._ended(life, done))
        return wake

    def _called(self, pool: ThreadPoolExecutor, act: Callable[[float], bool | None]) -> asyncio.Future[bool | None]:
        """That is being done in a thread, from now on. Raises Unreachable: the waker was closed."""
        try:
            return asyncio.get_running_loop().run_in_executor(pool, act, self._busy_s)
        except RuntimeError as exc:
            raise Unreachable("no cloud is woken any more: the service ends") from exc

    async def _through(self, life: Lifecycle, first: asyncio.Future[bool | None]) -> None:
        """The cloud runs: one that had ended in its sleep is started, among others that are."""
        if await first is False:
            await self._called(self._starting, life.wake)

    def _ended(self, life: Lifecycle, wake: asyncio.Future[None]) -> None:
        if self._wakes.get(life) is wake:
            del self._wakes[life]
        if not wake.cancelled() and (error := wake.exception()) is not None:
            # nobody may wait for it any more
            level = logging.INFO if isinstance(error, EmlabError) else logging.ERROR
            log.log(level, "the cloud of %s was not woken: %s", life.spec.user, type(error).__name__)

    def close(self) -> None:
        """No wake begins any more; those under way end by themselves. Idempotent."""
        for pool in (self._resuming, self._starting):
            pool.shutdown(wait=False, cancel_futures=True)
