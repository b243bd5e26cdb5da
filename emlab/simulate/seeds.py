"""Where chance comes from: every person, day and trip has a stream of its own, named by words.

So the k-th person does not depend on how many others there are, nor the first day on how many follow. Imports numpy
when a stream is made.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import RandomState

VERSION = "emlab/simulate/1"


def digest(seed: int, *words: str | int) -> bytes:
    """32 bytes that depend on the seed and the words alone, the same in every process (unlike `hash`)."""
    text = "\0".join([VERSION, str(seed), *map(str, words)])
    return hashlib.sha256(text.encode()).digest()


def stream(seed: int, *words: str | int) -> RandomState:
    """A generator for what the words name.

    RandomState and not default_rng: numpy promises that its numbers never change from version to version, and an
    experiment must find its people again. Source: NEP 19, "Random number generator policy".
    """
    import numpy as np

    return np.random.RandomState(np.frombuffer(digest(seed, *words), dtype="<u4").astype(np.uint32))
