"""What a served lab costs, measured with a real one and few rounds: every part took place. No time is judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import emlab as em
from emlab.errors import BadReply, EngineError
from emlab.measure import gateway_costs as costs
from emlab.measure import waking
from emlab.measure.gateway import ServedLab, Way
from emlab.measure.gateway_load import under_load
from emlab.parts import make_engine

N, CLOUDS = 3, 2
BOTH = {costs.WAKE, costs.WAKE_ALL, costs.AWAKE, costs.ANSWER, costs.RATE, costs.ALONE}
BOTH |= {name + costs.TLS for name in (costs.WAKE, costs.ANSWER, costs.RATE)}
ALONE = {costs.WORK, costs.WORK + costs.TLS, costs.RESTART, costs.MEMORY, costs.IDLE, costs.ASLEEP}
FILES = {"params.json", "environment.json", "events.parquet", "latency.csv", "costs.png", "waits.png", "report.html"}
pytestmark = pytest.mark.needs("mongod")


def check(samples: pd.DataFrame, engine_name: str) -> None:
    """Everything was measured on this engine, with one cloud or with all of them, and nothing failed."""
    assert samples["error"].tolist() == [""] * len(samples)
    assert set(samples["engine"]) == {engine_name}
    found = set(zip(samples["measure"], samples["arm"], strict=True))
    assert found == {(name, "emlab") for name in BOTH | ALONE} | {(name, "raw") for name in BOTH}
    wakes = samples[samples["measure"] == costs.WAKE]
    assert wakes.groupby(["clouds", "arm"]).size().tolist() == [N] * 4
    assert (samples["measure"] == costs.WAKE_ALL).sum() == 2 * CLOUDS
    assert (samples.loc[samples["measure"] != costs.ASLEEP, "value"] >= 0).all()
    assert (samples.loc[samples["measure"] == costs.ASLEEP, "value"] == 0).all()


def nothing_is_left(home: Path, engine_name: str) -> bool:
    return list((home / "labs").iterdir()) == [] and make_engine(engine_name, home).find() == []


@pytest.mark.slow
@pytest.mark.parametrize("engine_name", ["docker"], indirect=True)
def test_every_part_is_measured_with_containers(engine_name: str, home: Path) -> None:
    check(waking.side_by_side(engine_name, n=N, clouds=CLOUDS, seed=5), engine_name)
    assert nothing_is_left(home, engine_name)


@pytest.fixture
def lab(home: Path) -> Iterator[ServedLab]:
    with ServedLab("process") as lab:
        lab.grow(1)
        yield lab
    assert nothing_is_left(home, "process")


def test_a_wake_without_emlab_wakes_and_one_by_the_gateway_too(lab: ServedLab) -> None:
    (person,) = lab.people
    for wake in (person.woken_s, lambda: lab.through(person).fresh_s()):
        lab.pause(person)
        assert lab.admin.status(person.user).state == "paused"
        assert wake() > 0
        assert lab.admin.status(person.user).state == "running"
    assert not lab.knows_all()
    lab.pause_all()
    assert lab.knows_all()


def test_a_refused_request_counts_as_none(lab: ServedLab) -> None:
    (person,) = lab.people
    good = lab.through(person)
    bad = Way(good.address, good.request.replace(b"Bearer ", b"Bearer x"))
    assert under_load(good, 0.2, connections=2).answers > 0
    with pytest.raises(BadReply, match=r"401|403"):
        bad.fresh_s()
    with pytest.raises(EngineError, match=r"status 40[13]"):
        under_load(bad, 0.2, connections=2)


def test_a_killed_program_is_started_again_and_an_ended_one_can_be_ended_again(lab: ServedLab) -> None:
    before = lab.pid
    lab.pause_all()
    lab.kill()
    lab.kill()
    with pytest.raises(EngineError, match="does not run"):
        _ = lab.admin
    lab.start(tls=True)
    assert lab.pid != before
    assert lab.knows_all()
    assert lab.through(lab.people[0]).fresh_s() > 0
    lab.end()
    lab.end()


@pytest.mark.slow
@pytest.mark.needs("notebooks")
def test_the_shipped_experiment_measures_every_part_and_writes_its_table(home: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "experiments" / "wake_latency.toml"
    experiment = em.Experiment.load(shipped, {"n": N, "clouds": CLOUDS, "engines": "process"})
    frame = experiment.run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == [""]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == FILES | {"run.json", "run.ipynb"}
    assert nothing_is_left(home, "process")
    samples = pd.read_parquet(folder / "events.parquet")
    check(samples, "process")
    table = pd.read_csv(folder / "latency.csv")
    computed = costs.costs(samples)
    assert table["measure"].tolist() == computed["measure"].tolist()
    assert table["ratio"].round(9).dropna().tolist() == computed["ratio"].round(9).dropna().tolist()
