"""What asking many clouds costs beside what the clouds themselves take, and what a debit costs beside a bare update.

    samples = asking_cost.side_by_side("process", clouds=40, n=20, seed=1)
    asking_cost.costs(samples), plots.ratios(asking_cost.costs(samples))

An attempt that fails is a sample, and so is an ask that not every cloud answered. Imports all of emlab but the concrete
engines; psutil, and on Docker docker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.clock import SYSTEM_CLOCK
from emlab.errors import BadReply, ConfigError
from emlab.fanout import fan_out
from emlab.lab import Lab
from emlab.measure import results
from emlab.measure.clouds import asked_directly, cloud_of
from emlab.measure.debiting import debit
from emlab.measure.pausing import raw_verbs
from emlab.measure.plan import interleave
from emlab.measure.ratio import Target, compare
from emlab.measure.samples import Samples
from emlab.policy import Policy
from emlab.provider import Provider
from emlab.queries.count_users import CountUsers
from emlab.state import Handle

if TYPE_CHECKING:
    import pandas as pd

RUNNING, PAUSED, MEMORY = "ask all, running", "ask all, paused", "custodian's memory"
DEBITS, SIDE_BY_SIDE = 20, 8
SLOWEST, MORE_S = 1.2, 0.05  # an ask of running clouds may take so many times the slowest one's time, and this much
_MOST = {RUNNING: Target(1.0), MEMORY: Target(1.05)}
TARGETS = {(measure, engine): most for measure, most in _MOST.items() for engine in ("process", "docker")}
QUESTION = CountUsers(None, start_ts=0.0, end_ts=2e9)
EPSILON = 1e-4  # so that no budget ends the run


def side_by_side(
    engine: str = "process",
    *,
    home: Path | str | None = None,
    clouds: int = 40,
    n: int = 20,
    asks: int = 100,
    seed: int = 1,
) -> pd.DataFrame:
    """Samples of one engine, as `Samples.frame()` describes them.

    "ask all, running": emlab: `provider.ask` of all clouds, none of which sleeps; raw: the most that it may take, 1.2
    times what the slowest of them took in this ask, and 50 ms more. "ask all, paused": emlab: the same where all of
    them sleep; raw: each is woken with the engine's own means, asked for `/health`, and 0.25 s are let pass, before
    which no answer to this ask leaves; as many at a time. "20 debits, 1 at once", "20 debits, 8 at once": see
    `measure.debit`. "custodian's memory": MiB that are one custodian's alone; raw: before, emlab: after so many asks.

    Args:
        engine: "process" or "docker". home: where the clouds live meanwhile, instead of $EMLAB_HOME.
        clouds: how many are asked. n: rounds; of memory a tenth. asks: after which memory is read again.
        seed: of the orders.
    """
    import pandas as pd

    if clouds < 1:
        raise ConfigError(f"it takes 1 cloud or more, not {clouds}")
    with Lab(engine, idle=None, default_policy=Policy.open(), home=home) as lab:
        samples = Samples(lab.engine)
        with _crowd(lab, clouds) as crowd:
            _running(samples, crowd, n)
            _paused(samples, crowd, n, seed)
        _memory(samples, lab, n, asks)
        debits = [debit(lab, n=n, debits=DEBITS, at_once=at_once, seed=seed) for at_once in (1, SIDE_BY_SIDE)]
        return pd.concat([samples.frame(), *debits], ignore_index=True)


@dataclass(frozen=True)
class _Crowd:
    """Clouds and who asks them. `wakes`: each cloud's, without emlab, until it has answered `/health`."""

    lab: Lab
    users: Sequence[str]
    provider: Provider
    wakes: Sequence[Callable[[], None]]

    def ask(self) -> None:
        """All of them have answered. Raises BadReply."""
        release = self.provider.ask(QUESTION, epsilon=EPSILON, min_users=1, progress=False)
        if release.answered != len(self.users):
            raise BadReply(f"{release.answered} of {len(self.users)} clouds answered: {release.reasons}")

    def wake(self) -> None:
        """Each was woken without emlab, as many at a time as are asked at a time."""
        at_once = min(len(self.wakes), self.lab.controller.at_once)
        with ThreadPoolExecutor(at_once) as pool:
            for woken in [pool.submit(wake) for wake in self.wakes]:
                woken.result()

    def pause(self) -> None:
        """All of them sleep."""
        fan_out(self.users, self.lab.controller.pause, description="pausing", progress=False)


@contextmanager
def _crowd(lab: Lab, clouds: int) -> Iterator[_Crowd]:
    with ExitStack() as stack:
        users = [f"measured-{number}" for number in range(clouds)]
        for user in users:
            stack.enter_context(cloud_of(lab, user))
        wakes = [stack.enter_context(_woken(lab.engine, lab.controller.life(user).handle)) for user in users]
        crowd = _Crowd(lab, users, lab.controller.register_provider("measuring"), wakes)
        crowd.ask()  # what is loaded at the first ask is no part of the others, nor is what each raw wake opens
        crowd.pause()
        crowd.wake()
        yield crowd


@contextmanager
def _woken(engine: str, handle: Handle) -> Iterator[Callable[[], None]]:
    with raw_verbs(engine, handle) as (_pause, wake):

        def woken() -> None:
            wake()
            with asked_directly(handle.run_dir) as health:
                health()
            SYSTEM_CLOCK.wait(QUESTION.slot_s)

        yield woken


def _running(samples: Samples, crowd: _Crowd, n: int) -> None:
    from tqdm.auto import tqdm

    recorder = crowd.lab.recorder
    for number in tqdm(range(n), desc=RUNNING, leave=False, disable=None):
        _, before = recorder.since(0)
        samples.time(RUNNING, "emlab", number, crowd.ask)
        own_s = [event.duration_s for event in recorder.since(before)[0] if event.span == "answer"]
        samples.take(RUNNING, "raw", number, partial(_most, own_s), unit="s")


def _most(own_s: Sequence[float]) -> float:
    return SLOWEST * max(own_s) + MORE_S


def _paused(samples: Samples, crowd: _Crowd, n: int, seed: int) -> None:
    from tqdm.auto import tqdm

    ways = {"emlab": crowd.ask, "raw": crowd.wake}
    for number, order in enumerate(tqdm(interleave(n, seed), desc=PAUSED, leave=False, disable=None)):
        for arm in order:
            samples.time(PAUSED, arm, number, ways[arm], before=crowd.pause)


def _memory(samples: Samples, lab: Lab, n: int, asks: int) -> None:
    """One cloud, asked again and again: of each round the memory before is "raw", that after so many asks "emlab"."""
    from tqdm.auto import tqdm

    with _crowd(lab, 1) as crowd:
        (user,) = crowd.users
        pid = _custodian(lab.engine, lab.controller.life(user).handle)
        read = partial(_own_mb, pid)
        for number in tqdm(range(max(1, n // 10)), desc=MEMORY, leave=False, disable=None):
            samples.take(MEMORY, "raw", number, read, unit="MiB")
            samples.take(MEMORY, "emlab", number, lambda: _after(crowd, asks, read), unit="MiB")


def _after(crowd: _Crowd, asks: int, read: Callable[[], float]) -> float:
    for _ in range(asks):
        crowd.ask()
    return read()


def _custodian(engine: str, handle: Handle) -> int:
    """The pid of the program that answers for a cloud."""
    if engine != "docker":
        return int(handle.ref)
    import docker
    import psutil

    client = docker.from_env()
    try:
        init = psutil.Process(int(client.containers.get(handle.ref).attrs["State"]["Pid"]))
    finally:
        client.close()
    return int(init.children()[0].pid)


def _own_mb(pid: int) -> float:
    """MiB that would be free without this program."""
    import psutil

    return float(psutil.Process(pid).memory_full_info().uss / 2**20)


def costs(samples: pd.DataFrame) -> pd.DataFrame:
    """One row per measure and engine, as `measure.compare` makes them, with this module's targets."""
    return compare(samples, targets=TARGETS)


def write_report(
    out_dir: str, samples: pd.DataFrame, params: Mapping[str, object], conditions: Mapping[str, object]
) -> list[Path]:
    """As `measure.write_report`, with this module's targets."""
    return results.write_report(out_dir, samples, params, conditions, targets=TARGETS, title="What asking costs")
