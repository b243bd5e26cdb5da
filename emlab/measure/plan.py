"""In which order two arms take turns. Pure; imports of emlab only errors."""

from __future__ import annotations

import random
from typing import Literal

from emlab.errors import ConfigError

Arm = Literal["emlab", "raw"]
ARMS: tuple[Arm, Arm] = ("emlab", "raw")


def interleave(n: int, seed: int) -> list[tuple[Arm, Arm]]:
    """The order of the arms in each of `n` rounds: each arm is first in half of them (one more if n is odd), shuffled.

    So whatever drifts during a run, or is left behind by the arm before, falls on both arms alike.
    Raises: ConfigError (n is below 1).
    """
    if n < 1:
        raise ConfigError(f"a comparison takes 1 round or more, not {n}")
    draw = random.Random(seed)  # noqa: S311 - an order, no secret
    orders = [ARMS, ARMS[::-1]]
    draw.shuffle(orders)
    plan = [orders[number % 2] for number in range(n)]
    draw.shuffle(plan)
    return plan
