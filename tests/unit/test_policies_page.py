"""POLICIES.md says what policies are: its tables are compared with the code, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from emlab.policy import Policy
from tests.unit.test_policy import PRESETS
from tests.unit.test_threats_page import names_of_tests

PAGE = (Path(__file__).parents[2] / "POLICIES.md").read_text(encoding="utf-8")


def _table(heading: str) -> list[list[str]]:
    text = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_page_tells_of_every_field() -> None:
    told = {name for row in _table("Fields")[2:] for name in re.findall(r"`(\w+)`", row[0])}
    assert told == set(Policy.__struct_fields__)


def test_the_page_shows_the_presets_as_they_are() -> None:
    head, _, *rows = _table("Presets")
    names = head[1:]
    assert names == [f"`{name}`" for name in PRESETS]
    made = [make() for make in PRESETS.values()]
    said = {row[0].strip("`"): row[1:] for row in rows}
    differing = {
        name
        for name in Policy.__struct_fields__
        if name not in ("name", "version", "schema") and len({repr(getattr(one, name)) for one in made}) > 1
    }
    assert set(said) == differing
    for name, cells in said.items():
        assert cells == [_shown(getattr(policy, name)) for policy in made], name


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(value) or "nobody"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_each_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) >= 7
    assert named - names_of_tests() == set()
