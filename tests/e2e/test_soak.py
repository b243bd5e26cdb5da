"""Random use of forty clouds by several threads, while programs are killed: nothing is lost, leaked or broken."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import pytest

import emlab as em
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.engines.base import Engine
from emlab.errors import EmlabError, InUse, Locked, StoreError, Unreachable
from emlab.fanout import fan_out
from emlab.parts import make_engine
from emlab.record import Event
from emlab.remote import ControllerClient
from emlab.wire.control import CloudStatus
from tests.e2e.clouds import kill
from tests.e2e.served import Served, free_port, lab_file, served
from tests.e2e.town import COST_MICRO, KEY, Asking, Deed, Diary, Kill, Town, broken_leases, unexplained
from tests.programs import programs, what_runs

SEED = 20
CLOUDS, WORKERS, SECONDS = 40, 6, 24.0
IDLE_S = 0.4  # instead of a minute, so that this is an hour of idling and use
KILLS = 9  # of these every third hits the controller
LEAST_DEEDS = 200
ANSWER_S = 60.0  # only a failing test waits for so long
FIRST_TS = 1_700_000_000.0  # of the entry with number 0


class Assassin:
    """Kills programs of clouds and the controller, which is started again."""

    def __init__(self, diary: Diary, engine: Engine, town: Town, home: Path, config: Path) -> None:
        self._diary = diary
        self._engine = engine
        self._town = town
        self._serve: Callable[[], AbstractContextManager[Served]] = lambda: served(home, config)
        self._stack = ExitStack()
        self.served: Served

    def __enter__(self) -> Assassin:
        self.served = self._stack.enter_context(self._serve())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill_controller(self) -> None:
        """The controller was killed, and another one answers."""
        with self.served.client() as client:
            self._town.watch(client)
        ts = SYSTEM_CLOCK.now()
        self.served.kill()
        self._stack.close()
        self.served = self._stack.enter_context(self._serve())
        self._town.forget_count()
        self._diary.kills.append(Kill("", "controller", ts, SYSTEM_CLOCK.now()))

    def kill_in(self, draw: random.Random, program: str) -> None:
        """A cloud's custodian or mongod was killed, whether the cloud sleeps or not."""
        with self.served.client() as client:
            users = {status.cloud: status.user for status in client._call("clouds", list[CloudStatus])}
        handles = sorted(self._engine.find(), key=lambda handle: users[handle.cloud])
        draw.shuffle(handles)
        running = ((handle, programs(self._engine.name, handle).get(program)) for handle in handles)
        handle, victim = next((handle, pid) for handle, pid in running if pid is not None)  # others are locked or start
        self._diary.kills.append(Kill(users[handle.cloud], program, SYSTEM_CLOCK.now()))
        with contextlib.suppress(ProcessLookupError):  # it has just died by itself
            kill(victim)


def live(town: Town, assassin: Assassin, provider: em.Provider) -> None:
    """Time passes: everybody works, and now and then something dies."""
    draw = random.Random(SEED)
    with ThreadPoolExecutor(WORKERS + 1) as pool:
        work = [pool.submit(town.work, number) for number in range(WORKERS)]
        work.append(pool.submit(town.ask, provider))
        try:
            for number in range(KILLS):
                _watching(town, assassin, work, SECONDS / (KILLS + 1))
                if number % 3 == 2:
                    assassin.kill_controller()
                else:
                    assassin.kill_in(draw, ("custodian", "mongod")[number % 3])
            _watching(town, assassin, work, SECONDS / (KILLS + 1))
        finally:
            town.stop.set()
        for one in work:
            one.result()
    with assassin.served.client() as client:
        town.watch(client)


def _watching(town: Town, assassin: Assassin, work: Sequence[Future[None]], seconds: float) -> None:
    """So much time has passed, or a thread has failed."""
    with assassin.served.client() as client:
        deadline = SYSTEM_CLOCK.monotonic() + seconds
        while SYSTEM_CLOCK.monotonic() < deadline and not any(one.done() for one in work):
            town.watch(client)
            SYSTEM_CLOCK.wait(0.2)


def check_data(lab: em.Lab, diary: Diary, mine: em.UserCloud, provider: str) -> None:
    """What was acknowledged is there, and nothing that nobody sent; every answer has its debit."""
    assert mine.key is not None
    lab.controller.unlock(mine.user, mine.key)
    cloud = lab.controller.cloud(mine.user, token=mine.token)
    assert wait_until(partial(answers, cloud), ANSWER_S)  # of what was killed in its sleep, the first use is the end
    frame = cloud.entries(KEY)
    there = {round(ts - FIRST_TS) for ts in frame["ts"]} if len(frame) else set()
    assert set(diary.kept[mine.user]) <= there <= set(diary.sent[mine.user]), mine.user
    ledger = cloud.ledger
    assert ledger.spent_micro == sum(row.loss.epsilon_micro for row in ledger.rows) <= COST_MICRO * len(diary.asks)
    alias = lab.registry.alias(cloud.id, provider)
    answered = {ask for ask, by in diary.answers if by == alias}
    assert answered <= {row.id for row in ledger.rows if row.answered}, mine.user


def answers(cloud: em.UserCloud) -> bool:
    try:
        cloud.counts()
    except (Unreachable, StoreError):
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
def test_forty_clouds_in_random_use_survive_whatever_dies(engine_name: str, home: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = lab_file(tmp_path / "lab.toml", engine_name, {"port": port, "tls": False}, idle_s=IDLE_S)
    engine, diary = make_engine(engine_name, home), Diary()
    owned: dict[str, em.UserCloud] = {}
    with em.Lab(engine_name, name="served", keep=True, home=home, default_policy=em.Policy.open(), idle=None) as lab:
        for cloud in fan_out([f"user{n:02}" for n in range(CLOUDS)], lab.controller.signup, description="sign-ups"):
            owned[cloud.user] = cloud
    town = Town(diary, owned, lambda: ControllerClient(url, token), seed=SEED)
    with Assassin(diary, engine, town, home, config) as assassin:
        token = assassin.served.admin_token
        with Asking(url, token, diary) as client:
            provider = client.register_provider("planner")
            live(town, assassin, provider)
        assert assassin.served.end() in (0, -signal.SIGTERM, 128 + signal.SIGTERM), assassin.served.log.read_text()
    assert unexplained(diary) == []
    assert broken_leases(diary) == []
    with em.Lab(engine_name, name="served", keep=False, home=home, idle=None) as lab:
        rows, handles = lab.registry.clouds(), engine.find()
        assert sorted(row.user for row in rows) == sorted(owned)
        assert sorted(row.cloud for row in rows) == sorted(handle.cloud for handle in handles)
        fan_out(list(owned.values()), lambda mine: check_data(lab, diary, mine, provider.public), description="data")
        assert what_runs(engine_name, home) == {handle.ref for handle in engine.find()}
    assert engine.find() == []
    assert what_runs(engine_name, home) == set()
    assert diary.answers
    assert len(diary.deeds) > LEAST_DEEDS
    assert len(diary.leases) > 5
    assert {event.span for event in diary.events if event.ok} >= {"pause", "wake", "start", "lock", "unlock", "answer"}
    assert len(diary.kills) == KILLS


def test_what_nothing_explains_is_found() -> None:
    diary = Diary(kills=[Kill("ann", "custodian", 10.0), Kill("", "controller", 20.0, 22.0)])
    kinds: dict[tuple[str, str, float], EmlabError] = {
        ("read", "ann", 11.0): em.Unreachable("first use"),
        ("read", "bob", 11.0): em.Unreachable("nobody killed it"),
        ("read", "ann", 13.0): em.Unreachable("it had answered since"),
        ("read", "eve", 21.0): em.Unreachable("no controller"),
        ("read", "eve", 23.0): em.Unreachable("it was back"),
        ("store", "bob", 5.0): Locked("nobody locked it"),
        ("read", "bob", 6.0): StoreError("its mongod lives"),
        ("pause", "bob", 7.0): InUse("leased"),
        ("store", "bob", 8.0): InUse("no such error here"),
        ("ask", "", 21.0): em.TooFewUsers("reached nobody"),
        ("ask", "", 24.0): em.TooFewUsers("everybody was there"),
    }
    diary.deeds += [Deed(what, user, ts, ts + 0.1, error) for (what, user, ts), error in kinds.items()]
    diary.deeds.append(Deed("read", "ann", 12.0, 12.1, None))
    texts = {"nobody killed it", "it had answered since", "it was back", "nobody locked it", "its mongod lives"}
    texts |= {"no such error here", "everybody was there"}
    assert {line.rpartition(": ")[2] for line in unexplained(diary)} == texts


def test_a_pause_under_a_lease_is_found() -> None:
    diary = Diary(leases=[("ann", 10.0, 20.0)])
    for user, span, ts, ok in (
        ("ann", "pause", 9.9, True),
        ("ann", "pause", 20.1, True),
        ("ann", "pause", 12.0, False),
        ("bob", "pause", 12.0, True),
        ("ann", "wake", 12.0, True),
    ):
        diary.events.append(Event(span, user, "process", ts, 0.01, ok))
    assert broken_leases(diary) == []
    diary.events += [Event(span, "ann", "process", 12.0, 0.01) for span in ("pause", "lock")]
    assert len(broken_leases(diary)) == 2
