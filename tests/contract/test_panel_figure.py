"""The figure of a panel: how long things took at which time."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from emlab.plots.lab import latency_over_time
from emlab.record import Event, Recorder

NOON_TS = 1_700_049_600.0  # 15 November 2023, 12:00 UTC


def events(*rows: tuple[str, float, float, bool]) -> pd.DataFrame:
    recorder = Recorder()
    for span, after_s, duration_s, ok in rows:
        recorder.add(
            Event(span, "ann", "docker", NOON_TS + after_s, duration_s, ok=ok, error="" if ok else "CloudGone")
        )
    return recorder.frame()


def axes_of(frame: pd.DataFrame) -> Axes:
    figure = latency_over_time(frame)
    figure.savefig(io.BytesIO(), format="png")  # it can be drawn, and its texts have their places
    return figure.axes[0]


def legend(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def test_each_attempt_is_a_mark_at_the_time_when_it_ended() -> None:
    axes = axes_of(events(("wake", 0.0, 0.02, True), ("wake", 30.0, 2.0, True), ("store", 0.0, 9.0, True)))
    (wakes,) = (line for line in axes.lines if str(line.get_label()).startswith("wake"))
    assert np.asarray(wakes.get_ydata()).tolist() == pytest.approx([20.0, 2000.0])
    ends_ts = 86_400 * np.asarray(wakes.get_xdata())
    assert ends_ts.tolist() == pytest.approx([NOON_TS + 0.02, NOON_TS + 32.0], abs=1e-3)


def test_a_failed_attempt_is_hollow_and_counted() -> None:
    axes = axes_of(events(("pause", 0.0, 0.004, True), ("pause", 1.0, 0.5, False)))
    fills = {line.get_markerfacecolor() for line in axes.lines if len(np.asarray(line.get_xdata()))}
    assert "none" in fills
    assert len(fills) == 2
    assert "pause\nn = 2, 1 failed, median 4.00 ms" in legend(axes)
    assert "n = 2 attempts, 1 failed (hollow marks)" in [text.get_text() for text in axes.texts]


def test_the_legend_names_what_never_happened_and_gives_failures_no_median() -> None:
    axes = axes_of(events(("answer", 0.0, 1.0, False)))
    assert legend(axes) == [
        "start: never happened",
        "pause: never happened",
        "wake: never happened",
        "answer\nn = 1, 1 failed",
    ]


def test_axes_have_units_and_one_attempt_has_a_minute_of_time() -> None:
    axes = axes_of(events(("wake", 0.0, 1.0, True)))
    assert axes.get_xlabel() == "time of day (UTC)"
    assert axes.get_ylabel().startswith("duration (ms")
    first, last = axes.get_xlim()
    assert (last - first) * 86_400 == pytest.approx(60.0, rel=0.1)
    assert 1 < len([one for one in axes.get_xticklabels() if one.get_text()]) <= 9


def test_without_events_it_is_drawn_and_says_so() -> None:
    axes = axes_of(events())
    assert "n = 0 attempts, 0 failed (hollow marks)" in [text.get_text() for text in axes.texts]
    assert len(axes.get_xticks()) == 0


def test_a_duration_of_zero_or_of_hours_has_a_place() -> None:
    axes = axes_of(events(("wake", 0.0, 0.0, True), ("wake", 1.0, 7200.0, True)))
    low, high = axes.get_ylim()
    assert low <= 1e-3
    assert high >= 7.2e6
