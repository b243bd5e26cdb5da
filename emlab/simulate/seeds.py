"""Where chance comes from: every person, day and trip has a stream of its own, named by words.

So the k-th person does not depend on how many others there are, nor the first day on how many follow. Imports numpy
when an array is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = "emlab/simulate/2"
_STEP = 2.0**-53  # a number has 53 random bits, as many as a float holds


def digest(seed: int, *words: str | int) -> bytes:
    """32 bytes that depend on the seed and the words alone, the same in every process (unlike `hash`)."""
    return hashlib.sha256(_name(seed, words)).digest()


def stream(seed: int, *words: str | int) -> Stream:
    """The numbers that belong to what the words name."""
    return Stream(_name(seed, words))


def _name(seed: int, words: Sequence[str | int]) -> bytes:
    return "\0".join([VERSION, str(seed), *map(str, words)]).encode()


class Stream:
    """Uniform numbers in [0, 1), one draw after the other; a longer draw begins with the numbers of a shorter one.

    They are the output of SHAKE-128 over the stream's name and the number of the draw. So a standard fixes each bit of
    them, whatever the version of Python or numpy; and a stream costs two microseconds, where seeding numpy's Mersenne
    Twister takes 180, which is more than a trip's numbers are worth. Source: FIPS 202, "SHA-3 Standard" (2015).
    """

    __slots__ = ("_draws", "_name")

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._draws = 0

    def one(self) -> float:
        """The next number."""
        return (int.from_bytes(self._bytes(1), "little") >> 11) * _STEP

    def some(self, count: int) -> list[float]:
        """So many numbers."""
        drawn = self._bytes(count)
        return [(int.from_bytes(drawn[k : k + 8], "little") >> 11) * _STEP for k in range(0, len(drawn), 8)]

    def table(self, rows: int, columns: int) -> NDArray[np.float64]:
        """Numbers row by row: the first rows are the same however many follow."""
        import numpy as np

        drawn = np.frombuffer(self._bytes(rows * columns), dtype="<u8") >> np.uint64(11)
        return np.asarray(drawn * _STEP, dtype=np.float64).reshape(rows, columns)

    def _bytes(self, count: int) -> bytes:
        self._draws += 1
        return hashlib.shake_128(b"%s\0%d" % (self._name, self._draws)).digest(8 * count)


def pick(chance: Stream, weights: Sequence[float]) -> int:
    """A number from 0 to len(weights) - 1, each as often as its weight says.

    Adds one by one: Python's own `sum` of floats differs from version to version.
    """
    ends, total = [], 0.0
    for weight in weights:
        total += weight
        ends.append(total)
    mark = chance.one() * total
    return next((k for k, end in enumerate(ends) if mark < end), len(ends) - 1)
