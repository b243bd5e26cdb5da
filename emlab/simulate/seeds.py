"""Where chance comes from: every person, day and trip has a stream of its own, named by words.

So the k-th person does not depend on how many others there are, nor the first day on how many follow. Imports numpy
when a stream is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.random import RandomState

VERSION = "emlab/simulate/2"


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


def pick(chance: RandomState, weights: Sequence[float]) -> int:
    """A number from 0 to len(weights) - 1, each as often as its weight says.

    Adds one by one: Python's own `sum` of floats differs from version to version.
    """
    ends, total = [], 0.0
    for weight in weights:
        total += weight
        ends.append(total)
    mark = chance.random_sample() * total
    return next((k for k, end in enumerate(ends) if mark < end), len(ends) - 1)
