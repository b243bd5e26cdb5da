"""Each rule of the method on cases that a person can check: dwelling, flips, jumps, places, resampling."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from emlab.entries.codes import Mode, Motion, State, Transition
from emlab.errors import ConfigError
from emlab.geo import haversine_m
from emlab.intake import cleaning, flipflop, modes, smoothing, sphere, tracks
from emlab.intake.cleaning import Anchor, Leg, Path
from emlab.intake.dwell import Stretch, stretches
from emlab.intake.flipflop import Change
from emlab.intake.sections import parts
from emlab.intake.tracks import Fixes, Motions, Transitions
from tests.unit.intake.walks import (
    LAT,
    LON,
    METRES_PER_DEGREE,
    START,
    Data,
    Row,
    data,
    fix,
    observed,
    rest,
    run,
    sensed,
    way,
)

NOWHERE = Anchor(LON, LAT, 0.0, "UTC", None, 0.0)


def arrays(
    points: list[Data], motions: list[Row] | None = None, moves: list[Row] | None = None
) -> tuple[Fixes, Motions, Transitions]:
    seen, dropped = observed(points, motions or [], moves or []), Counter[str]()
    return (
        tracks.fixes(seen.locations, None, dropped),
        tracks.motions(seen.motions, dropped),
        tracks.transitions(seen.transitions, dropped),
    )


def ios(points: list[Data]) -> list[Data]:
    return [{**point, "filter": "distance", "platform": "ios"} for point in points]


def ends(found: list[Stretch], fixes: Fixes) -> list[tuple[float, float, bool]]:
    return [(fixes.ts[one.start] - START, fixes.ts[one.end] - START, one.settled) for one in found]


@given(*[st.floats(-180, 180), st.floats(-90, 90)] * 2)
def test_distances_are_those_of_emlab_on_e_missions_sphere(lon1: float, lat1: float, lon2: float, lat2: float) -> None:
    expected = haversine_m(lon1, lat1, lon2, lat2) * sphere.RADIUS_M / 6_371_008.8
    assert sphere.distance_m(lon1, lat1, lon2, lat2) == pytest.approx(expected, rel=1e-6, abs=0.2)


def test_headings_go_from_north_to_east() -> None:
    lon, lat = np.array([0.0, 0.0, 1.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0, 0.0, 0.0])
    assert sphere.headings(lon, lat) == pytest.approx([0, 0, 90, 180, -90], abs=0.1)


def test_with_a_time_filter_a_trip_ends_in_the_middle_of_the_points_at_rest() -> None:
    points = [*way(START, 3_000, 10.0), *rest(START + 330, 10, 3_000)]
    fixes, motions, moves = arrays(points, sensed(START, START + 900, Motion.IN_VEHICLE))
    first, last, settled = ends(stretches(fixes, motions, moves), fixes)[0]
    assert (first, settled) == (30, True)
    # the dwelling is seen after five minutes less the fuzz, and its middle is two minutes and a half before
    assert 330 <= last <= 480


def test_who_rests_on_and_on_makes_trips_for_now_that_go_nowhere() -> None:
    points = [*way(START, 3_000, 10.0), *rest(START + 330, 30, 3_000)]
    motions = sensed(START, START + 300, Motion.IN_VEHICLE)
    fixes, known, moves = arrays(points, motions)
    assert [one.settled for one in stretches(fixes, known, moves)] == [True, *[False] * 5]
    outcome = run(observed(points, motions))
    assert len(data(outcome, "segmentation/raw_trip")) == 6
    assert len(data(outcome, "analysis/cleaned_trip")) == 1
    on = [*points, *way(START + 2_130, 3_000, 10.0, 3_000), *rest(START + 2_460, 10, 6_000)]
    fixes, known, moves = arrays(on, [*motions, *sensed(START + 2_140, START + 2_440, Motion.IN_VEHICLE)])
    starts = [first for first, _, settled in ends(stretches(fixes, known, moves), fixes) if settled]
    assert starts == [30, 2_160]


def test_with_a_distance_filter_a_trip_ends_before_the_silence() -> None:
    points = ios([*way(START, 3_000, 10.0), *way(START + 3_600, 3_000, 10.0, 3_000)])
    fixes, motions, moves = arrays(points)
    assert ends(stretches(fixes, motions, moves), fixes) == [(30, 300, True)]


def test_a_stop_of_the_state_machine_ends_the_last_trip_for_now() -> None:
    stopped = (START + 400, int(State.ONGOING_TRIP), int(Transition.STOPPED_MOVING))
    for points in (way(START, 3_000, 10.0), ios(way(START, 3_000, 10.0))):
        fixes, motions, moves = arrays(points, [], [stopped])
        assert [one.settled for one in stretches(fixes, motions, moves)] == [False]
        assert stretches(*arrays(points)) == []


@pytest.mark.parametrize("step_s", [1, 5, 30])
def test_a_last_trip_ends_in_the_middle_of_its_last_five_minutes_however_often_points_are_noted(step_s: int) -> None:
    points = [fix(START + ts, 12.0 * ts) for ts in range(0, 901, step_s)]
    stopped = (START + 1_300, int(State.ONGOING_TRIP), int(Transition.STOPPED_MOVING))
    fixes, motions, moves = arrays(points, [], [stopped])
    assert ends(stretches(fixes, motions, moves), fixes) == [(0, 750, False)]


def test_a_gap_ends_a_trip_unless_somebody_moves_in_it() -> None:
    points = [*way(START, 3_000, 10.0), *way(START + 1_500, 3_000, 10.0, 15_000)]
    fixes, motions, moves = arrays(points)
    assert len(stretches(fixes, motions, moves)) == 1
    fixes, motions, moves = arrays(points, [(START + 700, int(Motion.IN_VEHICLE), 100.0)])
    assert stretches(fixes, motions, moves) == []


def test_a_reboot_ends_a_trip_at_once() -> None:
    boot = (START + 160, int(State.TRACKING_STOPPED), int(Transition.BOOTED))
    fixes, motions, moves = arrays(way(START, 3_000, 10.0), [], [boot])
    ((_, last, settled),) = ends(stretches(fixes, motions, moves), fixes)
    assert last < 160
    assert settled


def test_near_points_soon_after_a_trip_still_belong_to_it() -> None:
    points = [*way(START, 3_000, 10.0), *rest(START + 330, 30, 3_000), *way(START + 2_160, 3_000, 10.0, 3_000)]
    stopped = (START + 9_000, int(State.ONGOING_TRIP), int(Transition.STOPPED_MOVING))
    fixes, motions, moves = arrays(points, sensed(START, START + 3_000, Motion.IN_VEHICLE), [stopped])
    starts = [first for first, _, _ in ends(stretches(fixes, motions, moves), fixes)]
    assert starts == [30, 2_190]


def walk_then_ride() -> tuple[list[Data], list[Row]]:
    points = [*way(START, 840, 1.4), *way(START + 600, 6_000, 10.0, 840)]
    return points, [
        *sensed(START + 10, START + 580, Motion.WALKING),
        *sensed(START + 610, START + 1_190, Motion.IN_VEHICLE),
    ]


def test_a_change_of_motion_makes_two_sections() -> None:
    fixes, motions, moves = arrays(*walk_then_ride())
    found = parts(fixes, motions, moves, by_distance=False, from_place_m=9_999)
    assert [part.kind for part in found] == [Motion.WALKING, Motion.IN_VEHICLE]
    assert found[0].start == 0
    assert found[-1].end == len(fixes) - 1


@pytest.mark.parametrize("confidence", [30.0, 60.0])
def test_what_the_phone_is_not_sure_of_says_nothing(confidence: float) -> None:
    points, motions = walk_then_ride()
    unsure = [(ts, kind, confidence) for ts, kind, _ in motions]
    for away, expected in ((9_999, [Motion.UNKNOWN]), (50, [])):
        fixes, known, moves = arrays(points, unsure)
        found = parts(fixes, known, moves, by_distance=False, from_place_m=away)
        assert [part.kind for part in found] == expected


def test_one_wrong_sample_in_a_ride_is_a_flip() -> None:
    points = way(START, 12_000, 10.0)
    motions = [
        *sensed(START + 10, START + 580, Motion.IN_VEHICLE),
        (START + 600, 1, 90.0),
        *sensed(START + 620, START + 1_190, Motion.IN_VEHICLE),
    ]
    fixes, known, moves = arrays(points, motions)
    assert [part.kind for part in parts(fixes, known, moves, by_distance=False, from_place_m=9_999)] == [0]


def test_a_run_is_a_walk() -> None:
    points = way(START, 1_800, 3.0)
    fixes, known, moves = arrays(points, sensed(START + 10, START + 590, Motion.RUNNING))
    assert [part.kind for part in parts(fixes, known, moves, by_distance=False, from_place_m=999)] == [Motion.WALKING]


def test_without_motions_an_ios_trip_needs_the_state_machine() -> None:
    points = ios(way(START, 3_000, 10.0))
    ended = (START + 500, int(State.ONGOING_TRIP), int(Transition.VISIT_ENDED))
    fixes, known, moves = arrays(points, [], [ended])
    assert len(parts(fixes, known, moves, by_distance=True, from_place_m=0.0)) == 1
    fixes, known, moves = arrays(points)
    assert parts(fixes, known, moves, by_distance=True, from_place_m=9_999) == []


changes_of = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 7]), st.integers(1, 6), st.floats(1, 400)), min_size=1, max_size=9
)


@given(changes_of)
def test_merging_flips_keeps_order_and_span_and_leaves_no_equal_neighbours(drawn: list[tuple[int, int, float]]) -> None:
    changes, ts, number = [], START, 0
    for kind, samples, lasting in drawn:
        changes.append(Change(ts, ts + lasting, number, number + samples, kind, kind))
        ts, number = ts + lasting, number + samples
    fixes, _, _ = arrays(way(START - 30, 3 * (ts - START) + 200, 3.0))
    found = flipflop.merged(changes, fixes, by_distance=False)
    assert found
    assert all(a.kind != b.kind for a, b in itertools.pairwise(found))
    assert all(a.start_ts <= b.start_ts and a.end_ts <= b.end_ts for a, b in itertools.pairwise(found))
    assert found[0].start_ts >= START
    assert found[-1].end_ts <= ts


def test_a_jump_and_back_is_false() -> None:
    points = way(START, 1_260, 1.4)
    points[10] = {**points[10], "longitude": LON + 1_500 / METRES_PER_DEGREE}
    fixes, _, _ = arrays(points)
    false = smoothing.jumps(fixes, by_distance=False)
    assert false is not None
    assert np.flatnonzero(false).tolist() == [10]


@given(
    st.lists(
        st.tuples(st.integers(0, 4_000), st.floats(-3_000, 3_000), st.floats(-3_000, 3_000)), min_size=1, max_size=30
    )
)
def test_not_all_points_of_a_section_are_false_unless_that_is_known(rows: list[tuple[int, float, float]]) -> None:
    for kind in (list, ios):
        fixes, _, _ = arrays(kind([fix(START + ts, north, east) for ts, north, east in sorted(rows)]))
        false = smoothing.jumps(fixes, by_distance=kind is ios)
        assert false is None or (len(false) == len(fixes) and not false.all())
        again = smoothing.jumps(fixes, by_distance=kind is ios)
        assert (false is None) == (again is None)
        assert false is None or again is None or (false == again).all()


def path(ts: list[float], north_m: list[float]) -> Path:
    lat = np.array([LAT + m / METRES_PER_DEGREE for m in north_m])
    zone = np.full(len(ts), "UTC", dtype=object)
    return Path(np.array(ts), np.full(len(ts), LON), lat, np.zeros(len(ts)), zone)


def test_a_path_has_a_point_every_thirty_seconds_and_its_ends() -> None:
    fine = cleaning.resampled(path([0.0, 40.0, 100.0], [0.0, 40.0, 100.0]))
    assert fine.ts.tolist() == [0, 30, 60, 90, 100]
    assert ((fine.lat - LAT) * METRES_PER_DEGREE).tolist() == pytest.approx([0, 30, 60, 90, 100])


@given(st.lists(st.floats(0, 5_000), min_size=2, max_size=40, unique=True), st.data())
def test_resampling_never_makes_a_path_longer(ts: list[float], drawn: st.DataObject) -> None:
    steps = drawn.draw(st.lists(st.floats(-500, 500), min_size=len(ts), max_size=len(ts)))
    coarse = path(sorted(ts), steps)
    fine = cleaning.resampled(coarse)
    lengths = [sphere.hops_m(one.lon, one.lat).sum() for one in (fine, coarse)]
    assert lengths[0] <= lengths[1] + 1e-3


def test_no_clock_fills_the_memory() -> None:
    fine = cleaning.resampled(path([0.0, 9e10], [0.0, 100.0]))
    assert len(fine) == cleaning.MOST_STEPS + 1


def leg_of(points: list[Data], kind: Motion = Motion.WALKING, start: Anchor | None = None) -> Leg:
    fixes, _, _ = arrays(points)
    return cleaning.leg(fixes, int(kind), by_distance=False, start=start, end=None)


def test_a_trip_is_dated_back_to_its_place_at_its_usual_speed() -> None:
    place = Anchor(LON, LAT, 0.0, "UTC", START - 9_000, 9_000.0)
    leg = leg_of(way(START, 840, 1.4), start=place)
    assert leg.start == (LON, LAT)
    assert leg.start_ts == pytest.approx(START, abs=1)
    assert leg.distance_m == pytest.approx(840, rel=0.01)


def test_nobody_leaves_a_place_before_arriving_there() -> None:
    place = Anchor(LON, LAT - 0.02, 0.0, "UTC", START - 100, 100.0)
    assert leg_of(way(START, 840, 1.4), start=place).start_ts == START - 50


def test_who_hardly_moved_is_not_dated_back_for_years() -> None:
    nowhere = Anchor(LON, LAT - 0.02, 0.0, "UTC", None, 0.0)
    assert leg_of(way(START, 3, 0.0005), start=nowhere).start_ts >= START - 13 * 3600


def test_a_way_from_the_place_that_was_too_fast_makes_the_motion_unknown() -> None:
    place = Anchor(LON, LAT - 0.5, 0.0, "UTC", START - 60, 90.0)
    assert leg_of(way(START, 840, 1.4), start=place).kind == Motion.AIR_OR_HSR
    near = Anchor(LON, LAT - 0.01, 0.0, "UTC", START - 60, 90.0)
    assert leg_of(way(START, 840, 1.4), start=near).located == Motion.UNKNOWN


def test_a_section_of_false_points_stays_at_its_start() -> None:
    empty = cleaning._empty(arrays([fix(START)])[0], 7, np.array([True]))
    assert (empty.distance_m, empty.duration_s, len(empty.path)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "speed", "expected"),
    [
        (Motion.WALKING, 1.4, Mode.WALKING),
        (Motion.ON_FOOT, 1.4, Mode.WALKING),
        (Motion.WALKING, 4.0, Mode.BICYCLING),
        (Motion.BICYCLING, 1.4, Mode.WALKING),
        (Motion.BICYCLING, 5.0, Mode.BICYCLING),
        (Motion.IN_VEHICLE, 12.0, Mode.CAR),
        (Motion.UNKNOWN, 1.4, Mode.WALKING),
        (Motion.UNKNOWN, 12.0, Mode.UNKNOWN),
        (Motion.IN_VEHICLE, 60.0, Mode.AIR_OR_HSR),
    ],
)
def test_motion_and_speed_tell_the_mode(kind: Motion, speed: float, expected: Mode) -> None:
    assert modes.inferred(leg_of(way(START, 900 * speed, speed), kind), None) == expected


def line(route: str, *north_m: float) -> dict[str, object]:
    stops = [[LON, LAT + m / METRES_PER_DEGREE] for m in north_m]
    return {"type": "Feature", "properties": {"route": route}, "geometry": {"type": "LineString", "coordinates": stops}}


def collection(*features: dict[str, object]) -> dict[str, object]:
    return {"type": "FeatureCollection", "features": list(features)}


@pytest.mark.parametrize(
    ("features", "speed", "expected"),
    [
        ([line("bus", 0, 9_000)], 10.0, Mode.BUS),
        ([line("subway", 0, 9_000)], 10.0, Mode.SUBWAY),
        ([line("bus", 0, 9_000), line("tram", 0, 9_000)], 5.0, Mode.BUS),
        ([line("bus", 0, 9_000), line("rail", 0, 9_000)], 10.0, Mode.TRAIN),
        ([line("light_rail", 0, 4_000)], 10.0, Mode.CAR),
        ([], 10.0, Mode.CAR),
    ],
)
def test_a_line_that_stops_at_both_ends_tells_what_the_ride_was(
    features: list[dict[str, object]], speed: float, expected: Mode
) -> None:
    ride = leg_of([fix(START), *way(START, 9_000, speed)], Motion.IN_VEHICLE)
    assert modes.inferred(ride, modes.lines(collection(*features))) == expected


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "a GeoJSON FeatureCollection"),
        (collection({"type": "Feature"}), "line 0 needs a property `route`"),
        (collection(line("bus", 0, 1), line("hovercraft", 0, 1)), "line 1 needs a property `route`"),
        (
            collection({**line("bus", 0, 1), "geometry": {"type": "Point", "coordinates": [0, 0]}}),
            "LineString or a MultiPoint",
        ),
        (collection(line("bus", 0)), "two stops or more"),
        (collection(line("bus", 0, math.nan)), "two stops or more"),
    ],
)
def test_lines_that_are_none_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        modes.lines(wrong)


def test_lines_reach_the_sections() -> None:
    points = [fix(START), *way(START, 6_000, 10.0), *rest(START + 630, 6, 6_000)]
    seen = observed(points, sensed(START + 20, START + 590, Motion.IN_VEHICLE))
    train = collection(line("train", 0, 6_000))
    assert [each["sensed_mode"] for each in data(run(seen, lines=train), "analysis/inferred_section")] == [Mode.TRAIN]
    assert [each["sensed_mode"] for each in data(run(seen), "analysis/inferred_section")] == [Mode.CAR]
