"""How long the phases of asking, storing and intake take. Imports matplotlib when it is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from emlab.plots.frame import INK, empty, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 4  # panels side by side
FILLS = (("#5f8fa8", ""), ("#f4d29c", "///"), ("#dde4e8", "..."), ("#e39a8d", "xxx"))
LEAST_SPAN = 12.0  # of an axis, from its lowest to its highest value: so there are several ticks on it
LEAST_MS = 1e-2  # what is shorter is drawn there: a logarithmic axis has no zero


def phases(samples: pd.DataFrame) -> Figure:
    """How long each phase took, for more people and more data: a panel for each phase, a box for each combination.

    A box holds the middle half of the attempts, its line is the median, its whiskers reach to the shortest and the
    longest one. Failed attempts are counted under it.

    Args:
        samples: as `measure.phase_times.repeat` gives them.
    """
    shown = list(samples.groupby("measure", sort=False))
    down = max(1, math.ceil(len(shown) / ACROSS))
    figure = empty(width=3.5 * ACROSS, height=0.5 + 3.5 * down)
    panels: list[Axes] = list(figure.subplots(down, ACROSS, squeeze=False).flat)
    for axes in panels[max(1, len(shown)) :]:
        axes.set_visible(False)
    people = sorted(set(samples["users"]))
    for axes, (phase, group) in zip(panels, shown, strict=False):
        _phase(axes, str(phase), group, people)
    _explain(figure, people)
    figure.supylabel("duration (ms, logarithmic axis)", fontsize=10)
    figure.supxlabel("trips of each person; n of each box from left to right", fontsize=10)
    return figure


def _explain(figure: Figure, people: Sequence[int]) -> None:
    """Which box is of how many people: once, above all panels, where it hides nothing."""
    from matplotlib.patches import Patch

    fills = zip(people, itertools.cycle(FILLS), strict=False)
    patches = [Patch(facecolor=c, hatch=h, edgecolor=INK, label=f"{n} people") for n, (c, h) in fills]
    if patches:
        figure.legend(handles=patches, loc="outside upper right", ncols=len(patches), frameon=False, fontsize=9)


def _phase(axes: Axes, phase: str, group: pd.DataFrame, users: Sequence[int]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    trips = sorted(set(group["trips"]))
    width = 0.8 / len(users)
    labels = []
    for place, many in enumerate(trips):
        counts = []
        for number, people in enumerate(users):
            one = group[(group["users"] == people) & (group["trips"] == many)]
            x = place + width * (number - (len(users) - 1) / 2)
            counts.append(_box(axes, x, one, width, FILLS[number % len(FILLS)]))
        labels.append("\n".join([f"{many}", *counts]))
    axes.set_xticks(range(len(trips)), labels, fontsize=8)
    axes.set(yscale="log", xlim=(-0.6, len(trips) - 0.4))
    low, high = axes.get_ylim()
    if low > 0 and high / low < LEAST_SPAN:
        axes.set_ylim(math.sqrt(low * high / LEAST_SPAN), math.sqrt(low * high * LEAST_SPAN))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(visible=True, axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    title(axes, phase, f"{len(group)} attempts, {int((~group['ok']).sum())} failed")


def _box(axes: Axes, x: float, samples: pd.DataFrame, width: float, fill: tuple[str, str]) -> str:
    """The box of one combination; its counts in words."""
    failed = int((~samples["ok"]).sum())
    ms = [max(LEAST_MS, 1000.0 * value) for value in samples.loc[samples["ok"], "value"]]
    if ms:
        box = axes.boxplot(
            [ms], positions=[x], widths=0.85 * width, whis=(0, 100), manage_ticks=False, patch_artist=True,
            medianprops={"color": INK, "linewidth": 2.4}, whiskerprops={"color": INK}, capprops={"color": INK},
        )  # fmt: skip
        box["boxes"][0].set(facecolor=fill[0], hatch=fill[1], edgecolor=INK)
    return f"n = {len(samples)}" + (f", {failed} failed" if failed else "")
