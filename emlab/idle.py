"""Which clouds to pause, to lock, or to wake because they will soon be used: pure rules, no clock, no engine.

Imports nothing of emlab but errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple, Protocol, runtime_checkable

from emlab.errors import ConfigError

LEAST_GAP_S = 1.0
BINS, BINS_PER_DOUBLING = 320, 16  # from 1 s to 12 days, each 4.4 % wide
KEPT_GAPS = 256


@dataclass(frozen=True, slots=True)
class Gaps:
    """How long a cloud was idle between two uses: how often each length occurred, in few bytes however many there were.

    Attributes:
        counts: bin and count, ascending, of those bins that hold any. Bin k holds gaps of 2**(k/16) s up to
            2**((k+1)/16) s, the last one also longer ones.
    """

    counts: tuple[tuple[int, int], ...] = ()

    def plus(self, gap_s: float) -> Gaps:
        """These gaps and that one; one below a second is none. At every 256 gaps all counts halve: old habits fade."""
        if not gap_s >= LEAST_GAP_S:
            return self
        number = BINS - 1 if gap_s == math.inf else min(int(math.log2(gap_s) * BINS_PER_DOUBLING), BINS - 1)
        full = self.total >= KEPT_GAPS
        counts = {before: count // 2 if full else count for before, count in self.counts}
        counts[number] = counts.get(number, 0) + 1
        return Gaps(tuple(sorted(item for item in counts.items() if item[1])))

    @property
    def total(self) -> int:
        """How many gaps there were, as far as they did not fade."""
        return sum(count for _, count in self.counts)

    def span(self, head: float, tail: float) -> tuple[float, float]:
        """Seconds between which the gaps lie, but for a share of `head` below and of `1 - tail` above.

        Bins count whole. The upper end is infinite if it lies in the last bin. Without gaps: from 0 to infinity.
        """
        if not self.counts:
            return 0.0, math.inf
        first, last = self._bin(head), self._bin(tail)
        return _edge(first), math.inf if last == BINS - 1 else _edge(last + 1)

    def _bin(self, share: float) -> int:
        wanted, seen = max(1, math.ceil(share * self.total)), 0
        for number, count in self.counts:
            seen += count
            if seen >= wanted:
                return number
        return BINS - 1

    @property
    def spread(self) -> float:
        """Standard deviation over mean: 0 if the cloud is used like clockwork, 1 if at random (Poisson).

        Infinite without gaps. Source: Shahrad et al. 2020 (see Histogram), section 3.3, tell functions apart by it.
        """
        if not self.counts:
            return math.inf
        middles = [(_edge(number + 0.5), count) for number, count in self.counts]
        total = self.total
        mean = sum(middle * count for middle, count in middles) / total
        return math.sqrt(sum((middle - mean) ** 2 * count for middle, count in middles) / total) / mean


def _edge(number: float) -> float:
    return float(2.0 ** (number / BINS_PER_DOUBLING))


NO_GAPS = Gaps()


@dataclass(frozen=True, slots=True)
class Use:
    """What a rule is told of one cloud.

    Attributes:
        cloud: its id.
        last_use_ts: when somebody last stored, asked or read; UTC seconds.
        leases: when each of its leases expires; UTC seconds, `math.inf` for one that never does.
        gaps: how long it was idle between earlier uses.
    """

    cloud: str
    last_use_ts: float
    leases: tuple[float, ...] = ()
    gaps: Gaps = NO_GAPS

    def leased(self, now: float) -> bool:
        """Whether a lease is still running; at the moment of its expiry it no longer is."""
        return any(not expiry_ts <= now for expiry_ts in self.leases)  # a lease of NaN keeps the cloud awake

    def idle_s(self, now: float) -> float:
        """Seconds since the last use; negative if the clock was set back since."""
        return now - self.last_use_ts


@dataclass(frozen=True, slots=True)
class Past:
    """What is kept of a cloud's uses when its controller ends: see `Use`."""

    last_use_ts: float
    gaps: Gaps = NO_GAPS


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


@runtime_checkable
class WakeRule(Protocol):
    """An idle rule that also decides which paused clouds to wake, because somebody will soon use them. Pure."""

    def due_to_wake(self, sleeping: Sequence[Use], now: float) -> list[str]:
        """The ids of the clouds to wake now, the longest idle first. Such a wake is no use.

        Args:
            sleeping: the paused clouds, each once. now: UTC seconds.
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
    return _longest_first(use for use in clouds if use.idle_s(now) >= span_s and not use.leased(now))


def _longest_first(clouds: Iterable[Use]) -> list[str]:
    """Their ids; where two were used at the same time their order says nothing, but is always the same."""
    return [use.cloud for use in sorted(clouds, key=lambda use: (use.last_use_ts, use.cloud))]


@dataclass(frozen=True, slots=True)
class Never:
    """Pause no cloud, however long it is idle."""

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """Nothing, ever; see IdleRule."""
        return []


class Limits(NamedTuple):
    """After how many seconds without use an owner wants the own cloud paused or locked at the latest; None: no wish."""

    pause_after_s: float | None = None
    lock_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Sooner:
    """What a rule decides, and for owners who want it the same or sooner. Also a LockRule and a WakeRule.

    Args:
        rule: the lab's. limits: of owners, by cloud.
    """

    rule: IdleRule
    limits: Mapping[str, Limits]

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The clouds that the rule names, and those whose owners want it by now; see IdleRule."""
        return self._with(self.rule.due(clouds, now), clouds, now, 0)

    def due_to_lock(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The same for locking; see LockRule."""
        named = self.rule.due_to_lock(clouds, now) if isinstance(self.rule, LockRule) else []
        return self._with(named, clouds, now, 1)

    def due_to_wake(self, sleeping: Sequence[Use], now: float) -> list[str]:
        """The clouds that the rule names, but for those whose owners want them asleep; see WakeRule."""
        named = self.rule.due_to_wake(sleeping, now) if isinstance(self.rule, WakeRule) else []
        asleep = set(self._with([], sleeping, now, 0))
        return [cloud for cloud in named if cloud not in asleep]

    def _with(self, named: list[str], clouds: Sequence[Use], now: float, which: int) -> list[str]:
        """Those that are named, and those that are idle for longer than their owners want."""
        return _longest_first(use for use in clouds if use.cloud in named or self._over(use, now, which))

    def _over(self, use: Use, now: float, which: int) -> bool:
        limit_s = self.limits.get(use.cloud, Limits())[which]
        return limit_s is not None and use.idle_s(now) >= limit_s and not use.leased(now)


@dataclass(frozen=True, slots=True)
class AtMost:
    """At most so many clouds run; of more, those pause that nobody used for the longest time (LRU).

    A leased cloud is not paused but counts, so that more run when more are leased.

    Args:
        n: clouds, at least 1. idle_s: until a cloud pauses though there is room, above 0. Without it none does.
    Raises: ConfigError.
    """

    n: int
    idle_s: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise ConfigError(f"AtMost needs a whole number of clouds, at least 1, not {self.n!r}")
        if self.idle_s is not None and not _is_span(self.idle_s):
            raise ConfigError(f"idle_s is a positive number of seconds, not {self.idle_s!r}")

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The clouds that are too many, or idle for that long; see IdleRule."""
        idle = _idle(clouds, now, 0.0)
        outdated = [] if self.idle_s is None else _idle(clouds, now, self.idle_s)
        return idle[: max(len(clouds) - self.n, len(outdated))]  # both are the longest idle ones

    def __repr__(self) -> str:
        return f"AtMost({self.n})" if self.idle_s is None else f"AtMost({self.n}, {self.idle_s:g} s)"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Keep each cloud awake when its own past says that it will be used, and let it sleep for the rest.

    It stays awake until nearly all of its gaps between uses have been this long. If nearly none was short, it is paused
    at once instead, and woken shortly before the shortest usual gap has passed. A cloud with few gaps, or with gaps
    that say nothing, pauses after a fixed time.

    Args:
        idle_s: that fixed time, above 0; also the shortest sleep that is worth a pause before an expected use.
        head, tail: which shares of the gaps count as too short and as short enough, 0 <= head < tail <= 1.
        margin: by which share a cloud is awake sooner and longer than that, 0 to 1 without 1.
        least: how many gaps are enough to judge by, from 1 to 128.
        spread: above which standard deviation over mean gaps say nothing, above 0; see `Gaps.spread`.
    Raises: ConfigError.
    Source: Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020), section 4.2: percentiles 5 and 99, margin 10 %.
        Their bins are 240 of a minute, and gaps say nothing where the counts in these are too even; these bins are as
        fine for a second as for a week, so the gaps themselves are judged. They keep the rest for four hours, which
        suits functions that take seconds to load: a cloud wakes in milliseconds. `least` and `spread` are ours: 2.5 %
        of all tens of gaps of a Poisson process have a spread of at most 0.5.
    """

    idle_s: float = 60.0
    head: float = 0.05
    tail: float = 0.99
    margin: float = 0.1
    least: int = 10
    spread: float = 0.5

    def __post_init__(self) -> None:
        if not (_is_span(self.idle_s) and _is_span(self.spread)):
            raise ConfigError(f"idle_s and spread are positive numbers, not {self.idle_s!r} and {self.spread!r}")
        if not (_is_share(self.head) and _is_share(self.tail) and self.head < self.tail):
            raise ConfigError(f"head and tail are shares, 0 <= head < tail <= 1, not {self.head!r} and {self.tail!r}")
        if not (_is_share(self.margin) and self.margin < 1):
            raise ConfigError(f"margin is a share of at least 0 and below 1, not {self.margin!r}")
        if not isinstance(self.least, int) or isinstance(self.least, bool) or not 1 <= self.least <= KEPT_GAPS // 2:
            raise ConfigError(f"least is a whole number from 1 to {KEPT_GAPS // 2}, not {self.least!r}")

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        """The clouds of which no use is expected now; see IdleRule."""
        return _longest_first(use for use in clouds if not use.leased(now) and self._sleeps(use, now))

    def due_to_wake(self, sleeping: Sequence[Use], now: float) -> list[str]:
        """The clouds that were to sleep until about now; see WakeRule."""
        expected = ((use, *self._awake(use.gaps)) for use in sleeping)
        return _longest_first(use for use, from_s, until_s in expected if 0 < from_s <= use.idle_s(now) < until_s)

    def _sleeps(self, use: Use, now: float) -> bool:
        from_s, until_s = self._awake(use.gaps)
        idle_s = use.idle_s(now)
        return LEAST_GAP_S <= idle_s < from_s or idle_s >= until_s

    def _awake(self, gaps: Gaps) -> tuple[float, float]:
        """Between which idle times the cloud is to be awake, in seconds; from 0 if it is not to be paused before."""
        if gaps.total < self.least or gaps.spread > self.spread:
            return 0.0, self.idle_s
        head_s, tail_s = gaps.span(self.head, self.tail)
        if tail_s == math.inf:
            return 0.0, self.idle_s
        from_s = head_s * (1 - self.margin)
        return from_s if from_s > self.idle_s else 0.0, tail_s * (1 + self.margin)

    def __repr__(self) -> str:
        return f"Histogram({self.idle_s:g} s, or p{100 * self.head:g} to p{100 * self.tail:g} of past gaps)"


def _is_share(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) <= 1


def check_rule(rule: object) -> None:
    """Returns if that can be followed. Raises ConfigError."""
    if not callable(getattr(rule, "due", None)):
        raise ConfigError(f"idle is a rule, such as em.PauseAfter(60.0) or em.Never(), not {rule!r}")


RULES: Mapping[str, type[IdleRule]] = {rule.__name__: rule for rule in (Never, PauseAfter, AtMost, Histogram)}


def rule_of(kind: str, parameters: Mapping[str, int | float | None]) -> IdleRule:
    """The rule of this name and parameters, as they travel. Raises ConfigError."""
    if kind not in RULES:
        raise ConfigError(f"there is no idle rule {kind[:80]!r}; choose one of {', '.join(RULES)}")
    try:
        return RULES[kind](**parameters)
    except TypeError as exc:
        raise ConfigError(f"these are not the parameters of {kind}: {exc}") from exc
