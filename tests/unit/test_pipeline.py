"""The pipeline over a store: complete, the same again, and whole after whatever came late or broke."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

import pytest

import emlab as em
from emlab import pipeline
from emlab.entries import JsonObject
from emlab.entries.codes import Mode
from emlab.errors import ConfigError, StoreError
from emlab.intake.report import IntakeReport
from emlab.store import MemoryStore
from emlab.store.base import ANALYSIS, Replaced, at
from emlab.store.documents import unwritten

USER = uuid.UUID("0123456789abcdef0123456789abcdef")
DAYS, SEED = 2, 9  # who walks and drives
TRIP, INFERRED = "analysis/confirmed_trip", "analysis/inferred_section"


@pytest.fixture(scope="module")
def entries() -> list[JsonObject]:
    """Some days of a simulated person, in order of writing."""
    return [dict(entry) for entry in em.Simulator(1, DAYS, seed=SEED).person(0).entries()]


@pytest.fixture(scope="module")
def expected(entries: list[JsonObject]) -> dict[str, object]:
    """What one run over everything gives."""
    return results(digested(entries)[0])


def digested(entries: Sequence[object]) -> tuple[MemoryStore, IntakeReport]:
    store = MemoryStore(USER)
    store.put(entries)
    return store, pipeline.digest(store)


def results(store: MemoryStore) -> dict[str, object]:
    """The computed entries by id, without the times of their writing."""
    return {at_id(entry): unwritten(entry) for entry in store._all(ANALYSIS)}


def at_id(entry: JsonObject) -> str:
    return str(at(entry, "_id.$oid"))


def trips(store: MemoryStore) -> list[JsonObject]:
    return list(store.find(TRIP, time_key="data.start_ts"))


def raw(write_ts: float, **data: object) -> JsonObject:
    metadata = {"key": "background/location", "platform": "android", "type": "sensor-data", "write_ts": write_ts}
    return {"metadata": metadata, "data": {"latitude": 37.8, "longitude": -122.2, "ts": write_ts, **data}}


def test_a_person_s_trips_are_found(entries: list[JsonObject]) -> None:
    store, report = digested(entries)
    person = em.Simulator(1, DAYS, seed=SEED).person(0)
    assert report.trips == len(trips(store)) > DAYS
    assert abs(report.trips - len(person.trips)) <= 2
    assert report.written == len(results(store))
    assert report.locations == sum(at(entry, "metadata.key") == pipeline.FILTERED for entry in entries)


def test_running_again_changes_nothing(entries: list[JsonObject], expected: dict[str, object]) -> None:
    store, _ = digested(entries)
    again = pipeline.digest(store)
    assert (again.written, again.removed) == (0, 0)
    assert again.locations < len(entries) / 4
    assert results(store) == expected


@pytest.mark.parametrize("window", [150])
def test_windows_give_what_one_run_gives(
    entries: list[JsonObject], expected: dict[str, object], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "WINDOW", window)
    assert results(digested(entries)[0]) == expected


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_what_comes_in_parts_is_what_comes_at_once(
    entries: list[JsonObject], expected: dict[str, object], share: float
) -> None:
    cut = round(share * len(entries))
    store, _ = digested(entries[:cut])
    store.put(entries[cut:])
    pipeline.digest(store)
    assert results(store) == expected


def test_what_comes_late_finds_its_place(entries: list[JsonObject], expected: dict[str, object]) -> None:
    low, high = round(0.4 * len(entries)), round(0.6 * len(entries))
    store, _ = digested([*entries[:low], *entries[high:]])
    store.put(entries[low:high])
    pipeline.digest(store)
    assert results(store) == expected


def test_entries_that_became_others_are_looked_at_again(
    entries: list[JsonObject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "WINDOW", 150)
    moved = [_moved(entry) if number > len(entries) / 2 else entry for number, entry in enumerate(entries)]
    store, _ = digested(entries)
    before = results(store)
    store.put(moved)
    pipeline.digest(store)
    assert results(store) == results(digested(moved)[0]) != before


def _moved(entry: JsonObject) -> JsonObject:
    """The entry 100 m farther north, if it is a position."""
    data = entry["data"]
    assert isinstance(data, dict)
    if "latitude" not in data:
        return entry
    latitude = data["latitude"] + 0.001
    return {
        **entry,
        "data": {**data, "latitude": latitude, "loc": {**data["loc"], "coordinates": [data["longitude"], latitude]}},
    }


def test_what_comes_late_and_out_of_order_is_as_if_it_had_come_at_once(entries: list[JsonObject]) -> None:
    whole = results(digested(entries)[0])
    for step in (7, 11):
        store, _ = digested([entry for number, entry in enumerate(entries) if number % step])
        store.put([entry for number, entry in enumerate(entries) if number % step == 0])
        pipeline.digest(store)
        assert results(store) == whole


def test_what_an_owner_says_later_does_not_begin_all_anew(
    entries: list[JsonObject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "WINDOW", 150)
    store, _ = digested(entries)
    monkeypatch.undo()
    trip = trips(store)[-3]
    said = {name: at(trip, f"data.{name}") for name in ("start_ts", "end_ts")}
    metadata = {"key": "manual/mode_confirm", "platform": "android", "type": "message", "write_ts": 1.9e9}
    store.put([{"metadata": metadata, "data": {**said, "label": "drove_alone"}}])
    report = pipeline.digest(store)
    assert report.formatted == 1
    assert 0 < report.locations < store.count([pipeline.FILTERED], before_ts=2e9, time_key="data.ts")
    assert at(trips(store)[-3], "data.user_input.mode_confirm") == "drove_alone"


def test_lines_are_kept_until_others_are_told(entries: list[JsonObject]) -> None:
    store, _ = digested(entries)
    before = results(store)
    stops = [at(trip, f"data.{end}_loc.coordinates") for trip in trips(store) for end in ("start", "end")]
    line = {
        "type": "Feature",
        "properties": {"route": "tram"},
        "geometry": {"type": "MultiPoint", "coordinates": stops},
    }
    modes = (Mode.CAR, Mode.BUS, Mode.TRAM)
    motorised = [at(one, "data.sensed_mode") for one in store.find(INFERRED) if at(one, "data.sensed_mode") in modes]
    assert set(motorised) == {Mode.CAR}
    assert pipeline.digest(store, {"type": "FeatureCollection", "features": [line]}).written > 0
    told = [at(one, "data.sensed_mode") for one in store.find(INFERRED) if at(one, "data.sensed_mode") in modes]
    assert Mode.CAR not in told
    assert len(told) == len(motorised)
    assert pipeline.digest(store).written == 0
    pipeline.digest(store, {"type": "FeatureCollection", "features": []})
    assert results(store) == before


@pytest.mark.parametrize("lines", [{}, {"type": "FeatureCollection", "features": [{"type": "Feature"}]}])
def test_lines_that_are_none_change_nothing(entries: list[JsonObject], lines: JsonObject) -> None:
    store, _ = digested(entries)
    with pytest.raises(ConfigError, match="line"):
        pipeline.digest(store, lines)
    assert pipeline.digest(store).written == 0


def test_a_checkpoint_that_makes_no_sense_is_no_harm(entries: list[JsonObject], expected: dict[str, object]) -> None:
    store, _ = digested(entries)
    kept = store.progress().checkpoint
    assert kept is not None
    edited: JsonObject = json.loads(json.dumps(kept).replace("America/Los_Angeles", "Moon/Sea"))
    without: list[JsonObject] = [edited, {"marks": 7}, {**kept, "marks": [{}]}]
    for broken in without:
        store.keep_progress(17, None, 0.0, broken)
        pipeline.digest(store)
        assert results(store) == expected


def test_checkpoints_thin_out(entries: list[JsonObject], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "WINDOW", 200)
    monkeypatch.setattr(pipeline, "MARKS", 4)
    store, _ = digested(entries)
    kept = store.progress().checkpoint
    assert kept is not None
    assert isinstance(kept["marks"], list)
    assert 2 <= len(kept["marks"]) <= 4


def test_what_cannot_be_formatted_is_counted_and_pending_no_more() -> None:
    good = raw(1.6e9)
    bad = {**raw(1.6e9), "metadata": {**raw(1.6e9)["metadata"], "key": "background/motion_activity"}}  # type: ignore[dict-item]
    store, report = digested([good, bad])
    assert (report.formatted, sum(report.unformatted.values())) == (1, 1)
    assert "37.8" not in str(report)
    assert list(store.pending()) == []
    assert store.counts() == {"background/location": 1}
    assert pipeline.digest(store).unformatted == {}


def test_without_locations_the_results_stay_wherever_they_are_from(entries: list[JsonObject]) -> None:
    first, _ = digested(entries)
    store = MemoryStore(USER)
    store.put(trips(first))
    assert pipeline.digest(store).removed == 0
    assert trips(store) == trips(first)


class _Breaking(MemoryStore):
    """A store whose n-th write of results fails, before it is made or after."""

    def __init__(self, nth: int, *, before: bool) -> None:
        super().__init__(USER)
        self.left, self.before = nth, before

    def replace_results(
        self, results: Sequence[object], *, keys: Sequence[str], from_ts: float | None, until_ts: float | None
    ) -> Replaced:
        self.left -= 1
        if self.left == 0 and self.before:
            raise StoreError("gone")
        replaced = super().replace_results(results, keys=keys, from_ts=from_ts, until_ts=until_ts)
        if self.left == 0:
            raise StoreError("gone")
        return replaced


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("nth", [1, 3])
def test_after_a_crash_it_goes_on(
    entries: list[JsonObject], expected: dict[str, object], nth: int, *, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "WINDOW", 100)
    store = _Breaking(nth, before=before)
    store.put(entries)
    with pytest.raises(StoreError):
        pipeline.digest(store)
    pipeline.digest(store)
    assert results(store) == expected
