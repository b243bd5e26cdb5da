"""What each query answers to data that is known."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from emlab.queries.count_trips import CountTrips
from emlab.queries.heatmap import Heatmap
from emlab.queries.in_range import InRange
from emlab.queries.mean_distance import MeanDistance
from emlab.queries.mean_duration import MeanDuration
from emlab.queries.origin_destination import OriginDestination
from emlab.queries.quantile import Quantile
from emlab.queries.sum_duration import SumDuration
from emlab.queries.sum_trip_distance import SumTripDistance
from emlab.queries.testing import Made
from emlab.queries.trip_histogram import TripHistogram
from emlab.query import Query, Region, Section
from tests.unit.queries.examples import EVER, ZONES, trip

DAY = Made(
    [
        trip(0, distance_m=1_000.4, duration_s=600, mode="CAR", hour=7),
        trip(1, distance_m=500.0, duration_s=300, mode="WALKING", hour=8),
        trip(2, distance_m=9_000.3, duration_s=900, mode="CAR", hour=8),
        trip(3, distance_m=20_000, duration_s=1_800, mode="TRAIN", hour=None),
    ]
)


class Mixed(Made):
    """One trip, mostly by train, with a walk before it."""

    def __init__(self) -> None:
        super().__init__([trip(distance_m=10_100.0, duration_s=1_500, mode="TRAIN")])

    def sections(self, *, start_ts: float, end_ts: float):  # type: ignore[no-untyped-def]
        walk = trip(distance_m=100.0, duration_s=300, mode="WALKING")
        train = trip(distance_m=10_000.0, duration_s=1_200, mode="TRAIN")
        return iter([Section(*walk), Section(*train)])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (CountTrips(*EVER, 100), [4]),
        (CountTrips(*EVER, 3), [3]),
        (CountTrips(*EVER, 100, mode="CAR"), [2]),
        (SumTripDistance(*EVER, 1_000_000), [30_501]),  # 30500.7 together, though each alone would round down
        (SumTripDistance(*EVER, 5_000), [5_000]),
        (SumDuration(*EVER, 1_000_000), [3_600]),
        (MeanDistance(*EVER, 10, 5_000), [1_000 + 500 + 5_000 + 5_000, 4]),
        (MeanDistance(*EVER, 2, 5_000), [1_500, 2]),
        (MeanDistance(*EVER, 10, 50_000, mode="CAR"), [10_001, 2]),
        (MeanDuration(*EVER, 10, 1_000), [600 + 300 + 900 + 1_000, 4]),
        (TripHistogram("mode", *EVER, 10), [0, 1, 0, 0, 1, 2, 0, 0, 0, 0]),
        (TripHistogram("mode", *EVER, 2), [0, 1, 0, 0, 0, 1, 0, 0, 0, 0]),
        (TripHistogram("hour", *EVER, 10), [0] * 7 + [1, 2] + [0] * 15),
        (TripHistogram("distance", *EVER, 10, edges_m=(500, 1_000, 9_000)), [1, 1]),
        (TripHistogram("distance", *EVER, 1, edges_m=(5_000, 10_000)), [1]),  # the first that falls in a bin
        (Quantile(0.5, "people", *EVER, (0, 10_000, 40_000)), [0, 1]),
        (Quantile(0.5, "people", *EVER, (0, 10_000, 20_000), mode="CAR"), [0, 1]),
        (Quantile(0.5, "people", *EVER, (0, 10, 20)), [0, 1]),  # above the last edge
        (Quantile(0.5, "trips", *EVER, (1_000, 2_000, 3_000), per_person=3), [2, 1]),
    ],
    ids=str,
)
def test_a_day_is_answered_as_counted_by_hand(query: Query, expected: list[int]) -> None:
    assert list(query.contribution(DAY)) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (SumTripDistance(*EVER, 1_000_000), [10_100]),
        (SumTripDistance(*EVER, 1_000_000, mode="WALKING"), [100]),
        (SumDuration(*EVER, 1_000_000, mode="TRAIN"), [1_200]),
        (CountTrips(*EVER, 10, mode="WALKING"), [0]),
        (CountTrips(*EVER, 10, mode="TRAIN"), [1]),
        (Quantile(0.5, "people", *EVER, (0, 1_000, 20_000), mode="WALKING"), [1, 0]),
        (Quantile(0.5, "trips", *EVER, (0, 1_000, 20_000), mode="WALKING"), [0, 0]),
    ],
    ids=str,
)
def test_sums_by_mode_are_of_sections_and_counts_by_mode_of_main_modes(query: Query, expected: list[int]) -> None:
    assert list(query.contribution(Mixed())) == expected


def test_a_person_without_trips_travelled_nothing() -> None:
    assert Quantile(0.5, "people", *EVER, (0, 10, 20)).contribution(Made()) == [1, 0]
    assert Quantile(0.5, "trips", *EVER, (0, 10, 20)).contribution(Made()) == [0, 0]


def test_trips_join_the_pair_of_zones_that_they_connect() -> None:
    query = OriginDestination(ZONES, *EVER, 3)  # type: ignore[arg-type]
    west, east, out = (-0.5, 0.0), (0.5, 0.0), (5.0, 5.0)
    ends = [(west, out), (west, east), (out, out), (east, west), (east, east), (west, west)]
    data = Made([trip(n, start=start, end=end) for n, (start, end) in enumerate(ends)])
    assert query.parts[0].labels == ("west > west", "west > east", "east > west", "east > east")
    assert query.contribution(data) == [0, 1, 1, 1]  # the fourth one within is too many
    assert query.matrix([0, 1, 1, 1]) == [[0, 1], [1, 1]]


def test_where_zones_overlap_the_first_counts_and_on_a_border_the_eastern() -> None:
    around = {"middle": Region.box(-0.1, -0.1, 0.1, 0.1), **ZONES}
    query = OriginDestination(around, *EVER, 9)  # type: ignore[arg-type]
    assert query.matrix(query.contribution(Made([trip(start=(0.05, 0.0), end=(0.0, 0.5))]))) == [
        [0, 0, 1],
        [0] * 3,
        [0] * 3,
    ]


def test_zones_are_the_same_as_a_mapping_of_geojson_and_off_the_wire() -> None:
    shapes: Mapping[str, object] = {name: region.geojson() for name, region in ZONES.items()}
    assert OriginDestination(shapes, *EVER, 3) == OriginDestination(ZONES, *EVER, 3)  # type: ignore[arg-type]


def test_a_person_counts_once_in_each_cell_and_in_the_ones_where_it_was_most() -> None:
    cells = {(-0.5, -0.5): 1, (0.5, -0.5): 5, (0.5, 0.5): 3, (1.0, 0.0): 50, (0.0, 1.0): 50, (-1.5, 0.0): 50}
    track = [(0.0, *place) for place, times in cells.items() for _ in range(times)]
    for per_person, expected in ((1, [0, 1, 0, 0]), (2, [0, 1, 0, 1]), (9, [1, 1, 0, 1])):
        query = Heatmap(-1, -1, 1, 1, 2, 2, *EVER, per_person)
        assert query.contribution(Made(track=track)) == expected
    assert query.matrix(expected) == [[1, 1], [0, 1]]
    assert query.parts[0].labels == ("-0.50000, -0.50000", "-0.50000, 0.50000", "0.50000, -0.50000", "0.50000, 0.50000")


def test_a_grid_names_its_smallest_cell() -> None:
    assert Heatmap(0, 40, 2, 60, 2, 2, *EVER, 1).regions == (Region.box(0, 50, 1, 60),)
    assert Heatmap(0, -60, 2, 40, 2, 2, *EVER, 1).regions == (Region.box(0, -60, 1, -10),)


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((15, 25), "yes"),
        ((16, 24), "yes"),
        ((14, 25), "unsure"),
        ((20, 26), "unsure"),
        ((0, 99), "unsure"),
        ((25, 30), "unsure"),
        ((26, 30), "no"),
        ((0, 14), "no"),
        ((20, 20), "yes"),
        ((14.5, 14.5), "no"),
    ],
)
def test_a_range_check_says_what_its_interval_allows(interval: tuple[float, float], verdict: str) -> None:
    query = InRange(None, *EVER, 15, 25)
    assert query.verdict(*interval) == verdict
    assert query.offset == 5.0


def test_an_interval_that_is_none_has_no_verdict() -> None:
    for bad in ((2.0, 1.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="interval"):
            InRange(None, *EVER, 15, 25).verdict(*bad)


@pytest.mark.parametrize(
    ("query", "sensitivity"),
    [
        (CountTrips(*EVER, 7), [7]),
        (InRange(None, *EVER, 1, 2), [1]),
        (MeanDistance(*EVER, 7, 100), [700, 7]),
        (TripHistogram("hour", *EVER, 7), [14]),
        (TripHistogram("distance", *EVER, 7, edges_m=(0, 1)), [7]),  # one bin
        (OriginDestination(ZONES, *EVER, 7), [14]),  # type: ignore[arg-type]
        (Heatmap(0, 0, 1, 1, 9, 9, *EVER, 7), [14]),
        (Heatmap(0, 0, 1, 1, 2, 2, *EVER, 7), [4]),  # no more than all cells
        (Quantile(0.5, "people", *EVER, (0, 1, 2)), [2]),
        (Quantile(0.5, "trips", *EVER, (0, 1, 2), per_person=7), [14]),
    ],
    ids=str,
)
def test_sensitivities_are_what_the_pages_say(query: Query, sensitivity: list[int]) -> None:
    assert [part.sensitivity for part in query.parts] == sensitivity
