"""Queries of other packages: which are taken, and how those are refused that are broken or clash."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import ClassVar

import msgspec
import pytest

from emlab.errors import ConfigError
from emlab.queries.count_users import CountUsers
from emlab.queries.known import GROUP, KNOWN, OURS, known, tag
from emlab.query import Part, Query, Reading


class CountNights(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_nights"):
    """Of another package."""

    start_ts: float

    unit: ClassVar[str] = "nights"

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part.number("nights", "nights", 1),)

    def contribution(self, data: Reading) -> tuple[int]:
        return (0,)


class Clashing(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_users"):
    """It has the tag of one of ours."""


class Thawed(Query, forbid_unknown_fields=True, tag_field="kind", tag="thawed", frozen=True):
    """It would take as long as it likes."""

    slot_s: ClassVar[float] = float("nan")


class Loose(Query, frozen=True, forbid_unknown_fields=False, tag_field="kind", tag="loose"):
    """It takes fields that nobody declared."""


class Numbered(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=7):
    """Its tag is no word."""


class Wild(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="wild"):
    """Its field has two forms, and nobody could say which it is."""

    either: list[int] | tuple[int, ...]


def entry(name: str, target: str, module: str = __name__) -> EntryPoint:
    return EntryPoint(name=name, value=f"{module}:{target}", group=GROUP)


def test_our_queries_are_known_each_by_its_word() -> None:
    assert set(OURS) <= set(KNOWN)
    assert len({tag(one) for one in KNOWN}) == len(KNOWN)
    assert tag(CountUsers) == "count_users"


def test_a_query_of_another_package_is_known_beside_ours() -> None:
    assert known([entry("count_nights", "CountNights")]) == (*OURS, CountNights)


def test_the_same_query_twice_is_one() -> None:
    assert known([entry("count_nights", "CountNights")] * 2) == (*OURS, CountNights)


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (entry("gone", "Gone"), "cannot be loaded: AttributeError"),
        (entry("gone", "Gone", "no_such_package"), "cannot be loaded: ModuleNotFoundError"),
        (entry("query", "Query", "emlab.query"), "no subclass"),
        (entry("text", "GROUP"), "no subclass"),
        (entry("a_class", "EntryPoint"), "no subclass"),
        (entry("count_users", "Clashing"), "tag of another query, emlab.queries.count_users.CountUsers"),
        (entry("count_days", "CountNights"), "another tag, 'count_nights'"),
        (entry("loose", "Loose"), "forbid_unknown_fields"),
        (entry("numbered", "Numbered"), "a_word"),
        (entry("thawed", "Thawed"), "slot_s = nan"),
        (entry("wild", "Wild"), "does not travel"),
    ],
    ids=str,
)
def test_an_entry_point_that_is_no_query_is_refused_by_name(one: EntryPoint, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as found:
        known([one])
    assert f"the query {one.name!r}" in str(found.value)
    assert one.value in str(found.value)


def test_a_package_that_breaks_when_it_is_imported_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Breaking(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise ZeroDivisionError("in its own code")

    monkeypatch.setitem(sys.modules, "breaking_package", Breaking("breaking_package"))
    with pytest.raises(ConfigError, match=r"the query 'night'.*ZeroDivisionError: in its own code"):
        known([entry("night", "Night", "breaking_package")])


def test_two_packages_with_one_word_are_refused() -> None:
    class Other(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="count_nights"):
        """Of yet another package."""

    module = ModuleType("other_package")
    module.Other = Other  # type: ignore[attr-defined]
    sys.modules["other_package"] = module
    try:
        with pytest.raises(ConfigError, match=r"tag of another query, .*CountNights"):
            known([entry("count_nights", "CountNights"), entry("count_nights", "Other", "other_package")])
    finally:
        del sys.modules["other_package"]


def test_a_tag_is_what_stands_on_the_wire() -> None:
    assert msgspec.json.decode(msgspec.json.encode(CountNights(1.0)))["kind"] == "count_nights"
