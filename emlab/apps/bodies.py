"""Bodies of requests while they come: how slowly, how many at once, and how much memory they may take together."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from emlab.errors import Unreachable
from emlab.wire.table import MAX_BODY_BYTES

BODY_S, BODY_BYTES_PER_S = 10.0, 16 << 10  # until a body is there, and one more second for so much of it as has come
UNKNOWN_S = 180.0  # until the whole of a body is there that may tell by itself who sends it
SMALL_BODY_BYTES = 1 << 20  # is always read
MAX_READING_BYTES = 2 * MAX_BODY_BYTES  # of larger bodies at once: who sends one may be known only by what is in it
MAX_READING_EACH = MAX_BODY_BYTES  # of those from one address


class Full(Exception):
    """There is no room just now, which is answered by 503 and `error`."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.error = Unreachable(message)


class Places:
    """Of each key, at most so many at once. For one event loop."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._taken: dict[str, int] = {}

    @contextmanager
    def of(self, key: str) -> Iterator[None]:
        """The block has one of the places. Raises Full: all are taken."""
        taken = self._taken.get(key, 0)
        if taken >= self._each:
            raise Full("there are too many requests at once: ask again soon")
        self._taken[key] = taken + 1
        try:
            yield
        finally:
            left = self._taken.pop(key) - 1
            if left:
                self._taken[key] = left


class Pace:
    """Until when the next part of a body has to be there: each part earns the time that it may take.

    Args:
        whole_s: for all parts, whatever they earn.
    Attributes:
        until: by the clock of the running loop.
    """

    def __init__(self, first_s: float, bytes_per_s: float, *, whole_s: float = math.inf) -> None:
        now = asyncio.get_running_loop().time()
        self.until = now + min(first_s, whole_s)
        self._end = now + whole_s
        self._first_s = first_s
        self._bytes_per_s = bytes_per_s

    def earn(self, part: bytes) -> None:
        """The part has come. What came early earns no more than three times what the first part had."""
        now = asyncio.get_running_loop().time()
        self.until = min(self.until + len(part) / self._bytes_per_s, now + 3 * self._first_s, self._end)


class Reading:
    """How much memory large bodies may take at once, and those from one address. For one event loop."""

    def __init__(self) -> None:
        self._bytes: Counter[str] = Counter()

    @contextmanager
    def of(self, size: int, address: str = "") -> Iterator[Read]:
        """The parts of a body of that size that are kept in the block are in memory. Raises Full.

        Args:
            address: of the sender; "" on a socket, where none has one.
        """
        if size > SMALL_BODY_BYTES:
            self._check(size, address)
        read = Read(self, address)
        try:
            yield read
        finally:
            self.give(read.counted, address)

    def take(self, size: int, address: str) -> None:
        """So much more from there is in memory. Raises Full."""
        self._check(size, address)
        self._bytes[address] += size

    def give(self, size: int, address: str) -> None:
        """So much from there is not in memory any more."""
        self._bytes[address] -= size
        if not self._bytes[address]:
            del self._bytes[address]

    def _check(self, size: int, address: str) -> None:
        full = self._bytes.total() + size > MAX_READING_BYTES
        if full or (address and self._bytes[address] + size > MAX_READING_EACH):
            raise Full("there are too many large requests at once: ask again soon")


class Read:
    """What has come of one body. Who only says that much will come takes no room from others."""

    def __init__(self, reading: Reading, address: str) -> None:
        self._reading = reading
        self._address = address
        self._bytes = 0
        self.counted = 0

    def keep(self, part: bytes) -> bytes:
        """The part, which is in memory from now on; small bodies are not counted. Raises Full."""
        self._bytes += len(part)
        if self._bytes > SMALL_BODY_BYTES:
            self._reading.take(self._bytes - self.counted, self._address)
            self.counted = self._bytes
        return part
