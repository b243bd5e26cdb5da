"""Each measurement with real clouds and few rounds: both ways really ran, nothing is left. No time is judged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import emlab as em
from emlab import demo, measure
from emlab.engines import base
from emlab.errors import ConfigError, EngineError
from emlab.measure.twin import docker_twin
from emlab.parts import make_engine
from tests.programs import docker_client

REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
DOCKER = pytest.mark.parametrize("engine_name", ["docker"], indirect=True)
N = 3
ARMS = {("emlab", number) for number in range(N)} | {("raw", number) for number in range(N)}
FILES = {"params.json", "environment.json", "events.parquet", "ratios.csv", "ratios.png", "report.html"}


def taken(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The samples of a measure, all of which succeeded, each round once in each arm."""
    rows = frame[frame["measure"] == name]
    assert rows["error"].tolist() == [""] * len(rows)
    assert len(rows) == 2 * N
    assert set(zip(rows["arm"], rows["round"], strict=True)) == ARMS
    assert (rows["value"] > 0).all()
    return rows


def containers(label: str, value: str) -> list[str]:
    with docker_client() as client:
        return [found["Id"] for found in client.api.containers(all=True, filters={"label": [f"{label}={value}"]})]


@REAL
def test_pausing_and_waking_ran_in_both_ways(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, idle=None) as lab:
        frame = measure.pause_wake(lab, n=N, seed=1)
        events = lab.recorder.frame()["span"].value_counts()
        assert len(lab.controller.clouds()) == 0
    for name in ("pause", "wake", "wake to answer"):
        assert set(taken(frame, name)["engine"]) == {engine_name}
    # through the library went each pause before a wake, and the samples of its own arm. The raw ones did not: with them
    # there would be 4 N wakes. A few more are made where the engine's state lags behind.
    assert 2 * N + 1 <= events["wake"] < 4 * N
    assert events["pause"] >= 3 * N + 2


@REAL
def test_a_day_is_stored_in_both_ways_and_all_of_it_each_time(engine_name: str, home: Path) -> None:
    day = list(em.Simulator(1, 1, 5).person(0).entries())
    with em.Lab(engine_name, idle=None) as lab:
        frame = measure.store(lab, day, n=N, seed=1)
    assert set(taken(frame, "store a day")["unit"]) == {"s"}


@REAL
@pytest.mark.needs("phone-days")
def test_a_real_day_can_be_stored_too(engine_name: str, home: Path, phone_days: Path) -> None:
    day = demo.read_day(phone_days / "shankari_2016-07-25.json.gz")
    with em.Lab(engine_name, idle=None) as lab:
        taken(measure.store(lab, day, n=N, seed=1), "store a day")


@REAL
def test_a_phones_day_is_uploaded_and_read_in_both_ways_and_all_of_it_each_time(engine_name: str, home: Path) -> None:
    day = list(em.Simulator(1, 1, 5).person(0).entries())
    with em.Lab(engine_name, idle=None) as lab:
        frame = measure.phone(lab, day, n=N, seed=1)
    assert set(frame["measure"]) == {"upload a day", "read a day"}
    for name in ("upload a day", "read a day"):
        assert set(taken(frame, name)["engine"]) == {engine_name}


@DOCKER
def test_starts_ran_in_both_ways_and_left_no_container(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, idle=None) as lab:
        taken(measure.start(lab, n=N, seed=1), "start")
        events = lab.recorder.frame()
        assert (events["span"] == "signup").sum() == N + 1  # and the twin's model
        assert containers(base.LABEL_LAB, lab.name) == []
        assert list((lab.path / "clouds").iterdir()) == []


@DOCKER
def test_a_raw_container_has_the_flags_of_a_cloud_and_is_found_by_its_labels(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, idle=None) as lab, docker_twin(lab) as twin:
        lab.controller.signup("ann")
        ours = twin.api.inspect_container(lab.controller.life("ann").handle.ref)
        with twin.place() as spec:
            twin.start(spec)
            (handle,) = (handle for handle in make_engine("docker", home).find(lab.name) if handle.cloud == spec.cloud)
            raw = twin.api.inspect_container(handle.ref)
            assert handle.run_dir == spec.run_dir
            for found in (ours, raw):  # what is a cloud's own
                sources = [mount.pop("Source") for mount in found["HostConfig"]["Mounts"]]
                assert len(set(sources)) == 2
                found["Config"].pop("Hostname")
                for label in (base.LABEL_CLOUD, base.LABEL_RUN_DIR):
                    found["Config"]["Labels"].pop(label)
            assert raw["HostConfig"] == ours["HostConfig"]
            assert raw["Config"] == ours["Config"]
        assert not spec.run_dir.exists()
        found = make_engine("docker", home).find(lab.name)
        assert [handle.cloud for handle in found] == [lab.controller.life("ann").spec.cloud]


@DOCKER
def test_an_interrupted_raw_start_leaves_nothing(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, idle=None) as lab, docker_twin(lab) as twin:
        place = twin.place()
        spec = place.__enter__()
        twin.start(spec)
        assert len(containers(base.LABEL_CLOUD, spec.cloud)) == 1
        assert not place.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # not swallowed
        assert containers(base.LABEL_CLOUD, spec.cloud) == []
        assert not spec.vault_parent.exists()


@DOCKER
def test_a_raw_container_that_dies_is_a_failure_and_not_waited_for(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, idle=None) as lab, docker_twin(lab) as twin, twin.place() as spec:
        (spec.run_dir / "provision.json").unlink()
        with pytest.raises(EngineError, match="ended"):
            twin.start(spec)


@DOCKER
def test_memory_is_read_of_idle_clouds_after_start_and_after_work(engine_name: str, home: Path) -> None:
    day = list(em.Simulator(1, 1, 5).person(0).entries())
    with em.Lab(engine_name, idle=None) as lab:
        frame = measure.memory(lab, day, n=2, settle_s=0.1)
    assert frame["measure"].tolist() == ["memory after start", "memory after work"] * 2
    assert frame["error"].tolist() == [""] * 4
    assert set(frame["unit"]) == {"MiB"}
    assert (frame["value"] > 5).all()


def test_on_an_engine_without_containers_there_is_nothing_to_compare(home: Path) -> None:
    with em.Lab("memory", idle=None) as lab:
        with pytest.raises(ConfigError, match="memory"):
            measure.start(lab)
        with pytest.raises(ConfigError, match="memory"):
            measure.pause_wake(lab)
        assert len(lab.controller.clouds()) == 0


def test_imports_ran_in_both_ways() -> None:
    frame = measure.imports(n=N, seed=1)
    taken(frame, "import emlab")
    taken(frame, "import Lab")


@pytest.mark.needs("notebooks")
@pytest.mark.slow
@REAL
def test_the_shipped_experiment_measures_all_of_an_engine(engine_name: str, home: Path, tmp_path: Path) -> None:
    settings: dict[str, str | int | float | bool] = {"engines": engine_name, "n": N, "n_clouds": 1}
    experiment = em.Experiment.load(Path(__file__).parents[2] / "experiments" / "overhead.toml", settings)
    frame = experiment.run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == [""]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == FILES | {"run.json", "run.ipynb"}
    table = pd.read_csv(folder / "ratios.csv", keep_default_na=False)
    expected = {"import emlab", "import Lab", "pause", "wake", "wake to answer", "store a day"}
    expected |= {"upload a day", "read a day"}
    docker_only = {"start", "memory after start", "memory after work"}
    assert set(table["measure"]) == expected | (docker_only if engine_name == "docker" else set())
    assert set(table["engine"]) == {"", engine_name}
    samples = pd.read_parquet(folder / "events.parquet")
    assert samples["ok"].all()
    assert measure.compare(samples)["ratio"].round(9).tolist() == table["ratio"].astype(float).round(9).tolist()
