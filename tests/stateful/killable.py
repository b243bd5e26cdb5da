"""A lab without a Lab, whose controller can be killed at any call; and the model of what its people were told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import pytest
from hypothesis.stateful import RuleBasedStateMachine

import emlab as em
from emlab import ask as asking
from emlab.ask import Ask
from emlab.clock import SYSTEM_CLOCK, ManualClock
from emlab.controller import Controller
from emlab.errors import EngineError, InUse, Locked
from emlab.idle import IdleRule, Never
from emlab.key import SigningKey
from emlab.loss import Loss
from emlab.parts import make_engine, make_vault
from emlab.registry import LEAVING, Registry
from emlab.state import CloudState, Handle
from tests.stateful.faults import FaultyEngine

T = TypeVar("T")
LAB = "machine"
COST_MICRO = 1000
Failed = Literal["failed", "killed"]


@dataclass
class Person:
    """What the machine knows of somebody who signed up, and was told so.

    Attributes:
        stored, tried: the numbers of entries that were acknowledged, and of all that were sent.
        spent_micro, asked_micro: what the answers cost that came, and all asks.
        shut: it is locked, or its lock failed halfway: it must answer nothing.
        last_use_ts, sure_ts: not later than the one, and not earlier than the other, the cloud was used last.
        kept: the latter and the former, as they were when a sweep kept them last; None if none did.
        awake: it was seen to run under the leases that it has.
    """

    token: str
    key: em.Key
    cloud: str
    last_use_ts: float
    sure_ts: float
    kept: tuple[float, float] | None = None
    stored: set[int] = field(default_factory=set)
    tried: set[int] = field(default_factory=set)
    spent_micro: int = 0
    asked_micro: int = 0
    shut: bool = False
    leases: list[em.Lease] = field(default_factory=list)
    awake: bool = False

    def leased(self, now: float) -> bool:
        return any(lease.until_ts > now for lease in self.leases)


class KillableLab(RuleBasedStateMachine):
    """One lab on a faulty engine, and the model of it: who signed up, what each was told, who is half gone."""

    engine_name: ClassVar[str] = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="em-"))
        self.lab_dir = self.home / "labs" / LAB
        # ahead of the clouds' own clock: what then ends an ask is its expiry, which is made with theirs
        self.clock = ManualClock(SYSTEM_CLOCK.now() + 86_400.0)
        self.engine = FaultyEngine(make_engine(self.engine_name, self.home))
        self.idle: IdleRule = Never()
        self.members: dict[str, Person] = {}
        self.limbo: set[str] = set()  # whose sign-up or forgetting failed, until a sweep or a restart ends it
        self.buried: dict[str, int] = {}  # what forgotten people had spent
        self.provider = SigningKey()
        self.numbers = iter(range(1_000_000))
        self.open()

    # -- the controller's life ---------------------------------------------------------------------------------

    def open(self) -> None:
        self.registry = Registry(self.lab_dir)
        self.registry.open()
        self.engine.dead, self.engine.on_death = False, self.registry.close
        self.aggregator = em.Aggregator(directory=self.registry)
        self.controller = Controller(
            self.engine,
            make_vault("plain", self.lab_dir),
            self.registry,
            lab=LAB,
            home=self.home,
            lab_dir=self.lab_dir,
            policy=em.Policy.open(total_epsilon=100.0),
            aggregator=self.aggregator,
            idle=self.idle,
            clock=self.clock,
        )
        self.controller.attach()
        self.token = self.controller.admission.register("planner", self.provider.public)

    def restart(self) -> None:
        """The controller was killed, and another one has taken over; the model forgets what only the old one knew."""
        while True:
            # to others that is what a kill is: connections and the lock are gone, what was written is there
            for life in self.controller._lives:
                life.detach()
            self.registry.close()
            try:
                self.open()
                break
            except BaseException as exc:  # a fault that was still to come; there are only so many
                if not (self.engine.dead or isinstance(exc, EngineError)):
                    raise
        for person in self.members.values():
            person.leases, person.awake = [], False
            person.sure_ts, person.last_use_ts = person.kept or (self.clock.now(), self.clock.now())
        self.limbo = {row.user for row in self.registry.clouds() if row.intent in LEAVING}

    def attempt(self, act: Callable[[], T]) -> T | Failed:
        """What it returns; "failed" only if the engine did; "killed" after the restart."""
        fired = self.engine.fired
        try:
            return act()
        except BaseException as exc:
            if self.engine.dead:  # whatever it was that the dead controller made of it
                self.restart()
                return "killed"
            if isinstance(exc, InUse) or not isinstance(exc, EngineError) or self.engine.fired == fired:
                raise  # no fault explains it
            return "failed"

    def refused(self, act: Callable[[], object]) -> str:
        """A cloud that is locked says so, unless the engine failed before."""
        return self.attempt(lambda: self._refused(act))

    def _refused(self, act: Callable[[], object]) -> str:
        with pytest.raises(Locked):
            act()
        return "locked"

    def used(self, person: Person, *, sure: bool = False) -> None:
        """Somebody tried to use the cloud, or surely did: where the engine failed, it may be no use."""
        person.last_use_ts = self.clock.now()
        person.sure_ts = person.last_use_ts if sure else person.sure_ts

    def handle(self, user: str) -> Handle:
        spec = self.controller.life(user).spec
        return Handle(spec.lab, spec.cloud, spec.generation, spec.run_dir)

    def state(self, user: str) -> CloudState:
        return self.engine.real.state(self.handle(user))

    def is_open(self, user: str) -> bool:
        life = self.controller.life(user)
        return life.is_open and not life.closing

    def new_ask(self) -> Ask:
        return Ask(
            id=asking.new_id(),
            query=em.CountUsers(None, 0.0, 2e9),
            loss=Loss(epsilon_micro=COST_MICRO),
            min_users=1,
            provider=self.provider.public,
            provider_name="planner",
            aggregator=self.aggregator.public,
            purpose="",
            expires_ts=SYSTEM_CLOCK.now() + 50.0,
        )
