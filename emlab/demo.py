"""The demonstration: simulate -> store -> pause -> ask -> release, with real parts and a report."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.aggregate import Release
from emlab.errors import BadEntry, ConfigError
from emlab.lab import Lab
from emlab.policy import Policy
from emlab.query import CountUsers

if TYPE_CHECKING:
    import pandas as pd

ROUNDS = 5  # of pausing and waking, for the latency figures
EVERYTHING = {"start_ts": 0.0, "end_ts": 2e9}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Story:
    """What the demonstration did: the release, the table of clouds, the events, the files."""

    release: Release
    clouds: pd.DataFrame
    events: pd.DataFrame
    files: Sequence[Path]


def tell(
    out_dir: Path,
    *,
    engine: str,
    n_users: int,
    days: int,
    seed: int,
    phone_days: Sequence[Path] = (),
    epsilon: float = 1.0,
    say: Say = lambda line: None,
) -> Story:
    """The whole story once, its results in `out_dir`.

    Args:
        engine: "docker", "process" or "memory". n_users, days, seed: of the simulator.
        phone_days: files of real e-mission days; each becomes a person besides the simulated ones.
        say: gets a sentence for each step.
    """
    from tqdm.auto import tqdm

    from emlab import plots, report

    with Lab(engine, default_policy=Policy.open()) as lab:
        say(repr(lab))
        people = list(_people(n_users, days, seed, phone_days))
        for name, entries in tqdm(people, desc="signing up", leave=False, disable=None):
            lab.controller.signup(name).store(entries())
        say(f"{n_users} simulated people, {len(phone_days)} real phone days, each in a cloud with its own MongoDB")
        for _ in range(ROUNDS):
            lab.controller.each("pause")
            lab.controller.each("wake")
        lab.controller.each("pause")
        clouds = lab.controller.clouds().frame()
        say("all clouds are paused; a provider asks, which wakes them")
        provider = lab.controller.register_provider("city-planner")
        release = provider.ask(CountUsers(None, **EVERYTHING), epsilon=epsilon, min_users=1, purpose="demonstration")
        events = lab.recorder.frame()
        files = report.write(
            out_dir,
            frame=events,
            release=release,
            params={"engine": engine, "n_users": n_users, "days": days, "seed": seed, "epsilon": epsilon},
            environment=report.environment(lab.engine, "plain"),
            figures={"latency": plots.latency(events), "release": plots.release(release)},
            title="emlab demonstration",
        )
    return Story(release, clouds, events, files)


def _people(
    n_users: int, days: int, seed: int, files: Sequence[Path]
) -> Iterator[tuple[str, Callable[[], Iterable[object]]]]:
    """Names and, made when called, entries: of simulated people, then of files."""
    from emlab.simulate import Simulator

    for person in Simulator(n_users, days, seed):
        yield person.name, person.entries
    for file in files:
        name = file.name.removesuffix(".gz").removesuffix(".json")
        yield re.sub(r"[^A-Za-z0-9._-]", "-", name), partial(read_day, file)


def phone_days_in(folder: Path) -> list[Path]:
    """The files of entries in a folder: *.json and *.json.gz, without those that hold expected trips."""
    return sorted(p for p in folder.glob("*.json*") if p.suffix in (".json", ".gz") and "ground_truth" not in p.name)


def read_day(file: Path) -> list[object]:
    """The entries of an e-mission JSON file, plain or packed. Raises ConfigError, BadEntry."""
    try:
        raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        entries = json.loads(raw)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file.name} cannot be read as JSON: {exc}") from exc
    if not isinstance(entries, list):
        raise BadEntry(f"{file.name} is not a list of entries")
    return entries
