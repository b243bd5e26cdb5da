"""Who uses a cloud, and when it was used last. L3."""

from __future__ import annotations

import itertools
import math
import threading

from emlab.arguments import MAX_LEASE_S
from emlab.clock import Clock
from emlab.idle import NO_GAPS, Past, Use

KEPT_S = 60.0


class Uses:
    """The uses of one cloud. Thread-safe; its lock is held for a moment only, never while waiting for another.

    Args:
        past: as it was kept when an earlier object of this cloud ended; None if nothing was.
    """

    def __init__(self, cloud: str, clock: Clock, past: Past | None = None) -> None:
        self._cloud = cloud
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[int, float] = {}
        self._numbers = itertools.count()
        self._last_ts = clock.now() if past is None else past.last_use_ts
        self._gaps = NO_GAPS if past is None else past.gaps
        self._was_used = past is not None  # before, there was no gap that anybody saw begin
        self._gap_s: float | None = None  # which ended when the uses that are under way began

    def now(self) -> Use:
        """Last use and leases. None is later than it can be, also if the clock was set back."""
        with self._lock:
            now = self._expire()
            for number, until_ts in self._leases.items():
                if until_ts != math.inf:
                    self._leases[number] = min(until_ts, now + MAX_LEASE_S)
            return Use(self._cloud, self._last_ts, tuple(self._leases.values()), self._gaps)

    def past(self) -> Past:
        """What is to be kept of it. What is in use now was used at the last full minute."""
        with self._lock:
            now = self._expire()
            last_ts = max(self._last_ts, now - now % KEPT_S) if self._leases else self._last_ts
            return Past(last_ts, self._gaps)

    def begin(self, until_ts: float) -> int:
        """The cloud is in use until then (UTC seconds), or until `end` of the number that is returned."""
        with self._lock:
            now = self._expire()
            if self._was_used and not self._leases:
                self._gap_s = now - self._last_ts
            number = next(self._numbers)
            self._leases[number] = until_ts
            return number

    def _expire(self) -> float:
        """The time. Leases that have ended by themselves were uses until then."""
        now = self._clock.now()
        self._last_ts = min(self._last_ts, now)
        for number in [number for number, until_ts in self._leases.items() if until_ts <= now]:
            self._note(max(self._last_ts, self._leases.pop(number)))
        return now

    def end(self, number: int, *, used: bool = True) -> None:
        """That use has ended, or was none. Idempotent."""
        with self._lock:
            if self._leases.pop(number, None) is not None and used:
                self._note(self._clock.now())

    def _note(self, last_ts: float) -> None:
        """It was used until then."""
        if self._gap_s is not None:
            self._gaps, self._gap_s = self._gaps.plus(self._gap_s), None
        self._last_ts, self._was_used = last_ts, True

    def clear(self) -> None:
        """Nobody uses it any more, whatever was said; until now it was used, if somebody did."""
        with self._lock:
            now = self._expire()
            if self._leases:
                self._note(now)
            self._leases.clear()
