"""Waking for an event loop: one wake for all who wait, in turn, and no pause between a lease and what it is for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

import emlab as em
from emlab.clock import wait_until
from emlab.engines.memory import MemoryEngine
from emlab.errors import EngineError, InUse, Locked, Unreachable
from emlab.idle import Use
from emlab.lifecycle import Lifecycle
from emlab.state import CloudSpec, CloudState, Handle
from emlab.waking import Waker

WAIT_S = 10.0  # only a failing test waits for so long


@pytest.fixture
def lab(home: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


def paused(lab: em.Lab, *users: str) -> list[Lifecycle]:
    for user in users:
        lab.controller.signup(user)
        lab.controller.pause(user)
    return [lab.controller.life(user) for user in users]


@asynccontextmanager
async def waking(*, workers: int = 4, busy_s: float = WAIT_S) -> AsyncIterator[Waker]:
    waker = Waker(resuming=workers, starting=workers, busy_s=busy_s)
    try:
        yield waker
    finally:
        waker.close()


class Resuming:
    """Stands in the engine's way: who is being resumed, and until when."""

    def __init__(self, lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.users: list[str] = []
        self.go_on = threading.Event()
        real = lab.controller.engine.resume

        def resume(handle: Handle) -> None:
            life = lab.controller.life_of(handle.cloud)
            assert life is not None
            self.users.append(life.spec.user)
            assert self.go_on.wait(WAIT_S)
            real(handle)

        monkeypatch.setattr(lab.controller.engine, "resume", resume)

    async def reach(self, n: int) -> None:
        assert await asyncio.to_thread(wait_until, lambda: len(self.users) >= n, WAIT_S)


@contextmanager
def resuming(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Resuming]:
    found = Resuming(lab, monkeypatch)
    try:
        yield found
    finally:
        found.go_on.set()


def test_all_who_wait_for_a_cloud_share_one_wake(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [ann] = paused(lab, "ann")

    async def ask() -> None:
        with resuming(lab, monkeypatch) as calls:
            async with waking() as waker:
                waits = [asyncio.create_task(waker.awake(ann, WAIT_S)) for _ in range(40)]
                await calls.reach(1)
                calls.go_on.set()
                await asyncio.gather(*waits)
                assert calls.users == ["ann"]

    asyncio.run(ask())
    assert ann.runs
    assert ann.state is CloudState.RUNNING


def test_a_wake_goes_on_when_who_waited_has_gone(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [ann] = paused(lab, "ann")

    async def ask() -> None:
        with resuming(lab, monkeypatch) as calls:
            async with waking() as waker:
                with pytest.raises(Unreachable, match=r"after 0\.01 s"):
                    await waker.awake(ann, 0.01)
                gone = asyncio.create_task(waker.awake(ann, WAIT_S))
                await calls.reach(1)
                gone.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await gone
                calls.go_on.set()
                await waker.awake(ann, WAIT_S)
                assert calls.users == ["ann"]

    asyncio.run(ask())


def test_few_wakes_are_under_way_and_the_others_follow_in_turn(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [f"user{n}" for n in range(9)]
    lives = paused(lab, *users)

    async def ask() -> None:
        with resuming(lab, monkeypatch) as calls:
            async with waking(workers=1) as waker:
                waits = [asyncio.create_task(waker.awake(life, WAIT_S)) for life in lives]
                await calls.reach(1)
                assert calls.users == users[:1]
                calls.go_on.set()
                await asyncio.gather(*waits)
                assert calls.users == users

    asyncio.run(ask())


@pytest.mark.parametrize("how", ["ended", "died in its sleep"])
def test_who_sleeps_does_not_wait_for_those_that_must_be_started(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    asleep, *others = paused(lab, "ann", "bob", "eve")
    engine = lab.controller.engine
    assert isinstance(engine, MemoryEngine)
    for life in others:
        if how == "ended":
            life.end()
        else:
            engine.fail(life.handle)
    go_on, real = threading.Event(), engine.start

    def start(spec: CloudSpec) -> Handle:
        assert go_on.wait(WAIT_S)
        return real(spec)

    monkeypatch.setattr(engine, "start", start)

    async def ask() -> None:
        try:
            async with waking(workers=1) as waker:
                starts = [asyncio.create_task(waker.awake(life, WAIT_S)) for life in others]
                await asyncio.sleep(0)
                await waker.awake(asleep, WAIT_S)
                assert asleep.runs
                assert not any(life.runs for life in others)
                go_on.set()
                await asyncio.gather(*starts)
        finally:
            go_on.set()

    asyncio.run(ask())
    assert all(life.runs for life in others)


def test_what_a_wake_raises_reaches_all_who_wait(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [ann, bob] = paused(lab, "ann", "bob")
    ann.lock()

    def fail(handle: Handle) -> None:
        raise EngineError("no")

    monkeypatch.setattr(lab.controller.engine, "resume", fail)

    async def ask() -> None:
        async with waking() as waker:
            for life, error in ((ann, Locked), (bob, EngineError)):
                found = await asyncio.gather(*(waker.awake(life, WAIT_S) for _ in range(3)), return_exceptions=True)
                assert {type(one) for one in found} == {error}

    asyncio.run(ask())
    assert not ann.runs
    assert not bob.runs


def test_a_cloud_that_another_thread_holds_is_given_up_in_time(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [ann] = paused(lab, "ann")

    async def ask() -> None:
        with resuming(lab, monkeypatch) as calls:
            other = asyncio.create_task(asyncio.to_thread(ann.wake))
            await calls.reach(1)
            async with waking(busy_s=0.01) as waker:
                with pytest.raises(Unreachable, match="busy"):
                    await waker.awake(ann, WAIT_S)
            calls.go_on.set()
            await other

    asyncio.run(ask())


def test_who_wakes_others_does_not_wait_for_a_cloud_that_another_thread_holds(lab: em.Lab) -> None:
    ann, bob = paused(lab, "ann", "bob")
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with ann._alone(None):
            held.set()
            assert free.wait(WAIT_S)

    async def ask() -> None:
        async with waking(workers=1) as waker:
            first = asyncio.create_task(waker.awake(ann, WAIT_S))
            await asyncio.sleep(0)
            await waker.awake(bob, WAIT_S)
            assert not first.done()
            free.set()
            await first

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(WAIT_S)
        asyncio.run(ask())
    finally:
        free.set()
        holder.join()
    assert ann.runs


@pytest.mark.parametrize("heard", [False, True])
def test_who_joins_a_wake_that_a_pause_has_undone_wakes_again(lab: em.Lab, heard: bool) -> None:
    """Whether the loop has heard of its end, but has told nobody yet, or not even that."""
    [ann] = paused(lab, "ann")

    async def ask() -> None:
        async with waking() as waker:
            first = asyncio.create_task(waker.awake(ann, WAIT_S))
            await asyncio.sleep(0)  # it has begun
            assert wait_until(lambda: ann.runs, WAIT_S)  # and ended, which this loop has not heard yet
            ann.pause()
            late = waker.awake(ann, WAIT_S)
            await (asyncio.create_task(late) if heard else late)
            assert ann.state is CloudState.RUNNING
            await first

    asyncio.run(ask())


def test_after_the_end_nobody_waits(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [ann, bob] = paused(lab, "ann", "bob")

    async def ask() -> None:
        with resuming(lab, monkeypatch) as calls:
            async with waking(workers=1) as waker:
                under_way = asyncio.create_task(waker.awake(ann, WAIT_S))
                queued = asyncio.create_task(waker.awake(bob, WAIT_S))
                await calls.reach(1)
                waker.close()
                for late in (queued, waker.awake(bob, WAIT_S)):
                    with pytest.raises(Unreachable, match="ends"):
                        await late
                calls.go_on.set()
                await under_way

    asyncio.run(ask())


def test_no_pause_comes_between_a_lease_and_its_end(lab: em.Lab) -> None:
    """Whoever leases and then reads that the cloud runs finds it so, however many threads pause it."""
    [ann] = paused(lab, "ann")
    done = threading.Event()

    def pause_on() -> int:
        pauses = 0
        while not done.is_set():
            try:
                ann.pause()
                pauses += 1
            except InUse:
                continue
        return pauses

    def use(_: int) -> bool:
        lease = ann.begin_use()
        try:
            known = ann.runs
            if not known:
                ann.wake()
            for _look in range(20):
                assert ann.state is CloudState.RUNNING
            return known
        finally:
            ann.release(lease)

    with ThreadPoolExecutor(4) as pool:
        pausing = [pool.submit(pause_on) for _ in range(2)]
        try:
            known = list(pool.map(use, range(1500)))
        finally:
            done.set()
        assert sum(one.result() for one in pausing) > 0
    assert any(known)
    assert not all(known)
    assert ann.use().leases == ()


@pytest.mark.parametrize("ending", ["pause", "lock"])
def test_what_stops_a_cloud_forgets_that_it_runs_before_it_looks_for_leases(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """The order on which the gateway relies: the other way round, a lease could come in between."""
    [ann] = paused(lab, "ann")
    ann.wake()
    real, seen = ann.use, []

    def look() -> Use:
        seen.append(ann.runs)
        return real()

    monkeypatch.setattr(ann, "use", look)
    getattr(ann, ending)()
    assert seen == [False]


@pytest.mark.parametrize("ending", ["pause", "lock", "end", "destroy"])
def test_what_stops_a_cloud_forgets_that_it_runs(lab: em.Lab, tmp_path: Path, ending: str) -> None:
    [ann] = paused(lab, "ann")
    assert not ann.runs
    ann.wake()
    assert ann.runs
    if ending == "destroy":
        lab.controller.forget("ann")
    else:
        getattr(ann, ending)()
    assert not ann.runs
