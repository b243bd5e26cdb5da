"""The quickstart as a user runs it, on real engines; nbval runs it again and compares each value that is not noise."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pandas as pd
import pytest

import emlab as em
from emlab import demo, pipeline
from emlab.parts import make_engine
from emlab.store import MemoryStore
from tests.notebooks.nbval import checked, code_cells, mutate, papermill, rerun

QUICKSTART = "notebooks/quickstart.ipynb"
TINY: dict[str, str | int | float] = {"n_users": 3, "days": 1, "seed": 3, "rounds": 1}
FILES = {"params.json", "environment.json", "events.parquet", "release.json", "report.html"}

pytestmark = [pytest.mark.needs("notebooks"), pytest.mark.slow]
REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
PROCESS = pytest.mark.parametrize("engine_name", ["process"], indirect=True)


def left(engine_name: str, home: Path) -> list[str]:
    return [handle.cloud for handle in make_engine(engine_name, home).find()]


def trips_of(person: em.Person) -> int:
    store = MemoryStore(uuid.UUID(person.user_id))
    store.put(person.entries())
    return pipeline.digest(store).trips


@REAL
def test_the_quickstart_runs_keeps_its_results_and_repeats_its_values(
    engine_name: str, home: Path, tmp_path: Path
) -> None:
    out, run = tmp_path / "out.ipynb", tmp_path / "run"
    done = papermill(QUICKSTART, out, engine=engine_name, out_dir=str(run), **TINY)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in run.iterdir()}
    assert FILES | {"latency.png", "release.png"} == names
    release = json.loads((run / "release.json").read_text())
    assert (release["asked"], release["answered"], release["loss"]["epsilon_micro"]) == (3, 3, 1_000_000)
    events = pd.read_parquet(run / "events.parquet")
    assert events["ok"].all()
    assert set(events["engine"]) == {engine_name}
    assert events["span"].value_counts().to_dict() == {
        "pause": 6,
        "answer": 6,
        "wake": 6,
        "signup": 3,
        "start": 3,
        "intake": 3,
    }
    assert left(engine_name, home) == []
    assert set(rerun(out).values()) == {""}
    assert left(engine_name, home) == []


@PROCESS
def test_a_value_that_is_another_fails_in_its_own_cell_and_noise_does_not(
    engine_name: str, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.ipynb"
    done = papermill(QUICKSTART, out, engine=engine_name, **TINY)
    assert done.returncode == 0, done.stderr
    people = list(em.Simulator(3, 1, 3))
    stored = sum(len(person.entries()) for person in people)
    metres = demo.exact_sum(em.SumDistance(start_ts=0, end_ts=2e9, cap_m=20_000), people)
    trips = sum(trips_of(person) for person in people)
    values = {
        "sign-up": (f"inserted={stored}", f"inserted={stored + 1}"),
        "trips": (str(trips), str(trips + 1)),
        "outcomes": ("'answered': 3", "'answered': 2"),
        "exact": (f"'metres': {metres}", f"'metres': {metres + 1}"),
    }
    assert checked(out) == list(values)
    for cell, (before, after) in values.items():
        said = rerun(mutate(out, cell, before, after))
        assert [name for name, failure in said.items() if failure] == [cell]
        assert "Cell outputs differ" in said[cell]


@PROCESS
def test_without_a_folder_everything_is_still_shown_and_nothing_is_written(
    engine_name: str, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.ipynb"
    done = papermill(QUICKSTART, out, engine=engine_name, **TINY)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir() if path != home] == ["out.ipynb"]
    shown = {
        cell["id"]: {kind for output in cell["outputs"] for kind in output.get("data", {})} for cell in code_cells(out)
    }
    assert "image/png" in shown["release"]
    assert "image/png" in shown["trips-figure"]
    assert "image/png" in shown["latency"]
    for cell in ("sign-up", "pause-and-wake", "distance", "recorder"):
        assert "text/html" in shown[cell]


@REAL
def test_a_notebook_that_fails_in_the_middle_leaves_no_cloud(engine_name: str, home: Path, tmp_path: Path) -> None:
    alone = {**TINY, "n_users": 1, "min_users": 2}
    done = papermill(QUICKSTART, tmp_path / "out.ipynb", engine=engine_name, **alone)
    assert done.returncode != 0
    assert "TooFewUsers" in done.stderr
    assert left(engine_name, home) == []
    assert list((home / "labs").iterdir()) == []
