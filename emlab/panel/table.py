"""The clouds as a table of a panel: HTML."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from emlab.clouds import STATE_COLOURS, VAULT, how_many
from emlab.state import CloudState

if TYPE_CHECKING:
    import pandas as pd

HEAD_STYLE = "position:sticky;top:0;text-align:left;background:var(--jp-layout-color1, #fff)"
STILL = (CloudState.RUNNING.value, CloudState.PAUSED.value)  # states in which memory stays as it was measured


def table(frame: pd.DataFrame, memory_mb: Mapping[str, float], *, now: float) -> str:
    """The clouds as HTML, each state as a word on its colour.

    Args:
        frame: as `Clouds.frame` gives it. memory_mb: of clouds by id, when it was last measured. now: UTC seconds.
    """
    names = ("user", "state", "vault", "last use", "leases", "memory")
    head = "".join(f'<th scope="col" style="{HEAD_STYLE}">{name}</th>' for name in names)
    body = "".join(_row(row, memory_mb.get(row["cloud"], math.nan)) for row in frame.to_dict("records"))
    at = f"{datetime.fromtimestamp(now, UTC):%H:%M:%S}"
    return (
        f'<table style="width:100%"><caption style="text-align:left">{how_many(len(frame))} at {at} UTC</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _row(row: Mapping[Hashable, Any], memory_mb: float) -> str:
    colour = STATE_COLOURS[CloudState(row["state"])]
    badge = f'<span style="background:{colour};color:#fff;padding:0 0.5em;border-radius:0.6em">{row["state"]}</span>'
    memory = "–" if math.isnan(memory_mb) or row["state"] not in STILL else f"{memory_mb:.0f} MiB"
    cells = (escape(row["user"]), badge, VAULT[row["vault_open"]], _ago(row["idle_s"]), row["leases"], memory)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _ago(idle_s: float) -> str:
    """Some seconds ago, in words."""
    if math.isnan(idle_s):
        return "–"
    for unit, size_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if idle_s >= 2 * size_s:
            return f"{idle_s / size_s:.0f} {unit} ago"
    return f"{max(idle_s, 0.0):.0f} s ago"
