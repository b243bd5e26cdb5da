"""The central and the local model side by side, at the same privacy loss, for more and more people.

    asks = models.repeat("process", sizes=[4, 8, 16], n=20)
    models.table(asks), plots.model_errors(asks)

In each round both models are asked the same question of the same clouds. Imports pandas when there is something to
show, and crowd.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from emlab.ask import Model
from emlab.measure.asking import Asks, Question, rounds, spent, write_asks
from emlab.measure.crowd import EVER, Crowd, region, town, was_there
from emlab.measure.plan import turns
from emlab.measure.shares import clopper_pearson
from emlab.queries.count_users import CountUsers
from emlab.simulate import Simulator

if TYPE_CHECKING:
    import pandas as pd

MODELS: tuple[Model, ...] = get_args(Model)
INSIDE = 0.6  # share of the people who were in the region that is asked about


def repeat(
    engine: str = "process",
    *,
    sizes: Sequence[int] = (4, 8, 16),
    days: int = 1,
    epsilon: float = 1.0,
    alpha: float = 0.05,
    n: int = 20,
    seed: int = 1,
    home: Path | str | None = None,
) -> pd.DataFrame:
    """Asks, as `Asks.frame()` describes them: each model n times of each number of people.

    Args:
        engine: "docker", "process" or "memory". sizes: numbers of people. days, seed: of the simulator.
        epsilon: of each ask. alpha: of the intervals. home: where the labs live meanwhile.
    """
    import pandas as pd

    frames = []
    for size in sizes:
        people = Simulator(size, days, seed)
        box = town(people, INSIDE)
        exact = sum(was_there(person, box) for person in people)
        query = CountUsers(region(box), *EVER)
        asked = {model: Question("ae", query, exact, alpha=alpha, epsilon=epsilon, model=model) for model in MODELS}
        with Crowd(engine, list(people), home=home) as crowd:
            asks = Asks(crowd)
            for number, order in enumerate(rounds(turns(MODELS, n, seed), f"asking {size} people")):
                for model in order:
                    asks.take(asked[model], number, arm=model)
            frames.append(asks.frame())
    return pd.concat(frames, ignore_index=True)


def table(asks: pd.DataFrame) -> pd.DataFrame:
    """One row for each number of people and model: how far releases were from the exact answer.

    Columns: people, model, n (releases of all people), partial (releases in which some cloud is missing, which are not
    counted), nothing (asks without a release), answered, refused, failed (clouds of an ask, their mean), rms (root of
    the mean squared error), median and p95 (of the error's size), half_width (of the interval), outside (releases whose
    interval does not hold the exact answer), share, low, high (of those: 95 % of Clopper and Pearson), alpha (what the
    interval promises), ratio (of rms, over that of the central model).
    """
    import pandas as pd

    rows = [_row(group) for _, group in asks.groupby(["people", "model"], sort=False)]
    found = pd.DataFrame(rows)
    central = found[found["model"] == "central"].set_index("people")["rms"]
    found["ratio"] = found["rms"] / found["people"].map(central)
    return found.sort_values(["people", "model"], ignore_index=True)


def _row(group: pd.DataFrame) -> dict[str, object]:
    done = group[group["ok"]]
    # the interval is about those who answered: where a cloud is missing, it says nothing of the exact answer
    whole = done[done["answered"] == done["people"]]
    errors = (whole["value"] - whole["exact"]).abs()
    outside = int(((whole["exact"] < whole["low"]) | (whole["exact"] > whole["high"])).sum())
    low, high = clopper_pearson(outside, len(whole)) if len(whole) else (0.0, 1.0)
    return {
        "people": int(group["people"].iloc[0]),
        "model": group["model"].iloc[0],
        "n": len(whole),
        "partial": len(done) - len(whole),
        "nothing": len(group) - len(done),
        **{name: group[name].mean() for name in ("answered", "refused", "failed")},
        "rms": math.sqrt((errors**2).mean()) if len(whole) else math.nan,
        "median": errors.median(),
        "p95": errors.quantile(0.95),
        "half_width": ((whole["high"] - whole["low"]) / 2).mean(),
        "outside": outside,
        "share": outside / len(whole) if len(whole) else math.nan,
        "low": low,
        "high": high,
        "alpha": group["alpha"].iloc[0],
    }


def write_report(out_dir: str, asks: pd.DataFrame, params: Mapping[str, object]) -> Sequence[Path]:
    """The folder holds the asks (events.parquet), models.csv, spent.csv, the figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told.
    Returns: the files.
    """
    from emlab import plots

    return write_asks(
        out_dir,
        asks,
        {"models.csv": table(asks), "spent.csv": spent(asks)},
        params=params,
        figures={"model_errors": plots.model_errors(asks)},
        title="Central and local noise at the same privacy loss",
    )
