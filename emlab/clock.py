"""Time as an argument: a clock that reads the machine's, and one that a test turns by hand.

Imports only the standard library.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Clock(Protocol):
    """What code needs of time."""

    def now(self) -> float:
        """UTC seconds since 1970."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""

    def wait(self, seconds: float) -> None:
        """Return after that many seconds."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """UTC seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Return after that many seconds."""
        threading.Event().wait(seconds)


class ManualClock:
    """A clock that stands still until it is turned: `clock.advance(60)`."""

    def __init__(self, start_ts: float = 1_700_000_000.0) -> None:
        self._now = start_ts

    def now(self) -> float:
        """UTC seconds since 1970, as far as the clock was turned."""
        return self._now

    def monotonic(self) -> float:
        """The same value: this clock is never set back."""
        return self._now

    def wait(self, seconds: float) -> None:
        """Turn the clock instead of waiting."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let that many seconds pass."""
        if seconds < 0:
            raise ValueError(f"time does not go back ({seconds} s)")
        self._now += seconds


class OnwardTime:
    """UTC seconds that never go back: what had expired when this was asked last stays so, if the clock is set back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._latest = -math.inf

    def now(self) -> float:
        """The latest that the clock has said here."""
        self._latest = max(self._latest, self._clock.now())
        return self._latest


SYSTEM_CLOCK = SystemClock()


def wait_until(
    ready: Callable[[], bool], timeout_s: float, *, clock: Clock = SYSTEM_CLOCK, longest_s: float = 0.02
) -> bool:
    """True as soon as `ready()` is, False when `timeout_s` passed without it.

    Looks again after 1 ms, 2 ms, 4 ms ... up to `longest_s`; an exception of `ready` goes through.
    """
    deadline = clock.monotonic() + timeout_s
    pause_s = 0.001
    while not ready():
        if clock.monotonic() >= deadline:
            return False
        clock.wait(pause_s)
        pause_s = min(pause_s * 2, longest_s)
    return True


@contextmanager
def padded(clock: Clock, slot_s: float) -> Iterator[None]:
    """The block takes a whole number of slots, one or more, so that how long it takes tells little of what it did."""
    start = clock.monotonic()
    try:
        yield
    finally:
        spent = clock.monotonic() - start
        clock.wait(max(1, math.ceil(spent / slot_s)) * slot_s - spent)
