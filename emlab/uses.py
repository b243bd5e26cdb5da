"""Who uses a cloud, and when it was used last. L3."""

from __future__ import annotations

import itertools
import math
import threading

from emlab.arguments import MAX_LEASE_S
from emlab.clock import Clock
from emlab.idle import NO_GAPS, Use


class Uses:
    """The uses of one cloud. Thread-safe; its lock is held for a moment only, never while waiting for another."""

    def __init__(self, cloud: str, clock: Clock) -> None:
        self._cloud = cloud
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[int, float] = {}
        self._numbers = itertools.count()
        self._last_ts = clock.now()
        self._was_used = False  # not since this object exists: before, there was no gap that anybody saw begin
        self._gaps = NO_GAPS

    def now(self) -> Use:
        """Last use and leases. None is later than it can be, also if the clock was set back."""
        with self._lock:
            now = self._clock.now()
            self._last_ts = min(self._last_ts, now)
            for number, until_ts in self._leases.items():
                if until_ts != math.inf:
                    self._leases[number] = min(until_ts, now + MAX_LEASE_S)
            return Use(self._cloud, self._last_ts, tuple(self._leases.values()), self._gaps)

    def begin(self, until_ts: float) -> int:
        """The cloud is in use until then (UTC seconds), or until `end` of the number that is returned."""
        with self._lock:
            self._note_gap()
            number = next(self._numbers)
            self._leases[number] = until_ts
            return number

    def _note_gap(self) -> None:
        """A use begins now: if no other is under way, a gap ends."""
        now = self._clock.now()
        for number in [number for number, until_ts in self._leases.items() if until_ts <= now]:
            self._last_ts = max(self._last_ts, self._leases.pop(number))
        if self._was_used and not self._leases:
            self._gaps = self._gaps.plus(now - self._last_ts)
        self._was_used = True

    def end(self, number: int) -> None:
        """That use has ended. Idempotent."""
        with self._lock:
            self._last_ts = self._clock.now()
            self._leases.pop(number, None)

    def clear(self) -> None:
        """Nobody uses it any more, whatever was said."""
        with self._lock:
            self._leases.clear()
