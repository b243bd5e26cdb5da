"""How participation decays as budgets are spent: half of the people permit so much epsilon, half of them more.

    asks = budget_decay.repeat("process", n_users=40, days=1, n=75)
    budget_decay.table(asks), plots.decay(asks)

What is expected of each ask follows from the policies alone: how often the cost fits in each person's budget. Imports
pandas when there is something to show, and crowd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.aggregator import Aggregator
from emlab.loss import Loss
from emlab.measure.asking import Asks, Question, rounds, spent, write_asks
from emlab.measure.crowd import EVER, Crowd, Permits, was_there
from emlab.policy import Policy
from emlab.provider import Provider
from emlab.queries.count_users import CountUsers
from emlab.simulate import Simulator

if TYPE_CHECKING:
    import pandas as pd

ARM = "budgets"


def repeat(
    engine: str = "process",
    *,
    n_users: int = 100,
    days: int = 1,
    small: float = 3.0,
    large: float = 6.0,
    offset: float = 25.0,
    alpha: float = 0.05,
    n: int = 75,
    seed: int = 1,
    home: Path | str | None = None,
) -> pd.DataFrame:
    """Asks, as `Asks.frame()` describes them: one question n times, which becomes dearer for nobody.

    Args:
        engine: "docker", "process" or "memory". n_users, days, seed: of the simulator.
        small, large: epsilon in all that the people permit, every other one each.
        offset (users), alpha: of each ask. home: where the lab lives meanwhile.
    """
    people = list(Simulator(n_users, days, seed))
    exact = [was_there(person, None) for person in people]
    question = Question("ae", CountUsers(None, *EVER), sum(exact), offset, alpha)
    permits = budgets(small, large)
    with Crowd(engine, people, permits=permits, budget_micro=None, home=home) as crowd:
        policies = [permits(index, crowd.provider, crowd.lab.aggregator) for index in range(n_users)]
        times = [affords(policy, crowd.provider.public, question.cost_micro) for policy in policies]
        asks = Asks(crowd)
        for number in rounds(range(1, n + 1), "asking"):
            expected = sum(there for there, most in zip(exact, times, strict=True) if number <= most)
            asks.take(question, number, arm=ARM, expected=expected)
    return asks.frame()


def budgets(small: float, large: float) -> Permits:
    """Everybody permits the provider and the aggregator, for either of two epsilons in all."""

    def policy(index: int, provider: Provider, aggregator: Aggregator) -> Policy:
        total = large if index % 2 else small
        return Policy.research([provider], [aggregator], total_epsilon=total, min_users=1)

    return policy


def affords(policy: Policy, provider: str, cost_micro: int) -> int:
    """How many asks at this cost (millionths of epsilon) the policy's budget covers, if nobody else asks."""
    terms = policy.terms(provider, 0.0)
    each = terms.cost(Loss(epsilon_micro=cost_micro))
    limit = terms.limit if terms.quota is None else min(terms.limit, terms.quota)
    return 0 if each is None else limit // each


def table(asks: pd.DataFrame) -> pd.DataFrame:
    """One row for each run of asks in which the same people took part.

    Columns: from_ask, to_ask, asks, nothing (asks without a release), asked, answered, refused, failed (clouds of each
    ask), expected (who should have answered, by their budgets), as_expected (asks in which so many did), mean (of the
    answers), within (asks whose interval holds the exact answer of those who answered), epsilon (spent by the end, of a
    person who answered all).
    """
    stretch = (asks[["answered", "refused", "failed"]].diff().abs().sum(axis=1) > 0).cumsum()
    total = asks["epsilon"].cumsum()
    shown = asks.assign(
        nothing=~asks["ok"],
        as_expected=asks["answered"] == asks["expected"],
        within=(asks["low"] <= asks["expected"]) & (asks["expected"] <= asks["high"]),
        total=total,
    )
    groups = shown.groupby(stretch, sort=False)
    return groups.agg(
        from_ask=("round", "min"),
        to_ask=("round", "max"),
        asks=("round", "size"),
        nothing=("nothing", "sum"),
        asked=("asked", "first"),
        answered=("answered", "first"),
        refused=("refused", "first"),
        failed=("failed", "first"),
        expected=("expected", "mean"),
        as_expected=("as_expected", "sum"),
        mean=("value", "mean"),
        within=("within", "sum"),
        epsilon=("total", "last"),
    ).reset_index(drop=True)


def write_report(out_dir: str, asks: pd.DataFrame, params: Mapping[str, object]) -> Sequence[Path]:
    """The folder holds the asks (events.parquet), decay.csv, spent.csv, the figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told.
    Returns: the files.
    """
    from emlab import plots

    return write_asks(
        out_dir,
        asks,
        {"decay.csv": table(asks), "spent.csv": spent(asks)},
        params=params,
        figures={"decay": plots.decay(asks)},
        title="Participation until budgets are spent",
    )
