"""Pausing and waking through the library, beside the Docker SDK's or the kernel's own. Imports docker or psutil."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from emlab.clock import wait_until
from emlab.errors import ConfigError, EngineError
from emlab.lab import Lab
from emlab.measure.clouds import asked_directly, cloud_of
from emlab.measure.plan import interleave
from emlab.measure.samples import Samples
from emlab.measure.twin import CALL_TIMEOUT_S
from emlab.state import CloudState, Handle
from emlab.usercloud import UserCloud
from emlab.wire.table import Health

if TYPE_CHECKING:
    import pandas as pd

USER = "measured-pause"
SETTLE_S = 5.0


@dataclass(frozen=True)
class _Way:
    """What one arm does. `answer`: of a paused cloud, out of its MongoDB."""

    pause: Callable[[], None]
    wake: Callable[[], None]
    answer: Callable[[], None]


def pause_wake(lab: Lab, *, n: int = 30, seed: int = 1) -> pd.DataFrame:
    """Samples of "pause", "wake" and "wake to answer", all of one cloud on Docker or as processes.

    emlab: `controller.pause`, `controller.wake`, and a health call with `controller.using`, which wakes. raw on
    Docker: `pause` and `unpause` of the container object, which was fetched before; as processes: SIGSTOP and SIGCONT
    to the pids, which were looked up before. Both arms ask over a connection that is open already. Before each sample
    the library brings the cloud into the state that it starts from, which is not timed. As processes emlab waits until
    all have stopped; the bare signal does not.
    """
    from tqdm.auto import tqdm

    samples = Samples(lab.engine)
    with cloud_of(lab, USER) as cloud, _raw(lab) as raw:
        ways = {"emlab": _ours(lab), "raw": raw}
        pause = partial(_settle, cloud.pause, cloud, CloudState.PAUSED)
        wake = partial(_settle, cloud.wake, cloud, CloudState.RUNNING)
        for way in ways.values():  # opens its connection
            pause()
            way.answer()
        for number, order in enumerate(tqdm(interleave(n, seed), desc="pause and wake", leave=False, disable=None)):
            for arm in order:
                way = ways[arm]
                samples.time("pause", arm, number, way.pause, before=wake)
                samples.time("wake", arm, number, way.wake, before=pause)
                samples.time("wake to answer", arm, number, way.answer, before=pause)
    return samples.frame()


def _settle(bring: Callable[[], None], cloud: UserCloud, state: CloudState) -> None:
    """The engine says that the cloud is in this state. Under load Docker's answer lags behind what it has just done."""

    def settled() -> bool:
        bring()
        return cloud.state is state

    if not wait_until(settled, SETTLE_S):
        raise EngineError(f"the cloud of {cloud.user!r} is {cloud.state.value}, not {state.value}")


def _ours(lab: Lab) -> _Way:
    controller = lab.controller

    def answer() -> None:
        with controller.using(USER) as client:
            client.call("health", Health)

    return _Way(lambda: controller.pause(USER), lambda: controller.wake(USER), answer)


@contextmanager
def _raw(lab: Lab) -> Iterator[_Way]:
    handle = lab.controller.life(USER).handle
    with raw_verbs(lab.engine, handle) as (pause, wake), asked_directly(handle.run_dir) as health:

        def answer() -> None:
            wake()
            health()

        yield _Way(pause, wake, answer)


_Verbs = tuple[Callable[[], None], Callable[[], None]]


def raw_verbs(engine: str, handle: Handle) -> AbstractContextManager[_Verbs]:
    """Pausing and waking a cloud with the engine's own means alone. Raises ConfigError: it has none."""
    verbs = {"docker": _container, "process": _processes}.get(engine)
    if verbs is None:
        raise ConfigError(f"clouds on the engine {engine!r} cannot be paused without emlab")
    return verbs(handle)


@contextmanager
def _container(handle: Handle) -> Iterator[_Verbs]:
    import docker

    client = docker.from_env(timeout=CALL_TIMEOUT_S)
    try:
        container = client.containers.get(handle.ref)
        yield container.pause, container.unpause
    finally:
        client.close()


@contextmanager
def _processes(handle: Handle) -> Iterator[_Verbs]:
    import psutil

    leader = psutil.Process(int(handle.ref))
    pids = [leader.pid, *(child.pid for child in leader.children(recursive=True))]

    def send(number: signal.Signals) -> None:
        for pid in pids:
            os.kill(pid, number)

    yield lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT)
