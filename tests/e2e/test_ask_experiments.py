"""The experiments that ask again and again, run small: every part took place, and the exact answers are exact."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import emlab as em
from emlab import demo
from emlab.measure import accuracy, budget_decay, models, opt_out, phase_times
from emlab.measure.asking import Asks, Question
from emlab.measure.crowd import Crowd
from emlab.parts import make_engine

EVER = (0.0, 2e9)
FILES = {"params.json", "environment.json", "events.parquet", "report.html", "run.json", "run.ipynb"}
Scalar = str | int | float | bool
SHIPPED: dict[str, tuple[dict[str, Scalar], set[str], int]] = {
    "accuracy": (
        {"n_users": 2, "days": 1, "offset": 2.0, "alphas": "0.05 0.2", "n": 1},
        {"accuracy.csv", "spent.csv", "errors.png", "misses.png"},
        4,
    ),
    "opt_out": (
        {"n_users": 2, "days": 1, "offset": 1.0, "low": 1, "high": 3, "n": 1},
        {"opt_out.csv", "spent.csv", "participation.png"},
        8,
    ),
    "budget_decay": (
        {"n_users": 4, "small": 0.3, "large": 0.6, "n": 7},
        {"decay.csv", "spent.csv", "decay.png"},
        7,
    ),
    "models": ({"sizes": "2 3", "n": 1}, {"models.csv", "spent.csv", "model_errors.png"}, 4),
    "phase_times": ({"users": "1", "trips": "3", "n": 2}, {"phases.csv", "phases.png"}, 2 + 2 * 5),
}


def nothing_is_left(home: Path, engine_name: str) -> bool:
    return list((home / "labs").iterdir()) == [] and make_engine(engine_name, home).find() == []


@pytest.fixture
def people() -> list[em.Person]:
    return list(em.Simulator(4, 1, 5))


def test_each_question_is_asked_and_its_exact_answer_is_what_the_queries_find(engine_name: str, home: Path) -> None:
    people = em.Simulator(3, 1, 5)
    found = accuracy.repeat(engine_name, n_users=3, days=1, alphas=[0.05], offset=2.0, n=2, seed=5)
    assert nothing_is_left(home, engine_name)
    assert found["error"].tolist() == [""] * 4
    assert found["measure"].tolist() == ["ae", "rc"] * 2
    assert (found["answered"] == 3).all()
    for question in accuracy.questions(people, 2.0, 0.05):
        assert question.exact == demo.exact_sum(question.query, people)
        assert set(found.loc[found["measure"] == question.name, "exact"]) == {question.exact}
    assert (found["epsilon"] > 0).all()
    assert (found["low"] <= found["value"]).all()
    assert set(found.loc[found["measure"] == "rc", "says"]) <= {"yes", "no"}


@pytest.mark.parametrize("engine_name", ["memory"], indirect=True)
def test_a_fresh_lab_takes_over_before_a_budget_is_spent(engine_name: str, home: Path, people: list[em.Person]) -> None:
    query = em.CountUsers(None, *EVER)
    question = Question("ae", query, 4, epsilon=0.4)

    def permits(index: int, provider: em.Provider, aggregator: em.Aggregator) -> em.Policy:
        return em.Policy.open(total_epsilon=1.0)

    with Crowd(engine_name, people, permits=permits, budget_micro=1_000_000) as crowd:
        asks = Asks(crowd)
        for number in range(5):
            asks.take(question, number, arm="all")
    found = asks.frame()
    assert found["lab"].tolist() == [1, 1, 2, 2, 3]
    assert found["ok"].all()
    assert nothing_is_left(home, engine_name)


@pytest.mark.parametrize("engine_name", ["memory"], indirect=True)
def test_who_does_not_permit_is_not_asked_or_refuses(engine_name: str, home: Path) -> None:
    found = opt_out.repeat(engine_name, n_users=4, days=1, offset=1.0, low=3, high=5, n=2, seed=5)
    assert found["error"].tolist() == [""] * 16
    numbers = found.groupby("arm", sort=False)[["asked", "answered", "refused", "failed"]].first()
    counts = dict(zip(numbers.index, numbers.to_numpy().tolist(), strict=True))
    assert counts[opt_out.ALL] == [4, 4, 0, 0]
    assert counts[opt_out.NO_PROVIDER] == [2, 2, 0, 0]
    assert counts[opt_out.NO_AGGREGATOR] == [4, 2, 2, 0]
    assert counts[opt_out.THERE_FIRST] == [2, 2, 0, 0]
    q1 = found[found["measure"] == "q1"].groupby("arm", sort=False)["expected"].first().to_dict()
    assert q1[opt_out.ALL] == 2
    assert q1[opt_out.THERE_FIRST] == 0
    assert set(found["reasons"]) == {"", "PolicyRefused 2"}


def test_as_many_take_part_as_their_budgets_say_until_nobody_does(engine_name: str, home: Path) -> None:
    found = budget_decay.repeat(engine_name, n_users=4, small=0.3, large=0.6, n=7)
    assert found["answered"].tolist() == found["expected"].tolist() == [4, 4, 2, 2, 2, 0, 0]
    assert found["refused"].tolist() == [0, 0, 2, 2, 2, 4, 4]
    assert found["asked"].tolist() == [4] * 7
    assert found["ok"].tolist() == [True] * 5 + [False] * 2
    assert found["error"].str.startswith("TooFewUsers").tolist() == [False] * 5 + [True] * 2
    assert found["reasons"].tolist() == ["", ""] + ["BudgetExhausted 2"] * 3 + ["BudgetExhausted 4"] * 2
    assert budget_decay.table(found)["as_expected"].sum() == 7
    assert nothing_is_left(home, engine_name)


@pytest.mark.parametrize("engine_name", ["memory", "process"], indirect=True)
def test_both_models_are_asked_of_the_same_people_at_the_same_loss(engine_name: str, home: Path) -> None:
    found = models.repeat(engine_name, sizes=[2], n=2)
    assert found["error"].tolist() == [""] * 4
    assert sorted(found["model"]) == ["central", "central", "local", "local"]
    assert set(found["epsilon"]) == {1.0}
    assert (found["answered"] == 2).all()
    widths = (found["high"] - found["low"]).groupby(found["model"]).first()
    assert widths["local"] > widths["central"]


def test_every_phase_is_timed_of_everybody(engine_name: str, home: Path) -> None:
    found = phase_times.repeat(engine_name, users=[2], trips=[3], n=2)
    assert found["error"].tolist() == [""] * len(found)
    assert found["measure"].value_counts().to_dict() == {
        "store": 2,
        "intake": 2,
        "roster": 2,
        "wake": 4,
        "answer in the cloud": 4,
        "release": 2,
        "the whole ask": 2,
    }
    assert (found["value"] >= 0).all()
    whole = found[found["measure"] == "the whole ask"]["value"]
    assert found[found["measure"] == "roster"]["value"].max() < whole.max()
    assert nothing_is_left(home, engine_name)


@pytest.mark.slow
@pytest.mark.needs("notebooks", "mongod")
@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_experiment_writes_its_asks_its_tables_and_its_figures(
    name: str, home: Path, tmp_path: Path
) -> None:
    settings, files, rows = SHIPPED[name]
    shipped = Path(__file__).parents[2] / "experiments" / f"{name}.toml"
    frame = em.Experiment.load(shipped, {**settings, "engine": "process"}).run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == [""]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == FILES | files
    events = pd.read_parquet(folder / "events.parquet")
    assert len(events) == rows
    assert set(events["engine"]) == {"process"}
    assert events.loc[~events["ok"], "error"].str.startswith("TooFewUsers").all()
    for table in files:
        if table.endswith(".csv"):
            assert len(pd.read_csv(folder / table)) > 0
    assert nothing_is_left(home, "process")
