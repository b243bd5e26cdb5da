"""The real days: what e-mission's own pipeline made of them, to the metre and the second; in parts as at once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emlab.entries import parse
from emlab.entries.codes import Mode, Motion
from emlab.measure import intake as measured
from tests.unit.intake.test_run import in_parts
from tests.unit.intake.walks import Data, by_id, data, run

pytestmark = pytest.mark.needs("phone-days")
ENDS = ("start_ts", "end_ts", "distance", "duration")


def days(folder: Path) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    found = list(measured.days_of(str(folder)))
    assert found
    for name, entries, result in found:
        yield name, entries, json.loads(result.read_text())


def compare(ours: list[Data], theirs: list[Data], fields: tuple[str, ...]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert {name: one.get(name) for name in fields} == pytest.approx({name: other[name] for name in fields})


def test_trips_sections_and_places_are_those_of_the_real_pipeline(phone_days: Path) -> None:
    for _, entries, expected in days(phone_days):
        outcome = run(measured.observe(entries))
        compare(data(outcome, "analysis/cleaned_trip"), expected["trips"], ENDS)
        compare(data(outcome, "analysis/cleaned_section"), expected["sections"], ENDS)
        compare(data(outcome, "analysis/cleaned_place"), expected["places"], ("enter_ts", "exit_ts"))
        compare(data(outcome, "analysis/cleaned_stop"), expected["stops"], ("enter_ts", "exit_ts", "distance"))
        compare(data(outcome, "analysis/cleaned_untracked"), expected["untracked"], ENDS)
        compare(data(outcome, "segmentation/raw_trip"), expected["raw"]["trips"], ENDS)
        compare(data(outcome, "segmentation/raw_section"), expected["raw"]["sections"], ("start_ts", "end_ts"))


def test_modes_are_those_of_the_real_pipeline(phone_days: Path) -> None:
    for _, entries, expected in days(phone_days):
        outcome = run(measured.observe(entries))
        sensed = [Motion(section["sensed_mode"]).name for section in data(outcome, "analysis/cleaned_section")]
        inferred = [Mode(section["sensed_mode"]).name for section in data(outcome, "analysis/inferred_section")]
        assert sensed == [section["sensed_mode"] for section in expected["sections"]]
        assert inferred == [section["inferred_mode"] for section in expected["sections"]]


def test_there_are_as_many_results_of_each_key(phone_days: Path) -> None:
    for _, entries, expected in days(phone_days):
        outcome = run(measured.observe(entries))
        assert {key: len(data(outcome, key)) for key in expected["result_key_counts"]} == expected["result_key_counts"]
        assert len(outcome.documents) == sum(expected["result_key_counts"].values())


def test_a_store_accepts_every_result(phone_days: Path) -> None:
    for _, entries, _ in days(phone_days):
        for entry in run(measured.observe(entries)).documents:
            assert parse(entry) == entry


def test_cut_anywhere_the_results_are_the_same(phone_days: Path) -> None:
    draw = random.Random(3)
    for _, entries, _ in days(phone_days):
        seen = measured.observe(entries)
        whole, moments = by_id(run(seen)), sorted({*seen.locations["ts"], *seen.transitions["ts"]})
        for _ in range(4):
            assert in_parts(seen, draw.sample(moments, 3)) == whole


def test_the_scores_say_so_too(phone_days: Path) -> None:
    total = measured.table(measured.score_days(str(phone_days))).iloc[-1]
    assert total["name"] == "all"
    assert (total["recall"], total["precision"], total["sections"], total["modes"]) == (1, 1, 1, 1)
    assert total["worst_distance"] < 1e-6
