"""QUERIES.md says of each query what its code says, and its examples run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

import emlab as em
from emlab.queries.known import OURS, tag
from emlab.queries.quantile import Quantile
from emlab.queries.testing import Made
from emlab.query import LOCATION, MAX_CELLS, Query, Section, Trip
from tests.unit.queries.examples import EXAMPLES

PAGE = (Path(__file__).parents[3] / "QUERIES.md").read_text(encoding="utf-8")
ASKED = re.findall(r"^\| `(\w+)` \| `(\w+)` \| .+? \| ([\w ]+) \| ([\w ]+) \| ([\d.]+) s \|$", PAGE, re.MULTILINE)
PARTS = re.findall(r"^\| `(\w+)`( of \w+)? \| (\w+) \| (\w+) \|" + r" `(.+?)` \|" * 4 + "$", PAGE, re.MULTILINE)
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_lists_each_query_with_its_word_unit_and_slot() -> None:
    listed = {(name, kind, unit, float(slot)) for name, kind, unit, _, slot in ASKED}
    assert listed == {(one.__name__, tag(one), one.unit, one.slot_s) for one in OURS}
    assert len(ASKED) == len(OURS)


def test_every_query_is_offered_by_emlab() -> None:
    for query_class in OURS:
        assert getattr(em, query_class.__name__) is query_class


class Watched(Made):
    """It remembers what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[str] = set()

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        self.read.add(FIXES[key])
        return super().exists(key, start_ts=start_ts, end_ts=end_ts, region=region)

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[tuple[float, float, float]]:
        self.read.add(FIXES[key])
        return super().track(key, start_ts=start_ts, end_ts=end_ts)

    def trips(self, *, start_ts: float, end_ts: float) -> Iterator[Trip]:
        self.read.add("trips")
        return super().trips(start_ts=start_ts, end_ts=end_ts)

    def sections(self, *, start_ts: float, end_ts: float) -> Iterator[Section]:
        self.read.add("sections")
        return super().sections(start_ts=start_ts, end_ts=end_ts)


FIXES = {LOCATION: "fixes"}


def test_a_query_reads_what_the_page_says() -> None:
    for name, _, _, reads, _ in ASKED:
        data = Watched()
        for query in EXAMPLES[getattr(em, name)]:
            query.contribution(data)
        assert data.read == set(reads.split(" or ")), name


def _rows(query: Query) -> list[tuple[str, ...]]:
    """The rows of the page about this query, in order."""
    of = f" of {query.of}" if isinstance(query, Quantile) else ""
    return [row[2:] for row in PARTS if (row[0], row[1]) == (type(query).__name__, of)]


@pytest.mark.parametrize("query", [query for queries in EXAMPLES.values() for query in queries], ids=str)
def test_the_page_has_the_clamp_sensitivity_and_share_of_each_part(query: Query) -> None:
    fields = {**msgspec.structs.asdict(query), "min": min}
    rows = _rows(query)
    assert len(rows) == len(query.parts) > 0
    for part, (name, unit, *formulas) in zip(query.parts, rows, strict=True):
        cap, total, sensitivity, share = (eval(formula, {}, fields) for formula in formulas)
        assert (part.name, part.unit, part.cap, part.total, part.share) == (name, unit, cap, total, share)
        assert part.sensitivity == (min(sensitivity, cap) if len(part.labels) == 1 else sensitivity)


def test_the_page_lists_no_part_of_a_query_that_is_not_there() -> None:
    assert {row[0] for row in PARTS} == {one.__name__ for one in OURS}
    assert str(MAX_CELLS) in PAGE


def _run(block: str, names: dict[str, object]) -> None:
    """Without this module's own `from __future__ import annotations`, as a reader would run it."""
    exec(compile(block, "QUERIES.md", "exec", dont_inherit=True), names)


def test_the_examples_of_the_page_run() -> None:
    asking, defining, checking = BLOCKS
    names: dict[str, object] = {"__name__": "page"}
    _run(defining, names)
    _run(checking, names)

    asked: list[Query] = []

    class Provider:
        """It remembers what it is asked."""

        value, unit = 0.0, ""

        def ask(self, query: Query, *, epsilon: float) -> Provider:
            asked.append(query)
            return self

        def interval(self) -> tuple[float, float]:
            return 0.0, 0.0

        def frame(self) -> None:
            return None

    _run(asking, {"provider": Provider()})
    assert [type(query) for query in asked] == [em.MeanDistance, em.OriginDestination]
