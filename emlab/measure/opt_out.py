"""What an answer becomes when some people do not take part, for four ways of not taking part.

    asks = opt_out.repeat("process", n_users=20, days=2, n=50)
    opt_out.table(asks), plots.participation(asks)

Each way has people of its own lab, the same ones, half of whom do not permit the provider or its aggregator. Imports
pandas when there is something to show, and crowd.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.aggregator import Aggregator
from emlab.measure.asking import Asks, Question, rounds, spent, write_asks
from emlab.measure.crowd import EVER, Box, Crowd, Permits, region, town, was_there
from emlab.policy import Policy
from emlab.provider import Provider
from emlab.queries.count_users import CountUsers
from emlab.queries.in_range import InRange
from emlab.simulate import Simulator

if TYPE_CHECKING:
    import pandas as pd

ALL = "all permit"
NO_PROVIDER = "half do not permit the provider"
NO_AGGREGATOR = "half do not permit the aggregator"
THERE_FIRST = "half do not permit the provider,\nthose who were there first"
ARMS = (ALL, NO_PROVIDER, NO_AGGREGATOR, THERE_FIRST)
INSIDE = 0.5  # share of the people who were in the region that q1 asks about


def repeat(
    engine: str = "process",
    *,
    n_users: int = 20,
    days: int = 2,
    offset: float = 5.0,
    low: int = 15,
    high: int = 25,
    alpha: float = 0.05,
    n: int = 100,
    seed: int = 1,
    home: Path | str | None = None,
) -> pd.DataFrame:
    """Asks, as `Asks.frame()` describes them: each question n times under each arm.

    Args:
        engine: "docker", "process" or "memory". n_users, days, seed: of the simulator. offset, alpha: of q1.
        low, high: the range of q2, in users; its offset is half of its width. home: where the labs live meanwhile.
    """
    import pandas as pd

    people = Simulator(n_users, days, seed)
    box = town(people, INSIDE)
    frames = []
    for arm in ARMS:
        missing = absent(people, box, arm)
        with Crowd(engine, list(people), permits=_permits(missing, arm), home=home) as crowd:
            asks = Asks(crowd)
            asked = [
                (one, _expected(people, one, box, missing)) for one in questions(people, box, offset, low, high, alpha)
            ]
            for number in rounds(range(n), arm.partition("\n")[0]):
                for question, expected in asked:
                    asks.take(question, number, arm=arm, expected=expected)
            frames.append(asks.frame())
    return pd.concat(frames, ignore_index=True)


def questions(people: Simulator, box: Box, offset: float, low: int, high: int, alpha: float) -> list[Question]:
    """What is asked, with the exact answers over everybody.

    "q1": how many were in the middle of the city, at any time. "q2": whether low..high people have moved at all.
    """
    check = InRange(None, *EVER, low=low, high=high)
    return [
        Question("q1", CountUsers(region(box), *EVER), _count(people, box), offset, alpha),
        Question("q2", check, _count(people, None), check.offset, alpha),
    ]


def absent(people: Simulator, box: Box, arm: str) -> set[int]:
    """The indices of the half who do not permit under that arm."""
    if arm == ALL:
        return set()
    order = list(range(len(people)))
    random.Random(people.seed).shuffle(order)  # noqa: S311 - who is left out is no secret
    if arm == THERE_FIRST:
        order.sort(key=lambda index: not was_there(people.person(index), box))
    return set(order[: len(order) // 2])


def _permits(missing: Collection[int], arm: str) -> Permits:
    def policy(index: int, provider: Provider, aggregator: Aggregator) -> Policy:
        out = index in missing
        providers = [] if out and arm != NO_AGGREGATOR else [provider]
        aggregators = [] if out and arm == NO_AGGREGATOR else [aggregator]
        return Policy.research(providers, aggregators, total_epsilon=100.0, min_users=1)

    return policy


def _count(people: Simulator, box: Box | None, missing: Collection[int] = ()) -> int:
    return sum(was_there(person, box) for person in people if person.index not in missing)


def _expected(people: Simulator, question: Question, box: Box, missing: Collection[int]) -> int:
    """The exact answer over those who permit."""
    return _count(people, box if question.name == "q1" else None, missing)


def table(asks: pd.DataFrame) -> pd.DataFrame:
    """One row for each question and arm: how far the mean answer is from everybody's, and who took part.

    Columns: question, arm, n (releases), nothing (asks without one), asked, answered, refused, failed (clouds of an
    ask, their mean), exact (of everybody), expected (of those who permit), mean, sd, bias (mean - exact), scaled_bias
    (the same of the answer times all people over those who answered, as if who is missing were like the others),
    standard_error (of the mean), wrong (range checks that say another thing than the exact answer).
    """
    import pandas as pd

    rows = [_row(group) for _, group in asks.groupby(["measure", "arm"], sort=False)]
    return pd.DataFrame(rows)


def _row(group: pd.DataFrame) -> dict[str, object]:
    first, done = group.iloc[0], group[group["ok"]]
    everybody = float(first["people"])
    scaled = done["value"] * everybody / done["answered"]
    sd = done["value"].std()
    return {
        "question": first["measure"],
        "arm": str(first["arm"]).replace("\n", " "),
        "n": len(done),
        "nothing": len(group) - len(done),
        **{name: group[name].mean() for name in ("asked", "answered", "refused", "failed")},
        "exact": first["exact"],
        "expected": first["expected"],
        "mean": done["value"].mean(),
        "sd": sd,
        "bias": done["value"].mean() - first["exact"],
        "scaled_bias": scaled.mean() - first["exact"],
        "standard_error": sd / math.sqrt(len(done)) if len(done) else math.nan,
        "wrong": int(((done["says"] != "") & (done["says"] != done["truth"])).sum()),
    }


def write_report(out_dir: str, asks: pd.DataFrame, params: Mapping[str, object]) -> Sequence[Path]:
    """The folder holds the asks (events.parquet), opt_out.csv, spent.csv, the figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told.
    Returns: the files.
    """
    from emlab import plots

    return write_asks(
        out_dir,
        asks,
        {"opt_out.csv": table(asks), "spent.csv": spent(asks)},
        params=params,
        figures={"participation": plots.participation(asks)},
        title="Answers when some people do not take part",
    )
