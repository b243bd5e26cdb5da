"""An engine that fails where it is told to, before or after it did what was asked; or the controller dies there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from emlab.engines.base import Engine
from emlab.errors import EngineError
from emlab.state import CloudSpec, CloudState, CloudStats, Handle
from emlab.wire.transport import Transport

T = TypeVar("T")
Verb = Literal["start", "pause", "resume", "stop", "remove", "state", "find"]


class Killed(BaseException):
    """The controller's process ended here. No error of the library: nothing in it may catch this one and go on."""


@dataclass(frozen=True)
class Fault:
    """What becomes of the next calls of a verb: `times` of them fail, after they were done or before; or it kills."""

    verb: Verb
    after: bool = False
    kills: bool = False
    times: int = 1


class FaultyEngine:
    """A real engine with faults. After a `Killed` every call raises that, as none would have been made.

    Attributes:
        real: the engine. fired: how many calls failed. dead: whether the controller died.
    """

    def __init__(self, real: Engine) -> None:
        self.real = real
        self.name = real.name
        self.fired = 0
        self.dead = False
        self.on_death: Callable[[], None] = lambda: None
        self._armed: dict[Verb, Fault] = {}

    def arm(self, fault: Fault | None) -> None:
        if fault is not None:
            self._armed[fault.verb] = fault

    def disarm(self) -> None:
        self._armed.clear()

    def _call(self, verb: Verb, act: Callable[[], T]) -> T:
        if self.dead:
            raise Killed
        fault = self._armed.get(verb)
        if fault is None:
            return act()
        if fault.times > 1:
            self._armed[verb] = replace(fault, times=fault.times - 1)
        else:
            del self._armed[verb]
        self.fired += 1
        if fault.after:
            act()
        if fault.kills:
            self.dead = True
            self.on_death()
            raise Killed
        raise EngineError(f"a fault of {verb}, {'after' if fault.after else 'before'} it was done")

    @classmethod
    def missing(cls) -> str | None:
        return None

    def start(self, spec: CloudSpec) -> Handle:
        return self._call("start", lambda: self.real.start(spec))

    def pause(self, handle: Handle) -> None:
        self._call("pause", lambda: self.real.pause(handle))

    def resume(self, handle: Handle) -> None:
        self._call("resume", lambda: self.real.resume(handle))

    def stop(self, handle: Handle) -> None:
        self._call("stop", lambda: self.real.stop(handle))

    def remove(self, handle: Handle) -> None:
        self._call("remove", lambda: self.real.remove(handle))

    def state(self, handle: Handle) -> CloudState:
        return self._call("state", lambda: self.real.state(handle))

    def stats(self, handle: Handle) -> CloudStats:
        return self.real.stats(handle)

    def find(self, lab: str | None = None) -> list[Handle]:
        return self._call("find", lambda: self.real.find(lab))

    def states(self, lab: str) -> dict[str, CloudState]:
        return self._call("state", lambda: self.real.states(lab))

    def connect(self, handle: Handle) -> Transport:
        return self.real.connect(handle)

    def logs(self, handle: Handle, lines: int = 50) -> str:
        return self.real.logs(handle, lines)
