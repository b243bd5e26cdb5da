"""How long the phases of one ask take, and those of storing and intake, for more people and more data.

    samples = phase_times.repeat("process", users=[10, 20], trips=[10, 50, 100], n=10)
    phase_times.table(samples), plots.phases(samples)

The times are those that the lab's recorder has of each cloud; what comes before the first cloud was turned to, and
after the last one had answered, is the rest of the ask. Imports pandas when there is something to show, and crowd.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from emlab.clock import SYSTEM_CLOCK
from emlab.errors import ConfigError, EmlabError
from emlab.lab import Lab
from emlab.measure.asking import rounds
from emlab.measure.crowd import EVER, PROVIDER
from emlab.measure.results import write_run
from emlab.measure.samples import DTYPES
from emlab.policy import Policy
from emlab.queries.count_users import CountUsers
from emlab.record import Event, describe
from emlab.simulate import Person, Simulator
from emlab.simulate.population import MAX_DAYS

if TYPE_CHECKING:
    import pandas as pd

    from emlab.provider import Provider
    from emlab.usercloud import UserCloud

STORE, INTAKE = "store", "intake"
ROSTER, WAKE, ANSWER, RELEASE, WHOLE = "roster", "wake", "answer in the cloud", "release", "the whole ask"
PHASES = (STORE, INTAKE, ROSTER, WAKE, ANSWER, RELEASE, WHOLE)
EPSILON = 1.0
Timed = tuple[str, Event]  # phase, and how long it took whom


def repeat(
    engine: str = "process",
    *,
    users: Sequence[int] = (10, 20),
    trips: Sequence[int] = (10, 50, 100),
    n: int = 10,
    seed: int = 1,
    home: Path | str | None = None,
) -> pd.DataFrame:
    """Samples as `Samples.frame()` describes them, in seconds, with the columns users and trips.

    "store" and "intake": of each person's data. Then n asks of paused clouds: "roster": from the call until the first
    cloud is turned to; "wake" and "answer in the cloud": of each cloud, waiting for its turn to be woken included, and
    the slot in which each answer is sent; "release": from the last answer until the call returns; "the whole ask".

    Args:
        engine: "docker", "process" or "memory". users: numbers of people. trips: how many each of them has made.
        n: asks of each lab. seed: of the simulator. home: where the labs live meanwhile.
    """
    import pandas as pd

    frames = []
    for number in users:
        for many in trips:
            with Lab(engine, idle=None, default_policy=Policy.open(), home=home) as lab:
                timed = [*_fill(lab, number, many, seed), *_ask(lab, n, f"{number} people, {many} trips")]
                rows = [_row(phase, event, lab.engine, count) for count, (phase, event) in enumerate(timed)]
            frame = pd.DataFrame(rows, columns=list(DTYPES)).astype(DTYPES)
            frames.append(frame.assign(users=number, trips=many))
    return pd.concat(frames, ignore_index=True)


def _row(phase: str, event: Event, engine: str, number: int) -> tuple[object, ...]:
    value = event.duration_s if event.ok else math.nan
    return (phase, "emlab", engine, number, value, "s", event.start_ts, event.ok, event.error)


# -- storing -----------------------------------------------------------------------------------------------------------


def _fill(lab: Lab, users: int, trips: int, seed: int) -> Iterator[Timed]:
    """Everybody has a cloud with the entries of so many trips; what storing and intake took."""
    for index in rounds(range(users), f"{users} people store {trips} trips"):
        person, entries = first_trips(users, seed, index, trips)
        cloud = lab.controller.signup(person.name, key=person.key)
        _, before = lab.recorder.since(0)
        _store(lab, cloud, entries)
        events, _ = lab.recorder.since(before)
        yield from ((event.span, event) for event in events if event.span in (STORE, INTAKE))


def _store(lab: Lab, cloud: UserCloud, entries: Sequence[Mapping[str, object]]) -> None:
    """Stored and digested; a failure is on record and ends neither the others' nor the run."""
    try:
        with lab.recorder.span(STORE, user=cloud.user, engine=lab.engine):
            cloud.store(entries)
        cloud.intake()
    except EmlabError:
        return


def first_trips(users: int, seed: int, index: int, trips: int) -> tuple[Person, list[dict[str, Any]]]:
    """A person and what the phone wrote on so many trips and between them. Raises ConfigError: too many."""
    for days in _longer(trips):
        person = Simulator(users, days, seed).person(index)
        if len(person.trips) > trips:
            until_ts = (person.trips[trips - 1].end_ts + person.trips[trips].start_ts) / 2
            entries = cast("list[dict[str, Any]]", person.entries())
            return person, [entry for entry in entries if entry["metadata"]["write_ts"] < until_ts]
    raise ConfigError(f"the person with index {index} does not make {trips} trips in {MAX_DAYS} days")


def _longer(trips: int) -> Iterator[int]:
    """Days in which somebody makes so many trips, perhaps."""
    days = max(2, trips // 3)
    while days < MAX_DAYS:
        yield days
        days = math.ceil(days * 1.5)
    yield MAX_DAYS


# -- asking ------------------------------------------------------------------------------------------------------------


def _ask(lab: Lab, n: int, what: str) -> Iterator[Timed]:
    provider = lab.controller.register_provider(PROVIDER)
    for _ in rounds(range(n), f"asking {what}"):
        lab.controller.each("pause")
        yield from _ask_once(lab, provider)


def _ask_once(lab: Lab, provider: Provider) -> Iterator[Timed]:
    """The phases of one ask of everybody."""
    clock = SYSTEM_CLOCK
    _, before = lab.recorder.since(0)
    start_ts, error = clock.now(), ""
    try:
        provider.ask(CountUsers(None, *EVER), epsilon=EPSILON, min_users=1, progress=False)
    except EmlabError as exc:
        error = describe(exc)
    end_ts = clock.now()
    events, _ = lab.recorder.since(before)
    yield from phases(events, start_ts, end_ts, error=error, engine=lab.engine)


def phases(events: Sequence[Event], start_ts: float, end_ts: float, *, error: str, engine: str) -> Iterator[Timed]:
    """What each phase of an ask took that began and ended then, by what was recorded meanwhile.

    Args:
        error: of the ask, "" if it gave a release.
    """
    answers = [event for event in events if event.span == "answer"]
    wakes = [event for event in events if event.span == "wake"]
    why = "" if answers else error or "no cloud was turned to"
    turned_ts = min((event.start_ts for event in answers), default=end_ts)
    done_ts = max((event.start_ts + event.duration_s for event in answers), default=end_ts)
    yield ROSTER, Event(ROSTER, "", engine, start_ts, max(0.0, turned_ts - start_ts), ok=bool(answers), error=why)
    yield from ((WAKE, event) for event in wakes)
    waited_s = {event.user: event.duration_s for event in wakes}
    for event in answers:
        own_s = max(0.0, event.duration_s - waited_s.get(event.user, 0.0))
        yield ANSWER, Event(ANSWER, event.user, engine, event.start_ts, own_s, ok=event.ok, error=event.error)
    yield RELEASE, Event(RELEASE, "", engine, done_ts, max(0.0, end_ts - done_ts), ok=not error, error=error)
    yield WHOLE, Event(WHOLE, "", engine, start_ts, end_ts - start_ts, ok=not error, error=error)


# -- what came of it ---------------------------------------------------------------------------------------------------


def table(samples: pd.DataFrame) -> pd.DataFrame:
    """One row for each phase, number of people and of trips: n, failed, p50_ms, p95_ms, max_ms.

    A failed attempt counts as one that never ended: a quantile that falls on one is infinite.
    """
    import pandas as pd

    order = pd.CategoricalDtype(list(PHASES), ordered=True)
    shown = samples.assign(phase=samples["measure"].astype(order), ms=1000.0 * samples["value"].fillna(math.inf))
    groups = shown.groupby(["phase", "users", "trips"], observed=True)
    quantiles = {f"p{round(100 * q)}_ms": groups["ms"].quantile(q, interpolation="lower") for q in (0.5, 0.95)}
    return pd.DataFrame(
        {
            "n": groups.size(),
            "failed": groups["ok"].agg(lambda ok: int((~ok).sum())),
            **quantiles,
            "max_ms": groups["ms"].max(),
        }
    ).reset_index()


def write_report(
    out_dir: str, samples: pd.DataFrame, params: Mapping[str, object], conditions: Mapping[str, object]
) -> Sequence[Path]:
    """The folder holds the samples (events.parquet), phases.csv, the figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told. conditions: as `measure.conditions()` found them.
    Returns: the files.
    """
    from emlab import plots, report

    if not out_dir:
        return []
    return write_run(
        Path(out_dir),
        samples,
        {"phases.csv": table(samples)},
        params=params,
        figures={"phases": plots.phases(samples)},
        title="Phases of an ask, of storing and of intake",
        environment=report.environment(" ".join(samples["engine"].unique()), "plain", **conditions),
    )
