"""A gate through which only so many threads go at once, in the order in which they came. L1."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from emlab.errors import ConfigError, Unreachable


class Gate:
    """At most `width` threads are inside at once; the others wait, first come first served. Thread-safe.

    No one overtakes: who leaves hands the place to who waits longest, not to whoever happens to come by.

    Args:
        what: for the error, such as "calls to the engine".
    """

    def __init__(self, what: str, width: int) -> None:
        if width < 1:
            raise ConfigError(f"a gate for {what} lets through 1 or more at once, not {width}")
        self._what = what
        self._free = width
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def through(self, timeout_s: float | None = None) -> Iterator[None]:
        """The block is one of the few that run. Raises Unreachable: no turn within `timeout_s`; None waits for ever."""
        self._enter(timeout_s)
        try:
            yield
        finally:
            self._leave()

    @property
    def waiting(self) -> int:
        """How many threads wait for their turn."""
        return len(self._waiting)

    def _enter(self, timeout_s: float | None) -> None:
        with self._lock:
            if self._free:  # then nobody waits
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            came = turn.wait(timeout_s)
        except BaseException:  # Ctrl-C while it waits
            self._give_up(turn)
            raise
        if not came:
            self._give_up(turn)
            raise Unreachable(f"there were too many {self._what}: no turn within {timeout_s:g} s")

    def _give_up(self, turn: threading.Event) -> None:
        """The turn is another's; if it has come meanwhile, it is handed on."""
        with self._lock:
            if not turn.is_set():
                self._waiting.remove(turn)
                return
        self._leave()

    def _leave(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
