"""The cost of asking measured with real clouds and few rounds: every measure has both arms. No time is judged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import emlab as em
from emlab.measure import asking_cost

N, CLOUDS, ASKS = 2, 3, 5
DEBITS = {"20 debits, 1 at once", "20 debits, 8 at once"}
FILES = {"params.json", "environment.json", "events.parquet", "ratios.csv", "ratios.png", "report.html"}
pytestmark = pytest.mark.needs("mongod")


def check(samples: pd.DataFrame) -> None:
    """Every measure has all its rounds, in both arms, none of which failed."""
    assert samples["error"].tolist() == [""] * len(samples)
    assert (samples["value"] > 0).all()
    rounds = {asking_cost.RUNNING: N, asking_cost.PAUSED: N, asking_cost.MEMORY: 1} | dict.fromkeys(DEBITS, N)
    found = samples.groupby(["measure", "arm"])["round"].nunique().to_dict()
    assert found == {(measure, arm): n for measure, n in rounds.items() for arm in ("emlab", "raw")}
    waits = samples[samples["measure"].isin([asking_cost.RUNNING, asking_cost.PAUSED])]["value"]
    assert (waits > asking_cost.QUESTION.slot_s).all()


@pytest.mark.parametrize("engine_name", ["process", pytest.param("docker", marks=pytest.mark.slow)], indirect=True)
def test_every_measure_is_taken_in_both_ways_and_nothing_is_left(engine_name: str, home: Path) -> None:
    check(asking_cost.side_by_side(engine_name, clouds=CLOUDS, n=N, asks=ASKS, seed=5))
    assert list((home / "labs").iterdir()) == []


def test_an_ask_that_not_all_clouds_answered_has_failed(home: Path) -> None:
    with em.Lab("process", idle=None, default_policy=em.Policy.open()) as lab, asking_cost._crowd(lab, 2) as crowd:
        crowd.ask()
        lab.controller.lock(crowd.users[0])
        with pytest.raises(em.errors.BadReply, match=r"1 of 2 clouds answered.*Locked"):
            crowd.ask()


@pytest.mark.slow
@pytest.mark.needs("notebooks")
def test_the_shipped_experiment_writes_its_table(home: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "experiments" / "asking_cost.toml"
    chosen: dict[str, str | int | float | bool] = {"n": N, "clouds": CLOUDS, "asks": ASKS, "engines": "process"}
    frame = em.Experiment.load(shipped, chosen).run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == [""]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == FILES | {"run.json", "run.ipynb"}
    samples = pd.read_parquet(folder / "events.parquet")
    check(samples)
    table = pd.read_csv(folder / "ratios.csv")
    assert table["measure"].tolist() == asking_cost.costs(samples)["measure"].tolist()
    assert table["target"].notna().sum() == 2
