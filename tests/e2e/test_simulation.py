"""The shipped experiment of the simulator, run small."""

from pathlib import Path

import pandas as pd
import pytest

import emlab as em

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "simulation.toml"


@pytest.mark.needs("notebooks")
def test_the_shipped_experiment_describes_a_city_s_people(tmp_path: Path) -> None:
    settings: dict[str, str | int | float | bool] = {"n_users": 3, "days": 3, "n_timed": 1, "city": "town"}
    frame = em.Experiment.load(EXPERIMENT, settings).run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == [""]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert {"run.json", "run.ipynb", "portrait.csv", "report.html"} <= {path.name for path in folder.iterdir()}
    portrait = pd.read_csv(folder / "portrait.csv", index_col=0)
    people = em.Simulator(3, 3, 1, city="town")
    assert portrait.iloc[-1]["trips"] == len(people.truth())
    assert 1.0 < portrait.iloc[-1]["detour"] < 1.6
