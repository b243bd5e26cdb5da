"""THREATS.md claims nothing for which it names a test or a source that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from emlab.key import Cost
from emlab.parts import VAULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "THREATS.md").read_text(encoding="utf-8")


def names_of_tests() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named - names_of_tests() == set()


def test_each_source_that_is_named_is_listed_and_used() -> None:
    text, listed = PAGE.split("\n## Sources\n")
    cited = set(re.findall(r"\\\[(S\d+)\\\]", text))
    assert cited == set(re.findall(r"^- \\\[(S\d+)\\\]", listed, re.MULTILINE))


def test_each_note_of_the_table_is_there() -> None:
    table = re.search(r"^\| who \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert table is not None
    notes = {int(n) for group in re.findall(r"\((\d+(?:, \d+)*)\)", table[0]) for n in group.split(", ")}
    assert notes == {int(number) for number in re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE)}


def test_it_tells_of_each_vault_and_of_the_cost_of_a_guess_as_it_is() -> None:
    (row,) = re.findall(r"^\| \| (plain .*) \|$", PAGE, re.MULTILINE)
    assert {name.lower() for name in row.split(" | ")} == set(VAULTS)
    cost = Cost()
    assert f"N = 2^{cost.n.bit_length() - 1}, r = {cost.r}, p = {cost.p}" in PAGE
    assert f"{128 * cost.n * cost.r >> 20} MiB" in PAGE
