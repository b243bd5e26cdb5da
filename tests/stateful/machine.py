"""A machine that does to a controller whatever people, time and failures can do, and compares it with a model."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

import emlab as em
from emlab import ask as asking
from emlab.ask import Answer, Failure
from emlab.errors import InUse, Locked
from emlab.idle import AtMost, Histogram, IdleRule, Never, PauseAfter
from emlab.registry import LEAVING
from emlab.state import CloudState
from tests.e2e.clouds import entry
from tests.stateful.faults import Fault, Verb
from tests.stateful.killable import COST_MICRO, LAB, KillableLab, Person

NAMES = st.sampled_from(["ann", "bob", "eve"])
LOCATIONS = "background/location"
RULES: list[IdleRule] = [
    PauseAfter(60.0),
    PauseAfter(60.0, lock_after_s=3600.0),
    AtMost(1),
    AtMost(2, 600.0),
    Histogram(60.0, least=2, spread=10.0),
    Never(),
]


Trace: TypeAlias = list[tuple[str, tuple[object, ...], dict[str, object]]]  # steps and their arguments


def faults(*verbs: Verb) -> st.SearchStrategy[Fault | None]:
    """None, or a fault of one of these verbs, which comes with their next call."""
    failing = st.builds(Fault, st.sampled_from(verbs), st.booleans(), times=st.integers(1, 2))
    killing = st.builds(Fault, st.sampled_from(verbs), st.booleans(), kills=st.just(True))
    return st.one_of(st.none(), failing, killing)


def step(**given: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule that is remembered when it is followed, so that a machine on another engine can follow it, too."""

    def register(act: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(act)
        def taken(self: Machine, *arguments: object, **named: object) -> None:
            self.trace.append((act.__name__, arguments, named))
            act(self, *arguments, **named)

        return rule(**given)(taken)  # type: ignore[call-overload,no-any-return]

    return register


class Machine(KillableLab):
    """Steps that people, time and failures take, and what must hold after each.

    Attributes:
        trace: the steps so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trace: Trace = []

    # -- people ------------------------------------------------------------------------------------------------

    @initialize()
    def two_sign_up(self) -> None:
        for user in ("ann", "bob"):
            self.signup(user)

    @step(user=NAMES, fault=faults("start", "remove"))
    def signup(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if user in self.members or user in self.limbo:
            with pytest.raises(em.ConfigError, match="has a cloud"):
                self.controller.signup(user)
            return
        key = em.Key.random()
        done = self.attempt(lambda: self.controller.signup(user, key=key))
        if isinstance(done, str):
            self.leaving(user)
            return
        assert done.token is not None
        row = self.registry.cloud(user)
        assert row is not None
        now = self.clock.now()
        self.members[user] = Person(done.token, key, row.cloud, now, now, spent_micro=self.buried.get(user, 0))
        self.members[user].asked_micro = row.carried.micro
        assert row.carried.micro >= self.buried.get(user, 0)

    @step(user=NAMES, fault=faults("remove"))
    def forget(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if user not in self.members and user not in self.limbo:
            with pytest.raises(em.UnknownUser):
                self.controller.forget(user)
            return
        person = self.members.pop(user, None)
        if person is not None:
            self.buried[user] = person.spent_micro
        if isinstance(self.attempt(lambda: self.controller.forget(user)), str):
            self.leaving(user)
        else:
            self.limbo.discard(user)

    def leaving(self, user: str) -> None:
        """A sign-up or a forgetting that failed: there is nothing, or a sweep or a restart will end it."""
        row = self.registry.cloud(user)
        assert row is None or row.intent in LEAVING
        self.limbo = (self.limbo | {user}) if row else (self.limbo - {user})

    @step(user=NAMES, fault=faults("state", "resume", "start"))
    def store(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if (person := self.members.get(user)) is None:
            return
        number = next(self.numbers)
        cloud = self.controller.cloud(user, token=person.token)
        self.used(person)
        if person.shut:
            self.refused(lambda: cloud.store([entry(number)]))
            return
        person.tried.add(number)
        if not isinstance(self.attempt(lambda: cloud.store([entry(number)])), str):
            person.stored.add(number)
            self.used(person, sure=True)

    @step(user=NAMES, fault=faults("state", "resume", "start"))
    def ask(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if (person := self.members.get(user)) is None:
            return
        ask = self.new_ask()
        alias = self.registry.alias(person.cloud, self.provider.public)
        signature, fired = asking.sign(ask, self.provider), self.engine.fired
        person.asked_micro += COST_MICRO
        self.used(person)
        outcome = self.attempt(lambda: self.controller.put(ask, signature, alias, token=self.token, timeout_s=30.0))
        if isinstance(outcome, Answer):
            assert not person.shut
            person.spent_micro += COST_MICRO
            self.used(person, sure=True)
        elif isinstance(outcome, Failure):
            assert outcome.kind == "Locked" if person.shut and self.engine.fired == fired else self.engine.fired > fired
        else:
            assert outcome == "killed"

    @step(user=NAMES, ttl_s=st.sampled_from([10.0, 1000.0, 80_000.0]))
    def lease(self, user: str, ttl_s: float) -> None:
        if (person := self.members.get(user)) is None:
            return
        if person.shut:  # which is told nobody that it stays awake
            with pytest.raises(Locked):
                self.controller.lease(user, ttl_s)
        else:
            person.leases.append(self.controller.lease(user, ttl_s))

    @step(user=NAMES)
    def release(self, user: str) -> None:
        if (person := self.members.get(user)) is not None and person.leases:
            person.leases.pop().release()
            self.used(person)
            person.awake = person.awake and person.leased(self.clock.now())

    # -- pausing and locking -----------------------------------------------------------------------------------

    @step(user=NAMES, fault=faults("state", "pause"))
    def pause(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if (person := self.members.get(user)) is None:
            return
        if person.leased(self.clock.now()):
            with pytest.raises(InUse):
                self.controller.pause(user)
        elif self.attempt(lambda: self.controller.pause(user)) is None:
            assert self.state(user) is not CloudState.RUNNING

    @step(user=NAMES, fault=faults("state", "resume", "start"))
    def wake(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if (person := self.members.get(user)) is None:
            return
        if person.shut:
            if self.refused(lambda: self.controller.wake(user)) == "locked":
                assert self.state(user) is not CloudState.RUNNING or self.controller.life(user).closing
            return
        self.used(person)
        if self.attempt(lambda: self.controller.wake(user)) is None:
            assert self.state(user) is CloudState.RUNNING
            self.used(person, sure=True)

    @step(user=NAMES, fault=faults("stop"))
    def lock(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if (person := self.members.get(user)) is None:
            return
        if person.leased(self.clock.now()) and not self.controller.life(user).closing:
            with pytest.raises(InUse):
                self.controller.lock(user)
            return
        person.shut = True  # even if it fails halfway, or the controller dies meanwhile
        if self.attempt(lambda: self.controller.lock(user)) is None:
            life = self.controller.life(user)
            assert (life.closing, life.is_open) == (False, False)
            assert self.state(user) is not CloudState.RUNNING

    @step(user=NAMES, fault=faults("state", "start", "resume", "stop"))
    def unlock(self, user: str, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        if (person := self.members.get(user)) is not None:
            was_open = self.controller.life(user).is_open
            done = self.attempt(lambda: self.controller.unlock(user, person.key))
            if done is None:
                person.shut = False
                self.used(person, sure=True)
                assert self.state(user) is CloudState.RUNNING
            elif was_open:  # a lock that was begun is taken back, whether or not the cloud then wakes
                person.shut = person.shut and not self.is_open(user)

    @step(user=NAMES)
    def unlock_with_a_wrong_key(self, user: str) -> None:
        if user in self.members:
            with pytest.raises(em.WrongKey):
                self.controller.unlock(user, em.Key.random())

    @step(user=NAMES)
    def stop_from_outside(self, user: str) -> None:
        """Somebody else stops the cloud, or the machine was restarted."""
        if user in self.members:
            self.engine.real.stop(self.handle(user))
            self.members[user].awake = False

    # -- time and failures -------------------------------------------------------------------------------------

    @step(idle=st.sampled_from(RULES))
    def choose(self, idle: IdleRule) -> None:
        self.idle = self.controller.idle = idle

    @step(
        pass_s=st.sampled_from([0.0, 5.0, 61.0, 700.0, 4000.0]),
        fault=faults("state", "pause", "resume", "start", "stop"),
    )
    def sweep(self, pass_s: float, fault: Fault | None = None) -> None:
        self.engine.arm(fault)
        self.clock.advance(pass_s)
        now, fired = self.clock.now(), self.engine.fired
        for person in self.members.values():  # a lease that ended by itself was a use until then
            for until_ts in [lease.until_ts for lease in person.leases if lease.until_ts <= now]:
                person.last_use_ts = max(person.last_use_ts, until_ts)
                person.sure_ts = max(person.sure_ts, until_ts)
        leased = {user for user, person in self.members.items() if person.leased(now)}
        closing = {user for user in self.members if self.controller.life(user).closing}
        long = {user: now - person.last_use_ts for user, person in self.members.items() if user not in leased}
        running = {user for user in self.members if self.state(user) is CloudState.RUNNING}
        limbo = bool(self.limbo)
        swept = self.attempt(self.controller.sweep)
        self.limbo = {row.user for row in self.registry.clouds() if row.intent in LEAVING}
        assert self.engine.fired > fired or self.limbo == set()  # without faults a sweep ends what was begun
        for user, person in self.members.items():
            person.shut = person.shut or not self.is_open(user)
        if isinstance(swept, str):
            return
        sure = {user: now - person.sure_ts for user, person in self.members.items()}
        for person in self.members.values():
            person.kept = (now - 60.0, now) if person.leased(now) else (person.sure_ts, person.last_use_ts)
        assert not set(swept) & (leased - closing)
        if self.engine.fired > fired or limbo:
            return
        if isinstance(self.idle, PauseAfter):
            idle_s = self.idle.idle_s
            due = {user for user, idle in long.items() if idle >= idle_s and user in running}
            assert due <= set(swept)
            shut_s = self.idle.lock_after_s
            assert all(self.members[user].shut for user, idle in long.items() if shut_s and idle >= shut_s)
            assert set(swept) <= {user for user, idle in sure.items() if idle >= idle_s} | closing
        if isinstance(self.idle, AtMost):
            assert len([user for user in running if user not in swept]) <= max(self.idle.n, len(leased & running))
        assert closing <= set(swept)

    @step(fault=faults("find", "remove", "state", "stop"))
    def crash(self, fault: Fault | None) -> None:
        self.engine.arm(fault)
        self.restart()

    @step(fault=faults("state"))
    def look(self, fault: Fault | None) -> None:
        self.engine.arm(fault)
        fired = self.engine.fired
        frame = self.attempt(lambda: self.controller.clouds().frame())
        if isinstance(frame, str):
            assert frame == "killed"
            return
        shown = dict(zip(frame["user"], frame["state"], strict=True))
        assert set(self.members) <= set(shown)
        assert self.engine.fired > fired or "unknown" not in shown.values()
        assert "absent" not in {shown[user] for user in self.members}

    # -- what holds after each step ----------------------------------------------------------------------------

    @invariant()
    def no_cloud_is_lost_and_none_is_leaked(self) -> None:
        rows = self.registry.clouds()
        known = {row.user: row.cloud for row in rows if row.intent not in LEAVING}
        assert known == {user: person.cloud for user, person in self.members.items()}
        found = {handle.cloud for handle in self.engine.real.find(LAB)}
        assert set(known.values()) <= found
        assert found <= {row.cloud for row in rows}
        assert {row.user for row in rows} - set(known) == self.limbo

    @invariant()
    def no_leased_cloud_is_paused(self) -> None:
        for user, person in self.members.items():
            person.awake = person.awake and person.leased(self.clock.now())
            runs = self.state(user) is CloudState.RUNNING
            assert runs or not person.awake
            person.awake = runs and person.leased(self.clock.now())

    @invariant()
    def a_cloud_without_its_vault_does_not_run(self) -> None:
        for user, person in self.members.items():
            life = self.controller.life(user)
            assert self.is_open(user) is not person.shut
            assert life.is_open or self.state(user) is not CloudState.RUNNING

    def replay(self, trace: Trace) -> None:
        """The same steps, and what must hold after each."""
        for number, (name, arguments, named) in enumerate(trace, 1):
            try:
                getattr(self, name)(*arguments, **named)
                self.check()
            except BaseException as exc:
                exc.add_note(f"step {number} of {trace}")
                raise

    def check(self) -> None:
        """What holds after each step, for those who take steps by hand."""
        self.no_cloud_is_lost_and_none_is_leaked()
        self.no_leased_cloud_is_paused()
        self.a_cloud_without_its_vault_does_not_run()

    @step(user=NAMES)
    def read(self, user: str) -> None:
        person = self.members.get(user)
        if person is None or person.shut:
            return
        self.used(person)
        cloud = self.controller.cloud(user, token=person.token)
        if isinstance(counts := self.attempt(cloud.counts), str):
            return
        self.used(person, sure=True)
        assert len(person.stored) <= counts.get(LOCATIONS, 0) <= len(person.tried)

    def read_all(self, user: str, person: Person) -> None:
        """Every entry that was acknowledged is there, and every debit."""
        self.controller.unlock(user, person.key)
        cloud = self.controller.cloud(user, token=person.token)
        frame = cloud.entries(LOCATIONS)
        found = {int(ts - 1_700_000_000.0) for ts in frame["ts"]} if len(frame) else set()
        assert person.stored <= found <= person.tried
        assert person.spent_micro <= cloud.ledger.spent_micro <= person.asked_micro

    def teardown(self) -> None:
        try:
            self.engine.disarm()
            self.restart()
            assert self.limbo == set()  # without faults a restart ends whatever was begun
            for user, person in self.members.items():
                self.read_all(user, person)
            for user in self.members:
                self.controller.forget(user)
            assert self.registry.clouds() == []
            assert self.engine.real.find(LAB) == []
            folder = self.lab_dir / "clouds"
            assert not folder.exists() or list(folder.iterdir()) == []
        finally:
            for handle in self.engine.real.find():
                self.engine.real.remove(handle)
            self.controller.detach()
            self.registry.close()
            shutil.rmtree(self.home)
