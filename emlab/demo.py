"""The demonstration: simulate -> store -> intake -> pause -> ask -> release, with real parts and a report."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import files
from emlab.aggregate import Release
from emlab.clouds import Clouds
from emlab.entries import StoreReport, summed
from emlab.errors import ConfigError
from emlab.fanout import fan_out
from emlab.intake.report import IntakeReport
from emlab.lab import Lab
from emlab.policy import Policy
from emlab.privacy import micro_epsilon
from emlab.queries.count_users import CountUsers
from emlab.queries.sum_distance import SumDistance
from emlab.query import Query, Region, clamp
from emlab.report import check_folder
from emlab.store.memory import MemoryStore
from emlab.usercloud import UserCloud

if TYPE_CHECKING:
    import pandas as pd

    from emlab.simulate import Person, Simulator

ROUNDS = 5  # of pausing and waking, for the latency figures
EVER = (0.0, 2e9)
TOWN_DEG = 0.02  # half the side of the square around the simulated city's centre that is asked about
CAP_M = 50_000
Say = Callable[[str], None]


@dataclass(frozen=True)
class Story:
    """What the demonstration did: two releases, the table of clouds, the events, the files."""

    release: Release
    distance: Release
    clouds: pd.DataFrame
    events: pd.DataFrame
    files: Sequence[Path]


def tell(
    out_dir: Path,
    *,
    engine: str,
    vault: str = "plain",
    n_users: int,
    days: int,
    seed: int,
    phone_days: Sequence[Path] = (),
    epsilon: float = 1.0,
    say: Say = lambda line: None,
) -> Story:
    """The whole story once, its results in `out_dir`.

    Args:
        engine: "docker", "process" or "memory". vault: as of Lab. n_users, days, seed: of the simulator.
        phone_days: files of real e-mission days; each becomes a person besides the simulated ones.
        say: gets a sentence for each step.
    """
    from emlab.simulate import Simulator

    people = Simulator(n_users, days, seed)
    micro_epsilon(epsilon)  # what is wrong is said before anything is done
    check_folder(out_dir)
    with Lab(engine, vault, default_policy=Policy.open()) as lab:
        say(repr(lab))
        simulated = sign_up(lab, people)
        store(simulated, people)
        real = [_phone_day(lab, file) for file in phone_days]
        say(f"{n_users} simulated people, {len(phone_days)} real phone days, each in a cloud with its own database")
        say(f"in their clouds: {intake([*simulated, *real]).trips} trips")
        pause_and_wake(lab, ROUNDS)
        clouds = lab.controller.clouds().frame()
        say("all clouds are paused; a provider asks, which wakes them")
        provider = lab.controller.register_provider("city-planner")
        lon, lat = people.setting.center
        town = Region.box(lon - TOWN_DEG, lat - TOWN_DEG, lon + TOWN_DEG, lat + TOWN_DEG)
        release = provider.ask(CountUsers(town, *EVER), epsilon=epsilon, min_users=1, purpose="demonstration")
        distance = provider.ask(SumDistance(*EVER, CAP_M), epsilon=epsilon, min_users=1, purpose="demonstration")
        files = write_report(out_dir, lab, people, release, {"phone_days": len(phone_days)})
        return Story(release, distance, clouds, lab.recorder.frame(), files)


def _phone_day(lab: Lab, file: Path) -> UserCloud:
    """A real day has a cloud of its own, named after its file."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", file.name.removesuffix(".gz").removesuffix(".json"))
    cloud = lab.controller.signup(name.lstrip("._-")[:64] or "phone")
    cloud.store(read_day(file))
    return cloud


def sign_up(lab: Lab, people: Iterable[Person]) -> Clouds:
    """Each simulated person has a cloud, one started after the other; returns the owners' handles, in order."""
    from tqdm.auto import tqdm

    bar = tqdm(list(people), desc="signing up", leave=False, disable=None)
    return Clouds([lab.controller.signup(person.name, key=person.key) for person in bar])


def store(clouds: Sequence[UserCloud], people: Iterable[Person]) -> StoreReport:
    """Each cloud has all that its person's phone wrote; returns what was stored, summed over the people."""
    from tqdm.auto import tqdm

    pairs = tqdm(list(zip(clouds, people, strict=True)), desc="storing", leave=False, disable=None)
    return summed([cloud.store(person.entries()) for cloud, person in pairs])


def intake(clouds: Sequence[UserCloud]) -> IntakeReport:
    """Each cloud has turned its entries into trips, side by side; returns the reports' sum, with the sum of times."""
    total = IntakeReport()
    for report in fan_out(clouds, lambda cloud: cloud.intake(), description="finding trips"):
        total = total.plus(report)
    return total


def pause_and_wake(lab: Lab, rounds: int) -> None:
    """All clouds were paused and woken that often, side by side, and are paused now; the recorder has each time."""
    from tqdm.auto import tqdm

    users = [cloud.user for cloud in lab.controller.clouds()]
    steps = [lab.controller.pause, lab.controller.wake] * rounds + [lab.controller.pause]
    for step in tqdm(steps, desc="pausing and waking", leave=False, disable=None):
        fan_out(users, step, description="", progress=False)


def exact_sum(query: Query, people: Iterable[Person]) -> int:
    """What a release over these simulated people would be without noise, from what their phones wrote.

    Computed outside of any cloud. Of real people nobody knows it.
    """
    total = 0
    for person in people:
        store = MemoryStore(uuid.UUID(person.user_id))
        store.put(person.entries())
        total += clamp(query, query.contribution(store))[0]
    return total


def write_report(
    out_dir: Path | str, lab: Lab, people: Simulator, release: Release, params: Mapping[str, object]
) -> Sequence[Path]:
    """The lab's events and this release are in the folder, with figures and a page; with out_dir "" nothing is.

    Args:
        people: whom the lab simulates; what was set of them is written too.
        params: what else was set.
    Returns: the files.
    """
    from emlab import plots, report

    if not str(out_dir):
        return ()
    events = lab.recorder.frame()
    told = {"epsilon": release.epsilon, "min_users": release.min_users, **params}
    return report.write(
        Path(out_dir),
        frame=events,
        release=release,
        params={"engine": lab.engine, "vault": lab.vault, **asdict(people), **told},
        environment=report.environment(lab.engine, lab.vault),
        figures={"latency": plots.latency(events), "release": plots.release(release)},
        title=f"{len(lab.controller.clouds())} user clouds on {lab.engine}",
    )


def phone_days_in(folder: Path) -> list[Path]:
    """The files of entries in a folder: *.json and *.json.gz, no expected trips. Raises ConfigError."""
    found = sorted(p for p in folder.glob("*.json*") if p.suffix in (".json", ".gz") and "ground_truth" not in p.name)
    if not found:
        raise ConfigError(f"there are no phone days (*.json, *.json.gz) in {folder}")
    return found


def read_day(file: Path) -> list[object]:
    """The entries of a file, whatever of the known forms it has; see `files.read`. Raises ConfigError, BadEntry."""
    return list(files.read(file))
