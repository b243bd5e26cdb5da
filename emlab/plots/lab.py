"""What a lab recorded: latencies, releases, ratios. Imports matplotlib when something is drawn."""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Hashable, Mapping, Sequence
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from emlab.noise import Gaussian
from emlab.plots.frame import FAINT, INK, empty, title
from emlab.record import three_digits

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from emlab.aggregate import Release

# From dark to light by lightness (CIELAB 25 to 75), so that neighbours differ in greyscale too.
SPANS = {
    "pause": ("#3b1f6b", "o"),
    "wake": ("#c8442f", "s"),
    "answer": ("#e8a33d", "^"),
    "start": ("#14506e", "D"),
    "stop": ("#6b6b6b", "X"),
    "unlock": ("#2a8a76", "v"),
    "lock": ("#7d5a3c", "P"),
    "store": ("#7fb0d8", "<"),
    "intake": ("#9bb65c", ">"),
}
ENGINES = {"docker": "-", "process": "--", "memory": ":"}
OUTCOMES = {"answered": ("#14506e", ""), "refused": ("#e8a33d", "///"), "failed": ("#c8442f", "xxx")}
MOST_CELLS = 48  # of a release of several numbers
MOST_NOTE = 90  # characters of a note beside a figure
DAY_S = 86_400.0
LEAST_TIME_S = 60.0  # a time axis is at least that long
SHORTEST_MS = 1e-3  # a logarithmic axis has no zero; what is shorter is drawn here


def latency(frame: pd.DataFrame, spans: Sequence[str] = ("pause", "wake", "answer")) -> Figure:
    """How long each span took: for each time the share of all attempts that had succeeded by then.

    A curve that ends below 1 had failures; the legend states how many, and names a span that never happened.

    Args:
        frame: events, as `Recorder.frame()` gives them or events.parquet holds them.
        spans: which to draw, in this order.
    """
    figure = empty(width=8.0, height=4.6)
    axes = figure.add_subplot()
    chosen = frame[frame["span"].isin(list(spans))]
    latest_ms = max(chosen["duration_s"].max() * 1000.0, SHORTEST_MS) if len(chosen) else 1.0
    for span in spans:
        groups = dict(list(chosen[chosen["span"] == span].groupby("engine", dropna=False)))
        if not groups:
            axes.plot([], [], " ", label=f"{span}: never happened")
        for engine, events in groups.items():
            _curve(axes, events, span=span, engine=str(engine), until_ms=latest_ms)
    failed = int((~chosen["ok"]).sum())
    axes.set(
        xscale="log", xlabel="duration (ms, logarithmic axis)", ylabel="share of attempts done by then", ylim=(0, 1.03)
    )
    title(axes, f"Latency of {_listed(spans)}", f"n = {len(chosen)} attempts, {failed} failed; a mark is the median")
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, handlelength=3.2)
    return figure


def latency_over_time(frame: pd.DataFrame, spans: Sequence[str] = ("start", "pause", "wake", "answer")) -> Figure:
    """How long each span took, at the time when it ended; a hollow mark is an attempt that failed.

    Args:
        frame: events, as `Recorder.frame()` gives them or events.parquet holds them.
        spans: which to draw, in this order.
    """
    figure = empty(width=8.0, height=3.6)
    axes = figure.add_subplot()
    chosen = frame[frame["span"].isin(list(spans))]
    for span in spans:
        _marks(axes, chosen[chosen["span"] == span], span)
    failed = int((~chosen["ok"]).sum())
    axes.set(yscale="log", xlabel="time of day (UTC)", ylabel="duration (ms,\nlogarithmic axis)")
    title(axes, "Latency over time", f"n = {len(chosen)} attempts, {failed} failed (hollow marks)")
    _time_axis(axes, chosen["start_ts"] + chosen["duration_s"])
    axes.yaxis.set_major_formatter("{x:,.10g}")
    axes.grid(visible=True, which="major", color="#dddddd", linewidth=0.7)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    return figure


def release(release: Release, alpha: float = 0.05, truth: int | None = None) -> Figure:
    """What was released and how far the noise may have moved it, and how many clouds stand behind it.

    Args:
        release: what an aggregator returned.
        alpha: probability that the exact sum is outside the interval that is drawn; of several numbers, that any is.
        truth: the exact sum, if a simulation knows it; drawn as a line. Not of several numbers.
    """
    if not release.is_number:
        return _numbers(release, alpha)
    figure = empty(width=8.0, height=3.8)
    value_axes, cloud_axes = figure.subplots(2, 1, height_ratios=(3.2, 1.0))
    low, high = release.interval(alpha)
    if len(release.values) == 1 and release.draws == 1:
        _law(value_axes, release, half=round(high) - release.values[0])
    value_axes.plot([low, high], [0, 0], color=INK, linewidth=3.0, solid_capstyle="butt")
    value_axes.plot([low, high], [0, 0], "|", color=INK, markersize=14, markeredgewidth=2.0)
    value_axes.plot([release.value], [0], "o", color=INK, markersize=9, label=f"released: {_shown(release.value)}")
    if truth is not None:
        value_axes.axvline(truth, color=SPANS["wake"][0], linestyle="--", label=f"exact: {_shown(truth)}")
    value_axes.legend(loc="upper right", frameon=False, fontsize=9)
    value_axes.set(xlabel=f"over the clouds that answered ({release.unit})", ylim=(-0.18, 1.12), yticks=[])
    _whole_ticks(value_axes)
    certain = f"{100 * (1 - alpha):g} % interval {_shown(low)} to {_shown(high)} {release.unit}"
    title(
        value_axes,
        f"{release.kind}: {_shown(release.value)} {release.unit}",
        f"{certain}; {release.cost}, {noise_of(release)}",
    )
    _outcomes(cloud_axes, release)
    return figure


def ratios(frame: pd.DataFrame) -> Figure:
    """What each measure costs, as a multiple of the same work without emlab, or as a share of its limit.

    The medians, the rounds and the failed attempts stand beside each row; a row whose interval reaches beyond its
    target has a hollow mark.

    Args:
        frame: one row per measure, as `measure.compare` gives it.
    """
    return _ratio_figure(frame, "Cost of emlab", "median with emlab / median without")


def vault_costs(frame: pd.DataFrame) -> Figure:
    """What each vault costs, as a multiple of the same work in a vault that does not encrypt.

    As `ratios`; a vault that cannot run here has a row that says why.

    Args:
        frame: one row per measure and vault, as `measure.encryption.costs` gives it.
    """
    names = {"vault": "engine", "median": "emlab", "plain": "raw", "plain_failed": "raw_failed"}
    rows = frame.rename(columns=names).assign(against="raw")
    return _ratio_figure(rows, "Cost of encryption", "median encrypted / median in a plain directory")


def _ratio_figure(frame: pd.DataFrame, subject: str, axis: str) -> Figure:
    shown = [rows for _, rows in frame.groupby(frame["against"] != "raw")]
    figure = empty(width=11.0, height=1.0 + 0.38 * len(frame) + 0.7 * len(shown))
    heights = [len(rows) + 0.5 for rows in shown] or [1.0]
    panels: list[Axes] = list(figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0])
    for axes, rows in zip(panels, shown, strict=False):  # without rows one empty panel
        _ratio_rows(axes, rows.to_dict("records"), axis)
    failed = int(frame["failed"].sum() + frame["raw_failed"].sum())
    attempts = f"{len(frame)} measures, {failed} attempts failed"
    legend = "bar: 95 % interval, tall line: target, hollow: not surely met"
    title(panels[0], subject, f"{attempts}; {legend}")
    return figure


def noise_of(release: Release) -> str:
    """How much noise is in a release, in words."""
    return f"noise scale {three_digits(release.noise_scale)} {release.unit}" if release.noise_scale else "no noise"


def _listed(words: Sequence[str]) -> str:
    """The words as a sentence has them: a, b and c."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _style(span: str) -> tuple[str, str]:
    """Colour and marker of a span: a fixed pair, for a span without one always the same."""
    return SPANS.get(span) or list(SPANS.values())[zlib.crc32(span.encode()) % len(SPANS)]


def _curve(axes: Axes, events: pd.DataFrame, *, span: str, engine: str, until_ms: float) -> None:
    """The cumulative share of these attempts, with a mark at the median of the done ones.

    With failures it goes on, flat, to `until_ms`: there it is seen to stay below 1.
    """
    n, failed = len(events), int((~events["ok"]).sum())
    done = sorted(max(1000.0 * float(s), SHORTEST_MS) for s in events.loc[events["ok"], "duration_s"])
    colour, marker = _style(span)
    label = (f"{span} on {engine}" if engine else span) + f"\nn = {n}, {failed} failed"
    if done:
        median = statistics.median(done)
        label += f", median {three_digits(median)} ms"
        half = math.ceil(len(done) / 2) / n
        axes.plot([median], [half], marker, color=colour, markersize=8, markeredgecolor="white", zorder=3)
    tail = [until_ms] if done and failed else []
    x = [*done[:1], *done, *tail]
    y = [k / n for k in (*range(len(done) + bool(done)), *(len(done) for _ in tail))]
    line = ENGINES.get(engine, "-.")
    axes.step(x, y, where="post", color=colour, linestyle=line, linewidth=1.8, marker=marker, markevery=[], label=label)


def _marks(axes: Axes, events: pd.DataFrame, span: str) -> None:
    """A mark for each event, hollow if it failed; the legend has the number and the median of those that did not."""
    colour, marker = _style(span)
    done = events["ok"].to_numpy(dtype=bool)
    ms = (1000.0 * events["duration_s"]).clip(lower=SHORTEST_MS).to_numpy()
    days = ((events["start_ts"] + events["duration_s"]) / DAY_S).to_numpy()
    label = f"{span}: never happened" if not len(events) else f"{span}\nn = {len(events)}, {(~done).sum()} failed"
    if done.any():
        label += f", median {three_digits(statistics.median(ms[done]))} ms"
    style: dict[str, Any] = {
        "marker": marker,
        "linestyle": "",
        "markeredgecolor": colour,
        "markersize": 6,
        "alpha": 0.85,
    }
    axes.plot(days[done], ms[done], markerfacecolor=colour, label=label, **style)
    axes.plot(days[~done], ms[~done], markerfacecolor="none", **style)


def _time_axis(axes: Axes, ends_ts: pd.Series[float]) -> None:
    """The x axis, in days since 1970, as times; at least a minute, however few events there are."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    if len(ends_ts):
        last_ts = ends_ts.max()
        first_ts = min(ends_ts.min(), last_ts - LEAST_TIME_S)
        margin_s = 0.03 * (last_ts - first_ts)
        axes.set_xlim((first_ts - margin_s) / DAY_S, (last_ts + margin_s) / DAY_S)
        locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    else:
        axes.set_xticks([])


def _shown(value: float) -> str:
    return f"{value:,}" if value == int(value) else f"{value:,.6g}"


def _law(axes: Axes, release: Release, *, half: int) -> None:
    """The law of the one noise around the value, as a shade: its height at the value is 1."""
    scale = release.noise_scale
    if not scale:
        return
    power = 2 if isinstance(release.noise[0], Gaussian) else 1
    reach = max(1, round(1.6 * half))
    step = max(1, reach // 400)
    x = range(release.values[0] - reach, release.values[0] + reach + 1, step)
    y = [math.exp(-((abs(k - release.values[0]) / scale) ** power) / power) for k in x]
    axes.fill_between(list(x), y, step="mid", color="#d6dde3", linewidth=0)
    axes.set_ylabel("likelihood of\nthe exact sum", fontsize=9)


def _numbers(release: Release, alpha: float) -> Figure:
    """A point with its interval for each number, as far as a figure has room for their labels."""
    frame = release.frame(alpha)
    shown = frame.head(MOST_CELLS)
    figure = empty(width=8.0, height=2.6 + 0.22 * len(shown))
    cell_axes, cloud_axes = figure.subplots(2, 1, height_ratios=(max(3.0, 0.25 * len(shown)), 1.0))
    rows = range(len(shown))
    cell_axes.hlines(rows, shown["low"], shown["high"], color=INK, linewidth=1.5)
    cell_axes.plot(shown["value"], rows, "o", color=INK, markersize=5)
    cell_axes.axvline(0, color="#bbbbbb", linewidth=0.8)
    several = frame["part"].nunique() > 1
    labels = [f"{row.part}: {row.label}" if several else str(row.label) for row in shown.itertuples()]
    cell_axes.set_yticks(rows, labels, fontsize=8)
    cell_axes.invert_yaxis()
    cell_axes.set_xlabel(f"sum over the clouds that answered ({', '.join(dict.fromkeys(frame['unit']))})")
    rest = "" if len(shown) == len(frame) else f", the first {len(shown)} shown"
    title(
        cell_axes,
        f"{release.kind}: {len(frame)} numbers{rest}",
        f"all intervals hold together with {100 * (1 - alpha):g} %; {release.cost}, {noise_of(release)}",
    )
    _outcomes(cloud_axes, release)
    return figure


def _outcomes(axes: Axes, release: Release) -> None:
    """One bar of all clouds that were asked, cut into the three outcomes."""
    counts = {"answered": release.answered, "refused": release.refused, "failed": release.failed}
    left = 0
    for outcome, count in counts.items():
        colour, hatch = OUTCOMES[outcome]
        label = f"{outcome} {count}"
        axes.barh([0], [count], left=left, color=colour, hatch=hatch, edgecolor="white", label=label, height=0.8)
        left += count
    about = fill(f"clouds (asked {release.asked}; trust: {release.trust})", 95)
    axes.set(xlim=(0, max(1, release.asked)), yticks=[], xlabel=about)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    _whole_ticks(axes)


def _whole_ticks(axes: Axes) -> None:
    """The x axis counts in whole numbers, written out: 1,500,000."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _ratio_rows(axes: Axes, rows: Sequence[Mapping[Hashable, Any]], axis: str) -> None:
    """One row per measure from the top; all of them against raw, or all against a limit."""
    places = [-number for number in range(len(rows))]
    for y, row in zip(places, rows, strict=True):
        _ratio(axes, y, row)
    axes.set(ylim=(places[-1] - 0.6, 0.6))
    axes.set_yticks(places, [" on ".join(filter(None, (row["measure"], row["engine"]))) for row in rows])
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(places, [_ratio_text(row) for row in rows], fontsize=8.5)
    beside.tick_params(length=0)
    if rows[0]["against"] == "raw":
        axes.axvline(1.0, color=FAINT, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel=f"{axis} (logarithmic axis)")
        axes.xaxis.set_major_formatter("{x:,.10g}")
        _log_ticks(axes)
    else:
        axes.set(xlim=(0.0, None), xlabel="median with emlab / limit")
    axes.grid(visible=True, axis="x", which="both", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)


def _ratio(axes: Axes, y: int, row: Mapping[Hashable, Any]) -> None:
    """Mark, interval and target; nothing of what is not finite, which the text beside it tells."""
    ends = [end for end in (row["low"], row["high"]) if math.isfinite(end)]
    axes.plot(ends, [y] * len(ends), color=INK, linestyle=ENGINES.get(row["engine"], "-"), linewidth=2.4)
    within = row["met"] is True or math.isnan(row["target"])
    if math.isfinite(row["ratio"]):
        axes.plot(
            [row["ratio"]], [y], "o", color=INK, markersize=7, markerfacecolor=INK if within else "white", zorder=3
        )
    if math.isfinite(row["target"]):
        axes.plot([row["target"]] * 2, [y - 0.36, y + 0.36], color=SPANS["wake"][0], linewidth=2.2)


def _ratio_text(row: Mapping[Hashable, Any]) -> str:
    """The row in numbers, or why there are none."""
    if note := row.get("note"):
        return shorten(str(note), MOST_NOTE, placeholder=" …")
    ends = f"{_number(row['ratio'])} [{_number(row['low'])}, {_number(row['high'])}]"
    target = "no target" if math.isnan(row["target"]) else f"target {row['target']:g}"
    base = row["raw"] if row["against"] == "raw" else row["against"]
    medians = f"{_amount(row['emlab'], row['unit'])} / {base if isinstance(base, str) else _amount(base, row['unit'])}"
    return f"{ends}, {target};  {medians};  n = {row['n']}, {row['failed'] + row['raw_failed']} failed"


def _number(value: float) -> str:
    return three_digits(value) if math.isfinite(value) else {math.inf: "∞"}.get(value, "–")


def _amount(value: float, unit: str) -> str:
    """A median with its unit, seconds as milliseconds; of attempts of which half failed: never."""
    if math.isinf(value):
        return "never"
    return f"{_number(1000 * value)} ms" if unit == "s" else f"{_number(value)} {unit}"


def _log_ticks(axes: Axes) -> None:
    """Enough ticks with plain numbers on a logarithmic axis of less than a decade, too."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_formatter(NullFormatter())
