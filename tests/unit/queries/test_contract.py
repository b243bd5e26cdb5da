"""Every query keeps the contract of queries, whatever the data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.entries.codes import Mode
from emlab.loss import Loss
from emlab.noise import noises
from emlab.queries.known import OURS
from emlab.queries.testing import Made, check_query
from emlab.query import MAX_CELLS, Query, Trip, cells, clamp
from tests.unit.queries.examples import EXAMPLES, REFUSED

ALL = [query for queries in EXAMPLES.values() for query in queries]


def test_there_are_examples_of_each_query() -> None:
    assert set(EXAMPLES) == set(REFUSED) == set(OURS)


@pytest.mark.parametrize("query_class", OURS, ids=lambda one: one.__name__)
def test_each_query_keeps_the_contract(query_class: type[Query]) -> None:
    check_query(query_class, EXAMPLES[query_class], refused=REFUSED[query_class])


NUMBERS = st.floats() | st.floats(0, 1e6) | st.sampled_from([-0.0, 1e300, -1e300, 2.5])
PLACES = st.tuples(NUMBERS, NUMBERS) | st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5))
TRIPS = st.builds(
    Trip,
    start_ts=NUMBERS,
    end_ts=NUMBERS,
    distance_m=NUMBERS,
    duration_s=NUMBERS,
    mode=st.sampled_from([*Mode.__members__, "HOVERCRAFT", ""]),
    start=PLACES,
    end=PLACES,
    start_hour=st.none() | st.integers(0, 23),
)
FIXES = st.tuples(NUMBERS, st.floats(-1.5, 1.5) | NUMBERS, st.floats(-1.5, 1.5) | NUMBERS)


@pytest.mark.parametrize("query", ALL, ids=str)
@given(trips=st.lists(TRIPS, max_size=30), track=st.lists(FIXES, max_size=30))
def test_no_data_moves_an_answer_out_of_its_clamp(
    query: Query, trips: list[Trip], track: list[tuple[float, float, float]]
) -> None:
    found = query.contribution(Made(trips, track))
    assert all(type(one) is int for one in found)
    assert clamp(query, found) == tuple(found)


@pytest.mark.parametrize("query", ALL, ids=str)
def test_each_query_can_be_noised_and_fits_an_answer(query: Query) -> None:
    assert 1 <= cells(query) <= MAX_CELLS
    for loss in (Loss(epsilon_micro=1_000), Loss(rho_nano=1_000)):
        assert len(noises(query, loss)) == len(query.parts)
