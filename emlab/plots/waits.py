"""How long requests to paused clouds waited, by the gateway and without it. Imports matplotlib when it is drawn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from emlab.plots.frame import FAINT, INK, empty, title
from emlab.record import three_digits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARMS = {"emlab": ("by the gateway", INK, "-", "o"), "raw": ("without emlab", "#e8a33d", "--", "s")}
ACROSS = 4  # panels side by side


def waits(samples: pd.DataFrame) -> Figure:
    """For each time the share of all requests to paused clouds that had the answer's first byte by then.

    A panel for each engine and number of clouds, and those for requests to all clouds at once and over TLS; a curve
    that ends below 1 had failures; a mark is the median.

    Args:
        samples: as `measure.waking.side_by_side` returns them; those of measures that begin with "wake" are drawn.
    """
    chosen = samples[samples["measure"].str.startswith("wake")]
    shown = list(chosen.groupby(["engine", "measure", "clouds"], sort=False))
    across = min(ACROSS, max(1, len(shown)))
    down = max(1, math.ceil(len(shown) / across))
    figure = empty(width=3.4 * across, height=0.6 + 3.3 * down)
    panels: list[Axes] = list(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).flat)
    for axes in panels[max(1, len(shown)) :]:
        axes.set_visible(False)
    for axes, ((engine, measure, clouds), group) in zip(panels, shown, strict=False):
        _panel(axes, group, f"{engine}, {clouds} cloud{'' if clouds == 1 else 's'}", str(measure))
    figure.supxlabel("from connecting to the answer's first byte (ms, logarithmic axis)", fontsize=10)
    figure.supylabel("share of requests by then", fontsize=10)
    return figure


def _panel(axes: Axes, group: pd.DataFrame, subject: str, detail: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    for arm, (name, colour, line, marker) in ARMS.items():
        one = group[group["arm"] == arm]
        done = sorted(1000.0 * one.loc[one["ok"], "value"])
        label = f"{name}: n = {len(one)}, {len(one) - len(done)} failed"
        if done:
            middle = done[(len(done) - 1) // 2]
            label += f",\nmedian {three_digits(middle)} ms"
            axes.plot([middle], [math.ceil(len(done) / 2) / len(one)], marker, color=colour, markeredgecolor="white")
        x, y = [*done[:1], *done], [k / len(one) for k in range(len(done) + bool(done))]
        axes.step(x, y, where="post", color=colour, linestyle=line, linewidth=1.8, label=label)
    axes.set(xscale="log", ylim=(0, 1.03))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelbottom=True, labelsize=8)
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.1), fontsize=8, frameon=False, labelcolor=FAINT)
    title(axes, subject, detail)
