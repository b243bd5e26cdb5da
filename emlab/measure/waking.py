"""What a served lab costs whoever comes through its gateway: waking, answering, load, a restart, and doing nothing.

    samples = waking.side_by_side("process", clouds=40, n=100)
    waking.costs(samples), plots.ratios(waking.shown(waking.costs(samples)))

The arm "emlab" is `emlab serve`, a program of its own; the arm "raw" wakes with the Docker SDK or with SIGCONT, and
asks the cloud's own socket. Both send the same owner's request. An attempt that fails is a sample, and counts as one
that never ended. Imports all of emlab but the concrete engines.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.errors import ConfigError, EngineError
from emlab.measure.gateway import ANSWER_S, Person, ServedLab
from emlab.measure.gateway_costs import (
    ALONE,
    ANSWER,
    ASLEEP,
    AWAKE,
    IDLE,
    MEMORY,
    PER_S,
    RATE,
    RESTART,
    TLS,
    WAKE,
    WAKE_ALL,
    WORK,
    costs,
    shown,
)
from emlab.measure.gateway_load import under_load
from emlab.measure.gateway_stand_in import in_place_of
from emlab.measure.plan import interleave
from emlab.measure.ratio import on_targets
from emlab.measure.results import write_run
from emlab.measure.samples import Samples
from emlab.parts import choose_engine

if TYPE_CHECKING:
    import pandas as pd

SIZES = (1, 10, 40)  # clouds in the lab
MOST_CLOUDS = 60  # who may sign up at once
LOAD_S, WINDOW_S = 1.0, 10.0
REST_S = 0.1  # without a request, so that a running cloud has to be as quick from rest as one that is woken
CALM_S = 3.0  # after the last request, when what it left behind was tidied away
SHARE = "% of a core"


def side_by_side(
    engine: str = "process", *, home: Path | str | None = None, clouds: int = 40, n: int = 100, seed: int = 1
) -> pd.DataFrame:
    """Samples of one lab that grows to so many clouds, as `Samples.frame()` describes them, with a column `clouds`.

    "wake to first byte": a new connection and a request to a paused cloud, while the others sleep; raw: the engine's
    own wake, then the same on the cloud's socket. "wake all at once": every cloud gets one at the same moment.
    "first byte when awake": as the first, of a running cloud that nobody asked for a moment, so that nothing is woken.
    "answer": of a running cloud, over a connection that stays open. "load": requests a second over 16 such connections
    from another process; generator, gateway and cloud share this machine's cores. "CPU per request": the controller's
    under that load. "load on the gateway alone": as "load", with a program in the place of the cloud that answers at
    once, while a real cloud bounds what can be measured. Once more over TLS, but for that. "restart": the program was
    killed, and is started until it answers and says of all clouds that they are paused. "CPU when idle" (the
    controller's), "CPU of paused clouds": in 10 s in which nobody asks, and a sweep looks at all of them. "memory": the
    controller's share (PSS) after all that.

    Args:
        engine: "process", "docker" or "auto". home: where the lab lives meanwhile, instead of $EMLAB_HOME.
        clouds: at the end, at most 60; measured also with 1 and 10 and 40 of them, as far as there are so many.
        n: rounds of waking; ten times as many answers, and a tenth as many times all at once, restarts, and windows.
        seed: of the orders and of who is woken.
    """
    import pandas as pd

    if not 1 <= clouds <= MOST_CLOUDS:
        raise ConfigError(f"a lab is measured with 1 to {MOST_CLOUDS} clouds, not {clouds!r}")
    engine = choose_engine()[0] if engine == "auto" else engine
    frames = []
    with ServedLab(engine, home=home) as lab:
        for number, parts in _plan(clouds):
            lab.grow(number)
            _warm(lab)
            for part in parts:
                samples = Samples(engine)
                part(samples, lab, n, seed)
                frames.append(samples.frame().assign(clouds=number))
    return pd.concat(frames, ignore_index=True)


_Part = Callable[[Samples, ServedLab, int, int], None]


def _plan(clouds: int) -> Iterator[tuple[int, Sequence[_Part]]]:
    """How many clouds there are, one step after the other, and what is measured with them."""
    for number in SIZES:
        if number < clouds:
            yield number, [_waking]
    yield clouds, [_waking, _all_at_once, _rested, _answering, _loaded, _unbounded, _over_tls, _restarting, _idle]


def _warm(lab: ServedLab) -> None:
    """The gateway and each cloud have answered once: what is loaded at the first request is no part of a wake."""
    for person in lab.people:
        lab.through(person).fresh_s()
        person.direct.fresh_s()
    lab.pause_all()


def _rounds(description: str, n: int, seed: int) -> Iterator[tuple[int, tuple[str, str]]]:
    from tqdm.auto import tqdm

    yield from enumerate(tqdm(interleave(n, seed), desc=description, leave=False, disable=None))


# -- waking ------------------------------------------------------------------------------------------------------------


def _waking(samples: Samples, lab: ServedLab, n: int, seed: int, *, suffix: str = "") -> None:
    draw = random.Random(seed)  # noqa: S311 - who is woken is no secret
    for number, order in _rounds("wake", n, seed):
        person = draw.choice(lab.people)
        for arm in order:

            def waken(person: Person = person, arm: str = arm) -> float:
                lab.pause(person)
                return _wake_s(lab, person, arm)

            samples.take(WAKE + suffix, arm, number, waken, unit="s")
        lab.pause(person)


def _wake_s(lab: ServedLab, person: Person, arm: str) -> float:
    return lab.through(person).fresh_s() if arm == "emlab" else person.woken_s()


def _all_at_once(samples: Samples, lab: ServedLab, n: int, seed: int) -> None:
    for number, order in _rounds("wake all", max(1, n // 10), seed):
        for arm in order:
            lab.pause_all()
            for one in _together(lab, arm):
                samples.take(WAKE_ALL, arm, number, one.result, unit="s")
    lab.pause_all()


def _together(lab: ServedLab, arm: str) -> list[Future[float]]:
    """What each person waited, all from the same moment on."""
    start = threading.Barrier(len(lab.people), timeout=ANSWER_S)

    def wait_s(person: Person) -> float:
        start.wait()
        return _wake_s(lab, person, arm)

    with ThreadPoolExecutor(len(lab.people)) as pool:
        return [pool.submit(wait_s, person) for person in lab.people]


# -- awake -------------------------------------------------------------------------------------------------------------


def _rested(samples: Samples, lab: ServedLab, n: int, seed: int) -> None:
    person = lab.people[0]
    lab.admin.wake(person.user)
    ways = {"emlab": lab.through(person), "raw": person.direct}

    def rested_s(arm: str) -> float:
        SYSTEM_CLOCK.wait(REST_S)
        return ways[arm].fresh_s()

    for number, order in _rounds("awake", n, seed):
        for arm in order:
            samples.take(AWAKE, arm, number, partial(rested_s, arm), unit="s")


def _answering(samples: Samples, lab: ServedLab, n: int, seed: int, *, suffix: str = "") -> None:
    person = lab.people[0]
    lab.admin.wake(person.user)
    with ExitStack() as stack:
        ways = {"emlab": lab.through(person), "raw": person.direct}
        asks = {arm: stack.enter_context(way.kept()) for arm, way in ways.items()}
        for number, order in _rounds("answers", 10 * n, seed):
            for arm in order:
                samples.take(ANSWER + suffix, arm, number, asks[arm], unit="s")


def _loaded(samples: Samples, lab: ServedLab, n: int, seed: int, *, suffix: str = "") -> None:
    person = lab.people[0]
    lab.admin.wake(person.user)
    ways = {"emlab": lab.through(person), "raw": person.direct}
    spent_s: list[float] = []

    def per_s(arm: str) -> float:
        before_s = _cpu_s(lab)
        load = under_load(ways[arm], LOAD_S)
        if arm == "emlab":
            spent_s.append((_cpu_s(lab) - before_s) / load.total)
        return load.per_s

    for number, order in _rounds("load", max(1, min(n // 3, 10)), seed):
        for arm in order:
            samples.take(RATE + suffix, arm, number, partial(per_s, arm), unit=PER_S)
    for number, seconds in enumerate(spent_s):
        samples.take(WORK + suffix, "emlab", number, partial(float, seconds), unit="s")
    lab.pause(person)


def _unbounded(samples: Samples, lab: ServedLab, n: int, seed: int) -> None:
    person = lab.people[0]
    lab.pause(person)  # so that the gateway connects anew, to whoever listens there then
    with in_place_of(person.socket):
        ways = {"emlab": lab.through(person), "raw": person.direct}
        for way in ways.values():
            way.fresh_s()
        for number, order in _rounds("load on the gateway alone", max(1, min(n // 3, 10)), seed):
            for arm in order:
                load = partial(under_load, ways[arm], LOAD_S)
                samples.take(ALONE, arm, number, lambda load=load: load().per_s, unit=PER_S)  # type: ignore[misc]
    lab.pause(person)


def _over_tls(samples: Samples, lab: ServedLab, n: int, seed: int) -> None:
    lab.end()
    lab.start(tls=True)
    _warm(lab)
    for part in (_waking, _answering, _loaded):
        part(samples, lab, n, seed, suffix=TLS)
    lab.end()
    lab.start()


# -- nobody asks -------------------------------------------------------------------------------------------------------


def _restarting(samples: Samples, lab: ServedLab, n: int, seed: int) -> None:
    def restart() -> None:
        lab.start()
        if not wait_until(lab.knows_all, ANSWER_S):
            raise EngineError(f"the controller does not know its clouds {ANSWER_S:g} s after its start")

    lab.pause_all()
    for number in range(max(1, min(n // 10, 10))):
        samples.time(RESTART, "emlab", number, restart, before=lab.kill)


def _idle(samples: Samples, lab: ServedLab, n: int, seed: int) -> None:
    for number in range(max(1, min(n // 25, 10))):
        spent: dict[str, float] = {}

        def idle(spent: dict[str, float] = spent) -> float:
            asleep_s = lab.cpu_s()
            SYSTEM_CLOCK.wait(CALM_S)
            busy_s = _cpu_s(lab)
            SYSTEM_CLOCK.wait(WINDOW_S)
            busy_s = _cpu_s(lab) - busy_s
            spent[ASLEEP] = lab.cpu_s() - asleep_s
            return 100 * busy_s / WINDOW_S

        samples.take(IDLE, "emlab", number, idle, unit=SHARE)
        samples.take(ASLEEP, "emlab", number, lambda spent=spent: 100 * spent[ASLEEP] / (CALM_S + WINDOW_S), unit=SHARE)  # type: ignore[misc]
        samples.take(MEMORY, "emlab", number, partial(_memory_mb, lab), unit="MiB")


def _cpu_s(lab: ServedLab) -> float:
    """CPU seconds of the controller so far."""
    import psutil

    times = psutil.Process(lab.pid).cpu_times()
    return times.user + times.system


def _memory_mb(lab: ServedLab) -> float:
    """The controller's own pages and its share of those that it shares, in MiB."""
    import psutil

    return float(psutil.Process(lab.pid).memory_full_info().pss / 2**20)


# -- what came of it ---------------------------------------------------------------------------------------------------


def write_report(
    out_dir: str, samples: pd.DataFrame, params: Mapping[str, object], conditions: Mapping[str, object]
) -> list[Path]:
    """The folder holds the samples (events.parquet), `costs` of them (latency.csv), figures and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told. conditions: as `measure.conditions()` found them.
    Returns: the files.
    """
    from emlab import plots, report

    if not out_dir:
        return []
    table = costs(samples)
    return write_run(
        Path(out_dir),
        samples,
        {"latency.csv": table},
        params=params,
        figures={"costs": plots.ratios(shown(table)), "waits": plots.waits(samples)},
        title="What waking on request costs",
        environment=report.environment(" ".join(samples["engine"].unique()), "plain", **conditions),
        lead=on_targets(shown(table)),
    )
