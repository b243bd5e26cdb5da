"""The central and the local model side by side. Imports matplotlib when it is drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from emlab import models as rules
from emlab.aggregate import ALPHA, Release
from emlab.plots.frame import FAINT, INK, empty, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INKS: dict[str, tuple[str, str, Literal["-", "--"]]] = {"central": (INK, "o", "-"), "local": ("#e8a33d", "s", "--")}


def models(releases: Sequence[Release], *, alpha: float = ALPHA, truth: float | None = None) -> Figure:
    """Each release's value and interval on one axis; beside it what its model protects people from, and what not.

    Args:
        releases: of the same query, under either model; see `models.compare` for the same as a table.
        truth: the exact value, where a simulation knows it.
    Raises: ConfigError: there is none, or one has several numbers.
    """
    table = rules.compare(releases, alpha=alpha)
    figure = empty(width=10.0, height=1.3 + 1.0 * len(table))
    axes, words = figure.subplots(1, 2, width_ratios=(3, 2), sharey=True)
    for at, (release, row) in enumerate(zip(releases, table.itertuples(), strict=True)):
        _interval(axes, at, release, alpha)
        said = f"protects from {row.protects_from}\nnot from {row.protects_not_from}"
        wrapped = "\n".join(textwrap.fill(part, 58) for part in said.splitlines())
        words.annotate(wrapped, (0.0, at), va="center", fontsize=8, color=FAINT)
    if truth is not None:
        axes.axvline(truth, color=FAINT, linewidth=0.8, linestyle=":")
        axes.annotate(f"exact: {truth:,.6g}", (truth, -0.55), fontsize=8, color=FAINT, ha="center", va="center")
    axes.set_yticks(range(len(table)), [_label(release) for release in releases])
    axes.set(ylim=(len(table) - 0.4, -0.7), xlabel=f"{table['query'][0]} ({table['unit'][0]})")
    words.set_axis_off()
    counts = ", ".join(str(count) for count in dict.fromkeys(table["answered"]))
    title(axes, "Error and trust by model", f"{100 * (1 - alpha):.6g} % interval; n = {counts} clouds")
    return figure


def _interval(axes: Axes, at: int, release: Release, alpha: float) -> None:
    ink, marker, line = INKS[release.model]
    low, high = release.interval(alpha)
    value = release.value
    bar = axes.errorbar(
        [value], [at], xerr=[[value - low], [high - value]], color=ink, marker=marker, capsize=4, linewidth=1.8
    )
    for part in bar.lines[2]:
        part.set_linestyle(line)
    said = f"{value:,.6g}, {low:,.6g} to {high:,.6g}"
    axes.annotate(said, (value, at), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9, color=INK)


def _label(release: Release) -> str:
    return f"{release.model}\n{release.cost}"
