"""One run of intake: complete, linked, the same again, the same in parts, and calm about anything that it meets."""

from __future__ import annotations

import math
from typing import Any, cast

import hypothesis.strategies as st
import msgspec
import pandas as pd
import pytest
from hypothesis import given

from emlab import intake
from emlab.entries import parse
from emlab.entries.codes import Motion, State, Transition
from emlab.intake import Checkpoint, Observed, Outcome
from tests.unit.intake.walks import NOW, START, Data, by_id, data, fix, observed, ride, rides, run, sensed

LINKS = {
    "raw_trip": "segmentation/raw_trip",
    "cleaned_trip": "analysis/cleaned_trip",
    "inferred_trip": "analysis/inferred_trip",
    "expected_trip": "analysis/expected_trip",
    "cleaned_section": "analysis/cleaned_section",
    "cleaned_place": "analysis/cleaned_place",
}


def part(seen: Observed, since: float, until: float) -> Observed:
    """What was noted in a time, both ends included."""

    def within(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["ts"] >= since) & (frame["ts"] <= until)].reset_index(drop=True)

    return Observed(within(seen.locations), within(seen.motions), within(seen.transitions), seen.inputs)


def time_of(entry: Data) -> float:
    return float(
        next(entry["data"][name] for name in ("ts", "start_ts", "enter_ts", "exit_ts") if name in entry["data"])
    )


def keep(store: dict[str, Data], outcome: Outcome) -> None:
    """What a job does with an outcome."""
    fresh, since = by_id(outcome), outcome.replaces_from_ts
    for oid in [oid for oid, entry in store.items() if since is None or time_of(entry) >= since]:
        del store[oid]
    store.update(fresh)


def in_parts(seen: Observed, cuts: list[float]) -> dict[str, Data]:
    """The results of runs over what was noted until each cut, and then over all."""
    store: dict[str, Data] = {}
    checkpoint: Checkpoint | None = None
    for until in [*sorted(cuts), math.inf]:
        since = -math.inf if checkpoint is None else checkpoint.since_ts
        outcome = run(part(seen, since, until), checkpoint)
        keep(store, outcome)
        if outcome.checkpoint is not None:  # it goes through a database
            checkpoint = msgspec.json.decode(msgspec.json.encode(outcome.checkpoint), type=Checkpoint)
    return store


def test_a_ride_becomes_a_trip_between_two_places() -> None:
    outcome = run(rides(1))
    (trip,), places = data(outcome, "analysis/cleaned_trip"), data(outcome, "analysis/cleaned_place")
    assert trip["start_ts"] == pytest.approx(START + 30, abs=31)
    assert trip["end_ts"] == pytest.approx(START + 600, abs=200)
    assert trip["distance"] == pytest.approx(6_000, rel=0.06)
    assert [place.get("enter_ts") for place in places] == [None, trip["end_ts"]]
    assert [mode["sensed_mode"] for mode in data(outcome, "analysis/inferred_section")] == [5]
    assert outcome.report.trips == 1
    assert outcome.report.places == 2


def test_every_key_is_written_and_no_other() -> None:
    moved = rides(3)
    walk = [fix(START + 30_000 + 30 * k, 25_000 + 42.0 * k) for k in range(40)]
    motions = [
        *sensed(START + 30_000, START + 30_600, Motion.WALKING),
        *sensed(START + 30_620, START + 31_170, Motion.BICYCLING),
    ]
    tail = [fix(START + 31_200 + 30 * k, 25_000 + 42.0 * 39) for k in range(12)]
    boot = (START + 29_000, int(State.TRACKING_STOPPED), int(Transition.BOOTED))
    later = observed([*walk, *tail], motions, [boot])
    seen = Observed(
        pd.concat(
            [moved.locations, later.locations.assign(_id=later.locations["_id"].str.replace("0", "a"))],
            ignore_index=True,
        ),
        pd.concat([moved.motions, later.motions], ignore_index=True),
        pd.concat([moved.transitions, later.transitions], ignore_index=True),
        [],
    )
    found = {cast(Data, entry["metadata"])["key"] for entry in run(seen).documents}
    assert found == set(intake.KEYS)


def test_a_store_accepts_every_entry_and_links_lead_somewhere() -> None:
    outcome = run(rides(3))
    entries = by_id(outcome)
    for entry in outcome.documents:
        assert parse(entry) == entry
        for name, key in LINKS.items():
            target = cast(Data, entry["data"]).get(name)
            assert target is None or entries[target["$oid"]]["metadata"]["key"] == key


def test_places_and_trips_alternate_without_a_hole() -> None:
    outcome = run(rides(4))
    for kind in ("cleaned", "confirmed"):
        trips = sorted(data(outcome, f"analysis/{kind}_trip"), key=lambda trip: float(trip["start_ts"]))
        places = by_id(outcome)
        for trip in trips:
            start, end = (places[trip[name]["$oid"]]["data"] for name in ("start_place", "end_place"))
            assert start["exit_ts"] == trip["start_ts"]
            assert end["enter_ts"] == trip["end_ts"]
            assert start["location"] == trip["start_loc"]
            assert end["location"] == trip["end_loc"]


def test_the_distances_of_a_trip_add_up() -> None:
    outcome = run(rides(2))
    for trip in data(outcome, "analysis/confirmed_trip"):
        summary = trip["inferred_section_summary"]
        assert sum(summary["distance"].values()) <= trip["distance"] + 1e-6
        assert sum(summary["count"].values()) == summary["count"]["CAR"]
    for section in data(outcome, "analysis/cleaned_section"):
        assert section["distance"] == pytest.approx(sum(section["distances"]))
        assert len(section["speeds"]) == len(section["distances"])


def test_running_again_changes_nothing_but_the_time_of_writing() -> None:
    first, again = (intake.run(rides(3), checkpoint=None, now=now) for now in (NOW, NOW + 99))
    assert [(a["_id"], a["data"]) for a in first.documents if "end_confirmed_place" not in cast(Data, a["data"])] == [
        (b["_id"], b["data"]) for b in again.documents if "end_confirmed_place" not in cast(Data, b["data"])
    ]
    assert by_id(first).keys() == by_id(again).keys()
    assert first.checkpoint == again.checkpoint


@given(st.lists(st.floats(START - 100, START + 36_000), max_size=5))
def test_in_parts_or_at_once_it_is_the_same(cuts: list[float]) -> None:
    seen = rides(5)
    assert in_parts(seen, cuts) == by_id(run(seen))


def test_a_checkpoint_lets_later_runs_read_only_the_end() -> None:
    outcome = run(rides(6))
    assert outcome.checkpoint is not None
    ends = [trip["end_ts"] for trip in data(outcome, "analysis/cleaned_trip")]
    assert outcome.checkpoint.since_ts == ends[-2]
    later = run(part(rides(6), outcome.checkpoint.since_ts, math.inf), outcome.checkpoint)
    assert later.report.trips == 1
    assert later.checkpoint == outcome.checkpoint


def test_nothing_gives_nothing() -> None:
    outcome = run(observed([]))
    assert outcome.documents == []
    assert outcome.checkpoint is None
    assert outcome.report == intake.IntakeReport()


@pytest.mark.parametrize("points", [[fix(START)], [fix(START + k) for k in range(50)], [fix(START)] * 50])
def test_who_stays_makes_no_trip(points: list[Data]) -> None:
    assert run(observed(points)).report.trips == 0


def test_what_cannot_be_used_is_counted_by_reason() -> None:
    points, motions, transitions = ride(START)
    bad = [
        fix(START + 1, latitude=95.0),
        fix(START + 2, longitude=math.nan),
        fix(math.nan),
        fix(START + 1_020, 6_000, write_ts=START + 2_020.0),
        fix(START + 90_000, write_ts=START + 2.0),
        points[0],
        {**points[20], "ts": points[20]["ts"] - 50, "longitude": -122.0},
    ]
    report = run(observed([*points, *bad], [*motions, (START, math.nan, 100.0)], transitions)).report
    assert report.dropped == {
        "a motion without type or confidence": 1,
        "a point from a day after its writing": 1,
        "a point from before the one that was written last": 1,
        "a point that is not on earth": 1,
        "a point without a time since 1970": 1,
        "a point without latitude and longitude": 1,
        "a point written so late that it tells of no trip's end": 1,
        "the same point again": 1,
    }
    assert report.trips == 1


def test_a_point_in_the_far_future_spoils_no_trip_before_or_after_it() -> None:
    seen = rides(4)
    stray = pd.DataFrame([{"_id": "f" * 24, **fix(4e9, write_ts=START + 9_000)}])
    locations = pd.concat([seen.locations, stray], ignore_index=True)
    outcome = run(Observed(locations, seen.motions, seen.transitions, []))
    assert by_id(outcome) == by_id(run(seen))


def test_a_reboot_leaves_untracked_time_between_the_places() -> None:
    first, second = ride(START), ride(START + 20_000, from_m=30_000)
    boot = (START + 15_000, int(State.TRACKING_STOPPED), int(Transition.BOOTED))
    seen = observed(first[0] + second[0], first[1] + second[1], [*first[2], boot, *second[2]])
    outcome = run(seen)
    (gap,) = data(outcome, "analysis/cleaned_untracked")
    trips = data(outcome, "analysis/cleaned_trip")
    assert gap["start_ts"] == trips[0]["end_ts"] + 5
    assert gap["end_ts"] == trips[1]["start_ts"]
    assert [
        entry["data"]["locations"]
        for entry in by_id(outcome).values()
        if entry["metadata"].get("origin_key") == "analysis/confirmed_untracked"
    ] == [[]]


@pytest.mark.parametrize("day", [1_457_859_600.0, 1_478_419_200.0])  # 2016-03-13 and 2016-11-06, 01:00 in California
def test_days_on_which_clocks_change_are_like_others(day: float) -> None:
    usual, changed = rides(3), rides(3)
    for frame in (changed.locations, changed.motions, changed.transitions):
        frame[["ts", "write_ts"]] += day - START
    ours, theirs = (data(run(seen), "analysis/cleaned_trip") for seen in (changed, usual))
    assert [trip["duration"] for trip in ours] == pytest.approx([trip["duration"] for trip in theirs])
    assert len({trip["start_fmt_time"][-6:] for trip in ours}) == 2


def test_points_in_two_zones_keep_their_own() -> None:
    seen = rides(2)
    seen.locations["time_zone"] = ["Europe/Berlin" if ts > START + 3_000 else "UTC" for ts in seen.locations["ts"]]
    trips = data(run(seen), "analysis/cleaned_trip")
    assert [trip["start_local_dt"]["timezone"] for trip in trips] == ["UTC", "UTC"]  # the second from the first's place
    assert [trip["end_local_dt"]["timezone"] for trip in trips] == ["UTC", "Europe/Berlin"]


def test_a_track_over_the_date_line_goes_on() -> None:
    """30 minutes eastward at the equator, 0.005 degrees at a time, then a rest."""
    lons = [179.9 + 0.005 * min(step, 60) for step in range(75)]
    points = [
        fix(START + 31.7 * step, latitude=0.0, longitude=(lon + 180) % 360 - 180) for step, lon in enumerate(lons)
    ]
    outcome = run(observed(points, sensed(START, START + 1900, Motion.IN_VEHICLE)))
    (trip,) = data(outcome, "analysis/confirmed_trip")
    assert trip["distance"] == pytest.approx(60 * 0.005 * 111_195, rel=0.03)
    assert trip["end_loc"]["coordinates"][0] == pytest.approx(-179.8, abs=1e-3)
    found = [one["longitude"] for one in data(outcome, "analysis/recreated_location")]
    assert all(abs(lon) > 179.7 for lon in found)
    assert {lon > 0 for lon in found} == {True, False}
    for entry in outcome.documents:
        parse(entry)


def test_a_change_of_phone_is_a_change_of_method() -> None:
    android, ios = ride(START), ride(START + 9_000, from_m=6_000)
    moved = [{**point, "filter": "distance", "platform": "ios"} for point in ios[0]]
    outcome = run(observed(android[0] + moved, android[1] + ios[1], android[2] + ios[2]))
    sources = [trip["source"] for trip in data(outcome, "analysis/cleaned_trip")]
    assert sources == ["DwellSegmentationTimeFilter", "DwellSegmentationDistFilter"]


odd = st.floats(allow_nan=True, allow_infinity=True, width=32)
times = st.one_of(st.floats(START, START + 5_000), st.sampled_from([START, START + 600, -1.0, 0.0, 9e10, 1e12]), odd)
places = st.floats(-800, 800)


@st.composite
def anything(draw: st.DrawFn) -> Observed:
    """Points, motions and transitions of any value, near enough to each other to mean something."""
    points = [
        fix(
            draw(times),
            draw(places),
            draw(places),
            filter=draw(st.sampled_from(["time", "distance", "distance", "", None])),
            time_zone=draw(st.sampled_from(["Europe/Berlin", "", "Nowhere/Atall", "America/Los_Angeles"])),
            altitude=draw(odd),
            **draw(st.sampled_from([{}, {}, {}, {"latitude": 91.0}, {"longitude": math.inf}, {"write_ts": START}])),
        )
        for _ in range(draw(st.integers(0, 60)))
    ]
    codes = st.one_of(st.integers(-1, 20).map(float), odd)
    motions = draw(st.lists(st.tuples(times, codes, st.one_of(st.just(100.0), odd)), max_size=30))
    moves = draw(st.lists(st.tuples(times, codes, codes), max_size=10))
    inputs: list[Any] = draw(
        st.lists(st.sampled_from([{}, {"data": 1}, {"metadata": {}, "data": {"start_ts": "x"}}]), max_size=2)
    )
    return observed(points, motions, moves, inputs)


@given(anything())
def test_nothing_that_a_phone_notes_makes_it_fail(seen: Observed) -> None:
    outcome = run(seen)
    by_id(outcome)
    for entry in outcome.documents:
        assert parse(entry) == entry
    if outcome.checkpoint is not None:
        run(seen, outcome.checkpoint)


def test_importing_intake_loads_no_numpy() -> None:
    import subprocess
    import sys

    code = "import sys, emlab.intake; sys.exit('numpy' in sys.modules or 'pandas' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
