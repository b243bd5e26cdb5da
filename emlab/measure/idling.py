"""What an idle rule costs and spares, for uses at given times: no cloud runs, and no time passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emlab.errors import ConfigError
from emlab.idle import NO_GAPS, Gaps, IdleRule, Use, WakeRule

if TYPE_CHECKING:
    import pandas as pd


@dataclass(slots=True)
class _Cloud:
    """One cloud on the way through its uses: `since_ts` is when it woke, None while it sleeps."""

    name: str
    last_use_ts: float
    since_ts: float | None
    gaps: Gaps = NO_GAPS
    uses: int = 0
    cold: int = 0
    awake_s: float = 0.0

    def use(self, ts: float) -> None:
        self.uses += 1
        self.cold += self.since_ts is None
        self.gaps = self.gaps.plus(ts - self.last_use_ts)
        self.last_use_ts = ts
        self.wake(ts)

    def wake(self, ts: float) -> None:
        self.since_ts = ts if self.since_ts is None else self.since_ts

    def pause(self, ts: float) -> None:
        if self.since_ts is not None:
            self.awake_s += ts - self.since_ts
            self.since_ts = None

    def seen(self) -> Use:
        return Use(self.name, self.last_use_ts, gaps=self.gaps)


def idling(uses: Mapping[str, Sequence[float]], rule: IdleRule, *, sweep_s: float = 5.0) -> pd.DataFrame:
    """What a rule would have done with clouds that were used at these times.

    Each cloud is watched from its first use, which counts as none, to the last use of all. A use takes no time.

    Args:
        uses: for each cloud when it was used, UTC seconds, ascending. sweep_s: from one sweep to the next, above 0.
    Returns:
        one row per cloud, index `cloud`: `uses`; `cold_wakes`, uses that found it asleep; `awake_s`; `hours` watched;
        `awake_s_per_hour`, 3600 if it never slept.
    Raises: ConfigError (no uses, no span).
    """
    import pandas as pd

    if not sweep_s > 0 or not all(uses.values()) or not uses:
        raise ConfigError(f"every cloud needs a use, and sweeps more than 0 s between them, not {sweep_s!r}")
    clouds = {name: _Cloud(name, times[0], None) for name, times in uses.items()}
    end_ts = _play(clouds, sorted((ts, name) for name, times in uses.items() for ts in times), rule, sweep_s)
    rows = {name: _row(cloud, (end_ts - uses[name][0]) / 3600) for name, cloud in clouds.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("cloud")


def _play(clouds: Mapping[str, _Cloud], uses: Sequence[tuple[float, str]], rule: IdleRule, sweep_s: float) -> float:
    """All uses have come to pass, with sweeps in between; returns when that was."""
    born: dict[str, _Cloud] = {}
    sweep_ts = uses[0][0] + sweep_s
    for ts, name in uses:
        while sweep_ts <= ts:
            _sweep(born, rule, sweep_ts)
            sweep_ts += sweep_s
        if name in born:
            clouds[name].use(ts)
        else:
            born[name] = clouds[name]
            clouds[name].wake(ts)
    for cloud in clouds.values():
        cloud.pause(uses[-1][0])
    return uses[-1][0]


def _sweep(clouds: Mapping[str, _Cloud], rule: IdleRule, now: float) -> None:
    for name in rule.due([cloud.seen() for cloud in clouds.values() if cloud.since_ts is not None], now):
        clouds[name].pause(now)
    if isinstance(rule, WakeRule):
        sleeping = [cloud.seen() for cloud in clouds.values() if cloud.since_ts is None]
        for name in rule.due_to_wake(sleeping, now):
            clouds[name].wake(now)


def _row(cloud: _Cloud, hours: float) -> dict[str, float]:
    per_hour = cloud.awake_s / hours if hours else 0.0
    return {
        "uses": cloud.uses,
        "cold_wakes": cloud.cold,
        "awake_s": cloud.awake_s,
        "hours": hours,
        "awake_s_per_hour": per_hour,
    }
