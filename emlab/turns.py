"""Turns: long work that is done once at a time, for which one more may wait. L1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from emlab.errors import InUse


class Turns:
    """One at a time, and one that waits for its turn. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = self._waiting = False

    @contextmanager
    def turn(self, refusal: str, *, waits: bool = True) -> Iterator[None]:
        """Nobody else has a turn. Raises InUse, with this message, if somebody waits already.

        Args:
            waits: False raises it also while somebody has a turn.
        """
        with self._changed:
            if self._waiting or (self._running and not waits):
                raise InUse(refusal)
            self._waiting = True
            try:
                self._changed.wait_for(lambda: not self._running)
            finally:
                self._waiting = False
            self._running = True
        try:
            yield
        finally:
            with self._changed:
                self._running = False
                self._changed.notify()
