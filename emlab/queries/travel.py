"""What the queries about trips have in common: which trips count, and amounts brought within bounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import TypeVar

import msgspec

from emlab.entries.codes import Mode
from emlab.errors import BadQuery
from emlab.query import Move, Query, Reading, Trip, check_times, check_whole

MAX_PER_PERSON = 1000
MAX_TRIPS = 100_000
MAX_BINS = 256
MAX_EDGE_M = 1_000_000_000
M = TypeVar("M", bound=Move)


def check_mode(query: Query) -> None:
    """The query's `mode` is the name of a Mode, or None. Raises BadQuery."""
    mode = query.mode  # type: ignore[attr-defined]
    if mode is not None and not (isinstance(mode, str) and mode in Mode.__members__):
        raise BadQuery(f"mode is None or one of {', '.join(Mode.__members__)}, not {str(mode)[:40]!r}")


def check_counted(query: Query) -> None:
    """The query's times, `mode` and `per_person` are in their bounds. Raises BadQuery."""
    check_times(query)
    check_mode(query)
    check_whole(query, "per_person", 1, MAX_PER_PERSON, "a whole number of trips")


def check_edges(query: Query, name: str) -> None:
    """The query's field of this name has 2 or more whole metres, ascending: the edges of bins. Raises BadQuery."""
    edges = getattr(query, name)
    if isinstance(edges, (str, bytes)) or not isinstance(edges, Sequence) or not 2 <= len(edges) <= MAX_BINS + 1:
        raise BadQuery(f"{name} has the edges of 1 to {MAX_BINS} bins, which are 2 to {MAX_BINS + 1} whole metres")
    whole = tuple(_whole_metres(edge, name) for edge in edges)
    if any(low >= high for low, high in pairwise(whole)):
        raise BadQuery(f"the edges in {name} ascend; those given do not")
    msgspec.structs.force_setattr(query, name, whole)


def _whole_metres(value: object, name: str) -> int:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 <= value <= MAX_EDGE_M and value == int(value)):  # type: ignore[operator, call-overload]
        raise BadQuery(f"each edge in {name} is a whole number of metres within 0..{MAX_EDGE_M}, not {value!r}")
    return int(value)  # type: ignore[call-overload, no-any-return]


def check_one_of(query: Query, name: str, choices: Sequence[str]) -> None:
    """The query's field of this name is one of these words. Raises BadQuery."""
    value = getattr(query, name)
    if not isinstance(value, str) or value not in choices:
        raise BadQuery(f"{name} is one of {', '.join(choices)}, not {str(value)[:40]!r}")


def trips_of(query: Query, data: Reading) -> Iterator[Trip]:
    """The trips that start in the query's interval, those of its `mode` alone if it has one, by start."""
    return _of_mode(query, data.trips(start_ts=query.start_ts, end_ts=query.end_ts))  # type: ignore[attr-defined]


def moving(query: Query, data: Reading) -> Iterator[Move]:
    """Trips of any mode; or, if the query has a `mode`, the sections that were travelled in it."""
    if query.mode is None:  # type: ignore[attr-defined]
        return trips_of(query, data)
    return _of_mode(query, data.sections(start_ts=query.start_ts, end_ts=query.end_ts))  # type: ignore[attr-defined]


def _of_mode(query: Query, found: Iterable[M]) -> Iterator[M]:
    mode = query.mode  # type: ignore[attr-defined]
    return (one for one in found if mode is None or one.mode == mode)


def earliest(query: Query, data: Reading) -> Iterator[Trip]:
    """The first `per_person` of `trips_of`."""
    return islice(trips_of(query, data), query.per_person)  # type: ignore[attr-defined]


def limited(value: float, cap: int) -> float:
    """The value within 0..cap; 0 for what is no finite number."""
    return min(max(value, 0.0), float(cap)) if math.isfinite(value) else 0.0
