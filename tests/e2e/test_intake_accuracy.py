"""The shipped experiment of intake's accuracy, run small."""

from pathlib import Path

import pandas as pd
import pytest

import emlab as em

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "intake_accuracy.toml"


@pytest.mark.needs("notebooks")
def test_the_shipped_experiment_finds_the_trips_of_simulated_people(tmp_path: Path) -> None:
    settings: dict[str, str | int | float | bool] = {"n_users": 2, "days": 2, "phone_days": "", "n_timed": 0}
    frame = em.Experiment.load(EXPERIMENT, settings).run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == [""]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert {"run.json", "run.ipynb", "scores.csv", "report.html"} <= {path.name for path in folder.iterdir()}
    scores = pd.read_csv(folder / "scores.csv")
    assert set(scores["against"]) == {"the truth", "the truth, lines known"}
    (of_all,) = scores.query("name == 'all' and against == 'the truth'").to_dict("records")
    assert of_all["trips"] > 0
    assert of_all["recall"] == of_all["precision"] == 1
    assert of_all["modes"] > 0.9
    assert of_all["distance"] < 0.1
