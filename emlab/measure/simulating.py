"""How fast people are simulated, and what they do: the simulator's own figures. Imports the simulator; pandas to tell.

people = Simulator(n_users=20, days=28, seed=1)
simulating.speed(people, n=5), simulating.portrait(people)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.geo import haversine_m
from emlab.measure.results import write_run
from emlab.measure.samples import Samples

if TYPE_CHECKING:
    import pandas as pd

    from emlab.simulate import Person, Simulator

POINTS, RAW, FORMATTED = "points", "raw entries", "formatted entries"


def speed(people: Simulator, *, n: int = 5, clock: Clock = SYSTEM_CLOCK) -> pd.DataFrame:
    """How many points and entries are made in a second, everything from the street map on included.

    Measures: "points", positions as arrays; "raw entries", as phones post them; "formatted entries", as clouds keep
    them. Each round makes all people anew.

    Args:
        n: rounds of each.
    Returns:
        samples, as the other measurements return them; the unit is 1/s.
    """
    samples = Samples("", clock=clock)
    counts: dict[str, Callable[[Person], int]] = {
        POINTS: lambda person: sum(len(track.ts) for track in person.tracks()),
        RAW: lambda person: sum(1 for _ in person.raw_entries()),
        FORMATTED: lambda person: len(person.entries()),
    }
    for number in range(n):
        for name, count in counts.items():
            samples.take(name, "emlab", number, lambda count=count: _rate(people, count, clock), unit="1/s")  # type: ignore[misc]
    return samples.frame()


def _rate(people: Iterable[Person], count: Callable[[Person], int], clock: Clock) -> float:
    start = clock.monotonic()
    made = sum(map(count, people))
    return made / (clock.monotonic() - start)


def portrait(people: Simulator) -> pd.DataFrame:
    """What people of a simulation do, a row for each true mode of trips, and one for all.

    Columns: trips (number), share (of all trips), per_day (for each person), distance_m and duration_s (medians),
    speed_kmh (median, all waits included), detour (total distance / total distance as the crow flies).
    """
    import pandas as pd

    truth = people.truth()
    ends = truth[["start_lon", "start_lat", "end_lon", "end_lat"]].to_numpy().tolist()
    truth["straight_m"] = [haversine_m(*row) for row in ends]
    truth["duration_s"] = truth["end_ts"] - truth["start_ts"]
    truth["speed_kmh"] = 3.6 * truth["distance_m"] / truth["duration_s"]
    parts = [*truth.groupby("true_mode"), ("all", truth)]
    person_days = people.n_users * people.days
    return pd.DataFrame([_row(str(name), part, len(truth), person_days) for name, part in parts]).set_index("mode")


def _row(name: str, trips: pd.DataFrame, total: int, person_days: int) -> dict[str, str | float]:
    return {
        "mode": name,
        "trips": len(trips),
        "share": len(trips) / total,
        "per_day": len(trips) / person_days,
        "distance_m": float(trips["distance_m"].median()),
        "duration_s": float(trips["duration_s"].median()),
        "speed_kmh": float(trips["speed_kmh"].median()),
        "detour": float(trips["distance_m"].sum() / trips["straight_m"].sum()),
    }


def write_report(out_dir: str, samples: pd.DataFrame, table: pd.DataFrame, params: Mapping[str, object]) -> list[Path]:
    """The folder holds the rates (events.parquet), the portrait (portrait.csv) and report.html.

    Args:
        out_dir: "" writes nothing. samples, table: what `speed` and `portrait` returned. params: what the run was told.
    Returns: the files.
    """
    if not out_dir:
        return []
    tables = {"portrait.csv": table}
    return write_run(Path(out_dir), samples, tables, params=params, figures={}, title="Simulated people")
