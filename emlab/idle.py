"""Which clouds have been idle for long enough to be paused or locked: pure rules, no clock, no engine.

Imports nothing of emlab but errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Protocol, runtime_checkable

from emlab.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Use:
    """What a rule is told of one cloud.

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


@runtime_checkable
class LockRule(Protocol):
    """An idle rule that also decides which clouds to lock: their owners must unlock them with the key. Pure."""

    def due_to_lock(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The ids of the clouds to lock now, the longest idle first; never one under a running lease.

        Args:
            clouds: all clouds, running or not, each once. now: UTC seconds.
        """


@dataclass(frozen=True, slots=True)
class PauseAfter:
    """Pause a cloud that nobody used for a while; lock one that nobody used for longer.

    A paused cloud wakes when it is asked, so its vault stays open. A locked one waits for its owner's key.

    Args:
        idle_s: until it pauses, above 0. lock_after_s: of the same idle time, until it locks; at least idle_s. Without
            it no cloud is locked.
    Raises: ConfigError.
    """

    idle_s: float
    lock_after_s: float | None = None

    def __post_init__(self) -> None:
        if not _is_span(self.idle_s):
            raise ConfigError(f"PauseAfter needs a positive number of seconds, not {self.idle_s!r}; see also Never()")
        if self.lock_after_s is not None and not (_is_span(self.lock_after_s) and self.lock_after_s >= self.idle_s):
            raise ConfigError(
                f"lock_after_s is a number of seconds and at least idle_s ({self.idle_s:g}), not {self.lock_after_s!r}"
            )

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The clouds that were idle for that long; see IdleRule."""
        return _idle(clouds, now, self.idle_s)

    def due_to_lock(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The clouds that were idle for the longer time; see LockRule."""
        return [] if self.lock_after_s is None else _idle(clouds, now, self.lock_after_s)

    def __repr__(self) -> str:
        lock = "" if self.lock_after_s is None else f", lock after {self.lock_after_s:g} s"
        return f"PauseAfter({self.idle_s:g} s{lock})"


def _is_span(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


def _idle(clouds: Sequence[Use], now: float, span_s: float) -> list[str]:
    idle = [use for use in clouds if use.idle_s(now) >= span_s and not use.leased(now)]
    return [use.cloud for use in sorted(idle, key=lambda use: use.last_use_ts)]


@dataclass(frozen=True, slots=True)
class Never:
    """Pause no cloud, however long it is idle."""

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """Nothing, ever; see IdleRule."""
        return []
