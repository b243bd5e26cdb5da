"""User clouds whose mongod keeps its data on a real eCryptfs: as processes, and in containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import emlab as em
from emlab.errors import Locked, WrongKey
from emlab.key import Key
from tests.canary import search
from tests.mounting import mounts_below

pytestmark = pytest.mark.needs("ecryptfs", "mongod")
ENGINES = ("process", pytest.param("docker", marks=pytest.mark.slow))
EVER = (0.0, 2e9)


@pytest.mark.parametrize("engine_name", ENGINES, indirect=True)
def test_a_day_is_stored_made_a_diary_of_locked_unlocked_and_asked(engine_name: str, home: Path) -> None:
    person = em.Simulator(1, 1, seed=5).person(0)
    exact = em.Aggregator(exact=True)
    with em.Lab(engine_name, "ecryptfs", default_policy=em.Policy.open(), aggregator=exact) as lab:
        cloud = lab.controller.signup(person.name, key=person.key)
        stored = cloud.store(person.entries())
        assert stored.inserted == stored.received > 100
        assert cloud.intake().trips >= 1
        trips = cloud.trips()
        somewhere = [float(trips["start_lat"].iloc[0])]
        assert search(lab.controller.life(cloud.user).spec.vault_dir, somewhere) != []
        cloud.lock()
        with pytest.raises(Locked):
            cloud.trips()
        with pytest.raises(WrongKey):
            cloud.unlock(Key.random())
        assert search(home, somewhere) == []
        cloud.unlock(person.key)
        assert cloud.trips().equals(trips)
        planner = lab.controller.register_provider("planner")
        release = planner.ask(em.CountUsers(None, *EVER), epsilon=1.0, min_users=1)
        assert (release.value, release.answered, release.failed) == (1, 1, 0)


def test_the_demonstration_on_the_command_line_runs_the_main_job(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "emlab.cli", "demo", "--engine", "process", "--vault", "ecryptfs", "--users", "2"]
    alone = {**os.environ, "EMLAB_PHONE_DAYS": ""}  # five real days more take too long
    words = [*command, "--days", "1", "--out", str(out)]
    done = subprocess.run(words, env=alone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "report.html" in {file.name for file in out.iterdir()}
    assert json.loads((out / "params.json").read_text())["vault"] == "ecryptfs"
    release = json.loads((out / "release.json").read_text())
    assert (release["asked"], release["answered"], release["failed"]) == (2, 2, 0)
    assert mounts_below(home) == []
    assert list((home / "labs").iterdir()) == []
