"""The figures of repeated asks, drawn for real."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from emlab import plots
from emlab.measure import accuracy, opt_out
from tests.unit.test_asking_measures import asks, times

SOME = [10.0, 12.0, 30.0, math.nan]
FIGURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "errors": plots.errors,
    "misses": lambda frame: plots.misses(accuracy.table(frame)),
    "participation": plots.participation,
    "decay": plots.decay,
    "model_errors": plots.model_errors,
}


def drawn(figure: Figure) -> str:
    """All that is written on the figure, once it was really drawn."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    texts = []
    for axes in figure.axes:
        texts.append(axes.get_title(loc="left"))
        for each in (axes, *axes.child_axes):
            texts += [label.get_text() for label in (*each.get_xticklabels(), *each.get_yticklabels())]
            texts += [each.get_xlabel(), each.get_ylabel(), *(text.get_text() for text in each.texts)]
        legend = axes.get_legend()
        texts += [] if legend is None else [text.get_text() for text in legend.get_texts()]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join(texts)


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("values", [[], [10.0], [math.nan], SOME], ids=["none", "one", "nothing released", "some"])
def test_thin_and_failed_data_is_drawn_too(name: str, values: list[float]) -> None:
    drawn(FIGURES[name](asks(values)))


def test_errors_are_counted_and_drawn_in_two_colours() -> None:
    frame = pd.concat([asks(SOME, alpha=0.05), asks([10.0, 11.0], alpha=0.1)])
    figure = plots.errors(frame)
    said = drawn(figure)
    for part in ("Errors of ae", "6 asks, 1 left out", "0.05\nepsilon 0.5\nn = 3, 1 beyond", "n = 2, 0 beyond"):
        assert part in said
    assert "released - exact (users)" in said
    colours = [bar.get_facecolor() for bar in figure.axes[0].patches if bar.get_width() > 0]  # type: ignore[attr-defined]
    assert len(set(colours)) == 2


def test_errors_of_millions_are_drawn_in_few_bars() -> None:
    figure = plots.errors(asks([0.0, 4e6, -3e6], offset=2e6, scale=1e6))
    assert 1 < len(figure.axes[0].patches) < 100
    drawn(figure)


def test_each_promise_stands_beside_its_share_and_interval() -> None:
    frame = pd.concat([asks(SOME, alpha=alpha, measure=name) for alpha in (0.01, 0.2) for name in ("ae", "rc")])
    figure = plots.misses(accuracy.table(frame))
    said = drawn(figure)
    assert "12 releases; 4 asks left out" in said
    assert said.count("1/3") == 4
    heights = {float(y) for line in figure.axes[0].lines for y in np.asarray(line.get_ydata(), dtype=float)}
    assert {1.0, 20.0} <= heights


def test_each_way_of_not_taking_part_has_a_row_with_its_counts() -> None:
    there = asks([10, 11], arm=opt_out.ALL)
    gone = asks([4, 6, math.nan], arm=opt_out.NO_AGGREGATOR, expected=5.0, answered=10, refused=10)
    check = asks([20.0], measure="q2", arm=opt_out.ALL, range_low=15.0, range_high=25.0, truth="yes", says="no")
    figure = plots.participation(pd.concat([there, gone, check]))
    said = drawn(figure)
    for part in ("all permit", "half do not permit the aggregator", "n = 2, bias +0.50", "n = 2, bias -5.00"):
        assert part in said
    assert "asked: 15 to 25?" in said
    assert "n = 1, bias +10.00, 1 wrong" in said
    assert "never asked" in said
    assert "5 asks, 1 without a release; offset 5, alpha 0.05" in said


def test_decay_shows_what_was_expected_and_what_came() -> None:
    frame = asks([20.0, 10.0, math.nan])
    frame["answered"], frame["refused"], frame["expected"] = [20, 10, 0], [0, 10, 20], [20, 10, 0]
    figure = plots.decay(frame)
    said = drawn(figure)
    for part in ("3 asks, 1 without a release; epsilon 0.5 each", "answered: 30 in all", "refused: 30 in all"):
        assert part in said
    expected = next(line for line in figure.axes[1].lines if line.get_label() == "expected from policies")
    assert list(np.asarray(expected.get_ydata(), dtype=float)) == [20.0, 10.0, 0.0]


def test_both_models_stand_beside_each_other_with_their_whole_interval() -> None:
    frame = pd.concat([asks(SOME, model=model, people=20) for model in ("central", "local")])
    figure = plots.model_errors(frame)
    said = drawn(figure)
    assert "20\ncentral: n = 3\nlocal: n = 3" in said
    assert "8 asks, 2 without a release of all people; epsilon 0.5 each" in said
    low, high = figure.axes[0].get_ylim()
    assert low < -5
    assert high > 20


def test_each_phase_has_a_panel_and_its_failures() -> None:
    frame = pd.concat(
        [
            times("store", [0.1, 0.2], users=users, trips=trips)
            for users in (10, 20)
            for trips in (10, 50)
        ] + [times("wake", [0.001, math.nan]), times("wake", [math.nan], trips=50)]
    )  # fmt: skip
    figure = plots.phases(frame)
    said = drawn(figure)
    for part in ("store", "8 attempts, 0 failed", "3 attempts, 2 failed", "n = 2, 1 failed", "10 people", "20 people"):
        assert part in said
    drawn(plots.phases(frame[:0]))
