"""Faults on real engines: what was acknowledged is there, what was spent is known, one bad cloud harms no other."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import emlab as em
from emlab.cleaning import clean
from emlab.clock import wait_until
from emlab.engines.rundir import run_root
from emlab.errors import EmlabError, InUse
from emlab.parts import make_engine
from emlab.registry import Registry
from tests.e2e.clouds import entry, gone, kill, pid_of, reaches
from tests.programs import what_runs

REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
EVER = em.CountUsers(None, 0.0, 2e9)


@pytest.fixture
def lab(engine_name: str, home: Path) -> Iterator[em.Lab]:
    with em.Lab(engine_name, default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


@REAL
def test_a_malformed_entry_is_named_by_position_and_nothing_is_half_stored(lab: em.Lab) -> None:
    cloud = lab.controller.signup("ann")
    entries = [entry(n) for n in range(5)]
    entries[3]["data"]["latitude"] = 123.4  # type: ignore[index]
    with pytest.raises(em.BadEntry, match="3") as caught:
        cloud.store(entries)
    assert caught.value.position == 3
    assert cloud.counts() == {}
    report = cloud.store(entries, partial=True)
    assert (report.received, report.inserted, sum(report.rejected.values())) == (5, 4, 1)
    assert cloud.counts() == {"background/location": 4}


@REAL
def test_every_acknowledged_entry_is_there_after_mongod_was_killed_while_storing(lab: em.Lab) -> None:
    cloud = lab.controller.signup("ann")
    acknowledged: list[int] = []
    ended = threading.Event()

    def store_on() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            with contextlib.suppress(EmlabError):  # of whichever the death meets, unless it falls between two
                cloud.store([entry(number)])
                acknowledged.append(number)

    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(store_on)
        try:
            assert wait_until(lambda: len(acknowledged) > 20, 30)
            before = pid_of(lab, cloud, "mongod")
            kill(before)
            at_death = len(acknowledged)
            assert wait_until(lambda: len(acknowledged) > at_death + 20, 30)  # whoever stores next starts it anew
        finally:
            ended.set()
        storing.result(60)
    assert pid_of(lab, cloud, "mongod") != before
    found = set(cloud.entries("background/location")["ts"])
    assert {1_700_000_000.0 + number for number in acknowledged} <= found


@REAL
@pytest.mark.parametrize("program", ["mongod", "custodian"])
def test_a_cloud_whose_program_died_is_seen_as_failed_and_started_again_on_use(lab: em.Lab, program: str) -> None:
    cloud = lab.controller.signup("ann")
    cloud.store([entry(1)])
    mongod = pid_of(lab, cloud, "mongod")
    kill(pid_of(lab, cloud, program))
    assert reaches(cloud, [em.CloudState.FAILED])
    assert gone(mongod)
    assert cloud.counts() == {"background/location": 1}
    assert cloud.state is em.CloudState.RUNNING


@REAL
def test_a_hung_cloud_is_a_recorded_failure_and_the_release_goes_on_with_the_others(lab: em.Lab) -> None:
    people = [lab.controller.signup(name) for name in ("ann", "bob", "eve")]
    for person in people:
        person.store([entry(1, key="background/filtered_location")])
    hung = pid_of(lab, people[0], "mongod")
    kill(hung, signal.SIGSTOP)
    try:
        planner = lab.controller.register_provider("planner")
        release = planner.ask(EVER, epsilon=1.0, min_users=1, timeout_s=2.0)
    finally:
        kill(hung, signal.SIGCONT)
    assert (release.asked, release.answered, release.failed) == (3, 2, 1)
    assert release.reasons == {"Unreachable": 1}
    failed = lab.recorder.frame().query("span == 'answer' and not ok")
    assert failed["user"].tolist() == ["ann"]
    assert failed["error"].iloc[0].startswith("Unreachable")


@REAL
def test_unknown_people_wrong_tokens_and_wrong_numbers_have_their_own_errors_and_spend_nothing(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    planner = lab.controller.register_provider("planner")
    with pytest.raises(em.UnknownUser):
        lab.controller.cloud("nobody")
    with pytest.raises(em.ConfigError):
        lab.controller.signup("ann")
    with pytest.raises(em.ConfigError):
        lab.controller.signup("../ann")
    with pytest.raises(em.NotPermitted, match="owner"):
        lab.controller.cloud("ann").counts()
    for token in ("wrong", planner.token):
        with pytest.raises(em.NotPermitted):
            lab.controller.cloud("ann", token=token).counts()
    assert ann.token is not None
    with pytest.raises(em.NotPermitted):
        lab.controller.roster(ann.token, planner.public)
    for epsilon in (-1.0, 0.0, float("nan"), float("inf"), 1e-7, 101.0):
        with pytest.raises(em.BadQuery):
            planner.ask(EVER, epsilon=epsilon, min_users=1)
    for cap in (-1, 0, float("nan"), float("inf")):
        with pytest.raises(em.BadQuery):
            planner.ask(em.SumDistance(0.0, 2e9, cap), epsilon=1.0, min_users=1)  # type: ignore[arg-type]
    assert ann.ledger.spent_micro == 0


@REAL
def test_a_cloud_that_the_registry_does_not_know_is_named_and_left_alone(
    engine_name: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with em.Lab(engine_name, name="kept", keep=True, idle=None) as lab:
        ann, bob = (lab.controller.signup(user).id for user in ("ann", "bob"))
        lab.registry.run("DELETE FROM clouds WHERE cloud = ?", ann)
        lab.leave()
    assert what_runs(engine_name, home) == {handle.ref for handle in make_engine(engine_name, home).find()}
    with em.Lab(engine_name, name="kept", keep=True, idle=None) as lab:
        assert f"the cloud {ann} is not in the registry, and left alone" in caplog.text
        assert [cloud.user for cloud in lab.controller.clouds()] == ["bob"]
        lab.controller.sweep()
        running = {handle.cloud for handle in lab.controller.engine.find()}
        assert running == {ann, bob}
        assert lab.controller.engine.states("kept")[ann] is em.CloudState.RUNNING
    (said,) = clean(home)
    assert "1 clouds that it does not know are removed" in said
    assert {handle.cloud for handle in make_engine(engine_name, home).find()} == {bob}
    clean(home, "kept")


@REAL
def test_a_leased_cloud_is_not_paused_and_an_idle_one_is(lab: em.Lab) -> None:
    ann, bob = lab.controller.signup("ann"), lab.controller.signup("bob")
    lab.controller.idle = em.PauseAfter(0.001)
    with ann.lease(60):
        assert wait_until(lambda: lab.controller.sweep() == ["bob"], 5)
        with pytest.raises(InUse):
            ann.pause()
        assert (ann.state, bob.state) == (em.CloudState.RUNNING, em.CloudState.PAUSED)
    assert wait_until(lambda: lab.controller.sweep() == ["ann"], 5)
    assert ann.counts() == {}
    assert ann.state is em.CloudState.RUNNING


@REAL
def test_lock_needs_the_key_to_unlock_and_keeps_everything(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    ann.store([entry(1)])
    ann.pause()
    ann.lock()
    assert ann.state is em.CloudState.STOPPED
    with pytest.raises(em.VaultError, match="closed"):
        ann.counts()
    with pytest.raises(em.WrongKey):
        ann.unlock(em.Key.random())
    assert ann.key is not None
    ann.unlock(ann.key)
    assert ann.counts() == {"background/location": 1}


@REAL
def test_signing_up_again_does_not_renew_the_budget(lab: em.Lab) -> None:
    planner = lab.controller.register_provider("planner")
    policy = em.Policy.open(total_epsilon=1.0)
    ann = lab.controller.signup("ann", policy=policy)
    planner.ask(EVER, epsilon=0.8, min_users=1)
    ann.delete()
    assert len(lab.controller.clouds()) == 0
    again = lab.controller.signup("ann", policy=policy)
    assert again.ledger.spent_micro == 800_000
    release_of = planner.ask(EVER, epsilon=0.2, min_users=1)
    assert release_of.answered == 1
    with pytest.raises(em.TooFewUsers):
        planner.ask(EVER, epsilon=0.2, min_users=1)


KILLED = """
import os, signal, sys
import emlab as em
lab = em.Lab(sys.argv[1], default_policy=em.Policy.open(), name="killed", idle=None).start()
for name in ("ann", "bob"):
    cloud = lab.controller.signup(name)
    print(cloud.token)
lab.controller.pause("bob")
sys.stdout.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@REAL
def test_after_the_controlling_process_was_killed_a_new_one_finds_everything(engine_name: str, home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, engine_name], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    tokens = done.stdout.split()
    with em.Lab(engine_name, name="killed", default_policy=em.Policy.open(), idle=None) as lab:
        states = {cloud.user: cloud.state for cloud in lab.controller.clouds()}
        assert states == {"ann": em.CloudState.RUNNING, "bob": em.CloudState.PAUSED}
        for name, token in zip(("ann", "bob"), tokens, strict=True):
            lab.controller.cloud(name, token=token).store([entry(1, key="background/filtered_location")])
        release = lab.controller.register_provider("planner").ask(EVER, epsilon=1.0, min_users=2)
        assert release.answered == 2
    assert not (home / "labs" / "killed").exists()


@REAL
def test_a_kept_lab_comes_back_paused_with_its_data_and_clean_leaves_it_alone(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, name="kept", keep=True) as lab:
        ann = lab.controller.signup("ann")
        ann.store([entry(1)])
    assert "kept" in " ".join(clean(home))
    with em.Lab("auto", name="kept", keep=False) as lab:  # its own engine, whichever "auto" would choose
        assert lab.engine == engine_name
        again = lab.controller.cloud("ann", token=ann.token)
        assert again.state is em.CloudState.PAUSED
        assert again.counts() == {"background/location": 1}
    assert not lab.path.exists()


@REAL
def test_cleaning_takes_from_a_kept_lab_only_clouds_that_it_does_not_know(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, name="kept", keep=True, idle=None) as lab:
        ann, lost = lab.controller.signup("ann"), lab.controller.signup("lost")
        known, unknown = ann.id, lost.id
    registry = Registry(lab.path)
    registry.open()
    registry.drop(unknown)
    registry.close()
    said = [clean(home)[0] for _ in range(2)]
    assert ["1 clouds that it does not know" in sentence for sentence in said] == [True, False]
    engine = make_engine(engine_name, home)
    assert [handle.cloud for handle in engine.find()] == [known]
    with em.Lab(engine_name, name="kept", keep=False) as lab:
        assert lab.controller.cloud("ann", token=ann.token).counts() == {}


FORKED = """
import os, sys
import emlab as em
with em.Lab(sys.argv[1], name="parent") as lab:
    ann = lab.controller.signup("ann")
    child = os.fork()
    if child == 0:
        lab.close()
        sys.exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert ann.counts() == {}
    assert lab.path.exists()
"""


@REAL
def test_a_forked_child_that_ends_takes_nothing_of_its_parent_s_lab(engine_name: str, home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, engine_name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list((home / "labs").iterdir()) == []


@REAL
def test_a_lab_has_one_owner_and_keeps_its_engine(lab: em.Lab, engine_name: str) -> None:
    with pytest.raises(em.LabInUse, match=str(os.getpid())):
        em.Lab(engine_name, name=lab.name).start()
    assert f"in use by process {os.getpid()}" in " ".join(clean(lab.home))
    with pytest.raises(em.LabInUse):
        clean(lab.home, lab.name)
    other = em.Lab("memory", name="other", keep=True).start()
    other.close()
    with pytest.raises(em.ConfigError, match="engine 'memory'"):
        em.Lab(engine_name, name="other").start()
    clean(lab.home, "other")


@REAL
def test_a_full_disk_is_named_and_what_was_acknowledged_survives(
    engine_name: str, small_disk: Path, home: Path
) -> None:
    noise = random.Random(1)  # which does not compress
    bulky = [entry(n) | {"note": noise.randbytes(6000).hex()} for n in range(8000)]
    with em.Lab(engine_name, idle=None, home=small_disk) as lab:
        cloud = lab.controller.signup("ann")
        reports: list[em.StoreReport] = []
        with pytest.raises(em.DiskFull, match=f"bytes are free.*{small_disk}"):
            reports.extend(cloud.store(bulky[first : first + 50]) for first in range(0, len(bulky), 50))
        stored = sum(report.inserted for report in reports)
        assert 50 <= stored < len(bulky)
        assert cloud.counts()["background/location"] >= stored
        cloud.lock()
        assert cloud.key is not None
        cloud.unlock(cloud.key)
        found = set(cloud.entries("background/location", limit=10_000)["ts"])
        assert {1_700_000_000.0 + n for n in range(stored)} <= found


@REAL
def test_ctrl_c_in_the_middle_leaves_nothing_that_clean_does_not_find(
    engine_name: str, home: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "emlab.cli",
        "demo",
        "--engine",
        engine_name,
        "--users",
        "30",
        "--out",
        str(tmp_path),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "EMLAB_PHONE_DAYS": ""}
    ) as demo:
        engine = make_engine(engine_name, home)
        assert wait_until(lambda: len(engine.find()) >= 3 or demo.poll() is not None, 60)
        demo.send_signal(signal.SIGINT)
        out = demo.communicate(timeout=60)[0].decode()
    assert demo.returncode == 130, out
    clean(home)
    assert engine.find() == []
    assert list((home / "labs").iterdir()) == []
    assert list(run_root(home).iterdir()) == []


def test_what_is_missing_is_said_in_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMLAB_MONGOD", str(tmp_path / "no-such-mongod"))
    with pytest.raises(EmlabError, match="EMLAB_MONGOD"):
        em.Lab("process").start()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-such-socket")
    with pytest.raises(em.EngineMissing, match="install and start one"):
        em.Lab("docker").start()
    with pytest.raises(em.ConfigError, match="no engine 'cloud9'"):
        em.Lab("cloud9").start()
    with pytest.raises(em.ConfigError, match="no vault 'vault9'"):
        em.Lab("memory", vault="vault9").start()
    assert list((home / "labs").glob("*")) == []


def test_an_image_of_another_version_is_said_to_be_missing(
    home: Path, need: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    need("docker")
    from emlab import images

    monkeypatch.setattr(images, "current_tag", lambda: "emlab/cloud:never-built")
    with em.Lab("docker", idle=None) as lab, pytest.raises(EmlabError, match="emlab images build"):
        lab.controller.signup("ann")
    assert run_root(home).exists()
