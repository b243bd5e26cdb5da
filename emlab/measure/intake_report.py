"""The scores of intake as a figure, and the folder of a run. Imports matplotlib and pandas when something is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.measure.results import write_run
from emlab.plots.frame import FAINT, INK, empty, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHOWN = {
    "recall": "expected trips found",
    "precision": "found trips expected",
    "sections": "sections found, mode right",
    "modes": "time in the right mode",
}
MARKERS = ("o", "s", "^", "D")


def figure(scores: pd.DataFrame) -> Figure:
    """How often trips, sections and modes are right: a mark for each day or person, a line for all of a kind.

    Args:
        scores: as `table` gives them.
    """
    kinds = list(dict.fromkeys(scores["against"]))
    drawn = empty(width=9.0, height=1.4 + 0.35 * len(SHOWN) * max(1, len(kinds)))
    axes = drawn.subplots()
    labels = []
    for row, (column, kind) in enumerate((column, kind) for column in SHOWN for kind in kinds):
        of_kind = scores[scores["against"] == kind]
        each, total = of_kind[of_kind["name"] != "all"], of_kind[of_kind["name"] == "all"]
        marker = MARKERS[kinds.index(kind) % len(MARKERS)]
        axes.plot(each[column], [row] * len(each), marker, color=FAINT, alpha=0.5, clip_on=False)
        axes.plot(total[column], [row] * len(total), "|", color=INK, markersize=18, markeredgewidth=2.5, clip_on=False)
        labels.append(f"{SHOWN[column]}, {kind}, n = {len(each)}")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share")
    counted = scores[scores["name"] == "all"]
    detail = (
        f"{int(counted['trips'].sum())} trips expected, {int(counted['found'].sum())} found; tall line: all of a kind"
    )
    title(axes, "Accuracy of intake", detail)
    return drawn


def write_report(
    out_dir: str, scores: pd.DataFrame, samples: pd.DataFrame, params: Mapping[str, object], drawn: Figure
) -> list[Path]:
    """The folder holds the scores (scores.csv), the times (events.parquet), the figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told.
    Returns: the files.
    """
    if not out_dir:
        return []
    tables, figures = {"scores.csv": scores}, {"accuracy": drawn}
    return write_run(Path(out_dir), samples, tables, params=params, figures=figures, title="Accuracy of intake")
