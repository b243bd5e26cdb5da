"""From samples of a served lab to one row per measure: percentiles of both arms, their ratio, targets.

Imports numpy and pandas when something is computed, and of emlab only how ratios are made.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from emlab.measure.ratio import Target, met, ratio_of_medians

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from emlab.measure.ratio import Numbers

WAKE, WAKE_ALL, AWAKE = "wake to first byte", "wake all at once", "first byte when awake"
ANSWER, ADDED = "answer", "added to an answer"
RATE, ALONE, WORK = "load", "load on the gateway alone", "CPU per request"
RESTART, MEMORY = "restart", "memory"
IDLE, ASLEEP = "CPU when idle", "CPU of paused clouds"
TLS = " over TLS"
TARGETS = {
    WAKE: Target(1.1),
    WAKE_ALL: Target(1.1),
    ADDED: Target(1.0, limit=0.0005),
    ALONE: Target(1.0, limit=8000.0),
    RESTART: Target(1.0, limit=2.0),
    MEMORY: Target(1.0, limit=120.0),
    IDLE: Target(1.0, limit=1.0),
    ASLEEP: Target(1.0, limit=0.01),  # 0, as far as ticks of 10 ms tell
}
PER_S = "requests/s"
COLUMNS = ["measure", "engine", "clouds", "unit", "n", "failed", "raw_failed", "p50", "p95", "p99"]
COLUMNS += ["raw_p50", "raw_p95", "raw_p99", "against", "ratio", "low", "high", "target", "met"]


def costs(samples: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per measure, engine and number of clouds.

    Args:
        samples: as `side_by_side` returns them. seed: of the bootstrap.
    Returns:
        measure, engine, clouds, unit; n: attempts of the arm emlab; failed, raw_failed: those of each arm that failed;
        p50, p95, p99 and raw_p50 ...: what so many percent of the attempts took at most, a failed one counted as one
        that never ended; of a load: how many requests a second so many percent of the rounds reached at least;
        against: "raw", or a limit instead; ratio: of the medians, of a load that of the times per request;
        low, high: its 95 % interval, from a bootstrap over rounds;
        target: the most that the ratio may be; met: whether all of the interval is within it, or beyond it, else NA.
        "added to an answer" is how much longer an answer took by the gateway than the direct one of the same round.
    """
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    frame = pd.concat([samples, _added(samples)], ignore_index=True)
    groups = frame.groupby(["measure", "engine", "clouds"], sort=False)
    rows = [_row(str(measure), engine, clouds, group, rng) for (measure, engine, clouds), group in groups]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"met": "boolean"})


def _added(samples: pd.DataFrame) -> pd.DataFrame:
    """Samples of how much longer an answer took by the gateway; one of which a half failed has failed."""
    import pandas as pd

    frames = []
    for suffix in ("", TLS):
        answers = samples[samples["measure"] == ANSWER + suffix]
        arms = [answers[answers["arm"] == arm] for arm in ("emlab", "raw")]
        if all(map(len, arms)):
            pairs = arms[0].merge(arms[1], on=["engine", "clouds", "round"], suffixes=("", "_raw"))
            value = pairs["value"] - pairs["value_raw"]
            frames.append(pairs.assign(value=value, measure=ADDED + suffix, ok=value.notna())[samples.columns])
    return pd.concat(frames, ignore_index=True) if frames else samples.head(0)


def _row(measure: str, engine: object, clouds: object, group: pd.DataFrame, rng: np.random.Generator) -> list[object]:
    import numpy as np

    unit = str(group["unit"].iloc[0])
    target = TARGETS.get(measure, Target(math.nan))
    arms = {arm: group[group["arm"] == arm] for arm in ("emlab", "raw")}
    failed = [int((~one["ok"]).sum()) for one in arms.values()]
    quantiles = [_shown(cost, unit) for one in arms.values() for cost in _quantiles(_costs(one, unit))]
    mine, theirs = _by_round(arms["emlab"], unit), _by_round(arms["raw"], unit)
    rounds = sorted(set(mine) | set(theirs))
    ours: Numbers = np.array([mine.get(number, math.inf) for number in rounds])
    base: Numbers = np.array([theirs.get(number, math.inf if theirs else math.nan) for number in rounds])
    against = "raw"
    if target.limit is not None:
        against = f"{'at least ' * (unit == PER_S)}{target.limit:g} {unit}"
        base = np.full(len(rounds), _shown(target.limit, unit))
    ratio, low, high = ratio_of_medians(ours, base, rng)
    judged = [against, ratio, low, high, target.ratio, met(low, high, target.ratio)]
    return [measure, engine, clouds, unit, len(arms["emlab"]), *failed, *quantiles, *judged]


def _costs(arm: pd.DataFrame, unit: str) -> Numbers:
    """What each attempt cost, the more the worse: of a rate the time per request."""
    import numpy as np

    values = arm["value"].to_numpy(dtype=float)
    return np.where(arm["ok"].to_numpy(dtype=bool), 1 / values if unit == PER_S else values, math.inf)


def _shown(cost: float, unit: str) -> float:
    """The cost in the measure's unit; and back."""
    return (1 / cost if cost else math.inf) if unit == PER_S else cost


def _quantiles(costs: Numbers) -> list[float]:
    """The least costs that 50, 95 and 99 % of the attempts did not exceed; NaN without any."""
    import numpy as np

    if not len(costs):
        return [math.nan] * 3
    return [float(np.quantile(costs, q, method="inverted_cdf")) for q in (0.5, 0.95, 0.99)]


def _by_round(arm: pd.DataFrame, unit: str) -> dict[int, float]:
    """The median cost of each round: in one that woke many clouds at once they are not independent."""
    import pandas as pd

    medians = pd.Series(_costs(arm, unit)).groupby(arm["round"].to_numpy()).median()
    return {int(number): float(median) for number, median in medians.items()}  # type: ignore[call-overload]


def shown(costs: pd.DataFrame) -> pd.DataFrame:
    """The rows that have something to be compared with, for `plots.ratios`."""
    names = costs["measure"] + costs["clouds"].map(lambda number: f", {number} cloud{'s' * (number > 1)}")
    rows = costs.assign(measure=names, emlab=costs["p50"], raw=costs["raw_p50"])
    return rows[(rows["against"] != "raw") | rows["raw"].notna()].reset_index(drop=True)
