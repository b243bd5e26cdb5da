"""The simulator's own figures: rates by a clock, and a portrait of a population."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from emlab.measure import simulating
from emlab.simulate import Simulator


class TickingClock:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self) -> None:
        self.ticks = 0.0

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        self.ticks += 1
        return self.ticks

    def wait(self, seconds: float) -> None:
        self.ticks += seconds


def test_rates_are_counts_by_the_seconds_that_they_took() -> None:
    people = Simulator(2, 2, 3)
    frame = simulating.speed(people, n=2, clock=TickingClock())
    assert frame["ok"].all()
    assert set(frame["unit"]) == {"1/s"}
    rates = frame.groupby("measure")["value"].unique()
    entries = sum(len(person.entries()) for person in people)
    assert rates["points"].tolist() == [sum(len(person.track()) for person in people)]
    assert rates["raw entries"].tolist() == rates["formatted entries"].tolist() == [entries]


def test_a_portrait_has_a_row_for_each_mode_and_one_for_all() -> None:
    people = Simulator(20, 5, 3)
    table, truth = simulating.portrait(people), people.truth()
    assert set(table.index) == {*truth["true_mode"], "all"}
    assert table.loc["all", "trips"] == table["trips"].drop("all").sum() == len(truth)
    assert table["share"].drop("all").sum() == pytest.approx(1)
    assert table.loc["all", "per_day"] == pytest.approx(len(truth) / 100)
    assert table.loc["WALKING", "distance_m"] == truth.loc[truth["true_mode"] == "WALKING", "distance_m"].median()
    assert (table["detour"] > 1).all()


def test_a_run_keeps_its_rates_and_its_portrait(tmp_path: Path) -> None:
    people = Simulator(2, 2, 3)
    samples, table = simulating.speed(people, n=2), simulating.portrait(people)
    assert simulating.write_report("", samples, table, {}) == []
    files = simulating.write_report(str(tmp_path / "run"), samples, table, {"seed": 3})
    assert {"events.parquet", "portrait.csv", "report.html"} <= {file.name for file in files}
    assert all(file.exists() for file in files)
    assert pd.read_parquet(tmp_path / "run" / "events.parquet")["value"].tolist() == samples["value"].tolist()
