"""Every query over simulated people, without noise, against pandas over all their data; and a query of a package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

import emlab as em
from emlab.aggregator import NOT_PRIVATE
from emlab.geo import path_length_m
from emlab.queries.known import OURS
from emlab.query import LOCATION, Query, Region

ROOT = Path(__file__).parents[2]
MODES = ("UNKNOWN", "WALKING", "BICYCLING", "BUS", "TRAIN", "CAR", "AIR_OR_HSR", "SUBWAY", "TRAM", "LIGHT_RAIL")
EDGES_M = (0, 500, 1_000, 2_000, 5_000, 10_000, 50_000)


@dataclass
class Data:
    """One person's data as its owner sees it."""

    trips: pd.DataFrame
    sections: pd.DataFrame
    fixes: pd.DataFrame

    def between(self, start_ts: float, end_ts: float, mode: str | None = None) -> pd.DataFrame:
        """The trips that start then, by start."""
        return _between(self.trips, start_ts, end_ts, mode)

    def parts(self, start_ts: float, end_ts: float, mode: str | None) -> pd.DataFrame:
        """The trips that start then, or the sections of a mode."""
        return _between(self.trips if mode is None else self.sections, start_ts, end_ts, mode)


def _between(frame: pd.DataFrame, start_ts: float, end_ts: float, mode: str | None) -> pd.DataFrame:
    found = frame[(frame["start_ts"] >= start_ts) & (frame["start_ts"] < end_ts)].sort_values("start_ts")
    return found if mode is None else found[found["mode"] == mode]


def _fixes(data: Data, start_ts: float, end_ts: float) -> pd.DataFrame:
    return data.fixes[data.fixes["ts"].between(start_ts, end_ts)]


Oracle = Callable[[Data], Sequence[float]]


def _users(query: em.CountUsers | em.InRange) -> Oracle:
    def oracle(data: Data) -> list[int]:
        fixes = _fixes(data, query.start_ts, query.end_ts)
        if query.region is None:
            return [int(len(fixes) > 0)]
        shape = shapely.geometry.shape(query.region.geojson())
        return [int(bool(shapely.contains_xy(shape, fixes["longitude"], fixes["latitude"]).any()))]

    return oracle


def _track(query: em.SumDistance) -> Oracle:
    def oracle(data: Data) -> list[int]:
        fixes = _fixes(data, query.start_ts, query.end_ts).sort_values("ts")
        return [min(round(path_length_m(zip(fixes["longitude"], fixes["latitude"], strict=True))), query.cap_m)]

    return oracle


def _count(query: em.CountTrips) -> Oracle:
    return lambda data: [min(len(data.between(query.start_ts, query.end_ts, query.mode)), query.cap)]


def _sum(query: em.SumTripDistance | em.SumDuration, column: str, cap: int) -> Oracle:
    return lambda data: [min(round(data.parts(query.start_ts, query.end_ts, query.mode)[column].sum()), cap)]


def _mean(query: em.MeanDistance | em.MeanDuration, column: str, cap: int) -> Oracle:
    def oracle(data: Data) -> list[int]:
        found = data.between(query.start_ts, query.end_ts, query.mode).head(query.per_person)
        return [round(found[column].clip(0, cap).sum()), len(found)]

    return oracle


def _histogram(query: em.TripHistogram) -> Oracle:
    def oracle(data: Data) -> list[int]:
        found = data.between(query.start_ts, query.end_ts, query.mode)
        if query.over == "mode":
            counts = found.head(query.per_person)["mode"].value_counts().reindex(MODES, fill_value=0)
            return [int(n) for n in counts]
        if query.over == "hour":
            hours = found.head(query.per_person)["start_local"].str[11:13].astype(int)
            return [int((hours == hour).sum()) for hour in range(24)]
        binned = pd.cut(found["distance_m"], query.edges_m, right=False).dropna().head(query.per_person)
        return [int(n) for n in binned.value_counts(sort=False)]

    return oracle


def _pairs(query: em.OriginDestination) -> Oracle:
    shapes = [shapely.geometry.shape(zone.region.geojson()) for zone in query.zones]

    def zone(lon: pd.Series[float], lat: pd.Series[float]) -> pd.Series[float]:
        inside = np.array([shapely.contains_xy(shape, lon, lat) for shape in shapes])
        return pd.Series(np.where(inside.any(axis=0), inside.argmax(axis=0), np.nan), index=lon.index)

    def oracle(data: Data) -> list[int]:
        found = data.between(query.start_ts, query.end_ts, query.mode)
        ends = pd.DataFrame(
            {"from": zone(found["start_lon"], found["start_lat"]), "to": zone(found["end_lon"], found["end_lat"])}
        )
        n = len(query.zones)
        numbers = (ends["from"] * n + ends["to"]).dropna().head(query.per_person).astype(int)
        return [int(count) for count in np.bincount(numbers, minlength=n * n)]

    return oracle


def _grid(query: em.Heatmap) -> Oracle:
    def oracle(data: Data) -> list[int]:
        fixes = _fixes(data, query.start_ts, query.end_ts)
        counts, _, _ = np.histogram2d(
            fixes["latitude"],
            fixes["longitude"],
            bins=(query.rows, query.columns),
            range=((query.south, query.north), (query.west, query.east)),
        )
        flat = pd.Series(counts.ravel())
        most = flat[flat > 0].sort_values(ascending=False, kind="stable").head(query.per_person)
        return [int(cell in most.index) for cell in range(len(flat))]

    return oracle


def _quantile(query: em.Quantile) -> Oracle:
    def oracle(data: Data) -> list[int]:
        counts, _ = np.histogram(np.clip(amounts(query, data), query.edges_m[0], query.edges_m[-1]), query.edges_m)
        return [int(n) for n in counts]

    return oracle


def amounts(query: em.Quantile, data: Data) -> list[float]:
    """One person's distances."""
    if query.of == "trips":
        found = data.between(query.start_ts, query.end_ts, query.mode).head(query.per_person)
        return [float(one) for one in found["distance_m"]]
    return [float(data.parts(query.start_ts, query.end_ts, query.mode)["distance_m"].sum())]


def oracle_of(query: Query) -> Oracle:
    """How to compute one person's cells of a query with pandas, shapely and numpy."""
    if isinstance(query, (em.SumTripDistance, em.MeanDistance)):
        make = _sum if isinstance(query, em.SumTripDistance) else _mean
        return make(query, "distance_m", query.cap_m)  # type: ignore[arg-type]
    if isinstance(query, (em.SumDuration, em.MeanDuration)):
        make = _sum if isinstance(query, em.SumDuration) else _mean
        return make(query, "duration_s", query.cap_s)  # type: ignore[arg-type]
    oracles: dict[type[Query], Callable[..., Oracle]] = {
        em.CountUsers: _users,
        em.InRange: _users,
        em.CountTrips: _count,
        em.SumDistance: _track,
        em.TripHistogram: _histogram,
        em.OriginDestination: _pairs,
        em.Heatmap: _grid,
        em.Quantile: _quantile,
    }
    return oracles[type(query)](query)


def questions(people: Sequence[Data]) -> Iterator[Query]:
    """Queries of each kind about these people: an interval that begins and ends with the start of a trip."""
    trips = pd.concat([one.trips for one in people]).sort_values("start_ts")
    start_ts, end_ts = float(trips["start_ts"].iloc[1]), float(trips["start_ts"].iloc[-2])
    span = (start_ts, end_ts)
    mode = str(trips["mode"].mode()[0])
    west, south, east, north = (
        *(float(trips["start_lon"].min()) - 0.001, float(trips["start_lat"].min()) - 0.001),
        *(float(trips["start_lon"].max()) + 0.001, float(trips["start_lat"].max()) + 0.001),
    )
    middle = (west + east) / 2
    zones = {
        "west": Region.box(west, south, middle, north),
        "south-east": Region(((((middle, south), (east, south), (east, north), (middle, south)),),)),
        "home": Region.box(*(float(trips["start_lon"].iloc[0]) - 0.01, south, east, north)),
    }
    for only in (None, mode):
        yield em.CountTrips(*span, cap=5, mode=only)
        yield em.CountTrips(*span, cap=1000, mode=only)
        yield em.SumTripDistance(*span, cap_m=10_000_000, mode=only)
        yield em.SumTripDistance(*span, cap_m=3_000, mode=only)
        yield em.SumDuration(*span, cap_s=10_000_000, mode=only)
        yield em.MeanDistance(*span, per_person=4, cap_m=3_000, mode=only)
        yield em.MeanDuration(*span, per_person=100, cap_s=900, mode=only)
        yield em.TripHistogram("hour", *span, per_person=5, mode=only)
        yield em.TripHistogram("distance", *span, per_person=5, edges_m=EDGES_M[1:], mode=only)
        yield em.Quantile(0.5, "people", *span, edges_m=EDGES_M, mode=only)
        yield em.Quantile(0.8, "trips", *span, edges_m=EDGES_M, per_person=6, mode=only)
        yield em.OriginDestination(zones, *span, per_person=3, mode=only)  # type: ignore[arg-type]
    yield em.TripHistogram("mode", *span, per_person=100)
    yield em.CountUsers(zones["west"], *span)
    yield em.CountUsers(Region.box(west - 40, (south + north) / 2, east + 40, north + 10), *span)
    yield em.InRange(zones["south-east"], *span, low=1, high=3)
    yield em.SumDistance(*span, cap_m=1_000_000)
    yield em.Heatmap(west, south, east, north, 12, 9, *span, per_person=4)


def populate(lab: em.Lab, n: int) -> list[Data]:
    """So many simulated people have clouds with trips; what their owners see of them."""
    found = []
    for person in em.Simulator(n, 2, seed=23):
        cloud = lab.controller.signup(person.name, key=person.key)
        cloud.store(person.entries())
        cloud.intake()
        found.append(Data(cloud.trips(), cloud.sections(), cloud.entries(LOCATION)))
    return found


def test_without_noise_every_query_is_what_pandas_computes_over_all_people(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, default_policy=em.Policy.open(), aggregator=em.Aggregator(exact=True)) as lab:
        people = populate(lab, 4)
        lab.controller.each("pause")
        planner = lab.controller.register_provider("planner")
        asked = list(questions(people))
        assert {type(query) for query in asked} == set(OURS)
        ask = partial(planner.ask, epsilon=1.0, min_users=1, progress=False)
        with ThreadPoolExecutor(3) as pool:  # each cloud takes a query's slot to answer, so several at once
            releases = list(pool.map(ask, asked))
        nothing = 0
        for query, release in zip(asked, releases, strict=True):
            cells = [oracle_of(query)(data) for data in people]
            expected = [sum(column) for column in zip(*cells, strict=True)]
            if list(release.values) != expected:  # where much else runs, a cloud can miss its slot and answer zeros
                release = ask(query)
            assert (list(release.values), release.trust) == (expected, NOT_PRIVATE), query
            nothing += not any(expected)
            check_summary(query, release, people)
        assert nothing <= 2  # or it would all be about nobody


def check_summary(query: Query, release: em.Release, people: Sequence[Data]) -> None:
    """A mean and a quantile are those of all people's trips."""
    if isinstance(query, (em.MeanDistance, em.MeanDuration)):
        column, cap = ("distance_m", query.cap_m) if isinstance(query, em.MeanDistance) else ("duration_s", query.cap_s)
        of_each = [data.between(query.start_ts, query.end_ts, query.mode).head(query.per_person) for data in people]
        exact = pd.concat(of_each)[column].clip(0, cap).mean()
        assert release.value == pytest.approx(exact, abs=len(people))  # each person's sum is rounded
    if isinstance(query, em.Quantile):
        values = pd.Series([one for data in people for one in amounts(query, data)]).clip(0, query.edges_m[-1])
        low, high = release.interval()
        assert low <= values.quantile(query.q, interpolation="higher") <= high
        assert low <= release.value <= high
    if isinstance(query, em.InRange):
        assert query.verdict(release.value, release.value) == ("yes" if 1 <= release.value <= 3 else "no")


@pytest.mark.parametrize("engine_name", ["memory"], indirect=True)
def test_with_noise_the_interval_has_what_pandas_computes(engine_name: str, home: Path) -> None:
    """Each interval fails with a probability of 1e-6 at most, so the test does with 1e-4 at most."""
    with em.Lab(engine_name, default_policy=em.Policy.open()) as lab:
        people = populate(lab, 3)
        planner = lab.controller.register_provider("planner")
        for query in questions(people):
            release = planner.ask(query, epsilon=2.0, min_users=1, progress=False)
            expected = [sum(column) for column in zip(*(oracle_of(query)(data) for data in people), strict=True)]
            for one, exact in zip(release.estimates(1e-6), expected, strict=True):
                assert one.low <= exact <= one.high, query


EARLY = '''
from typing import ClassVar

from emlab.query import Part, Query, check_times


class CountEarly(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_early"):
    """How many people started a trip before ten in the evening."""

    start_ts: float
    end_ts: float
    unit: ClassVar[str] = "users"

    def __post_init__(self):
        check_times(self)

    @property
    def parts(self):
        return (Part.number("users", "users", 1),)

    def contribution(self, data):
        trips = data.trips(start_ts=self.start_ts, end_ts=self.end_ts)
        return (int(any(trip.start_hour is not None and trip.start_hour < 22 for trip in trips)),)
'''

ASKING = """
import emlab as em
from emlab.queries.testing import check_query
from early import CountEarly

check_query(CountEarly, [CountEarly(0.0, 2e9)], refused=[{"end_ts": -1.0}])
with em.Lab("process", default_policy=em.Policy.open(), aggregator=em.Aggregator(exact=True)) as lab:
    for person in em.Simulator(2, 1, seed=23):
        cloud = lab.controller.signup(person.name, key=person.key)
        cloud.store(person.entries())
        cloud.intake()
    lab.controller.signup("nobody")
    planner = lab.controller.register_provider("planner")
    release = planner.ask(CountEarly(0.0, 2e9), epsilon=1.0, min_users=1, progress=False)
    print(release.kind, release.value, release.answered)
"""


def install(folder: Path, entry: str) -> None:
    """A package `early` with this entry point lies in the folder, as pip would have left it."""
    (folder / "early.py").write_text(EARLY)
    metadata = folder / "early-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: early\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[emlab.queries]\n{entry}\n")


def run(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """A program that finds emlab and what is installed in the folder, as do the clouds that it starts."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.needs("mongod")
def test_a_query_of_an_installed_package_is_asked_of_real_clouds(home: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    install(package, "count_early = early:CountEarly")
    done = run(package, ASKING)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-2] == "CountEarly 2 3"


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("count_early = early:CountDays", "the query 'count_early' of early .* cannot be loaded: AttributeError"),
        ("count_users = early:CountEarly", "the query 'count_users' of early .* has another tag, 'count_early'"),
    ],
)
def test_a_broken_entry_point_is_refused_by_name(home: Path, tmp_path: Path, entry: str, why: str) -> None:
    package = tmp_path / "package"
    package.mkdir()
    install(package, entry)
    done = run(package, "import emlab as em; em.CountUsers(None, 0, 1); import emlab.ask")
    assert done.returncode == 1
    assert re.search(f"ConfigError: {why}", done.stderr)
