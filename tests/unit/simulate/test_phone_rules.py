"""What e-mission's pipeline demands of a phone's entries, as properties over many people of both platforms.

The bounds are those found with the real pipeline: without any one of them, trips are lost or cut.
"""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from numpy.typing import NDArray

from emlab.geo import haversine_m, path_length_m
from emlab.simulate import Mode, Person, Simulator, TrueTrip
from tests.unit.simulate.phone_log import (
    BATTERY,
    FILTERED,
    KEYS,
    LOCATION,
    MOTION,
    TRANSITION,
    by_key,
    lonlat,
    through_json,
)

STILL = 3
TYPE_OF_MODE = {Mode.WALKING: 7, Mode.BICYCLING: 1, Mode.CAR: 0, Mode.BUS: 0, Mode.TRAIN: 0}
WINDOW_S = 420.0  # an android phone tracks from so long before a trip to so long after it
IOS_STEPS = [(1, 1), (1, 6), (2, 6), (2, 9), (2, 8), (2, 10), (2, 2), (1, 2)]

# Two days of each, among them working days and free ones, in cities of all sizes, with both kinds of phone.
STARTS = ("2026-03-02", "2026-03-07", "2026-10-31", "2024-02-28")
CITY_NAMES = ("bay", "harbour", "sprawl", "megacity", "town")
PEOPLE = [
    Simulator(8, 2, seed, start=STARTS[seed % 4], city=CITY_NAMES[seed % 5], ios_share=0.4).person(seed % 8)
    for seed in range(20)
]
NAMES = [f"seed-{person.setting.seed}-{person.platform}" for person in PEOPLE]
over_many_people = pytest.mark.parametrize("person", PEOPLE, ids=NAMES)


def around(entries: list[dict[str, Any]], trip: TrueTrip) -> list[dict[str, Any]]:
    return [e for e in entries if trip.start_ts - WINDOW_S <= e["data"]["ts"] <= trip.end_ts + WINDOW_S]


def times(entries: list[dict[str, Any]]) -> list[float]:
    return [e["data"]["ts"] for e in entries]


def rises(values: list[float]) -> bool:
    return all(a < b for a, b in itertools.pairwise(values))


def errors_m(person: Person) -> NDArray[np.float64]:
    """How far each position of a person lies from the truth."""
    names = ["longitude", "latitude", "true_longitude", "true_latitude"]
    return np.array([haversine_m(*row) for row in person.track()[names].to_numpy().tolist()])


def test_both_platforms_and_all_modes_are_among_the_people() -> None:
    assert {person.platform for person in PEOPLE} == {"android", "ios"}
    assert {section.mode for p in PEOPLE for trip in p.trips for section in trip.sections} == set(TYPE_OF_MODE)


@over_many_people
def test_every_kind_of_entry_is_there(person: Person) -> None:
    assert set(by_key(person)) == KEYS


@over_many_people
def test_times_are_floats_that_rise_and_never_repeat_within_a_key(person: Person) -> None:
    for entries in by_key(person).values():
        written = [e["metadata"]["write_ts"] for e in entries]
        assert all(isinstance(ts, float) for ts in times(entries) + written)
        assert rises(times(entries))
        assert rises(written)


@over_many_people
def test_an_entry_is_written_soon_after_it_was_so(person: Person) -> None:
    delays = [e["metadata"]["write_ts"] - e["data"]["ts"] for e in through_json(person)]
    assert min(delays) >= 0
    assert max(delays) < 1000


@over_many_people
def test_entries_come_in_the_order_of_writing_with_ids_of_their_own(person: Person) -> None:
    entries = through_json(person)
    written = [e["metadata"]["write_ts"] for e in entries]
    ids = [e["_id"]["$oid"] for e in entries]
    assert written == sorted(written)
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert all(len(i) == 24 and int(i, 16) >= 0 for i in ids)


@over_many_people
def test_the_metadata_tells_the_platform_and_a_sensor_or_a_message(person: Person) -> None:
    for key, entries in by_key(person).items():
        kind = "message" if key == TRANSITION else "sensor-data"
        assert {(e["metadata"]["platform"], e["metadata"]["type"]) for e in entries} == {(person.platform, kind)}
        assert {e["user_id"]["$uuid"] for e in entries} == {person.user_id}
    assert {e["data"]["filter"] for e in by_key(person)[LOCATION]} == {
        "distance" if person.platform == "ios" else "time"
    }


@over_many_people
def test_good_positions_stand_in_both_streams_and_poor_ones_in_one(person: Person) -> None:
    log = by_key(person)
    everything = {e["data"]["ts"]: e["data"] for e in log[LOCATION]}
    good = {e["data"]["ts"]: e["data"] for e in log[FILTERED]}
    assert all(everything[ts] == data for ts, data in good.items())
    assert all(e["data"]["accuracy"] <= 25 for e in log[FILTERED])
    assert all(everything[ts]["accuracy"] >= 60 for ts in everything.keys() - good.keys())


@over_many_people
def test_an_android_phone_notes_positions_every_thirty_seconds_around_a_trip_and_not_in_between(
    person: Person,
) -> None:
    points = by_key(person)[FILTERED]
    windows = [around(points, trip) for trip in person.trips]
    if person.platform == "ios":
        return
    assert sum(len(window) for window in windows) == len(points)
    gaps = [b - a for window in windows for a, b in itertools.pairwise(times(window))]
    assert min(gaps) > 26
    # Missing ones are outages, of four minutes at most, and tunnels.
    assert sum(gap > 34 for gap in gaps) < 0.06 * len(gaps)
    assert max(gaps) < 700


@over_many_people
def test_an_ios_phone_notes_positions_each_fifty_metres_and_at_most_each_second(person: Person) -> None:
    if person.platform != "ios":
        return
    track = person.track()
    for number, trip in enumerate(person.trips):
        mine = track[track["trip"] == number]
        moving = mine[(mine["ts"] > trip.start_ts) & (mine["ts"] < trip.end_ts)]
        noted = list(zip(moving["longitude"], moving["latitude"], strict=True))
        assert mine["ts"].diff().min() > 0.5
        if trip.mode is not Mode.TRAIN:
            assert len(moving) == pytest.approx(trip.distance_m / 50, rel=0.4, abs=3)
        steps = [haversine_m(*a, *b) for a, b in itertools.pairwise(noted)]
        to_moving = [step for step, speed in zip(steps, moving["sensed_speed"][1:], strict=True) if speed > 0]
        assert min(to_moving, default=50) > 49.99
        if len(steps) > 10:  # in a shorter trip, rests and bends are a large part
            assert sorted(steps)[len(steps) // 2] == pytest.approx(52, abs=8)
        assert mine["ts"].iloc[0] < trip.start_ts
        assert mine["ts"].iloc[-1] > trip.end_ts + 600


@over_many_people
def test_enough_still_points_stand_at_each_end_of_a_trip(person: Person) -> None:
    points, enough = by_key(person)[FILTERED], 10 if person.platform == "android" else 1
    # Before a trip there are few: four and a half minutes of them would be a dwelling, which e-mission ends there.
    for trip in person.trips:
        window = around(points, trip)
        before = [e for e in window if e["data"]["ts"] < trip.start_ts]
        after = [e for e in window if e["data"]["ts"] > trip.end_ts]
        assert 1 <= len(before) < 9
        assert len(after) >= enough
        # 100 m is the pipeline's own radius of rest; at 25 m of accuracy it is six standard deviations.
        assert all(haversine_m(*lonlat(e), trip.start.lon, trip.start.lat) < 75 for e in before)
        assert all(haversine_m(*lonlat(e), trip.end.lon, trip.end.lat) < 75 for e in after)


@over_many_people
def test_nobody_waits_five_minutes_in_one_place_within_a_trip(person: Person) -> None:
    for trip in person.trips:
        for a, b in itertools.pairwise(trip.sections):
            assert 0 < b.start_ts - a.end_ts <= 141


@over_many_people
def test_the_last_point_of_all_is_at_rest(person: Person) -> None:
    last, log = person.trips[-1], by_key(person)
    assert log[FILTERED][-1]["data"]["ts"] >= last.end_ts + 300
    assert log[FILTERED][-1]["data"]["sensed_speed"] <= 0
    assert log[MOTION][-1]["data"]["type"] in (STILL, 4, 5, 0, 7)


@over_many_people
def test_the_state_machine_leaves_before_each_trip_and_stops_five_minutes_after(person: Person) -> None:
    log = by_key(person)
    steps = [e for e in log[TRANSITION] if (e["data"]["curr_state"], e["data"]["transition"]) in {*IOS_STEPS}]
    each = IOS_STEPS if person.platform == "ios" else [(1, 1), (2, 2)]
    assert [(e["data"]["curr_state"], e["data"]["transition"]) for e in steps] == each * len(person.trips)
    half = len(each) // 2
    for k, trip in enumerate(person.trips):
        left, stopped = steps[k * len(each) : k * len(each) + half], steps[k * len(each) + half : (k + 1) * len(each)]
        points = times(around(log[LOCATION], trip))
        assert left[-1]["data"]["ts"] < points[0] < trip.start_ts
        assert stopped[0]["data"]["ts"] >= max(trip.end_ts + 300, points[-1])


@over_many_people
def test_a_new_app_initialises_before_anything_is_noted(person: Person) -> None:
    first = through_json(person)[0]
    assert (first["metadata"]["key"], first["data"]["transition"]) == (TRANSITION, 0)


@over_many_people
def test_the_phone_senses_each_section_in_time_and_is_sure_of_it(person: Person) -> None:
    motions = by_key(person)[MOTION]
    sure = [e for e in motions if e["data"]["confidence"] > 60]
    assert 0.8 < len(sure) / len(motions) < 1
    for trip in person.trips:
        assert all(b - a <= 81 for a, b in itertools.pairwise(times(around(motions, trip))))
        for section in trip.sections:
            inside = [e for e in sure if section.start_ts <= e["data"]["ts"] <= section.end_ts]
            assert inside[0]["data"]["ts"] < section.start_ts + 12
            assert {e["data"]["type"] for e in inside} == {TYPE_OF_MODE[section.mode]}
        rest = [e for e in around(sure, trip) if not trip.start_ts <= e["data"]["ts"] <= trip.end_ts]
        assert {e["data"]["type"] for e in rest} == {STILL}
    assert sum(len(around(motions, trip)) for trip in person.trips) == len(motions)


@over_many_people
def test_the_battery_is_noted_a_few_times_a_day_and_empties_until_it_charges(person: Person) -> None:
    levels = by_key(person)[BATTERY]
    days: dict[int, list[dict[str, Any]]] = {}
    for e in levels:
        days.setdefault(e["data"]["local_dt"]["day"], []).append(e["data"])
    assert len(days) == 2
    for day in days.values():
        assert len(day) == 5
        pct = [data["battery_level_pct"] for data in day]
        assert all(0 < b <= a <= 100 for a, b in itertools.pairwise(pct))
        assert [data["battery_status"] for data in day] == [1, 1, 1, 1, 2]


@over_many_people
def test_speeds_are_those_of_the_mode(person: Person) -> None:
    # Walking above 1.7 m/s would be a bicycle to the pipeline, a ride under five minutes an error.
    bounds = {
        Mode.WALKING: (0.7, 1.7, 60),
        Mode.BICYCLING: (2.2, 6.5, 120),
        Mode.CAR: (4.0, 20.0, 300),
        Mode.BUS: (3.5, 11.0, 300),
        Mode.TRAIN: (8.0, 22.0, 300),
    }
    for section in (section for trip in person.trips for section in trip.sections):
        slow, fast, least_s = bounds[section.mode]
        lasts_s = section.end_ts - section.start_ts
        assert slow < section.distance_m / lasts_s < fast
        assert lasts_s > least_s


def test_sixty_eight_in_a_hundred_positions_lie_within_their_accuracy_on_both_platforms() -> None:
    # About 4,500 android and 2,500 ios positions, each as good as a third of an independent one: a standard deviation
    # of the share below 1.7 %.
    for share in (0.0, 1.0):
        hits = total = 0
        for person in Simulator(16, 3, 3, ios_share=share):
            track = person.track()
            off_m = errors_m(person)
            hits, total = hits + sum(off_m <= track["accuracy"]), total + len(track)
        assert total > 2_000
        assert abs(hits / total - 0.68) < 0.05


def test_errors_of_positions_are_alike_when_they_follow_each_other() -> None:
    # Two thirds of the variance drift, and keep half of themselves after 30 s: a correlation of about 0.45.
    pairs = []
    for person in Simulator(12, 2, 3, ios_share=0):
        track = person.track()
        track = track[track["filtered"]]
        error = (track["latitude"] - track["true_latitude"]) / track["accuracy"]
        near = track["ts"].diff() < 35
        pairs += list(zip(error[near], error.shift(1)[near], strict=True))
    xs, ys = zip(*pairs, strict=True)
    n, mx, my = len(xs), sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mx) * (y - my) for x, y in pairs) / n
    deviation = (sum((x - mx) ** 2 for x in xs) / n) ** 0.5 * (sum((y - my) ** 2 for y in ys) / n) ** 0.5
    assert 0.3 < covariance / deviation < 0.65


def test_noise_scales_all_errors_and_none_of_it_leaves_the_truth() -> None:
    people = [Simulator(1, 3, 3, noise=noise).person(0) for noise in (0.0, 2.0)]
    exact, noisy = (person.track() for person in people)
    assert np.quantile(errors_m(people[0]), 0.99) < 0.3  # an accuracy of 0.1 m is the least
    assert noisy["accuracy"].median() > 8
    assert exact[["true_longitude", "true_latitude"]].equals(noisy[["true_longitude", "true_latitude"]])


def test_the_true_distance_is_found_again_in_the_noisy_points() -> None:
    true_m = found_m = 0.0
    for person in Simulator(16, 2, 5):
        points = by_key(person)[FILTERED]
        for trip in person.trips:
            found_m += path_length_m(lonlat(e) for e in around(points, trip))
            true_m += trip.distance_m
    assert -0.08 < found_m / true_m - 1 < 0.03


@pytest.mark.parametrize("period_s", [10.0, 30.0])
def test_the_period_sets_the_volume_of_data(period_s: float) -> None:
    for share in (0.0, 1.0):
        points = sum(len(p.track()) for p in Simulator(4, 3, 5, ios_share=share, period_s=30))
        more = sum(len(p.track()) for p in Simulator(4, 3, 5, ios_share=share, period_s=period_s))
        assert more / points == pytest.approx(30 / period_s, rel=0.25)


def test_phones_restart_now_and_then_at_night_and_count_time_anew() -> None:
    restarts = 0
    for person in Simulator(8, 28, 5, ios_share=0):
        boot_ts = None
        for data in (cast("dict[str, Any]", raw["data"]) for raw in person.raw_entries()):
            if data.get("transition") == "booted":
                boot_ts, restarts = data["ts"], restarts + 1
                assert datetime.fromtimestamp(boot_ts, ZoneInfo("America/Los_Angeles")).hour == 4
            if "elapsedRealtimeNanos" in data and boot_ts:
                assert data["elapsedRealtimeNanos"] / 1e9 == pytest.approx(data["ts"] - boot_ts, abs=1e-3)
    assert 1 <= restarts <= 17  # of 216 nights, 3 in 100: 6.5 expected, 2.5 is a standard deviation


@pytest.mark.parametrize(
    ("timezone", "start", "offsets"),
    [
        ("America/Los_Angeles", "2026-03-07", {"-08:00", "-07:00"}),
        ("America/Los_Angeles", "2026-10-31", {"-07:00", "-08:00"}),
        ("Europe/Berlin", "2026-03-28", {"+01:00", "+02:00"}),
        ("Australia/Lord_Howe", "2026-04-04", {"+11:00", "+10:30"}),
        ("Asia/Kathmandu", "2026-03-07", {"+05:45"}),
    ],
)
def test_local_time_is_right_on_both_sides_of_a_clock_change(timezone: str, start: str, offsets: set[str]) -> None:
    found = set()
    for e in through_json(Simulator(1, 2, 4, start=start, timezone=timezone).person(0)):
        assert e["metadata"]["time_zone"] == timezone
        for fields, prefix in ((e["data"], ""), (e["metadata"], "write_")):
            local = datetime.fromisoformat(fields[f"{prefix}fmt_time"])
            assert local.timestamp() == fields[f"{prefix}ts"]
            wall = local.replace(tzinfo=None)
            assert wall == datetime.fromtimestamp(fields[f"{prefix}ts"], ZoneInfo(timezone)).replace(tzinfo=None)
            parts = {"year": wall.year, "month": wall.month, "day": wall.day, "weekday": wall.isoweekday() - 1}
            parts |= {"hour": wall.hour, "minute": wall.minute, "second": wall.second}
            assert fields[f"{prefix}local_dt"] == {**parts, "timezone": timezone}
            found.add(fields[f"{prefix}fmt_time"][-6:])
    assert found == offsets


@pytest.mark.parametrize("start", ["2026-03-06", "2026-10-30"])
def test_people_keep_their_wall_clock_hours_when_the_clocks_change(start: str) -> None:
    # The same person by a clock that never changes: winter time of Los Angeles all year.
    moving, fixed = (Simulator(1, 5, 2, start=start, timezone=zone) for zone in ("America/Los_Angeles", "Etc/GMT+8"))
    apart = Counter[float]()
    for a, b in zip(moving.person(0).trips, fixed.person(0).trips, strict=True):
        wall_a = datetime.fromtimestamp(a.start_ts, ZoneInfo("America/Los_Angeles")).replace(tzinfo=None)
        wall_b = datetime.fromtimestamp(b.start_ts, ZoneInfo("Etc/GMT+8")).replace(tzinfo=None)
        assert abs((wall_a - wall_b).total_seconds()) < 0.01
        apart[round((b.start_ts - a.start_ts) / 3600, 3)] += 1
    assert set(apart) == {0.0, 1.0}


def test_a_day_that_a_country_skipped_has_no_trips_and_breaks_no_rule() -> None:
    # Samoa went from 29 to 31 December 2011.
    person = Simulator(1, 4, 1, start="2011-12-29", timezone="Pacific/Apia", center=(-171.8, -13.8)).person(0)
    days = {datetime.fromtimestamp(t.start_ts, ZoneInfo("Pacific/Apia")).day for t in person.trips}
    assert 29 in days
    assert 30 not in days
    for a, b in itertools.pairwise(person.trips):
        assert b.start_ts >= a.end_ts + 1199
    for entries in by_key(person).values():
        assert rises(times(entries))
