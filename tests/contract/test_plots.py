"""The figures: what they draw, and that nothing is left out."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from msgspec.structs import replace

from emlab import plots
from emlab.noise import Laplace, NoNoise
from emlab.plots import lab
from emlab.queries.trip_histogram import TripHistogram
from emlab.record import Event, Recorder
from tests.contract.releases import COUNT


def events(*rows: tuple[str, str, float, bool]) -> pd.DataFrame:
    recorder = Recorder()
    for span, engine, duration_s, ok in rows:
        recorder.add(Event(span, "ann", engine, 0.0, duration_s, ok=ok, error="" if ok else "CloudGone"))
    return recorder.frame()


def curves(figure: Figure) -> dict[str, tuple[list[float], list[float]]]:
    """The x and y of the curves, by the first line of their label."""
    named = {str(line.get_label()).split("\n")[0]: line for line in figure.axes[0].lines}
    return {
        name: (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for name, line in named.items()
    }


def legend(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def texts(figure: Figure) -> str:
    parts = [text.get_text() for axes in figure.axes for text in axes.texts]
    parts += [axes.get_title(loc="left") for axes in figure.axes]
    parts += [axes.get_xlabel() for axes in figure.axes]
    parts += [label for axes in figure.axes for label in legend(axes)]
    return "\n".join(parts)


def png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


MIXED = events(
    ("wake", "docker", 0.030, True),
    ("wake", "docker", 0.010, True),
    ("wake", "docker", 5.0, False),
    ("wake", "docker", 0.020, True),
    ("wake", "process", 0.002, True),
    ("pause", "docker", 0.1, False),
    ("store", "docker", 60.0, True),
)


class TestLatency:
    def test_a_curve_is_the_share_of_all_attempts_and_stays_below_one_with_failures(self) -> None:
        drawn = curves(plots.latency(MIXED))
        assert drawn["wake on docker"][0] == pytest.approx([10, 10, 20, 30, 5000])
        assert drawn["wake on docker"][1] == [0, 0.25, 0.5, 0.75, 0.75]
        assert drawn["wake on process"] == ([2, 2], [0, 1])

    def test_the_legend_counts_samples_and_failures_and_names_what_never_happened(self) -> None:
        assert legend(plots.latency(MIXED).axes[0]) == [
            "pause on docker\nn = 1, 1 failed",
            "wake on docker\nn = 4, 1 failed, median 20.0 ms",
            "wake on process\nn = 1, 0 failed, median 2.00 ms",
            "answer: never happened",
        ]

    def test_the_title_counts_what_is_drawn_and_nothing_else(self) -> None:
        assert "Latency of pause, wake and answer" in texts(plots.latency(MIXED))
        assert "n = 6 attempts, 2 failed" in texts(plots.latency(MIXED))
        assert "n = 1 attempts, 0 failed" in texts(plots.latency(MIXED, spans=["store"]))

    def test_the_axes_name_their_units(self) -> None:
        axes = plots.latency(MIXED).axes[0]
        assert "ms" in axes.get_xlabel()
        assert "share" in axes.get_ylabel()
        assert axes.get_xscale() == "log"

    def test_a_span_has_one_colour_and_an_engine_one_line_in_every_figure(self) -> None:
        def style(frame: pd.DataFrame, spans: list[str], label: str) -> tuple[object, str]:
            handles, labels = plots.latency(frame, spans).axes[0].get_legend_handles_labels()
            line = dict(zip((text.split("\n")[0] for text in labels), handles, strict=True))[label]
            return line.get_color(), line.get_linestyle()

        alone = MIXED[MIXED["engine"] == "process"]
        everything = ["store", "pause", "wake"]
        assert style(alone, ["wake"], "wake on process") == style(MIXED, everything, "wake on process")
        docker, process = (style(MIXED, everything, f"wake on {engine}") for engine in ("docker", "process"))
        assert docker[0] == process[0]
        assert docker[1] != process[1]

    def test_colours_of_the_usual_spans_differ_in_greyscale(self) -> None:
        weights = (0.2126, 0.7152, 0.0722)
        rgb = [matplotlib.colors.to_rgb(lab.SPANS[span][0]) for span in ("pause", "wake", "answer")]
        grey = sorted(sum(w * c for w, c in zip(weights, colour, strict=True)) for colour in rgb)
        assert min(b - a for a, b in pairwise(grey)) > 0.15
        assert len({marker for _, marker in lab.SPANS.values()}) == len(lab.SPANS)

    def test_it_is_drawn_again_from_a_file(self, tmp_path: Path) -> None:
        MIXED.to_parquet(tmp_path / "events.parquet")
        assert png(plots.latency(pd.read_parquet(tmp_path / "events.parquet"))) == png(plots.latency(MIXED))

    @pytest.mark.parametrize(
        "frame",
        [
            events(),
            events(("wake", "docker", 1.0, False)),
            events(("wake", "", 0.0, True)),
            events(("odd", "new", 1.0, True)),
        ],
    )
    def test_thin_data_is_drawn_too(self, frame: pd.DataFrame) -> None:
        assert png(plots.latency(frame, ["wake", "odd"])).startswith(b"\x89PNG")

    def test_what_took_no_time_is_drawn_at_the_shortest(self) -> None:
        assert curves(plots.latency(events(("wake", "", 0.0, True))))["wake"] == ([0.001, 0.001], [0, 1])


class TestRelease:
    def test_it_states_the_value_its_interval_the_noise_and_every_outcome(self) -> None:
        said = texts(plots.release(COUNT))
        low, high = COUNT.interval(0.05)
        for part in (
            "CountUsers: 42 users",
            f"95 % interval {low} to {high} users",
            "epsilon 0.5",
            "noise scale 2.00 users",
            "asked 60",
            "trust: simulated",
            "answered 51",
            "refused 6",
            "failed 3",
        ):
            assert part in said

    def test_several_numbers_are_points_with_their_intervals(self) -> None:
        query = TripHistogram("hour", 0.0, 2e9, 3)
        release = replace(COUNT, query=query, values=tuple(range(24)))
        figure = plots.release(release)
        said = texts(figure)
        assert "TripHistogram: 24 numbers" in said
        assert "08:00" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
        points = figure.axes[0].lines[0].get_xdata()
        assert list(points) == list(range(24))  # type: ignore[arg-type]  # an array

    def test_the_bar_spans_the_interval(self) -> None:
        bar = plots.release(COUNT, alpha=0.2).axes[0].lines[0]
        assert tuple(bar.get_xdata()) == COUNT.interval(0.2)  # type: ignore[arg-type]  # an array of two
        assert "80 % interval" in texts(plots.release(COUNT, alpha=0.2))

    def test_the_outcomes_fill_the_bar_of_all_that_were_asked(self) -> None:
        axes = plots.release(COUNT).axes[1]
        widths = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]  # rectangles
        assert widths == [51, 6, 3]
        assert axes.get_xlim() == (0, 60)

    def test_the_truth_is_drawn_only_where_it_is_known(self) -> None:
        assert "exact: 44" in texts(plots.release(COUNT, truth=44))
        assert "exact:" not in texts(plots.release(COUNT))

    @pytest.mark.parametrize(("scale", "value"), [(0.0, 5), (0.01, 5), (2.0**33, -(10**12)), (1e15, 10**6)])
    def test_every_scale_is_drawn(self, scale: float, value: int) -> None:
        noise = (Laplace(scale) if scale else NoNoise(),)
        odd = replace(COUNT, noise=noise, values=(value,), asked=0, answered=0)
        assert png(plots.release(odd)).startswith(b"\x89PNG")
        assert ("no noise" in texts(plots.release(odd))) == (scale == 0)


def test_no_window_and_no_global_state_is_touched() -> None:
    """In a process of its own, because another test may have loaded pyplot."""
    code = (
        "import sys; from emlab import plots; assert 'matplotlib' not in sys.modules;"
        "from emlab.record import Recorder; plots.latency(Recorder().frame()).savefig('/dev/null', format='png');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
