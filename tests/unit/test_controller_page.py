"""CONTROLLER.md names every route of the controller, as the table has it."""

from __future__ import annotations

import re
from pathlib import Path

from emlab.wire.control import CONTROL_ROUTES

PAGE = Path(__file__).parents[2] / "CONTROLLER.md"


def test_the_page_lists_the_routes_as_the_table_does() -> None:
    listed = re.findall(r"^\| `(\w+) (\S+)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert listed == [(route.method, route.path, route.who, route.summary) for route in CONTROL_ROUTES]
