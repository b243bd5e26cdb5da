"""How far releases are from the exact answer, against what was promised.

    asks = accuracy.repeat("process", n_users=20, days=3, n=100)
    accuracy.table(asks), plots.errors(asks), plots.misses(accuracy.table(asks))

The same people are asked the same questions again and again, each time at a real cost, on the terms that the noise
exceeds `offset` with probability `alpha` at most. Imports pandas when there is something to show, and crowd.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import privacy
from emlab.measure.asking import Asks, Question, rounds, spent, write_asks
from emlab.measure.crowd import EVER, Crowd, region, town, was_there
from emlab.measure.shares import clopper_pearson
from emlab.queries.count_users import CountUsers
from emlab.queries.in_range import InRange
from emlab.simulate import Simulator

if TYPE_CHECKING:
    import pandas as pd

INSIDE = 0.6  # share of the people who were in the region that is asked about


def repeat(
    engine: str = "process",
    *,
    n_users: int = 50,
    days: int = 3,
    alphas: Sequence[float] = (0.01, 0.05, 0.1, 0.2),
    offset: float = 10.0,
    n: int = 100,
    seed: int = 1,
    home: Path | str | None = None,
) -> pd.DataFrame:
    """Asks, as `Asks.frame()` describes them: each question with each alpha, n times.

    Args:
        engine: "docker", "process" or "memory". n_users, days, seed: of the simulator; three days are about ten trips.
        offset: in users. home: where the labs live meanwhile.
    """
    people = Simulator(n_users, days, seed)
    asked = [one for alpha in alphas for one in questions(people, offset, alpha)]
    with Crowd(engine, list(people), home=home) as crowd:
        asks = Asks(crowd)
        for number in rounds(range(n), "asking"):
            for question in asked:
                asks.take(question, number, arm=f"alpha {question.alpha:g}")
    return asks.frame()


def questions(people: Simulator, offset: float, alpha: float) -> list[Question]:
    """What is asked of these people, with the exact answer.

    "ae": how many were in the middle of the city, at any time. "rc": whether they were as many as that, `offset` more
    or less: a range check is surely right with noise that stays within the offset.
    """
    box = town(people, INSIDE)
    exact = sum(was_there(person, box) for person in people)
    half = max(1, round(offset))
    check = InRange(region(box), *EVER, low=max(0, exact - half), high=exact + half)
    return [
        Question("ae", CountUsers(region(box), *EVER), exact, offset, alpha),
        Question("rc", check, exact, offset, alpha),
    ]


def table(asks: pd.DataFrame) -> pd.DataFrame:
    """One row for each question and alpha: how often the error was beyond the offset, and what was promised.

    Columns: question, alpha (the promise), law (what the noise's law says, never more), n (releases of all people),
    partial (releases in which some cloud is missing, which are not counted), nothing (asks without a release), beyond,
    share, low, high (95 % of Clopper and Pearson), kept (False if all of that interval is above alpha), wrong (range
    checks whose number is not in the range), mean and sd of the errors, exact, offset, epsilon.
    """
    import pandas as pd

    rows = [_row(str(name), group) for (name, _), group in asks.groupby(["measure", "alpha"], sort=False)]
    return pd.DataFrame(rows)


def _row(name: str, group: pd.DataFrame) -> dict[str, object]:
    first, done = group.iloc[0], group[group["ok"]]
    whole = done[done["answered"] == done["people"]]
    errors = whole["value"] - whole["exact"]
    beyond = int((errors.abs() > whole["offset"]).sum())
    low, high = clopper_pearson(beyond, len(whole)) if len(whole) else (0.0, 1.0)
    return {
        "question": name,
        "alpha": first["alpha"],
        "law": privacy.exceeds(first["offset"], done["scale"].iloc[0]) if len(done) else math.nan,
        "n": len(whole),
        "partial": len(done) - len(whole),
        "nothing": len(group) - len(done),
        "beyond": beyond,
        "share": beyond / len(whole) if len(whole) else math.nan,
        "low": low,
        "high": high,
        "kept": low <= first["alpha"],
        "wrong": int((whole["says"] == "no").sum()),
        "mean": errors.mean(),
        "sd": errors.std(),
        "exact": first["exact"],
        "offset": first["offset"],
        "epsilon": first["epsilon"],
    }


def write_report(out_dir: str, asks: pd.DataFrame, params: Mapping[str, object]) -> Sequence[Path]:
    """The folder holds the asks (events.parquet), accuracy.csv, spent.csv, figures and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told.
    Returns: the files.
    """
    from emlab import plots

    found = table(asks)
    return write_asks(
        out_dir,
        asks,
        {"accuracy.csv": found, "spent.csv": spent(asks)},
        params=params,
        figures={"errors": plots.errors(asks), "misses": plots.misses(found)},
        title="Answer error against alpha",
    )
