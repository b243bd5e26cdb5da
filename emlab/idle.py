"""Which clouds have been idle for long enough to be paused: pure rules, no clock, no engine.

Imports nothing of emlab but errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Protocol

from emlab.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Use:
    """What a rule is told of one running cloud.

    Attributes:
        cloud: its id.
        last_use_ts: when somebody last stored, asked or read; UTC seconds.
        leases: when each of its leases expires; UTC seconds, `math.inf` for one that never does.
    """

    cloud: str
    last_use_ts: float
    leases: tuple[float, ...] = ()

    def leased(self, now: float) -> bool:
        """Whether a lease is still running; at the moment of its expiry it no longer is."""
        return any(not expiry_ts <= now for expiry_ts in self.leases)  # a lease of NaN keeps the cloud awake

    def idle_s(self, now: float) -> float:
        """Seconds since the last use; negative if the clock was set back since."""
        return now - self.last_use_ts


class IdleRule(Protocol):
    """Decides which clouds to pause. Pure: the same arguments give the same answer, and nothing is paused here."""

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The ids of the clouds to pause now, the longest idle first; never one under a running lease.

        Args:
            clouds: the running clouds, each once.
            now: UTC seconds.
        """


@dataclass(frozen=True, slots=True)
class PauseAfter:
    """Pause a cloud that nobody used for `idle_s` seconds (above 0, finite). Raises ConfigError otherwise."""

    idle_s: float

    def __post_init__(self) -> None:
        number = isinstance(self.idle_s, Real) and not isinstance(self.idle_s, bool)
        if not number or not 0 < self.idle_s < math.inf:
            raise ConfigError(f"PauseAfter needs a positive number of seconds, not {self.idle_s!r}; see also Never()")

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The clouds that were idle for that long; see IdleRule."""
        idle = [use for use in clouds if use.idle_s(now) >= self.idle_s and not use.leased(now)]
        return [use.cloud for use in sorted(idle, key=lambda use: use.last_use_ts)]

    def __repr__(self) -> str:
        return f"PauseAfter({self.idle_s:g} s)"


@dataclass(frozen=True, slots=True)
class Never:
    """Pause no cloud, however long it is idle."""

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """Nothing, ever; see IdleRule."""
        return []
