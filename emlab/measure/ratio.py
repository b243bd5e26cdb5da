"""From samples to one row per measure: medians, their ratio, how sure it is, and whether the target is met.

Imports numpy and pandas when something is computed, and nothing of emlab.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

RESAMPLES = 5_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Target:
    """What a measure should cost at most.

    Attributes:
        ratio: at most so many times what it is compared with.
        limit: it is compared with this constant, in the measure's unit; None compares it with the raw arm.
    """

    ratio: float
    limit: float | None = None


# By measure and engine; what is not here is reported without a target.
TARGETS = {
    ("start", "docker"): Target(1.5),
    ("pause", "docker"): Target(1.25),
    ("wake", "docker"): Target(1.25),
    ("store a day", "process"): Target(2.0),  # half the throughput
    ("store a day", "docker"): Target(2.0),
    ("memory after start", "docker"): Target(1.0, limit=60.0),
    ("memory after work", "docker"): Target(1.0, limit=60.0),
    ("import emlab", ""): Target(1.0, limit=0.5),
    ("import Lab", ""): Target(1.0, limit=0.5),
}


def compare(
    samples: pd.DataFrame, *, seed: int = 0, targets: Mapping[tuple[str, str], Target] = TARGETS
) -> pd.DataFrame:
    """One row per measure and engine, in the order in which they were measured.

    Args:
        samples: as the measurements return them, of one run. seed: of the bootstrap.
        targets: by measure and engine.
    Returns:
        measure, engine, unit; n: rounds; failed, raw_failed: attempts of each arm that failed;
        emlab, raw: medians, a failed attempt counted as one that never ended (inf if half of them failed);
        against: "raw", or the limit that the ratio refers to instead, such as "60 MiB";
        ratio, low, high: of the medians, with the 95 % interval of a bootstrap over rounds;
        target: the most that the ratio may be, NaN without one;
        met: whether the whole interval is within it (True) or beyond it (False), else NA.
    """
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    groups = samples.groupby(["measure", "engine"], sort=False)
    free = Target(math.nan)
    rows = [
        _row(str(measure), str(engine), group, targets.get((str(measure), str(engine)), free), rng)
        for (measure, engine), group in groups
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"met": "boolean"})


COLUMNS = ["measure", "engine", "unit", "n", "failed", "raw_failed", "emlab", "raw", "against", "ratio", "low", "high"]
COLUMNS += ["target", "met"]


def _row(measure: str, engine: str, group: pd.DataFrame, target: Target, rng: np.random.Generator) -> list[object]:
    import numpy as np

    unit = str(group["unit"].iloc[0])
    costs = group.assign(value=group["value"].where(group["ok"], math.inf))
    rounds = costs.pivot_table(index="round", columns="arm", values="value", aggfunc="sum", fill_value=math.inf)
    ours, raw = (rounds.get(arm) for arm in ("emlab", "raw"))
    mine: Numbers = np.asarray(ours, dtype=float)
    theirs: Numbers = np.full(len(mine), math.nan) if raw is None else np.asarray(raw, dtype=float)
    base = theirs if target.limit is None else np.full(len(mine), target.limit)
    ratio, low, high = ratio_of_medians(mine, base, rng)
    failed = [int((~group["ok"] & (group["arm"] == arm)).sum()) for arm in ("emlab", "raw")]
    against = "raw" if target.limit is None else f"{target.limit:g} {unit}"
    medians = [float(np.median(values)) for values in (mine, theirs)]
    ends = [ratio, low, high, target.ratio]
    return [measure, engine, unit, len(mine), *failed, *medians, against, *ends, met(low, high, target.ratio)]


def met(low: float, high: float, target: float) -> bool | None:
    """Whether the interval is within the target (True), beyond it (False), or neither."""
    if high <= target:
        return True
    return False if low > target else None


def on_targets(table: pd.DataFrame) -> str:
    """Which targets are met, missed or undecided, in a sentence; "" without any. `table`: as `compare` gives it."""
    import pandas as pd

    names: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for row in table[table["target"].notna()].to_dict("records"):
        met = None if pd.isna(row["met"]) else bool(row["met"])
        names[met].append(" on ".join(filter(None, (row["measure"], row["engine"]))))
    if not any(names.values()):
        return ""
    said = [f"{len(names[True])} of {sum(map(len, names.values()))} targets are met"]
    said += [f"{word}: {'; '.join(names[met])}" for met, word in ((False, "Missed"), (None, "Undecided")) if names[met]]
    return f"{'. '.join(said)}."


def ratio_of_medians(ours: Numbers, base: Numbers, rng: np.random.Generator) -> tuple[float, float, float]:
    """The median of `ours` divided by that of `base`, and the ends of its 95 % interval.

    Args:
        ours, base: one number for each round, in the same order; inf is a failure.
    Returns:
        ratio, low, high. Percentiles of the ratio over 5,000 resamples of the rounds, each with both of its numbers,
        because what disturbs a machine disturbs neighbours. NaN where both medians are inf; of one round, the ends.
    Source: Efron, "Bootstrap methods: another look at the jackknife" (1979).
    """
    import numpy as np

    drawn = rng.integers(len(ours), size=(RESAMPLES, len(ours)))
    with np.errstate(invalid="ignore"):  # inf / inf
        ratio = float(np.median(ours) / np.median(base))
        ratios = np.median(ours[drawn], axis=1) / np.median(base[drawn], axis=1)
    if len(ours) == 1:  # drawn again and again it would seem certain
        return ratio, math.nan, math.nan
    tail = (1 - LEVEL) / 2
    # ends that were drawn: between inf and a number there is nothing
    low = float(np.quantile(ratios, tail, method="lower"))
    high = float(np.quantile(ratios, 1 - tail, method="higher"))
    return ratio, low, high
