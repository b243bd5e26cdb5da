"""Deleting a period, on both stores: what tells of it goes, whatever its kind, and nothing else does."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

import emlab as em
from emlab import pipeline
from emlab.errors import BadQuery, StoreError
from emlab.store import MemoryStore, MongoStore, Store
from emlab.store.archive import ENTRIES
from tests.ledgers import cut_after

Client = MongoClient[dict[str, object]]
USER = uuid.UUID("0123456789abcdef0123456789abcdef")
NOON = 1_700_000_000.0
START, END = NOON, NOON + 3600
_numbers = itertools.count(1)


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryStore(USER) if request.param == "memory" else fresh(request.getfixturevalue("shared_client"))


def fresh(client: Client) -> MongoStore:
    client.drop_database("Stage_database")
    return MongoStore(client, USER)


def entry(key: str, data: dict[str, Any], *, write_ts: float = 5.0, number: int | None = None) -> dict[str, Any]:
    """A formatted entry."""
    told = {"key": key, "platform": "android", "write_ts": write_ts, "time_zone": "UTC", "write_fmt_time": "x"}
    oid = f"{next(_numbers) if number is None else number:024x}"
    return {"_id": {"$oid": oid}, "user_id": {"$uuid": "f" * 32}, "metadata": told, "data": data}


def raw(data: dict[str, Any], write_ts: float) -> dict[str, Any]:
    """An entry as a phone sends it."""
    told = {"key": "background/battery", "platform": "android", "type": "sensor-data", "write_ts": write_ts}
    return {"metadata": {**told, "time_zone": "UTC"}, "data": data}


def left(store: Store) -> list[dict[str, Any]]:
    return [dict(document) for name in ENTRIES for document in store.page(name)]


def place(enter_ts: float | None, exit_ts: float | None) -> dict[str, Any]:
    times = {"enter_ts": enter_ts, "exit_ts": exit_ts}
    return {name: ts for name, ts in times.items() if ts is not None}


TRIP, PLACE, COMPOSITE = "analysis/cleaned_trip", "analysis/cleaned_place", "analysis/composite_trip"
BEFORE, AFTER = START - 1, END + 1
AROUND = {"start_ts": BEFORE - 90, "end_ts": BEFORE - 60}
GOES: dict[str, dict[str, Any]] = {
    "a fix at its start": entry("background/battery", {"ts": START}),
    "a fix at its end": entry("background/battery", {"ts": END}),
    "a trip into it": entry(TRIP, {"start_ts": BEFORE, "end_ts": START}),
    "a trip out of it": entry(TRIP, {"start_ts": END, "end_ts": AFTER}),
    "a trip through it": entry(TRIP, {"start_ts": BEFORE, "end_ts": AFTER}),
    "a stay through it": entry(PLACE, place(BEFORE, AFTER)),
    "a stay that has not ended": entry(PLACE, place(BEFORE, None)),
    "the first stay": entry(PLACE, place(None, AFTER)),
    "what the person said of a trip": entry("manual/mode_confirm", {"start_ts": START, "end_ts": END, "label": "b"}),
    "something without a time that was written in it": entry("config/consent", {"a": 1}, write_ts=START),
    "a trip that embeds a stay in it": entry(
        COMPOSITE, {**AROUND, "end_confirmed_place": {"data": place(BEFORE - 60, AFTER)}}
    ),
    "a trip that begins at a stay in it": entry(
        COMPOSITE, {**AROUND, "start_confirmed_place": {"data": place(BEFORE, START)}}
    ),
    "something invalid": {**entry("background/battery", {"ts": START}), "invalid": True},
    "a raw entry of it": raw({"ts": START}, AFTER),
    "a raw entry written in it": raw({"battery": 1}, START),
}
STAYS: dict[str, dict[str, Any]] = {
    "a fix before": entry("background/battery", {"ts": BEFORE}, write_ts=START),
    "a fix after": entry("background/battery", {"ts": AFTER}),
    "a trip before": entry(TRIP, {"start_ts": BEFORE - 9, "end_ts": BEFORE}),
    "a trip after": entry(TRIP, {"start_ts": AFTER, "end_ts": AFTER + 9}, write_ts=START),
    "a stay after": entry(PLACE, place(AFTER, None)),
    "a stay before": entry(PLACE, place(None, BEFORE)),
    "a setting": entry("config/consent", {"a": 1}, write_ts=BEFORE),
    "a trip between other stays": entry(
        COMPOSITE,
        {
            **AROUND,
            "start_confirmed_place": {"data": place(1.0, 2.0)},
            "end_confirmed_place": {"data": place(1.0, 2.0)},
        },
    ),
    "a raw entry from before": raw({"ts": BEFORE}, BEFORE),
}


@pytest.mark.parametrize("what", GOES)
def test_what_tells_of_the_period_goes(store: Store, what: str) -> None:
    store.put([GOES[what], STAYS["a fix before"]])
    assert sum(store.delete(START, END).values()) == 1
    assert [found["data"] for found in left(store)] == [STAYS["a fix before"]["data"]]


@pytest.mark.parametrize("what", STAYS)
def test_what_does_not_stays(store: Store, what: str) -> None:
    store.put([STAYS[what]])
    assert store.delete(START, END) == {}
    assert len(left(store)) == 1


def test_what_could_not_be_formatted_goes_too(store: Store) -> None:
    store.put([raw({"ts": START}, START), raw({"ts": BEFORE}, BEFORE)])
    store.settle([], [str(claimed["_id"]["$oid"]) for claimed in store.claim(9)])  # type: ignore[index]
    assert store.collections() == {"Stage_timeseries_error": 2}
    assert store.delete(START, END) == {"Stage_timeseries_error": 1}


def test_it_is_counted_by_collection_and_again_changes_nothing(store: Store) -> None:
    store.put([*GOES.values(), *STAYS.values()])
    gone = store.delete(START, END)
    assert gone == {"Stage_analysis_timeseries": 8, "Stage_timeseries": 5, "Stage_usercache": 2}
    assert len(left(store)) == len(STAYS)
    assert store.delete(START, END) == {}


def test_without_bounds_all_goes(store: Store) -> None:
    store.put([*GOES.values(), *STAYS.values()])
    store.delete(None, None)
    assert left(store) == []


@pytest.mark.parametrize(("start", "end"), [(2.0, 1.0), (float("nan"), 1.0), (0.0, float("inf")), (True, 2.0)])
def test_what_is_no_period_is_refused(store: Store, start: float, end: float) -> None:
    store.put([STAYS["a fix before"]])
    with pytest.raises(BadQuery):
        store.delete(start, end)
    assert len(left(store)) == 1


def test_another_person_s_documents_stay(shared_client: Client) -> None:
    mine, other = fresh(shared_client), MongoStore(shared_client, uuid.UUID("f" * 32))
    other.put([entry("background/battery", {"ts": START})])
    mine.put([entry("background/battery", {"ts": START})])
    mine.delete(None, None)
    assert (left(mine), len(left(other))) == ([], 1)


def test_of_the_pipeline_s_checkpoints_those_that_reach_beyond_the_start_go(store: Store) -> None:
    reaches = [(BEFORE, BEFORE), (BEFORE, AFTER), (AFTER, BEFORE), (START, START), (AFTER, AFTER)]
    marks = [{"checkpoint": {"since_ts": since_ts, "resume_ts": resume_ts}} for since_ts, resume_ts in reaches]
    store.keep_progress(1, BEFORE, NOON, {"marks": marks})
    store.delete(START, END)
    assert store.progress().checkpoint == {"marks": [marks[0], marks[3]]}


times = st.none() | st.floats(START - 3, END + 3).map(round).map(float)
spans = st.fixed_dictionaries({}, optional=dict.fromkeys(("ts", "start_ts", "end_ts", "enter_ts", "exit_ts"), times))


def _given_times(data: dict[str, float | None]) -> dict[str, float]:
    return {name: ts for name, ts in data.items() if ts is not None}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.sampled_from([TRIP, COMPOSITE, "background/x"]), spans, spans, times), max_size=8),
    times,
    times,
)
def test_both_stores_delete_the_same(
    shared_client: Client,
    found: list[tuple[str, dict[str, float | None], dict[str, float | None], float | None]],
    start: float | None,
    end: float | None,
) -> None:
    if start is not None and end is not None and start > end:
        start, end = end, start
    entries = [
        entry(
            key,
            {"n": number, **_given_times(data), "end_confirmed_place": {"data": _given_times(inner)}},
            write_ts=write_ts or 5.0,
            number=number,
        )
        for number, (key, data, inner, write_ts) in enumerate(found, 1)
    ]
    stores: list[Store] = [MemoryStore(USER), fresh(shared_client)]
    for one in stores:
        one.put(entries)
    assert stores[0].delete(start, end) == stores[1].delete(start, end)
    assert left(stores[0]) == left(stores[1])


# -- and what intake makes of the rest -------------------------------------------------------------------------


def _positions(store: Store) -> set[tuple[float, float]]:
    """Every pair of numbers anywhere in what is kept that could be a place, the pipeline's state included."""
    found: set[tuple[float, float]] = set()

    def look(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                look(inner)
        elif isinstance(value, list):
            if len(value) == 2 and all(isinstance(one, float) for one in value):
                found.add((value[0], value[1]))
            for inner in value:
                look(inner)

    for document in left(store):
        look(document)
    look(store.progress().checkpoint)
    return found


def test_after_a_day_of_four_was_deleted_the_results_are_as_if_it_had_never_been_stored(store: Store) -> None:
    """The middle of the data goes; what intake then has is what it has without these entries from the beginning."""
    (person,) = em.Simulator(1, 4, seed=5)
    entries: list[Any] = list(person.entries())
    moments = sorted(one["data"]["ts"] for one in entries if "ts" in one["data"])
    start, end = moments[len(moments) // 3], moments[len(moments) // 2]
    store.put(entries)
    pipeline.digest(store)
    in_it = {
        tuple(one["data"]["loc"]["coordinates"])
        for one in entries
        if start <= one["data"].get("ts", 0) <= end and "loc" in one["data"]
    }
    rest = [one for one in entries if not start <= one["data"].get("ts", one["metadata"]["write_ts"]) <= end]
    known = {tuple(one["data"]["loc"]["coordinates"]) for one in rest if "loc" in one["data"]}
    assert in_it - known
    store.delete(start, end)
    assert not _positions(store) & (in_it - known)
    pipeline.digest(store)
    fresh_store = MemoryStore(USER)
    fresh_store.put(rest)
    pipeline.digest(fresh_store)
    assert _told(store) == _told(fresh_store)


def _told(store: Store) -> list[tuple[object, ...]]:
    """The diary: when and where trips and stays were."""
    trips = [(at["start_ts"], at["end_ts"], at["distance"]) for at in _data(store, "analysis/confirmed_trip")]
    stays = [(at.get("enter_ts"), at.get("exit_ts"), at["location"]["coordinates"]) for at in _data(store, PLACE)]
    return sorted(trips) + sorted(stays, key=str)


def _data(store: Store, key: str) -> list[dict[str, Any]]:
    return [dict(found["data"]) for found in store.find(key)]  # type: ignore[call-overload]


@pytest.mark.parametrize("steps", range(5))
def test_after_a_crash_between_any_two_writes_calling_it_again_ends_it(shared_client: Client, steps: int) -> None:
    store = fresh(shared_client)
    store.put([*GOES.values(), *STAYS.values()])
    with cut_after(steps), pytest.raises(StoreError):
        store.delete(START, END)
    store.delete(START, END)
    assert len(left(store)) == len(STAYS)
    assert {str(found["data"]) for found in left(store)} == {str(one["data"]) for one in STAYS.values()}
