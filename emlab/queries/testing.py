"""For the tests of a package with a query of its own: whether it keeps the contract of `emlab.query.Query`.

    def test_my_query_keeps_the_contract() -> None:
        check_query(CountHomes, [CountHomes(0.0, 2e9, radius_m=100)], refused=[{"radius_m": -1}])

Needs nothing but emlab; the same data in every run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Union

import msgspec

from emlab.entries.codes import Mode
from emlab.errors import BadQuery
from emlab.privacy import SENSITIVITY_MAX
from emlab.queries.known import KNOWN, tag, unfit
from emlab.query import MAX_CELLS, Estimate, Part, Query, Region, Section, Trip, cells, clamp

_BAD_FIELDS: tuple[object, ...] = (math.nan, math.inf, -math.inf, -1, True, 10**400, 1e300, 0.5, "x", "", None, [], {})
_NUMBERS = (0.0, -1.0, 0.4, 1.5, 999.5, 1e7, 1e12, 1e300, math.inf, -math.inf, math.nan)


class Made:
    """A Reading of data made up: trips, sections and fixes that are in every interval and region.

    Args:
        trips: also the sections. track: (ts, longitude, latitude).
    """

    def __init__(self, trips: Sequence[Trip] = (), track: Sequence[tuple[float, float, float]] = ()) -> None:
        self._trips = trips
        self._track = track

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is any fix."""
        return bool(self._track)

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[tuple[float, float, float]]:
        """All fixes."""
        return iter(self._track)

    def trips(self, *, start_ts: float, end_ts: float) -> Iterator[Trip]:
        """All trips."""
        return iter(self._trips)

    def sections(self, *, start_ts: float, end_ts: float) -> Iterator[Section]:
        """All trips, as if each had one section."""
        return (Section(*trip) for trip in self._trips)


def hostile(seed: int = 0) -> Iterator[Made]:
    """Data of nobody that a query must survive: none, very much, numbers without sense, everything at one place."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, and no secret
    yield Made()
    for spread in (0.0, 0.01, 1.0, 180.0):
        yield Made(*_life(chance, 3, spread))
        yield Made(*_life(chance, 5000, spread))
    for number in _NUMBERS:
        trip = Trip(number, number, number, number, "CAR", (number, number), (number, 0.0), None)
        yield Made([trip] * 3, [(number, number, number), (0.0, 0.0, number), (number, 0.0, 0.0)])
    yield Made([Trip(1.0, 2.0, 3.0, 4.0, "no such mode", (0.0, 0.0), (0.0, 0.0), 23)], [(1.0, 0.0, 0.0)] * 5000)


def _life(chance: random.Random, n: int, spread: float) -> tuple[list[Trip], list[tuple[float, float, float]]]:
    """So many trips and fixes, in a place that is different in each life."""
    lon, lat = chance.uniform(-179, 179), chance.uniform(-89, 89)

    def place() -> tuple[float, float]:
        return lon + chance.uniform(-spread, spread), lat + chance.uniform(-spread / 2, spread / 2)

    trips = [
        Trip(
            start_ts=600.0 * number,
            end_ts=600.0 * number + 300,
            distance_m=chance.expovariate(1 / 5000),
            duration_s=chance.expovariate(1 / 900),
            mode=chance.choice(list(Mode.__members__)),
            start=place(),
            end=place(),
            start_hour=chance.randrange(24),
        )
        for number in range(n)
    ]
    return trips, [(60.0 * number, *place()) for number in range(n)]


def check_query(
    query_class: type[Query], examples: Iterable[Query], *, refused: Iterable[Mapping[str, object]] = ()
) -> None:
    """Returns if the query keeps its contract as far as these examples show. Raises AssertionError, saying what fails.

    That is: it can be asked, under a tag that no other query has; each example travels as JSON; its parts make sense,
    and no data, whatever is wrong with it, raises, gives something else the second time, or moves the answer by more
    than the parts say; what `summary` gives lies in its interval, and the interval of uncertain cells has what the
    certain ones give; a field that is altered raises BadQuery or gives a query that keeps all this.

    Args:
        examples: some queries of the class, each different in what matters.
        refused: fields for which BadQuery is expected, each put into the first example.
    """
    queries = list(examples)
    _demand(unfit(query_class) is None, f"{query_class.__name__} {unfit(query_class)}")
    _demand(bool(queries), "give an example at least")
    lives = list(hostile())
    for query in queries:
        _demand(type(query) is query_class, f"{query!r} is no {query_class.__name__}")
        _check_value(query, lives)
    for fields in refused:
        _demand(_altered(queries[0], fields) is None, f"{fields} is not refused with BadQuery")
    for query in queries:
        for name in query.__struct_fields__:
            for value in _BAD_FIELDS:
                if (other := _altered(query, {name: value})) is not None:
                    _check_value(other, lives[:2])


def _demand(holds: object, message: str) -> None:
    if not holds:
        raise AssertionError(message)


def _altered(query: Query, fields: Mapping[str, object]) -> Query | None:
    """The query with these fields, None if they are refused."""
    try:
        return msgspec.structs.replace(query, **fields)
    except BadQuery:
        return None


def _check_value(query: Query, lives: Sequence[Made]) -> None:
    _check_travels(query)
    _check_parts(query)
    _check_regions(query)
    answers = [_checked_answer(query, data) for data in lives]
    for first in answers:
        for second in answers:
            _check_neighbours(query, first, second)
    _check_summary(query, answers)


def _check_travels(query: Query) -> None:
    others = [one for one in KNOWN if tag(one) == tag(type(query)) and one is not type(query)]
    _demand(not others, f"the tag {tag(type(query))!r} is that of {others}")
    encoded = msgspec.json.encode(query, order="deterministic")
    union: object = Union[tuple({*KNOWN, type(query)})]  # noqa: UP007 - a union of what is only known now
    try:
        decoded = msgspec.json.decode(encoded, type=union)
    except msgspec.ValidationError as exc:
        raise AssertionError(f"{query!r} does not come off the wire: {exc}") from exc
    _demand(decoded == query, f"{query!r} comes off the wire as {decoded!r}")
    again = msgspec.json.encode(decoded, order="deterministic")
    _demand(again == encoded, f"{query!r} has two forms on the wire: {encoded!r:.200} and {again!r:.200}")


def _check_parts(query: Query) -> None:
    parts = query.parts
    _demand(isinstance(parts, tuple) and all(isinstance(part, Part) for part in parts), "parts is a tuple of Part")
    _demand(1 <= cells(query) <= MAX_CELLS, f"an answer has 1 to {MAX_CELLS} cells")
    _demand(len({part.name for part in parts}) == len(parts), "each part has a name of its own")
    for part in parts:
        _demand(len(set(part.labels)) == len(part.labels), f"each cell of {part.name!r} has a label of its own")
        whole = all(type(one) is int for one in (part.cap, part.total, part.share))
        _demand(whole and part.share >= 1, f"{part.name!r} has a whole cap, total and share, the share above 0")
        _demand(1 <= part.cap <= part.total <= part.cap * len(part.labels), f"{part.name!r}: 1 <= cap <= total <= all")
        _demand(part.sensitivity <= SENSITIVITY_MAX, f"{part.name!r} has a sensitivity above {SENSITIVITY_MAX}")


def _check_regions(query: Query) -> None:
    regions = query.regions
    _demand(isinstance(regions, tuple) and all(isinstance(one, Region) for one in regions), "regions are Regions")
    for region in regions:
        region.check()


def _checked_answer(query: Query, data: Made) -> tuple[int, ...]:
    try:
        found, again = query.contribution(data), query.contribution(data)
    except Exception as exc:
        raise AssertionError(f"{query!r} raises {type(exc).__name__} for bad data: {exc}") from exc
    _demand(all(type(one) is int for one in found), f"{query!r} answers {list(found)[:5]}, not whole numbers")
    _demand(list(found) == list(again), f"{query!r} answers the same data in two ways")
    _demand(len(found) == cells(query), f"{query!r} answers {len(found)} numbers for {cells(query)} cells")
    _demand(clamp(query, found) == tuple(found), f"{query!r} answers more than its parts say")
    return tuple(found)


def _check_neighbours(query: Query, first: Sequence[int], second: Sequence[int]) -> None:
    """What one person's replacement by another changes is covered by the noise."""
    start = 0
    for part in query.parts:
        end = start + len(part.labels)
        changes = [abs(one - other) for one, other in zip(first[start:end], second[start:end], strict=True)]
        _demand(sum(changes) <= part.sensitivity, f"{part.name!r} changes by more than its sensitivity")
        squares = sum(change * change for change in changes)
        _demand(squares <= part.sensitivity2, f"{part.name!r} changes by more than its sensitivity2")
        start = end


def _check_summary(query: Query, answers: Sequence[Sequence[int]]) -> None:
    for sums in [*answers, [sum(column) for column in zip(*answers, strict=True)]]:
        certain = query.summary([Estimate(float(one), float(one), float(one)) for one in sums])
        if certain is None:
            _demand(len(sums) > 1, "a query of one cell has a summary")
            continue
        for half in (0.0, 1.0, 7.0, 1e6):
            for error in (-half, 0.0, half):
                released = [Estimate(one + error, one + error - half, one + error + half) for one in sums]
                found = query.summary(released)
                _demand(found is not None, "a query has a summary always or never")
                if found is not None:
                    _check_estimate(query, found, certain.value)


def _check_estimate(query: Query, found: Estimate, certain: float) -> None:
    _demand(all(map(math.isfinite, (found.value, found.low, found.high))), f"{query!r} gives {found}")
    _demand(found.low <= found.value <= found.high, f"{query!r} gives a value outside its interval, {found}")
    slack = 1e-9 * max(1.0, abs(certain))
    _demand(
        found.low - slack <= certain <= found.high + slack,
        f"{query!r} gives the interval {found}, but {certain} without noise",
    )
