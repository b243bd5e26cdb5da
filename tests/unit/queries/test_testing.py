"""The test helper for other packages finds each way to break the contract."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec
import pytest

from emlab.errors import BadQuery
from emlab.queries.testing import Made, check_query, hostile
from emlab.query import Estimate, Part, Query, Reading, check_times, check_whole


class CountHours(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_hours"):
    """A good query: in how many hours a person started trips, up to `cap`."""

    start_ts: float
    end_ts: float
    cap: int

    unit: ClassVar[str] = "hours"

    def __post_init__(self) -> None:
        check_times(self)
        check_whole(self, "cap", 1, 24, "hours")

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part.number("hours", "hours", self.cap),)

    def contribution(self, data: Reading) -> Sequence[int]:
        trips = data.trips(start_ts=self.start_ts, end_ts=self.end_ts)
        return (min(len({trip.start_hour for trip in trips}), self.cap),)


GOOD = CountHours(0.0, 2e9, 5)


def check(query_class: type[Query], *, refused: Sequence[Mapping[str, object]] = ()) -> None:
    check_query(query_class, [query_class(0.0, 2e9, 5)], refused=refused)


def test_a_good_query_passes() -> None:
    check(CountHours, refused=[{"cap": 0}, {"cap": 25}, {"end_ts": -1.0}])


def test_a_field_that_should_be_refused_and_is_not_is_found() -> None:
    with pytest.raises(AssertionError, match=r"\{'cap': 7\} is not refused"):
        check(CountHours, refused=[{"cap": 7}])


def test_no_examples_and_those_of_another_class_are_found() -> None:
    with pytest.raises(AssertionError, match="an example"):
        check_query(CountHours, [])
    with pytest.raises(AssertionError, match="is no CountHours"):
        check_query(CountHours, [TakesAnything(0.0, 2e9, 5)])


class TakesAnything(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="takes_anything"):
    """NaN as a cap comes off the wire as null."""

    def __post_init__(self) -> None:
        pass


class AnswersTooMuch(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="answers_too_much"):
    def contribution(self, data: Reading) -> Sequence[int]:
        return (sum(1 for _ in data.trips(start_ts=0.0, end_ts=2e9)),)


class AnswersFloats(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="answers_floats"):
    def contribution(self, data: Reading) -> Sequence[int]:
        return (1.0,)  # type: ignore[return-value]


class AnswersMore(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="answers_more"):
    def contribution(self, data: Reading) -> Sequence[int]:
        return (0, 0)


class Raises(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="raises"):
    def contribution(self, data: Reading) -> Sequence[int]:
        trips = data.trips(start_ts=0.0, end_ts=2e9)
        return (max(0, min(round(sum(trip.distance_m for trip in trips)), 5)),)


_TURNS: Iterator[int] = itertools.cycle([0, 1])


class ChangesItsMind(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="changes_its_mind"):
    def contribution(self, data: Reading) -> Sequence[int]:
        return (next(_TURNS),)


class TwoForms(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="two_forms"):
    """5.0 goes over the wire, and 5 is what it is declared as."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "cap", float(self.cap))


class TooMany(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="too_many"):
    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(name="a", unit="hours", cap=1, total=1, labels=tuple(map(str, range(5000)))),)


class SameLabels(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="same_labels"):
    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(name="a", unit="hours", cap=1, total=1, labels=("x", "x")),)


class SameNames(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="same_names"):
    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part.number("a", "hours", 1), Part.number("a", "hours", 1))


class OddTotal(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="odd_total"):
    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(name="a", unit="hours", cap=9, total=3),)


class NoShare(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="no_share"):
    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part.number("a", "hours", 9, share=0),)


class Sensitive(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="sensitive"):
    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part.number("a", "hours", 2**40),)


class NarrowSummary(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="narrow_summary"):
    def summary(self, cells: Sequence[Estimate]) -> Estimate:
        return Estimate(cells[0].value, cells[0].value, cells[0].value)


class OutsideSummary(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="outside_summary"):
    def summary(self, cells: Sequence[Estimate]) -> Estimate:
        return Estimate(cells[0].high + 1, cells[0].low, cells[0].high)


class NoSummary(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="no_summary"):
    def summary(self, cells: Sequence[Estimate]) -> Estimate | None:
        return None


class Clashing(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_users"):
    """It has the tag of one of ours."""


class Loose(CountHours, frozen=True, tag_field="kind", tag="loose", forbid_unknown_fields=False):
    """It takes fields that nobody declared."""


@pytest.mark.parametrize(
    ("query_class", "why"),
    [
        (TakesAnything, "come off the wire"),
        (AnswersTooMuch, "more than its parts say"),
        (AnswersFloats, "not whole numbers"),
        (AnswersMore, "2 numbers for 1 cells"),
        (Raises, "raises .* for bad data"),
        (ChangesItsMind, "in two ways"),
        (TwoForms, "off the wire"),
        (TooMany, "4096"),
        (SameLabels, "a label of its own"),
        (SameNames, "a name of its own"),
        (OddTotal, "cap <= total"),
        (NoShare, "share above 0"),
        (Sensitive, "sensitivity above"),
        (NarrowSummary, "without noise"),
        (OutsideSummary, "outside its interval"),
        (NoSummary, "one cell has a summary"),
        (Clashing, "tag 'count_users' is that of"),
        (Loose, "forbid_unknown_fields"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_broken_query_is_found(query_class: type[Query], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check(query_class)


def test_an_error_that_is_no_refusal_is_not_taken_for_one() -> None:
    class Careless(CountHours, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="careless"):
        def __post_init__(self) -> None:
            if self.cap > 24:
                raise BadQuery("too many hours")

    with pytest.raises((TypeError, AssertionError)):
        check(Careless)


def test_hostile_data_is_the_same_in_every_run() -> None:
    def told(data: Made) -> list[object]:
        return [repr(list(data.trips(start_ts=0, end_ts=1))), repr(list(data.track("", start_ts=0, end_ts=1)))]

    assert list(map(told, hostile(1))) == list(map(told, hostile(1)))
    assert list(map(told, hostile(1))) != list(map(told, hostile(2)))
