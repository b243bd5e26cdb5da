"""In which order two or more arms take turns. Pure; imports of emlab only errors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, TypeVar

from emlab.errors import ConfigError

T = TypeVar("T")
Arm = Literal["emlab", "raw"]
ARMS: tuple[Arm, Arm] = ("emlab", "raw")


def interleave(n: int, seed: int) -> list[tuple[Arm, Arm]]:
    """The order of the arms in each of `n` rounds: each arm is first in half of them (one more if n is odd), shuffled.

    So whatever drifts during a run, or is left behind by the arm before, falls on both arms alike.
    Raises: ConfigError (n is below 1).
    """
    return [(first, second) for first, second in turns(ARMS, n, seed)]


def turns(arms: Sequence[T], n: int, seed: int) -> list[tuple[T, ...]]:
    """The order of any number of arms in each of `n` rounds, of which each order is as frequent as the others.

    The orders are the rotations of the arms and of their reverse: each arm comes first, second ... equally often, and
    its neighbour is not always before it. Raises: ConfigError (n is below 1, or there is no arm).
    """
    if n < 1 or not arms:
        raise ConfigError(f"a comparison takes 1 round or more and something to compare, not {n} of {len(arms)} arms")
    draw = random.Random(seed)  # noqa: S311 - an order, no secret
    rotations = [(*arms[k:], *arms[:k]) for k in range(len(arms))]
    orders = list(dict.fromkeys([*rotations, *(order[::-1] for order in rotations)]))
    draw.shuffle(orders)
    plan = [orders[number % len(orders)] for number in range(n)]
    draw.shuffle(plan)
    return plan
