"""One cloud's life between threads: what waits for what, and for how long."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ipywidgets import Widget

import emlab as em
from emlab import provision as provisioning
from emlab.arguments import MAX_LEASE_S
from emlab.clock import Clock, ManualClock, wait_until
from emlab.engines.docker import DockerEngine
from emlab.engines.rundir import CLOUD_UID
from emlab.errors import CloudGone, InUse, Locked, Unreachable, VaultBusy, WrongKey
from emlab.idle import PauseAfter, Use
from emlab.lease import Lease
from emlab.lifecycle import CALLS, Lifecycle
from emlab.parts import make_engine
from emlab.state import CloudSpec, CloudState, Handle
from emlab.vaults.plain import PlainVault

WAIT_S = 10.0  # only a failing test waits for so long


def alone(home: Path, clock: Clock) -> Lifecycle:
    """A cloud's life without a controller, never started, which believes that it runs."""
    spec = CloudSpec("lab", "ann", "a" * 32, 1, home / "run", home / "vault", home / "vault" / "clear")
    life = Lifecycle(
        spec,
        engine=make_engine("memory", home),
        vault=PlainVault(home / "vault"),
        provision=lambda: pytest.fail("it is not to be started"),
        intend=lambda intent: None,
        recorder=em.Recorder(clock),
        clock=clock,
    )
    life.runs = True
    return life


@pytest.fixture
def lab(home: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


@pytest.fixture
def ann(lab: em.Lab) -> em.UserCloud:
    return lab.controller.signup("ann")


@contextmanager
def held(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch, verb: str, act: Callable[[], object]
) -> Iterator[threading.Event]:
    """`act` runs in another thread and stands still in the engine's `verb` until the block ends or sets the event."""
    reached, go_on = threading.Event(), threading.Event()
    engine = lab.controller.engine
    real = getattr(engine, verb)

    def slow(*args: object) -> object:
        reached.set()
        assert go_on.wait(WAIT_S)
        return real(*args)

    monkeypatch.setattr(engine, verb, slow)
    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        try:
            assert reached.wait(WAIT_S)
            yield go_on
        finally:
            go_on.set()
            monkeypatch.setattr(engine, verb, real)
        acting.result(WAIT_S)


def test_a_long_start_hides_no_use_and_bounds_who_waits_for_it(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = lab.controller.life("ann")
    life.lock()
    assert ann.key is not None
    key = ann.key
    with held(lab, monkeypatch, "start", lambda: life.unlock(key)):
        life.release(life.begin_use(1e12))
        assert life.use().leases == ()
        assert lab.controller.sweep() == []
        with pytest.raises(Unreachable, match=r"ann was busy for 0\.05 s"):
            life.wake(timeout_s=0.05)
        with pytest.raises(Unreachable, match="busy"), life.using(timeout_s=0.05):
            pass
        assert life.use().leases == ()
    assert life.state is CloudState.RUNNING


def test_what_waits_for_a_start_to_use_the_cloud_is_not_paused(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = lab.controller.life("ann")
    life.lock()
    assert ann.key is not None
    key, paused = ann.key, threading.Event()

    def use() -> CloudState:
        with life.using():
            assert paused.wait(WAIT_S)
            return life.state

    with ThreadPoolExecutor(2) as pool:
        with held(lab, monkeypatch, "start", lambda: life.unlock(key)):
            using = pool.submit(use)
            assert wait_until(lambda: life.use().leases != (), WAIT_S)
            pausing = pool.submit(life.pause)
        with pytest.raises(InUse):
            pausing.result(WAIT_S)
        paused.set()
        assert using.result(WAIT_S) is CloudState.RUNNING


def test_a_use_that_meets_a_pause_under_way_wakes_the_cloud_again(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = lab.controller.life("ann")
    with ThreadPoolExecutor(1) as pool:
        with held(lab, monkeypatch, "pause", life.pause):
            counting = pool.submit(ann.counts)
            assert wait_until(lambda: life.use().leases != (), WAIT_S)
        assert counting.result(WAIT_S) == {}
    assert life.state is CloudState.RUNNING


def test_a_cloud_that_signs_up_is_busy_until_it_runs(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        held(lab, monkeypatch, "start", lambda: lab.controller.signup("bob")),
        pytest.raises(Unreachable, match="bob was busy"),
    ):
        lab.controller.life("bob").wake(timeout_s=0.05)
    assert lab.recorder.frame()["span"].tolist().count("start") == 1


def test_after_a_sleep_no_connection_of_before_is_used(lab: em.Lab, ann: em.UserCloud) -> None:
    """The cloud may close it at any moment: its time to keep it ran on meanwhile."""
    life = lab.controller.life(ann.user)
    with life.using() as before, life.using() as beside:
        assert beside is before
    ann.pause()
    with life.using() as after:
        assert after is not before


def test_unlocking_an_open_vault_checks_the_key_and_wakes_a_paused_cloud(lab: em.Lab, ann: em.UserCloud) -> None:
    for expected in (CloudState.RUNNING, CloudState.PAUSED):
        if expected is CloudState.PAUSED:
            ann.pause()
        with pytest.raises(WrongKey):
            ann.unlock(em.Key.random())
        assert ann.state is expected
        assert ann.key is not None
        ann.unlock(ann.key)
        assert ann.state is CloudState.RUNNING
    assert lab.recorder.frame()["span"].tolist().count("start") == 1


class Vanishing(Lifecycle):
    """Its handle is gone once it was read, as another thread's destroy would have it."""

    @property
    def _handle(self) -> Handle | None:  # type: ignore[override]
        handle: Handle | None = self.__dict__["_handle"]
        self.__dict__["_handle"] = None
        return handle


def test_the_state_of_a_cloud_that_is_destroyed_meanwhile_is_still_a_state(lab: em.Lab, ann: em.UserCloud) -> None:
    life = lab.controller.life("ann")
    handle = life.handle
    life.__class__ = Vanishing
    try:
        assert [life.state, life.state] == [CloudState.RUNNING, CloudState.ABSENT]
    finally:
        life.__class__ = Lifecycle
        life._handle = handle


def test_a_provisioning_file_belongs_to_who_runs_the_cloud_and_a_link_is_not_followed(
    lab: em.Lab, ann: em.UserCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    provision = provisioning.read(lab.controller.life("ann").spec.run_dir)
    victim, run_dir = tmp_path / "victim", tmp_path / "run"
    victim.touch()
    run_dir.mkdir(mode=0o700)
    os.chown(run_dir, CLOUD_UID, CLOUD_UID)
    fresh = run_dir / (provisioning.PROVISION + ".new")
    real = Path.stat

    def placed(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        """The owner of the run directory puts a link where the file was, at the worst moment."""
        if path == run_dir and fresh.exists():
            fresh.rename(run_dir / "moved")
            fresh.symlink_to(victim)
        return real(path, follow_symlinks=follow_symlinks)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", placed)
        provisioning.write(run_dir, provision)
    assert victim.stat().st_uid == 0
    assert (run_dir / "moved").stat().st_uid == CLOUD_UID


def test_a_gap_is_kept_when_a_use_begins_after_none_was_under_way(home: Path) -> None:
    clock = ManualClock()
    life = alone(home, clock)
    clock.advance(5000.0)
    first = life.begin_use()  # nobody saw the gap before this one begin
    clock.advance(5000.0)
    second = life.begin_use(clock.now() + 10.0)
    life.release(first)
    clock.advance(7.0)
    third = life.begin_use()  # under the second
    life.release(third)
    life.release(second)
    assert life.use().gaps.total == 0
    clock.advance(0.9)
    life.release(life.begin_use())  # below a second
    assert life.use().gaps.total == 0
    clock.advance(600.0)
    life.release(life.begin_use())
    gaps = life.use().gaps
    assert gaps.total == 1
    assert gaps.span(0.0, 1.0)[0] <= 600.0 < gaps.span(0.0, 1.0)[1]


def test_a_gap_begins_when_a_lease_that_nobody_released_expires(home: Path) -> None:
    clock = ManualClock()
    life = alone(home, clock)
    life.begin_use(clock.now() + 100.0)
    clock.advance(400.0)
    life.release(life.begin_use())
    assert life.use().leases == ()
    assert life.use().gaps.span(0.0, 1.0)[0] <= 300.0 < life.use().gaps.span(0.0, 1.0)[1]


def test_of_many_who_wake_clouds_few_call_the_engine_at_once_and_none_waits_longer_than_it_said(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"user-{number}" for number in range(12)]
    for name in names:
        lab.controller.signup(name).pause()
    calling, most, lock, go_on = 0, 0, threading.Lock(), threading.Event()
    real = lab.controller.engine.resume

    def slow(handle: Handle) -> None:
        nonlocal calling, most
        with lock:
            calling += 1
            most = max(most, calling)
        assert go_on.wait(WAIT_S)
        with lock:
            calling -= 1
        real(handle)

    monkeypatch.setattr(lab.controller.engine, "resume", slow)
    with ThreadPoolExecutor(len(names)) as pool:
        waking = [pool.submit(lab.controller.wake, name) for name in names[:-1]]
        assert wait_until(lambda: CALLS.waiting == len(waking) - 4, WAIT_S)
        with pytest.raises(Unreachable, match="no turn"), lab.controller.life(names[-1]).using(timeout_s=0.05):
            pass
        go_on.set()
        for future in waking:
            future.result(WAIT_S)
    assert most == 4
    states = [cloud.state for cloud in lab.controller.clouds()]
    assert states == [CloudState.RUNNING] * 11 + [CloudState.PAUSED]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_pause_that_fails_is_tried_once_more(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    engine, tries = lab.controller.engine, []
    real = engine.pause

    def failing(handle: Handle) -> None:
        tries.append(handle)
        if len(tries) <= failures:
            raise em.EngineError("unable to freeze")
        real(handle)

    monkeypatch.setattr(engine, "pause", failing)
    if failures == 1:
        ann.pause()
        assert ann.state is CloudState.PAUSED
    else:
        with pytest.raises(em.EngineError, match="unable"):
            ann.pause()
        assert ann.state is CloudState.RUNNING
    assert len(tries) == 2


def said(widget: Widget) -> str:
    """All that a widget and those in it say."""
    inner = "".join(said(child) for child in getattr(widget, "children", ()))
    return f"{getattr(widget, 'value', '')}{inner}"


def test_a_cloud_whose_engine_is_away_is_unknown_not_gone(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-such-socket")
    life, rows = lab.controller.life("ann"), lab.registry.clouds()
    engine = life._engine
    life._engine = lab.controller.engine = DockerEngine(tmp_path)
    lab.idle = em.AtMost(1, idle_s=1e-6)
    try:
        assert lab.controller.clouds().frame()["state"].tolist() == ["unknown"]
        assert lab.controller.sweep() == []
        for shown in (lab._repr_html_(), lab.controller._repr_html_(), said(lab.panel())):
            assert "unknown" in shown
            assert "absent" not in shown
        assert "ann" in repr(lab.controller.clouds())
        for act in (ann.pause, ann.wake, ann.counts, ann.lock):
            with pytest.raises(em.EngineError, match="no Docker engine answers"):
                act()
        with pytest.raises(em.EngineError, match="no Docker engine answers"):
            lab.controller.forget("ann")
        found = [(row.user, row.cloud) for row in lab.registry.clouds()]
        assert found == [(row.user, row.cloud) for row in rows]
    finally:
        life._engine = lab.controller.engine = engine


def test_a_rule_wakes_a_cloud_that_will_be_used_and_that_is_no_use(lab: em.Lab, ann: em.UserCloud) -> None:
    bob = lab.controller.signup("bob")
    ann.pause()
    bob.pause()
    before = lab.controller.life("ann").use()
    lab.controller.idle = Expecting(before.cloud)
    assert lab.controller.sweep() == []
    assert (ann.state, bob.state) == (CloudState.RUNNING, CloudState.PAUSED)
    assert lab.controller.life("ann").use() == before
    ann.lock()
    lab.controller.sweep()
    assert ann.state is CloudState.STOPPED


@dataclass(frozen=True)
class Expecting:
    """Pauses nobody, and expects a use of one cloud."""

    cloud: str

    def due(self, clouds: Sequence[Use], now: float) -> list[str]:
        return []

    def due_to_wake(self, sleeping: Sequence[Use], now: float) -> list[str]:
        return [use.cloud for use in sleeping if use.cloud == self.cloud]


def test_a_sweep_that_comes_late_locks_no_cloud_that_its_owner_has_taken_back(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = lab.controller.life("ann")
    assert ann.key is not None

    def busy() -> None:
        raise VaultBusy("somebody reads in it")

    with monkeypatch.context() as patch:
        patch.setattr(life.vault, "close", busy)
        with pytest.raises(VaultBusy):
            life.lock()
    ann.unlock(ann.key)
    life.end_lock()  # of a sweep that saw before that the lock had not ended
    assert (life.state, life.is_open, life.closing) == (CloudState.RUNNING, True, False)


def test_a_rule_locks_no_cloud_that_was_used_or_unlocked_since_it_decided(lab: em.Lab, ann: em.UserCloud) -> None:
    life = lab.controller.life("ann")
    decided_ts = life.use().last_use_ts
    ann.counts()
    with pytest.raises(InUse):
        life.lock(unused_since=decided_ts)
    assert life.is_open
    decided_ts = life.use().last_use_ts
    assert ann.key is not None
    ann.unlock(ann.key)
    with pytest.raises(InUse):
        life.lock(unused_since=decided_ts)
    life.lock(unused_since=life.use().last_use_ts)
    assert not life.is_open


def test_what_the_system_refuses_while_one_cloud_is_repaired_is_logged(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life = lab.controller.life("ann")
    life.lock()

    def refuse() -> None:
        raise PermissionError("not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(life.vault, "repair", refuse)
        life.repair("")
    assert "cannot repair the vault of ann: not permitted" in caplog.text


def test_why_a_sign_up_failed_is_told_even_if_what_is_left_of_it_cannot_be_removed(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = lab.controller.engine

    def refuse(*_: object) -> Handle:
        raise em.EngineError("no room for another")

    def fail(*_: object) -> None:
        raise em.EngineError("the engine went away")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "start", refuse)
        patch.setattr(engine, "remove", fail)
        with pytest.raises(em.EngineError, match="no room"):
            lab.controller.signup("bob")
    assert "the cloud of bob could not be removed, and is tried again: the engine went away" in caplog.text
    with pytest.raises(CloudGone, match="is being removed"):
        lab.controller.wake("bob")
    lab.controller.detach()
    lab.controller.attach()
    assert len(lab.controller.clouds()) == 0


@pytest.mark.parametrize("paused", [False, True])
def test_a_cloud_that_is_being_forgotten_takes_nothing_more_and_the_next_sweep_removes_it(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch, *, paused: bool
) -> None:
    def fail(*_: object) -> None:
        raise em.EngineError("the engine went away")

    if paused:
        ann.pause()
    life = lab.controller.life("ann")
    with monkeypatch.context() as patch:
        patch.setattr(lab.controller.engine, "remove", fail)
        with pytest.raises(em.EngineError, match="went away"):
            lab.controller.forget("ann")
        assert lab.controller.sweep() == []
    assert ann.key is not None
    for act in (ann.wake, ann.counts, partial(ann.unlock, ann.key), life.wake):
        with pytest.raises(CloudGone, match="is being removed"):
            act()
    assert not life.rouse()
    assert lab.controller.sweep() == []
    assert len(lab.controller.clouds()) == 0
    assert lab.controller.engine.find() == []
    assert lab.controller.signup("ann").state is CloudState.RUNNING


def test_a_cloud_that_could_not_be_put_on_record_as_forgotten_is_used_by_nobody(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise em.DiskFull("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(lab.registry, "bury", full)
        for _ in range(2):
            with pytest.raises(em.DiskFull):
                lab.controller.forget("ann")
        with pytest.raises(CloudGone, match="is being removed"):
            ann.wake()
        lab.controller.sweep()
    lab.controller.sweep()
    assert len(lab.controller.clouds()) == 0
    assert lab.controller._removal.unfinished == set()


def test_what_keeps_one_cloud_from_being_removed_keeps_no_other_from_being_paused(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise AttributeError("a fault of ours")

    bob = lab.controller.signup("bob")
    lab.controller.idle = PauseAfter(1e-9)
    with monkeypatch.context() as patch:
        patch.setattr(lab.controller.engine, "remove", broken)
        with pytest.raises(AttributeError):
            lab.controller.forget("ann")
        caplog.clear()
        assert "bob" in lab.controller.sweep()
        lab.controller.sweep()
    assert bob.state is CloudState.PAUSED
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []  # it was said once


def test_a_sign_up_that_failed_keeps_the_name_until_the_next_sweep(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Handle:
        raise em.EngineError("the engine went away")

    with monkeypatch.context() as patch:
        for verb in ("start", "remove"):
            patch.setattr(lab.controller.engine, verb, fail)
        with pytest.raises(em.EngineError, match="went away"):
            lab.controller.signup("bob")
    with pytest.raises(em.ConfigError, match="has a cloud"):
        lab.controller.signup("bob")
    lab.controller.sweep()
    assert lab.controller.signup("bob").state is CloudState.RUNNING


def test_a_sweep_says_only_what_it_did_itself(lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    lab.controller.on_sweep = lambda action, user: told.append((action, user))
    life, stop = lab.controller.life("ann"), lab.controller.engine.stop
    stopping, sweeping, go_on = threading.Event(), threading.Event(), threading.Event()

    def slowly(handle: Handle) -> None:
        stopping.set()
        assert go_on.wait(10)
        stop(handle)

    def end_lock() -> bool:
        sweeping.set()
        return Lifecycle.end_lock(life)

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(lab.controller.engine, "stop", slowly)
        patch.setattr(life, "end_lock", end_lock)
        locked = pool.submit(lab.controller.lock, "ann")
        assert stopping.wait(10)
        swept = pool.submit(lab.controller.sweep)
        assert sweeping.wait(10)
        go_on.set()
        assert (swept.result(10), locked.result(10)) == ([], None)
    assert told == []


def test_what_was_so_before_is_not_done_again(lab: em.Lab, ann: em.UserCloud) -> None:
    life, key = lab.controller.life("ann"), ann.key
    assert key is not None
    for act in (life.pause, life.wake, life.lock):
        assert (act(), act()) == (True, False)
    assert not life.end_lock()
    ann.unlock(key)
    assert not life.end_bereft()


def test_a_sweep_that_is_to_end_leaves_the_rest(lab: em.Lab, ann: em.UserCloud) -> None:
    bob = lab.controller.signup("bob")
    lab.controller.idle = PauseAfter(1e-9)
    asked = iter([False, True])
    assert lab.controller.sweep(lambda: next(asked)) == ["ann"]
    assert (ann.state, bob.state) == (CloudState.PAUSED, CloudState.RUNNING)


def test_an_ordered_wake_is_a_use(lab: em.Lab, ann: em.UserCloud) -> None:
    ann.pause()
    before = lab.controller.life("ann").use().last_use_ts
    ann.wake()
    after = lab.controller.life("ann").use()
    assert after.last_use_ts > before
    assert after.leases == ()


def test_what_is_refused_is_no_use(lab: em.Lab, ann: em.UserCloud) -> None:
    ann.lock()
    life = lab.controller.life("ann")
    before = life.use()
    for act in (ann.wake, ann.counts):
        with pytest.raises(Locked):
            act()
    number = life.begin_use()  # as the gateway
    life.release(number)
    assert life.use() == before
    assert ann.key is not None
    ann.unlock(ann.key)
    assert life.use().last_use_ts > before.last_use_ts


def test_a_pause_or_lock_that_finds_a_use_leaves_the_cloud_known_to_run(lab: em.Lab, ann: em.UserCloud) -> None:
    life = lab.controller.life("ann")
    with life.using():
        for act in (life.pause, life.lock):
            with pytest.raises(InUse):
                act()
        before = life.use().last_use_ts
        assert life.runs
    assert life.use().last_use_ts > before


def test_uses_are_known_after_a_restart(home: Path) -> None:
    settings: Any = {"engine": "memory", "name": "kept", "keep": True, "idle": None}
    with em.Lab(**settings, default_policy=em.Policy.open()) as lab:
        lab.controller.signup("ann")
        life = lab.controller.life("ann")
        life._uses._last_ts -= 5000.0
        life.wake()
        life.release(life.begin_use())  # a gap of 5000 s ends
        lab.controller.signup("bob")
        bob = lab.controller.life("bob").use().last_use_ts
        lab.controller.sweep()
        life.release(life.begin_use())
        before = life.use()
        assert before.gaps.total == 1
    with em.Lab(**settings) as lab:
        after = lab.controller.life("ann").use()
        assert (after.last_use_ts, after.gaps) == (before.last_use_ts, before.gaps)
        assert lab.controller.life("bob").use().last_use_ts == bob
        lab.controller.forget("ann")
        assert [row["cloud"] for row in lab.registry.run("SELECT cloud FROM uses")] == [
            lab.controller.life("bob").spec.cloud
        ]


def test_a_lease_at_the_end_of_a_lab_was_a_use_until_then(home: Path) -> None:
    clock = ManualClock()
    life = alone(home, clock)
    life.begin_use(clock.now() + 3600.0)
    clock.advance(90.0)
    life.end_leases()
    past = life.past()
    assert past.last_use_ts == clock.now()


def test_a_use_that_ends_while_a_pause_looks_whether_there_is_one_counts(lab: em.Lab, ann: em.UserCloud) -> None:
    life = lab.controller.life("ann")
    before = life.use().last_use_ts
    with life.using():
        life.runs = False  # as a pause, which has not looked for leases yet, leaves it for a moment
    assert life.use().last_use_ts > before


def test_a_registry_that_is_full_keeps_no_cloud_from_being_paused(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise em.DiskFull("the disk is full")

    lab.controller.idle = PauseAfter(1e-9)
    with monkeypatch.context() as there:
        there.setattr(lab.registry, "remember", full)
        assert lab.controller.sweep() == ["ann"]
        lab.controller.sweep()
    assert caplog.text.count("is not kept: the disk is full") == 1
    lab.controller.sweep()
    assert lab.registry.past(ann.id) is not None
    lab.registry.run("UPDATE uses SET past = ?", b"{}")
    assert lab.registry.past(ann.id) is None


def test_a_lease_that_ends_by_itself_was_a_use_until_then(home: Path) -> None:
    clock = ManualClock()
    life = alone(home, clock)
    life.begin_use(clock.now() + 36_000.0)
    clock.advance(36_100.0)
    assert life.use().leases == ()
    assert life.use().idle_s(clock.now()) == 100.0
    life.release(0)  # which has ended already
    assert life.use().idle_s(clock.now()) == 100.0


def test_what_is_in_use_is_remembered_as_used_just_now(home: Path) -> None:
    clock = ManualClock()
    life = alone(home, clock)
    number = life.begin_use()
    clock.advance(36_000.0)
    past = life.past()
    assert 0.0 <= clock.now() - past.last_use_ts < 60.0
    life.release(number)
    clock.advance(1.0)
    past = life.past()
    assert clock.now() - past.last_use_ts == 1.0


def test_an_answer_is_a_use_also_before_it_is_known_that_the_cloud_runs(home: Path) -> None:
    clock = ManualClock()
    life = alone(home, clock)
    life.runs = False
    clock.advance(10.0)
    life.release(life.begin_use())
    assert life.use().idle_s(clock.now()) == 10.0
    life.release(life.begin_use(), answered=True)
    assert life.use().idle_s(clock.now()) == 0.0


def test_a_clock_that_was_set_back_keeps_no_cloud_awake_for_long(home: Path) -> None:
    clock = ManualClock()
    life = alone(home, clock)
    clock.advance(1000 * 86_400.0)
    life.begin_use(clock.now() + 60.0)
    life.release(life.begin_use())
    life.begin_use()
    clock._now -= 900 * 86_400.0
    now = clock.now()
    assert life.use().last_use_ts == now
    assert life.use().leases == (now + MAX_LEASE_S, math.inf)
    clock.advance(MAX_LEASE_S)
    assert life.use().leases == (math.inf,)


def test_what_a_failed_start_left_on_the_engine_goes_with_the_sign_up(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = lab.controller.engine
    start = engine.start

    def failing(spec: CloudSpec) -> Handle:
        start(spec)
        raise em.EngineError("the engine went away before it could say that it was done")

    monkeypatch.setattr(engine, "start", failing)
    with pytest.raises(em.EngineError, match="went away"):
        lab.controller.signup("bob")
    assert engine.find() == []
    assert len(lab.controller.clouds()) == 0


def test_a_lease_that_comes_after_a_lock_has_begun_keeps_no_vault_open(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(handle: Handle) -> None:
        raise em.EngineError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(lab.controller.engine, "stop", broken)
        with pytest.raises(em.EngineError, match="no answer"):
            ann.lock()
    with pytest.raises(Locked, match="being locked"):
        ann.lease(3600.0)
    life = lab.controller.life("ann")
    number = life.begin_use()  # as the gateway, whose request then gets nothing
    assert lab.controller.sweep() == ["ann"]
    assert not life.is_open
    life.release(number)


def test_a_lease_that_comes_while_a_lock_begins_is_refused(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn, looked, go_on = lab.registry.turn, threading.Event(), threading.Event()

    def slow(cloud: str, intent: str) -> None:
        looked.set()
        assert go_on.wait(WAIT_S)
        turn(cloud, intent)

    monkeypatch.setattr(lab.registry, "turn", slow)
    with ThreadPoolExecutor(2) as pool:
        locking = pool.submit(ann.lock)
        assert looked.wait(WAIT_S)  # nobody had a lease
        leasing = pool.submit(ann.lease, 3600.0)
        assert not wait([leasing], timeout=0.1).done
        go_on.set()
        locking.result(WAIT_S)
        with pytest.raises(Locked):
            leasing.result(WAIT_S)
    assert not lab.controller.life("ann").is_open


def test_a_passphrase_that_is_stretched_keeps_nobody_from_the_cloud(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = lab.controller.life("ann")
    check, begun, go_on = life.vault.check, threading.Event(), threading.Event()

    def slow(key: em.Key) -> None:
        begun.set()
        assert go_on.wait(WAIT_S)
        check(key)

    monkeypatch.setattr(life.vault, "check", slow)
    with ThreadPoolExecutor(1) as pool:
        unlocking = pool.submit(ann.unlock, em.Key.random())
        assert begun.wait(WAIT_S)
        life.wake(0.0)
        go_on.set()
        with pytest.raises(WrongKey):
            unlocking.result(WAIT_S)


def test_a_vault_that_is_removed_while_its_key_is_checked_is_a_cloud_that_goes(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    life, key = lab.controller.life("ann"), ann.key
    check = life.vault.check

    def late(key: em.Key) -> None:
        lab.controller.forget("ann")
        check(key)

    monkeypatch.setattr(life.vault, "check", late)
    assert key is not None
    with pytest.raises(CloudGone, match="being removed"):
        life.unlock(key)


def test_a_lease_that_had_ended_when_the_lab_did_was_a_use_until_its_own_end(home: Path) -> None:
    clock = ManualClock(1000.0)
    life = alone(home, clock)
    life.begin_use(1010.0)
    clock.advance(500.0)
    life.end_leases()
    assert life.use().last_use_ts == 1010.0


def test_a_cloud_that_is_locked_is_locked_again_whatever_leases_there_were(lab: em.Lab, ann: em.UserCloud) -> None:
    ann.lock()
    life = lab.controller.life("ann")
    Lease(life, lab.controller._clock.now() + 60.0, clock=lab.controller._clock, anew=False)  # as after a restart
    ann.lock()
    assert not life.is_open
