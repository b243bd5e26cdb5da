"""A program that does one thing with a kept lab and dies at a failpoint: `python -m tests.e2e.failpoints SPEC`.

Failpoints lie before each call that changes something outside (a statement of the registry, an engine's or a vault's
method, a provisioning file) and behind the last one. They are numbered as they are passed.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

import emlab as em
from emlab import provision
from emlab.parts import ENGINES, VAULTS, load
from emlab.registry import Registry
from emlab.service import Service

KEY, OTHER = em.Key(bytes(32)), em.Key(bytes([1] * 32))
LAB = "failpoints"
ENGINE_CALLS = ("start", "stop", "remove", "pause", "resume")
VAULT_CALLS = ("create", "open", "close", "rekey", "shred_keys", "shred")


class Job(msgspec.Struct, frozen=True):
    """What to do and at which failpoint to die; the last one has no such number."""

    home: str
    engine: str
    vault: str
    action: str
    die_at: int


class Failpoints:
    """Counts what is passed, says it, and ends this process at one of them."""

    def __init__(self, die_at: int) -> None:
        self._die_at = die_at
        self._passed = 0

    def passed(self, name: str) -> None:
        sys.stdout.write(f"{self._passed} {name}\n")
        sys.stdout.flush()
        if self._passed == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._passed += 1

    def before(self, owner: object, name: str, changes: Callable[..., bool] = lambda *args: True) -> None:
        """The owner's call of this name has a failpoint before it, if it changes something."""
        real = getattr(owner, name)

        @functools.wraps(real)
        def call(*args: object, **named: object) -> object:
            if changes(*args):
                self.passed(f"before {name}")
            return real(*args, **named)

        setattr(owner, name, call)


ACTIONS: dict[str, Callable[[em.Lab], object]] = {
    "signup": lambda lab: lab.controller.signup("eve", key=KEY),
    "forget": lambda lab: lab.controller.forget("ann"),
    "lock": lambda lab: lab.controller.lock("ann"),
    "unlock": lambda lab: lab.controller.unlock("bob", KEY),
    "rekey": lambda lab: lab.controller.rekey("ann", KEY, OTHER),
    "pause": lambda lab: lab.controller.pause("ann"),
    "wake": lambda lab: lab.controller.wake("eve"),
    "issue": lambda lab: _service(lab).issue("owner", "ann"),
}
RUNS = {"lock", "pause", "issue"}  # ann's cloud, when these begin


def _service(lab: em.Lab) -> Service:
    return Service(lab.controller, lab.registry)


def main(job: Job) -> None:
    """The action is done, or this process is dead."""
    with em.Lab(job.engine, job.vault, name=LAB, keep=True, home=Path(job.home), idle=None) as lab:
        if job.action in RUNS:
            lab.controller.wake("ann")
        points = Failpoints(job.die_at)
        points.before(Registry, "run", lambda self, sql, *values: not sql.startswith(("SELECT", "PRAGMA")))
        for name in ENGINE_CALLS:
            points.before(load(ENGINES, job.engine, "engine"), name)
        for name in VAULT_CALLS:
            points.before(load(VAULTS, job.vault, "vault"), name)
        for name in ("write", "write_marker"):
            points.before(provision, name)
        ACTIONS[job.action](lab)
        points.passed("behind the last")
        os._exit(0)  # what the lab's end would do is not what is tried here


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Job))
