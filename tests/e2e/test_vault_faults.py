"""Faults around open vaults on real engines: what was acknowledged is there, and no vault stays open unseen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import emlab as em
from emlab.cleaning import clean
from emlab.clock import wait_until
from emlab.errors import EmlabError, EngineError, InUse, LabInUse, Locked, TooFewUsers
from emlab.parts import ENGINES, load, make_vault
from emlab.registry import Registry
from emlab.state import CloudSpec, Handle
from emlab.vaults import mounts
from tests.e2e.clouds import entry, gone, kill, pid_of, reaches
from tests.mounting import kill_daemon, mounts_below, slow_path

pytestmark = [
    pytest.mark.needs("mongod"),
    pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True),
]
MOUNTED = pytest.mark.parametrize("vault", ["gocryptfs"], indirect=True)
EVER = em.CountUsers(None, 0.0, 2e9)
KEY = "background/filtered_location"
STOPPED = [em.CloudState.STOPPED, em.CloudState.FAILED]


@pytest.fixture
def lab(engine_name: str, vault: str, vault_home: Path) -> Iterator[em.Lab]:
    with em.Lab(engine_name, vault, default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


@pytest.fixture
def ann(lab: em.Lab) -> em.UserCloud:
    cloud = lab.controller.signup("ann")
    cloud.store([entry(1, key=KEY)])
    return cloud


def clear_of(lab: em.Lab, user: str = "ann") -> Path:
    return lab.controller.life(user).spec.vault_dir


def is_open(lab: em.Lab, user: str = "ann") -> bool:
    return lab.controller.life(user).is_open


def key_of(cloud: em.UserCloud) -> em.Key:
    assert isinstance(cloud.key, em.Key)
    return cloud.key


def said_to(lab: em.Lab, timeout_s: float = 30.0) -> dict[str, int]:
    """Why nobody answered an ask."""
    planner = lab.controller.register_provider("planner")
    with pytest.raises(TooFewUsers, match="0 of 1"):
        planner.ask(EVER, epsilon=1.0, min_users=1, timeout_s=timeout_s)
    frame = lab.recorder.frame()
    return dict(Counter(frame[(frame["span"] == "answer") & ~frame["ok"]]["error"].str.split(":").str[0]))


# -- what dies ---------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import emlab as em
from tests.e2e.clouds import entry
engine, vault = sys.argv[1:]
lab = em.Lab(engine, vault, default_policy=em.Policy.open(), name="killed", idle=None).start()
key = em.Key(bytes.fromhex(sys.stdin.readline()))
ann = lab.controller.signup("ann", key=key)
ann.store([entry(1, key="background/filtered_location")])
print(ann.token, flush=True)
{then}
os.kill(os.getpid(), signal.SIGKILL)
"""
AT_CLOSE = """
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
lab.controller.life("ann").vault.close = die
ann.lock()
"""
AT_START = """
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
ann.lock()
lab.controller.engine.start = die
ann.unlock(key)
"""
AT_MOUNT = """
import subprocess
def die(process, given, _timeout_s):
    process.stdin.write(given)
    process.stdin.close()
    os.kill(os.getpid(), signal.SIGKILL)
ann.lock()
subprocess.Popen.communicate = die
os.environ["PATH"] = os.environ["SLOW_PATH"]
ann.unlock(key)
"""
AT_REMOVE = """
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
lab.controller.register_provider("planner").ask(em.CountUsers(None, 0.0, 2e9), epsilon=0.8, min_users=1)
lab.controller.engine.remove = die
ann.delete()
"""


def killed(engine_name: str, vault: str, key: em.Key, then: str = "") -> str:
    """The token of ann, whose lab's process was killed."""
    command = [sys.executable, "-c", KILLED.format(then=then), engine_name, vault]
    done = subprocess.run(command, input=f"{key.raw().hex()}\n", capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.strip()


def found_again(engine_name: str) -> em.Lab:
    return em.Lab(engine_name, "auto", name="killed", default_policy=em.Policy.open(), idle=None)


def test_after_the_controlling_process_was_killed_a_new_one_finds_the_open_vault(
    engine_name: str, vault: str, vault_home: Path
) -> None:
    token = killed(engine_name, vault, em.Key.random())
    with found_again(engine_name) as lab:
        assert lab.vault == vault
        assert lab.controller.cloud("ann").state is em.CloudState.RUNNING
        assert lab.controller.cloud("ann", token=token).counts() == {KEY: 1}
        assert lab.controller.register_provider("planner").ask(EVER, epsilon=1.0, min_users=1).answered == 1
    assert mounts_below(vault_home) == []


@pytest.mark.parametrize("then", [AT_CLOSE, AT_START], ids=["lock", "unlock"])
def test_a_crash_while_locking_or_unlocking_leaves_no_vault_open(
    engine_name: str, vault: str, vault_home: Path, then: str
) -> None:
    key = em.Key.random()
    token = killed(engine_name, vault, key, then)
    with found_again(engine_name) as lab:
        assert not is_open(lab)
        ann = lab.controller.cloud("ann", token=token)
        assert ann.state in STOPPED
        with pytest.raises(Locked):
            ann.counts()
        ann.unlock(key)
        assert ann.counts() == {KEY: 1}
    with found_again(engine_name) as lab:
        assert list(lab.controller.clouds()) == []


@MOUNTED
def test_what_a_killed_process_had_begun_to_mount_is_closed_when_that_is_said(
    engine_name: str,
    vault: str,
    vault_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("SLOW_PATH", slow_path(tmp_path, 2.0))
    killed(engine_name, vault, em.Key.random(), AT_MOUNT)
    with found_again(engine_name) as lab:
        assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
            "the unlock of ann was interrupted; its vault is closed now"
        ]
        assert not is_open(lab)
        assert mounts.at(clear_of(lab)) == []
        assert not lab.controller.life("ann").closing


def test_a_crash_while_forgetting_is_ended_and_nothing_spent_is_forgotten(
    engine_name: str, vault: str, vault_home: Path
) -> None:
    key = em.Key.random()
    killed(engine_name, vault, key, AT_REMOVE)
    (folder,) = (vault_home / "labs" / "killed" / "clouds").iterdir()
    assert not (folder / "vault.json").exists()  # already unreadable for everybody who comes now
    with found_again(engine_name) as lab:
        assert list(lab.controller.clouds()) == []
        assert not folder.exists()
        assert lab.controller.signup("ann").ledger.spent_micro == 800_000


def test_clean_closes_the_vaults_of_a_killed_lab(engine_name: str, vault: str, vault_home: Path) -> None:
    killed(engine_name, vault, em.Key.random())
    if vault == "gocryptfs":
        assert len(mounts_below(vault_home)) == 1
    assert clean(vault_home) == ["the lab killed is removed, with 1 clouds"]
    assert mounts_below(vault_home) == []
    assert list((vault_home / "labs").iterdir()) == []


def test_clean_shreds_the_keys_before_anything_that_may_fail(
    engine_name: str, vault: str, vault_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(engine_name, vault, em.Key.random())
    (folder,) = (vault_home / "labs" / "killed" / "clouds").iterdir()

    def refuse(_engine: object, _handle: Handle) -> None:
        raise EngineError("the engine is away")

    with monkeypatch.context() as patch:
        patch.setattr(load(ENGINES, engine_name, "engine"), "remove", refuse)
        assert clean(vault_home) == ["the lab killed cannot be cleaned: the engine is away"]
    assert not (folder / "vault.json").exists()
    assert clean(vault_home) == ["the lab killed is removed, with 1 clouds"]


@MOUNTED
def test_clean_leaves_a_lab_as_it_is_whose_vault_cannot_be_used_now(
    engine_name: str, vault: str, vault_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(engine_name, vault, em.Key.random())
    with monkeypatch.context() as patch:
        patch.setattr("emlab.vaults.gocryptfs.DEVICE", vault_home / "fuse")
        (said,) = clean(vault_home)
    assert said.startswith(f"the lab killed cannot be cleaned: {vault_home / 'fuse'} cannot be opened")
    with found_again(engine_name) as lab:
        assert lab.controller.cloud("ann").state is em.CloudState.RUNNING


@pytest.mark.parametrize(("mount", "paused"), [("stale", False), ("gone", True)])
def test_after_a_restart_of_the_machine_the_owner_s_key_opens_what_was_acknowledged(
    engine_name: str, vault: str, vault_home: Path, mount: str, *, paused: bool
) -> None:
    key = em.Key.random()
    token = killed(engine_name, vault, key, 'lab.controller.pause("ann")' if paused else "")
    with em.Lab(engine_name, "auto", name="killed", keep=True, idle=None) as lab:
        ann, clear = lab.controller.cloud("ann", token=token), clear_of(lab)
        for pid in [pid_of(lab, ann, program) for program in ("custodian", "mongod")]:
            with contextlib.suppress(ProcessLookupError):  # the second one may have died with the first
                kill(pid)
        if paused and engine_name == "docker":
            lab.controller.engine.resume(lab.controller.life("ann").handle)  # what is frozen dies only then
        assert reaches(ann, STOPPED)
    if vault == "gocryptfs":
        kill_daemon(clear)
        if mount == "gone":
            assert mounts.unmount(clear, lazy=True)
    elif mount == "gone":
        make_vault(vault)(clear.parent.parent).close()
    with em.Lab(engine_name, "auto", name="killed", keep=False, default_policy=em.Policy.open(), idle=None) as lab:
        assert mounts.at(clear) == []
        ann = lab.controller.cloud("ann", token=token)
        if is_open(lab):  # fscrypt's key is in no process that could be killed
            assert (vault, mount) == ("fscrypt", "stale")
        else:
            assert said_to(lab) == {"Locked": 1}
            ann.unlock(key)
        assert ann.counts() == {KEY: 1}


@MOUNTED
@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
def test_when_the_vault_s_daemon_is_killed_nothing_acknowledged_is_lost(
    lab: em.Lab, ann: em.UserCloud, *, paused: bool
) -> None:
    acknowledged: list[int] = []
    enough = threading.Event()

    def store_on() -> None:
        for number in range(20 if paused else 2_000):
            try:
                ann.store([entry(number, key=KEY)])
            except EmlabError:
                return
            acknowledged.append(number)
            if number == 19:
                enough.set()

    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(store_on)
        assert enough.wait(30)
        if paused:
            storing.result(60)
            ann.pause()
        kill_daemon(clear_of(lab))
        storing.result(60)
    assert len(acknowledged) < 2_000
    assert said_to(lab, timeout_s=10.0) != {}
    with pytest.raises(em.WrongKey):
        ann.unlock(em.Key.random())
    ann.unlock(key_of(ann))
    assert len(mounts.at(clear_of(lab))) == 1
    found = set(ann.entries(KEY)["ts"])
    assert {1_700_000_000.0 + number for number in acknowledged} <= found


def lose_vault(clear: Path, how: str) -> None:
    """The daemon that showed it is dead, or the mount was taken away while it was in use."""
    if how == "daemon":
        kill_daemon(clear)
    else:
        assert mounts.unmount(clear, lazy=True)
        assert mounts.at(clear) == []


@MOUNTED
@pytest.mark.parametrize("paused", [False, True], ids=["running", "paused"])
@pytest.mark.parametrize("how", ["daemon", "mount"])
def test_a_cloud_that_has_lost_its_vault_is_not_used_but_stopped(
    lab: em.Lab, ann: em.UserCloud, how: str, *, paused: bool
) -> None:
    if paused:
        ann.pause()
    clear = clear_of(lab)
    lose_vault(clear, how)
    for act in (ann.counts, ann.wake, lambda: ann.store([entry(2, key=KEY)])):
        with pytest.raises(Locked, match="the vault of ann is closed"):
            act()
    assert ann.state in STOPPED
    assert mounts.at(clear) == []
    assert list(clear.iterdir()) == []
    assert clear.stat().st_mode & 0o777 == 0o500
    ann.unlock(key_of(ann))
    assert ann.counts() == {KEY: 1}


@MOUNTED
@pytest.mark.parametrize(("how", "paused"), [("daemon", True), ("mount", True), ("mount", False)])
def test_a_sweep_stops_a_cloud_that_has_lost_its_vault(
    lab: em.Lab, ann: em.UserCloud, how: str, caplog: pytest.LogCaptureFixture, *, paused: bool
) -> None:
    if paused:
        ann.pause()
    assert lab.controller.sweep() == []
    lose_vault(clear_of(lab), how)
    assert lab.controller.sweep() == ["ann"]
    assert ann.state in STOPPED
    assert "the cloud of ann has lost its vault and is stopped" in caplog.text
    assert lab.controller.sweep() == []
    ann.unlock(key_of(ann))
    assert ann.counts() == {KEY: 1}


def test_a_cloud_that_died_is_started_again_in_its_open_vault(lab: em.Lab, ann: em.UserCloud) -> None:
    mongod = pid_of(lab, ann, "mongod")
    kill(pid_of(lab, ann, "custodian"))
    assert reaches(ann, STOPPED)
    assert gone(mongod)
    assert is_open(lab)
    assert ann.counts() == {KEY: 1}


# -- who waits for whom ------------------------------------------------------------------------------------------------


def test_a_cloud_is_not_locked_while_it_is_asked_something(lab: em.Lab, ann: em.UserCloud) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def use() -> None:
        with lab.controller.using("ann"):
            begun.set()
            assert go_on.wait(30)

    with ThreadPoolExecutor(1) as pool:
        using = pool.submit(use)
        assert begun.wait(30)
        with pytest.raises(InUse):
            ann.lock()
        assert is_open(lab)
        go_on.set()
        using.result(30)
    ann.lock()
    assert not is_open(lab)


def test_locking_and_unlocking_at_once_is_one_after_the_other(lab: em.Lab, ann: em.UserCloud) -> None:
    with ThreadPoolExecutor(6) as pool:
        acts = [pool.submit(ann.lock if n % 2 else lambda: ann.unlock(key_of(ann))) for n in range(6)]
        for act in acts:
            act.result(120)
    assert len(mounts.at(clear_of(lab))) <= 1
    assert is_open(lab) == (ann.state is em.CloudState.RUNNING)
    ann.unlock(key_of(ann))
    assert ann.counts() == {KEY: 1}


def test_a_lab_s_vaults_have_one_controller(lab: em.Lab, ann: em.UserCloud, engine_name: str, vault: str) -> None:
    with pytest.raises(LabInUse, match=str(os.getpid())):
        em.Lab(engine_name, vault, name=lab.name).start()
    assert f"in use by process {os.getpid()}" in " ".join(clean(lab.home))
    assert ann.counts() == {KEY: 1}


@MOUNTED
def test_a_vault_that_somebody_uses_is_closed_when_they_have_ended(lab: em.Lab, ann: em.UserCloud) -> None:
    with (clear_of(lab) / ".emlab-vault").open():
        with pytest.raises(em.VaultBusy, match=str(os.getpid())):
            ann.lock()
        assert ann.state is em.CloudState.STOPPED
        with pytest.raises(Locked, match="being locked"):
            ann.counts()
        assert said_to(lab) == {"Locked": 1}
        assert lab.controller.sweep() == []
        assert is_open(lab)
    assert lab.controller.sweep() == ["ann"]
    assert not is_open(lab)
    assert lab.controller.sweep() == []
    ann.unlock(key_of(ann))
    assert ann.counts() == {KEY: 1}


@MOUNTED
def test_who_unlocks_what_could_not_be_closed_has_it_back(lab: em.Lab, ann: em.UserCloud) -> None:
    with (clear_of(lab) / ".emlab-vault").open():
        with pytest.raises(em.VaultBusy):
            ann.lock()
        with pytest.raises(em.WrongKey):
            ann.unlock(em.Key.random())
        with pytest.raises(Locked, match="being locked"):
            ann.counts()
        ann.unlock(key_of(ann))
        assert ann.counts() == {KEY: 1}


def test_an_idle_cloud_is_locked_after_the_longer_time_unless_it_is_leased(lab: em.Lab, ann: em.UserCloud) -> None:
    bob = lab.controller.signup("bob")
    lab.controller.idle = em.PauseAfter(0.001, lock_after_s=0.002)
    with ann.lease(60):
        assert wait_until(lambda: "bob" in lab.controller.sweep() and not is_open(lab, "bob"), 10)
        assert (ann.state, bob.state) == (em.CloudState.RUNNING, em.CloudState.STOPPED)
        assert (is_open(lab), is_open(lab, "bob")) == (True, False)
    lab.controller.idle = em.PauseAfter(0.001)
    assert wait_until(lambda: lab.controller.sweep() == ["ann"], 10)
    assert (ann.state, is_open(lab)) == (em.CloudState.PAUSED, True)
    lab.controller.idle = em.PauseAfter(0.001, lock_after_s=0.002)
    assert lab.controller.sweep() == ["ann"]
    assert (ann.state, is_open(lab)) == (em.CloudState.STOPPED, False)
    lab.controller.idle = em.Never()
    ann.unlock(key_of(ann))
    assert ann.counts() == {KEY: 1}


# -- fail closed -------------------------------------------------------------------------------------------------------


@MOUNTED
def test_a_cloud_whose_mount_was_taken_away_does_not_start(lab: em.Lab, ann: em.UserCloud) -> None:
    lab.controller.engine.stop(lab.controller.life("ann").handle)
    clear = clear_of(lab)
    assert mounts.unmount(clear)
    with pytest.raises(Locked):
        ann.counts()
    assert list(clear.iterdir()) == []


@MOUNTED
def test_a_mount_that_is_taken_away_at_the_last_moment_is_missed_by_the_cloud_itself(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, clear = lab.controller.engine, clear_of(lab)
    engine.stop(lab.controller.life("ann").handle)
    real = engine.start

    def late(spec: CloudSpec) -> Handle:
        assert mounts.unmount(clear)
        return real(spec)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "start", late)
        with pytest.raises(EngineError, match="no marker"):
            ann.counts()
    assert mounts.at(clear) == []
    assert list(clear.iterdir()) == []
    ann.unlock(key_of(ann))
    assert ann.counts() == {KEY: 1}


@MOUNTED
def test_the_marker_of_another_cloud_s_vault_starts_nothing(lab: em.Lab, ann: em.UserCloud) -> None:
    ann.lock()
    lab.controller.life("ann").vault.open(key_of(ann))
    (clear_of(lab) / ".emlab-vault").write_text("0" * 64)
    with pytest.raises(EngineError, match="of another vault"):
        ann.counts()


@MOUNTED
def test_a_vault_does_not_close_under_a_cloud_that_runs_or_is_paused(lab: em.Lab, ann: em.UserCloud) -> None:
    vault = lab.controller.life("ann").vault
    for act in (ann.wake, ann.pause):
        act()
        with pytest.raises(em.VaultBusy):
            vault.close()
        assert is_open(lab)
    assert ann.counts() == {KEY: 1}


def test_no_intent_is_left_when_all_is_done(lab: em.Lab, ann: em.UserCloud) -> None:
    registry = lab.controller._registry
    assert isinstance(registry, Registry)
    for act in (ann.lock, lambda: ann.unlock(key_of(ann)), lambda: ann.unlock(key_of(ann))):
        act()
        assert [row.intent for row in registry.clouds()] == [""]
    ann.lock()
    with pytest.raises(em.WrongKey):
        ann.unlock(em.Key.random())
    assert [row.intent for row in registry.clouds()] == [""]


@MOUNTED
def test_a_container_shows_no_other_cloud(
    lab: em.Lab, ann: em.UserCloud, inside: Callable[[em.UserCloud, str], str]
) -> None:
    bob = lab.controller.signup("bob")
    for mine, other in ((ann, bob), (bob, ann)):
        seen = inside(mine, "cat /proc/self/mountinfo; find / -xdev 2>/dev/null; find /vault /run")
        assert "/vault/clear/.emlab-vault" in seen
        assert mine.id in seen
        assert other.id not in seen
        assert other.id[:16] not in seen
        assert set(inside(mine, "ls -A /vault").split()) == {"clear"}


@pytest.fixture
def inside(engine_name: str, lab: em.Lab) -> Iterator[Callable[[em.UserCloud, str], str]]:
    """What a shell in the cloud's container says."""
    if engine_name != "docker":
        pytest.skip("processes are not isolated from each other")
    import docker

    client = docker.from_env()

    def run(cloud: em.UserCloud, command: str) -> str:
        container = client.containers.get(lab.controller.life(cloud.user).handle.ref)
        said = container.exec_run(["sh", "-c", command]).output
        assert isinstance(said, bytes)
        return said.decode(errors="replace")

    yield run
    client.close()
