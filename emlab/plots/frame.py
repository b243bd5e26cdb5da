"""How every figure of emlab looks: its size, its title, its inks. Imports matplotlib when something is drawn."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#666666"
SHOWN_DPI = 96  # pixels of a screen for an inch of a figure; the image has more, for sharp screens


def empty(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, which needs no display."""
    return _shown_figure()(figsize=(width, height), dpi=150, layout="constrained")


@functools.cache
def _shown_figure() -> type[Figure]:
    """A Figure that a notebook shows by itself; the plain one waits for pyplot to be imported."""
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue(), {"width": round(self.get_figwidth() * SHOWN_DPI)}

    return ShownFigure


def title(axes: Axes, subject: str, detail: str) -> None:
    """The subject in bold over one line of detail, both at the left; the box is opened at the top and right."""
    axes.set_title(f"{subject}\n", loc="left", fontweight="bold", fontsize=12)
    axes.annotate(
        detail, (0, 1), xytext=(0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=FAINT
    )
    axes.spines[["top", "right"]].set_visible(False)
