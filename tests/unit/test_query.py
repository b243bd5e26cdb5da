from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import BadQuery
from emlab.queries.count_users import CountUsers
from emlab.queries.known import AnyQuery
from emlab.queries.sum_distance import SumDistance
from emlab.queries.testing import Made
from emlab.query import Query, Region, clamp

BERKELEY = Region.box(-122.30, 37.84, -122.23, 37.90)


def straight(length_m: float) -> Made:
    """One straight track along the equator, of so many metres."""
    length_deg = length_m / 111_195
    return Made(track=[(float(i), length_deg * i / 100, 0.0) for i in range(101)])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 2e12, True, "0", None])
@pytest.mark.parametrize("where", ["start_ts", "end_ts"])
def test_times_out_of_bounds_are_refused(where: str, bad: object) -> None:
    times = {"start_ts": 0.0, "end_ts": 2e9, where: bad}
    with pytest.raises(BadQuery, match=where):
        CountUsers(None, **times)  # type: ignore[arg-type]


def test_an_end_before_its_start_is_refused() -> None:
    with pytest.raises(BadQuery, match="before"):
        CountUsers(None, 2.0, 1.0)


@pytest.mark.parametrize("cap", [0, -5, float("nan"), float("inf"), 1e9, 10.5, True, "7"])
def test_caps_out_of_bounds_are_refused(cap: object) -> None:
    with pytest.raises(BadQuery, match="cap_m"):
        SumDistance(0.0, 1.0, cap)  # type: ignore[arg-type]


def test_whole_numbers_in_another_form_are_the_same_query() -> None:
    assert SumDistance(0, 1, 5_000.0) == SumDistance(0.0, 1.0, 5_000)  # type: ignore[arg-type]
    assert msgspec.json.encode(CountUsers(None, 0, 1)) == msgspec.json.encode(CountUsers(None, 0.0, 1.0))


@given(length_m=st.floats(0, 200_000), cap_m=st.integers(1, 100_000))
def test_one_person_never_contributes_more_than_the_sensitivity(length_m: float, cap_m: int) -> None:
    query = SumDistance(0.0, 1e9, cap_m)
    assert 0 <= query.contribution(straight(length_m))[0] <= query.sensitivity == cap_m


def test_a_distance_under_the_cap_is_counted_to_the_metre() -> None:
    assert SumDistance(0.0, 1e9, 100_000).contribution(straight(20_000))[0] == pytest.approx(20_000, abs=60)


@pytest.mark.parametrize("length_m", [float("nan"), float("inf"), -5e9])
def test_bad_data_still_contributes_within_the_clamp(length_m: float) -> None:
    assert 0 <= SumDistance(0.0, 1e9, 100).contribution(straight(length_m))[0] <= 100


@given(st.integers(-(10**12), 10**12))
def test_clamping_stays_within_the_sensitivity(value: int) -> None:
    assert clamp(CountUsers(None, 0, 1), [value]) in ((0,), (1,))


@pytest.mark.parametrize(
    "shape",
    [
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
        {"geometry": {"type": "MultiPolygon", "coordinates": [[[[0, 0], [1, 0], [1, 1], [0, 0]]]]}},
    ],
)
def test_a_region_comes_from_geojson_and_from_emission_s_wrapping_of_it(shape: dict[str, object]) -> None:
    query = CountUsers(shape, 0.0, 1.0)  # type: ignore[arg-type]
    assert query.region == Region(((((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 0.0)),),))


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"type": "Point", "coordinates": [0, 0]},
        {"type": "Polygon"},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 91], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, "x"], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[-100, 0], [100, 0], [1, 1], [-100, 0]]]},
        {"type": "Polygon", "coordinates": [[[i / 1000, 0] for i in range(1001)] + [[0, 0]]]},
    ],
)
def test_a_region_that_is_none_is_refused(shape: dict[str, object]) -> None:
    with pytest.raises(BadQuery):
        Region.from_geojson(shape)


def test_a_region_of_whole_degrees_is_the_same_off_the_wire() -> None:
    query = CountUsers(Region.box(-1, -1, 1, 1), 0, 1)
    encoded = msgspec.json.encode(query)
    assert b"-1.0" in encoded
    assert msgspec.json.encode(msgspec.json.decode(encoded, type=AnyQuery)) == encoded


def test_numbers_of_numpy_are_numbers() -> None:
    """As of a GeoDataFrame's total_bounds, or of a column."""
    west, south, east, north = np.array([-1.0, -1.0, 1.0, 1.0])
    box = Region.box(west, south, east, north)
    assert (
        box
        == Region.box(-1, -1, 1, 1)
        == Region.from_geojson({"type": "Polygon", "coordinates": [list(box.polygons[0][0])]})
    )
    assert Region.from_geojson(
        {"type": "Polygon", "coordinates": [[(west, south), (east, south), (east, north), (west, south)]]}
    )
    numbers: Any = (np.int64(0), np.float32(1), np.int64(7))
    query = SumDistance(*numbers)
    assert query == SumDistance(0, 1, 7)
    assert msgspec.json.encode(query) == msgspec.json.encode(SumDistance(0, 1, 7))
    wrong: list[Any] = [np.bool_(True), True, "1"]
    for bad in wrong:
        with pytest.raises(BadQuery):
            SumDistance(bad, 1, 7)
        with pytest.raises(BadQuery):
            Region(((((bad, 0.0), (1.0, 0.0), (1.0, 1.0), (bad, 0.0)),),))


@pytest.mark.parametrize("bad", ["x", None, ((((0, 0), (1, "x"), (1, 1), (0, 0)),),), ((((0, 0, 0),) * 4,),), 7])
def test_a_region_made_of_something_else_is_refused(bad: object) -> None:
    with pytest.raises(BadQuery, match="rings"):
        Region(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("query", [CountUsers(BERKELEY, 1.0, 2.0), CountUsers(None, 0, 1), SumDistance(0, 1, 7)])
def test_a_query_survives_the_wire(query: Query) -> None:
    assert msgspec.json.decode(msgspec.json.encode(query), type=AnyQuery) == query


@pytest.mark.parametrize(
    "raw",
    [
        b'{"kind":"count_users","region":null,"start_ts":0,"end_ts":1,"where":"x"}',
        b'{"kind":"count_users","region":null,"start_ts":-1,"end_ts":1}',
        b'{"kind":"sum_everything"}',
        b'{"kind":"sum_distance","start_ts":0,"end_ts":1,"cap_m":0}',
    ],
)
def test_a_malformed_query_does_not_come_off_the_wire(raw: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(raw, type=AnyQuery)
