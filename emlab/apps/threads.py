"""Threads in which requests are answered: one of many for each, or a share for each caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

R = TypeVar("R")
THREADS, EACH = 128, 16  # some of a caller's may wait for a cloud that another of them starts or stops


async def call(request: Request, act: Callable[..., R], *arguments: object) -> R:
    """What that gives, in a thread, whoever asks."""
    del request
    return await run_in_threadpool(act, *arguments)


class Shares:
    """Threads for requests, of which no caller has more than EACH; who wants more waits. For one event loop.

    Args:
        caller: who sends a request.
    """

    def __init__(self, caller: Callable[[Request], str]) -> None:
        self._caller = caller
        self._of: dict[str, tuple[asyncio.Semaphore, int]] = {}

    async def call(self, request: Request, act: Callable[..., R], *arguments: object) -> R:
        """What that gives, in a thread."""
        async with self._share(self._caller(request)):
            return await to_thread.run_sync(act, *arguments, limiter=self._threads)

    @cached_property
    def _threads(self) -> CapacityLimiter:
        return CapacityLimiter(THREADS)

    @asynccontextmanager
    async def _share(self, caller: str) -> AsyncIterator[None]:
        share, users = self._of.get(caller, (asyncio.Semaphore(EACH), 0))
        self._of[caller] = share, users + 1
        try:
            async with share:
                yield
        finally:
            share, users = self._of.pop(caller)
            if users > 1:
                self._of[caller] = share, users - 1
