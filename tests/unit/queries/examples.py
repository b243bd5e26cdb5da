"""Some queries of each kind, and fields that they refuse; made-up trips."""

from __future__ import annotations

from collections.abc import Mapping

from emlab.queries.count_trips import CountTrips
from emlab.queries.count_users import CountUsers
from emlab.queries.heatmap import Heatmap
from emlab.queries.in_range import InRange
from emlab.queries.mean_distance import MeanDistance
from emlab.queries.mean_duration import MeanDuration
from emlab.queries.origin_destination import OriginDestination
from emlab.queries.quantile import Quantile
from emlab.queries.sum_distance import SumDistance
from emlab.queries.sum_duration import SumDuration
from emlab.queries.sum_trip_distance import SumTripDistance
from emlab.queries.trip_histogram import TripHistogram
from emlab.query import Query, Region, Trip

EVER = (0.0, 2e9)
WEST, EAST = Region.box(-1.0, -1.0, 0.0, 1.0), Region.box(0.0, -1.0, 1.0, 1.0)
ZONES = {"west": WEST, "east": EAST}

EXAMPLES: dict[type[Query], list[Query]] = {
    CountUsers: [CountUsers(WEST, *EVER), CountUsers(None, 5.0, 5.0)],
    InRange: [InRange(WEST, *EVER, 15, 25), InRange(None, *EVER, 0, 1)],
    CountTrips: [CountTrips(*EVER, 10), CountTrips(*EVER, 1, mode="CAR"), CountTrips(*EVER, 100_000)],
    SumDistance: [SumDistance(*EVER, 20_000), SumDistance(0.0, 1.0, 1)],
    SumTripDistance: [SumTripDistance(*EVER, 20_000), SumTripDistance(*EVER, 10_000_000, mode="BUS")],
    SumDuration: [SumDuration(*EVER, 3_600), SumDuration(*EVER, 100_000_000, mode="WALKING")],
    MeanDistance: [
        MeanDistance(*EVER, 20, 50_000),
        MeanDistance(*EVER, 1000, 1_000_000, mode="CAR", shares=(1, 100)),
        MeanDistance(*EVER, 1, 1, shares=(7, 3)),
    ],
    MeanDuration: [MeanDuration(*EVER, 20, 7_200), MeanDuration(*EVER, 3, 60, mode="TRAIN", shares=(1, 1))],
    TripHistogram: [
        TripHistogram("mode", *EVER, 10),
        TripHistogram("hour", *EVER, 3, mode="CAR"),
        TripHistogram("distance", *EVER, 1000, edges_m=(0, 1_000, 5_000, 20_000)),
    ],
    OriginDestination: [
        OriginDestination(ZONES, *EVER, 10),  # type: ignore[arg-type]
        OriginDestination({**ZONES, "both": Region.box(-180, -90, -1, 90)}, *EVER, 1, mode="CAR"),  # type: ignore[arg-type]
    ],
    Heatmap: [Heatmap(-1, -1, 1, 1, 4, 5, *EVER, 3), Heatmap(-179, -90, -9, 90, 1, 1, *EVER, 4096)],
    Quantile: [
        Quantile(0.5, "people", *EVER, (0, 1_000, 10_000, 100_000)),
        Quantile(0.9, "trips", *EVER, (500, 1_000, 10_000), per_person=20, mode="CAR"),
        Quantile(0.001, "people", *EVER, (0, 1), mode="BUS"),
    ],
}

NO_NUMBER: tuple[object, ...] = (float("nan"), float("inf"), -1, True, "7", None, 0.5, 10**12)
NO_MODE: tuple[object, ...] = ("", "car", "HOVERCRAFT", 5, ["CAR"])
NO_EDGES: tuple[object, ...] = (
    *((), (5,), (5, 5), (5, 4), (0, float("nan")), (0, float("inf")), (0, 0.5), (-1, 5), (True, 5), ("0", "5"), "05"),
    *(None, 7, tuple(range(300)), (0, 10**10)),
)
NO_SHARES: tuple[object, ...] = ((1,), (1, 2, 3), (0, 1), (1, 101), (1.5, 1), (True, 1), "11", None, 3)


def fields(name: str, values: tuple[object, ...]) -> list[Mapping[str, object]]:
    """The field with each of these values."""
    return [{name: value} for value in values]


TIMES: list[Mapping[str, object]] = [
    *fields("start_ts", (float("nan"), float("inf"), -1.0, 2e12, True, "0", None)),
    {"start_ts": 5.0, "end_ts": 4.0},
]
COUNTED: list[Mapping[str, object]] = [*TIMES, *fields("mode", NO_MODE), *fields("per_person", (*NO_NUMBER, 0, 1001))]
REGION: list[Mapping[str, object]] = [*TIMES, *fields("region", ("here", {}, {"type": "Point", "coordinates": [0, 0]}))]
REFUSED: dict[type[Query], list[Mapping[str, object]]] = {
    CountUsers: [*REGION],
    InRange: [*REGION, *fields("low", NO_NUMBER), *fields("high", NO_NUMBER), {"low": 25}, {"low": 26}],
    CountTrips: [*TIMES, *fields("mode", NO_MODE), *fields("cap", (*NO_NUMBER, 0, 100_001))],
    SumDistance: [*TIMES, *fields("cap_m", (*NO_NUMBER, 0, 10_000_001))],
    SumTripDistance: [*TIMES, *fields("mode", NO_MODE), *fields("cap_m", (*NO_NUMBER, 0, 10_000_001))],
    SumDuration: [*TIMES, *fields("mode", NO_MODE), *fields("cap_s", (*NO_NUMBER, 0, 100_000_001))],
    MeanDistance: [*COUNTED, *fields("cap_m", (*NO_NUMBER, 0, 1_000_001)), *fields("shares", NO_SHARES)],
    MeanDuration: [*COUNTED, *fields("cap_s", (*NO_NUMBER, 0, 1_000_001)), *fields("shares", NO_SHARES)],
    TripHistogram: [
        *COUNTED,
        *fields("over", ("", "week", None, 3)),
        {"mode": "CAR"},
        {"edges_m": (0, 5)},
        *({"over": "distance", "edges_m": edges} for edges in NO_EDGES),
    ],
    OriginDestination: [
        *COUNTED,
        *fields("zones", (None, "ab", {}, {"west": WEST}, [WEST, EAST], {"a": WEST, "b": None}, {"a": WEST, 7: EAST})),
        *fields("zones", ({"a": WEST, "": EAST}, {"a": WEST, "x" * 65: EAST}, {"a": WEST, "b > c": EAST})),
        *fields("zones", ({"a": WEST, "\n": EAST}, {str(number): WEST for number in range(10_000)})),
    ],
    Heatmap: [
        *TIMES,
        *(field for name in ("rows", "columns", "per_person") for field in fields(name, (*NO_NUMBER, 0, 4097))),
        {"rows": 65, "columns": 64},
        *(
            field
            for name in ("west", "south", "east", "north")
            for field in fields(name, (float("nan"), 181, "0", None))
        ),
        *(
            {"west": 1.0},
            {"south": 1.0},
            {"north": 91.0},
            {"west": -180, "east": 180},
            {"west": 0.9999},
            {"north": -0.9999},
        ),
    ],
    Quantile: [
        *COUNTED,
        *fields("q", (float("nan"), float("inf"), 0, 1, -0.1, True, "0.5", None)),
        *fields("of", ("", "phones", None)),
        *fields("edges_m", NO_EDGES),
        {"per_person": 2},
    ],
}


def trip(
    number: int = 0,
    *,
    distance_m: float = 1_000.0,
    duration_s: float = 600.0,
    mode: str = "CAR",
    start: tuple[float, float] = (-0.5, 0.0),
    end: tuple[float, float] = (0.5, 0.0),
    hour: int | None = 8,
) -> Trip:
    """The trip of that number, an hour after the one before."""
    start_ts = 3600.0 * number
    return Trip(start_ts, start_ts + duration_s, distance_m, duration_s, mode, start, end, hour)
