"""RECEIPTS.md says what the code does: fields, checks, and kinds of links."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import emlab
from emlab.ask import Stub
from emlab.chain import PAGE
from emlab.receipt import Receipt
from tests.unit.test_receipt import DIRECTORY, RECEIPT, RELEASE, SIGNING

ROOT = Path(emlab.__file__).parents[1]
PAGE_TEXT = (ROOT / "RECEIPTS.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE_TEXT.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """The first cell of each row of a table, but for its head."""
    cells = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    return [cell for cell in cells[1:] if cell.strip("-")]


def test_each_field_of_a_receipt_and_of_a_stub_is_told() -> None:
    told = re.findall(r"`(\w+)`", "".join(first_cells(section("What a receipt holds"))))
    assert sorted(told) == sorted(Receipt.__struct_fields__)
    stub = section("What a receipt holds").split("A stub says: ")[1].split("No contribution")[0]
    assert re.findall(r"`(\w+)`", stub) == list(Stub.__struct_fields__)


def test_each_check_is_told_in_its_order() -> None:
    verdict = RECEIPT.verify(RELEASE, aggregators=[SIGNING.public], clouds=DIRECTORY)
    checks = [check.says.replace("each of 3 clouds", "each of N clouds") for check in verdict.checks]
    assert first_cells(section("What is checked")) == checks


def kinds() -> set[str]:
    """The kinds of links that the code writes: the first argument of `_write` and `tell`."""
    found = set()
    for name in ("logbook", "custodian"):
        for node in ast.walk(ast.parse((ROOT / "emlab" / f"{name}.py").read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("_write", "tell")
            ):
                found |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    return {kind for kind in found if isinstance(kind, str)}


def test_each_kind_of_link_is_told() -> None:
    told = [cell.strip("`") for cell in first_cells(section("The log of a cloud"))]
    assert len(told) == len(set(told))
    assert set(told) == kinds()


@pytest.mark.parametrize("said", [f"at most {PAGE:,} links", "about 700 bytes"])
def test_numbers_are_those_of_the_code(said: str) -> None:
    assert said in PAGE_TEXT
