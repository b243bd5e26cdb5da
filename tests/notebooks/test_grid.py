"""Experiments that really run: every run has its folder, and one that fails is recorded while the others go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from emlab.aggregate import Release
from emlab.experiment import Experiment
from tests.notebooks.nbval import ROOT, write

pytestmark = [pytest.mark.needs("notebooks"), pytest.mark.slow]
RUN = {"params.json", "environment.json", "run.json", "run.ipynb"}
QUICKSTART = RUN | {"events.parquet", "release.json", "report.html", "latency.png", "release.png"}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """One over x is written into each run's folder, for x = 0 too."""
    parameters = 'x = 1  # a number\nout_dir = ""  # folder'
    result = 'Path(out_dir, "result.txt").write_text(str(1 / x))'
    write(tmp_path / "n.ipynb", parameters, "from pathlib import Path", result)
    (tmp_path / "e.toml").write_text('notebook = "n.ipynb"\n[grid]\nx = [2, 0, 4]')
    return Experiment.load(tmp_path / "e.toml")


def test_a_failing_run_is_recorded_and_the_others_go_on(experiment: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "002-x=0").mkdir(parents=True)
    (out / "002-x=0" / "result.txt").write_text("of an earlier experiment")
    frame = experiment.run(out, progress=False)
    assert frame["ok"].tolist() == [True, False, True]
    assert frame["error"].tolist() == ["", "ZeroDivisionError: division by zero", ""]
    assert frame["x"].tolist() == [2, 0, 4]
    assert (frame["duration_s"] > 0).all()
    assert pd.read_csv(out / "runs.csv", keep_default_na=False)["error"].tolist() == frame["error"].tolist()
    assert files(out) == {"001-x=2", "002-x=0", "003-x=4", "runs.csv"}
    assert (out / "001-x=2" / "result.txt").read_text() == "0.5"
    assert (out / "003-x=4" / "result.txt").read_text() == "0.25"
    assert files(out / "002-x=0") == RUN
    run = json.loads((out / "002-x=0" / "run.json").read_text())
    assert (run["ok"], run["error"]) == (False, "ZeroDivisionError: division by zero")
    assert json.loads((out / "002-x=0" / "params.json").read_text()) == {"x": 0}
    assert json.loads((out / "002-x=0" / "environment.json").read_text())["python"]
    assert "ZeroDivisionError" in (out / "002-x=0" / "run.ipynb").read_text()


def test_a_kernel_that_dies_ends_its_run_and_no_other(tmp_path: Path) -> None:
    parameters = 'kill = False  # whether\nout_dir = ""  # folder'
    write(tmp_path / "n.ipynb", parameters, "import os", "kill and os._exit(3)")
    (tmp_path / "e.toml").write_text('notebook = "n.ipynb"\n[grid]\nkill = [true, false]')
    frame = Experiment.load(tmp_path / "e.toml").run(tmp_path / "out", progress=False)
    assert frame["ok"].tolist() == [False, True]
    assert frame["error"][0].startswith("DeadKernelError")


def test_what_a_run_shows_passes_where_no_other_user_can_listen(tmp_path: Path) -> None:
    parameters = 'out_dir = ""  # folder'
    where = 'connection = json.loads(get_connection_info())\nPath(out_dir, "where.json").write_text(json.dumps(connection))'
    imports = "import json\nfrom pathlib import Path\n\nfrom ipykernel.connect import get_connection_info"
    write(tmp_path / "n.ipynb", parameters, imports, where)
    (tmp_path / "e.toml").write_text('notebook = "n.ipynb"')
    frame = Experiment.load(tmp_path / "e.toml").run(tmp_path / "out", progress=False)
    assert frame["ok"].tolist() == [True]
    (said,) = (tmp_path / "out").glob("*/where.json")
    connection = json.loads(said.read_text())
    assert connection["transport"] == "ipc"
    assert not Path(connection["ip"]).parent.exists()  # the folder was this run's


@pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
def test_the_shipped_experiment_runs_from_the_command_line(engine_name: str, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["run", "experiments/quickstart.toml", "--out", str(out)]
    settings = [f"engine={engine_name}", "n_users=2", "rounds=1"]
    options = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-c", "from emlab.cli import main; main()", *words, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(out) == {"001-epsilon=0.2", "002-epsilon=1.0", "003-epsilon=5.0", "runs.csv"}
    for folder in (path for path in out.iterdir() if path.is_dir()):
        assert files(folder) == QUICKSTART
        params = json.loads((folder / "params.json").read_text())
        assert folder.name.endswith(f"epsilon={params['epsilon']}")
        assert (params["engine"], params["n_users"], params["rounds"]) == (engine_name, 2, 1)
        assert Release.load(folder / "release.json").epsilon == params["epsilon"]


def test_an_experiment_whose_runs_fail_ends_with_status_1_and_says_where(home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from emlab.cli import main; main()", "run", "experiments/quickstart.toml"]
    options = ["--out", str(tmp_path / "out"), "--set", "engine=none", "--set", "n_users=2", "--set", "epsilon=1.0"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert f"1 of 1 runs failed; their folders are in {tmp_path / 'out'}" in done.stderr
    assert "there is no engine 'none'" in done.stdout
