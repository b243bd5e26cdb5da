"""What came of questions asked again and again: errors, promises, who took part, and until when.

Every function draws rows as `measure.asking.Asks.frame()` gives them, or a table that was made of them, and says on the
figure how many there are. Imports matplotlib when something is drawn.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from emlab.plots.frame import FAINT, INK, empty, title
from emlab.plots.lab import OUTCOMES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, AMBER = "#14506e", "#e8a33d"
MARKS = ("o", "s", "^", "D")
MOST_BINS = 60  # of a histogram; wider bins above
MODELS = {"central": (BLUE, "o"), "local": (AMBER, "s")}


def errors(asks: pd.DataFrame) -> Figure:
    """How far each release was from the exact answer, for each alpha, and how far its noise's law says.

    A panel for each question. The bars are a histogram, those beyond the offset in another colour; the outline is the
    law's.

    Args:
        asks: as `measure.accuracy.repeat` gives them; those without a release of all people are left out, and counted.
    """
    groups = list(asks.groupby("measure", sort=False))
    figure = empty(width=9.0, height=4.4 * max(1, len(groups)))
    panels: list[Axes] = list(figure.subplots(max(1, len(groups)), 1, squeeze=False, sharey=True)[:, 0])
    for axes, (name, group) in zip(panels, groups, strict=False):
        arms = list(group.groupby("alpha"))
        for place, (_, one) in enumerate(arms):
            _errors(axes, place, one)
        offset = group["offset"].iloc[0]
        for edge in (-offset, offset):
            axes.axhline(edge, color=INK, linestyle="--", linewidth=1.0)
        axes.set_xticks(range(len(arms)), [_errors_label(alpha, one) for alpha, one in arms], fontsize=9)
        axes.set(xlabel="alpha: the promised largest share beyond the offset", xlim=(-0.6, len(arms) - 0.4))
        left_out = len(group) - len(_whole(group))
        unit, exact = group["unit"].iloc[0], group["exact"].iloc[0]
        axes.set_ylabel(f"released - exact ({unit})")
        detail = f"{len(group)} asks, {left_out} left out; exact answer {exact:g}; dashed: offset {offset:g}"
        title(axes, f"Errors of {name}", f"{detail}; bars: releases, amber beyond; outline: the noise's law")
        axes.grid(visible=True, axis="y", color="#e4e4e4", linewidth=0.7)
        axes.set_axisbelow(True)
    return figure


def _whole(asks: pd.DataFrame) -> pd.DataFrame:
    """The asks that released an answer of all people."""
    return asks[asks["ok"] & (asks["answered"] == asks["people"])]


def _beyond(whole: pd.DataFrame) -> int:
    return int(((whole["value"] - whole["exact"]).abs() > whole["offset"]).sum())


def _errors_label(alpha: object, asks: pd.DataFrame) -> str:
    whole = _whole(asks)
    epsilon = asks["epsilon"].iloc[0]
    return f"{alpha}\nepsilon {epsilon:.3g}\nn = {len(whole)}, {_beyond(whole)} beyond"


def _errors(axes: Axes, place: int, asks: pd.DataFrame) -> None:
    """A histogram that stands upright at that place, as wide as its law, whose outline is drawn."""
    whole = _whole(asks)
    if whole.empty:
        return
    found, offset, scale = whole["value"] - whole["exact"], whole["offset"].iloc[0], whole["scale"].iloc[0]
    reach = int(max(found.abs().max(), 1.6 * offset, 2.0))
    step = math.ceil((2 * reach + 1) / MOST_BINS)
    first = -step * math.ceil(reach / step)
    centres = [first + step * k + (step - 1) / 2 for k in range(2 * math.ceil(reach / step) + 1)]
    bins = ((found - first) // step).value_counts()
    shares = [float(bins.get(k, 0)) / len(whole) for k in range(len(centres))]
    law = [_law(first + step * k, first + step * (k + 1) - 1, scale) for k in range(len(centres))]
    widest = max([*shares, *law])
    widths = [0.86 * share / widest for share in shares]
    colours = [AMBER if abs(centre) > offset else BLUE for centre in centres]
    axes.barh(centres, widths, left=[place - w / 2 for w in widths], height=0.86 * step, color=colours)
    edge = [0.43 * share / widest for share in law]
    for side in (-1, 1):
        axes.step([place + side * x for x in edge], centres, where="mid", color=FAINT, linewidth=1.0)


def _law(low: int, high: int, scale: float) -> float:
    """The probability that discrete Laplace noise lies within low..high, both included."""
    p = math.exp(-1 / scale) if scale > 0 else 0.0

    def below(k: int) -> float:
        return p ** (1 - k) / (1 + p) if k <= 0 else 1 - p**k / (1 + p)

    return below(high + 1) - below(low)


def misses(table: pd.DataFrame) -> Figure:
    """How often the error was beyond the offset, beside alpha, which promises how often at most.

    Args:
        table: as `measure.accuracy.table` gives it.
    """
    figure = empty(width=8.0, height=4.4)
    axes = figure.add_subplot()
    alphas = sorted(set(table["alpha"])) if len(table) else []
    questions = list(dict.fromkeys(table["question"])) if len(table) else []
    for place, alpha in enumerate(alphas):
        label = "alpha: the promise" if place == 0 else None
        axes.plot([place - 0.36, place + 0.36], [100 * alpha] * 2, color=INK, linewidth=2.4, label=label)
    for number, name in enumerate(questions):
        rows = table[table["question"] == name]
        shift = 0.28 * (number - (len(questions) - 1) / 2)
        x = [alphas.index(alpha) + shift for alpha in rows["alpha"]]
        low, high = 100 * (rows["share"] - rows["low"]), 100 * (rows["high"] - rows["share"])
        axes.errorbar(
            x,
            100 * rows["share"],
            yerr=[low.clip(lower=0), high.clip(lower=0)],
            fmt=MARKS[number % len(MARKS)],
            color=(BLUE, AMBER)[number % 2],
            markersize=7,
            capsize=4,
            label=f"{name}: share beyond, 95 % interval",
        )
        for where, row in zip(x, rows.to_dict("records"), strict=True):
            note = f"{row['beyond']}/{row['n']}"
            axes.annotate(note, (where, 100 * row["high"]), (0, 4), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axes.set(xlabel="alpha", ylabel="errors beyond the offset (% of releases)", xlim=(-0.6, len(alphas) - 0.4))
    axes.set_ylim(bottom=0)
    left_out = int(table["partial"].sum() + table["nothing"].sum()) if len(table) else 0
    counted = int(table["n"].sum()) if len(table) else 0
    title(axes, "Share of errors beyond the offset", f"{counted:,} releases; {left_out} asks left out")
    axes.grid(visible=True, axis="y", color="#e4e4e4", linewidth=0.7)
    if len(table):
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    return figure


def _count(number: float) -> str:
    return f"{number:,.0f}"


def participation(asks: pd.DataFrame) -> Figure:
    """What was released when some people did not take part, one row for each way of that.

    A panel for each question. Each dot is a release; the diamond is their mean, the upright bar the exact answer over
    those who permit, the dashed line that over everybody; a shade is the range of a range check.

    Args:
        asks: as `measure.opt_out.repeat` gives them.
    """
    groups = list(asks.groupby("measure", sort=False))
    arms = list(dict.fromkeys(asks["arm"]))
    figure = empty(width=11.0, height=1.2 + (0.9 + 0.62 * len(arms)) * max(1, len(groups)))
    panels: list[Axes] = list(figure.subplots(max(1, len(groups)), 1, squeeze=False)[:, 0])
    for axes, (name, group) in zip(panels, groups, strict=False):
        low, high = group["range_low"].iloc[0], group["range_high"].iloc[0]
        if math.isfinite(low):
            axes.axvspan(low, high, color="#e9e9e9", zorder=0, label=f"asked: {low:g} to {high:g}?")
        axes.axvline(group["exact"].iloc[0], color=INK, linestyle="--", linewidth=1.2, label="exact, everybody")
        notes = []
        for place, arm in enumerate(arms):
            notes.append(_taken_part(axes, -place, group[group["arm"] == arm], first=place == 0))
        axes.set_yticks([-place for place in range(len(arms))], arms, fontsize=9)
        beside = axes.secondary_yaxis("right")
        beside.set_yticks([-place for place in range(len(arms))], notes, fontsize=8.5)
        beside.tick_params(length=0)
        axes.tick_params(axis="y", length=0)
        axes.set(xlabel=f"released ({group['unit'].iloc[0]})", ylim=(-len(arms) + 0.4, 0.6))
        nothing = int((~group["ok"]).sum())
        terms = f"offset {group['offset'].iloc[0]:g}, alpha {group['alpha'].iloc[0]:g}"
        title(axes, f"{name}: who is missing", f"{len(group)} asks, {nothing} without a release; {terms}")
        axes.legend(loc="upper left", bbox_to_anchor=(0.0, -0.22), ncols=4, frameon=False, fontsize=8.5)
    return figure


def _taken_part(axes: Axes, y: float, asks: pd.DataFrame, *, first: bool) -> str:
    """One row of dots, and what stands beside it."""
    if asks.empty:
        return "never asked"
    done = asks[asks["ok"]]
    labels = ["a release", "their mean", "exact, those who permit"] if first else [None] * 3
    if len(done):
        seen: dict[float, int] = {}
        heights = []
        step = min(0.035, 0.8 / done["value"].value_counts().max())
        for value in done["value"]:  # equal values lie over each other, alternately above and below
            seen[value] = seen.get(value, 0) + 1
            heights.append(y + step * (seen[value] // 2) * (1 if seen[value] % 2 else -1))
        axes.plot(done["value"], heights, "o", color=BLUE, markersize=3.2, alpha=0.55, label=labels[0])
        axes.plot([done["value"].mean()], [y], "D", color=AMBER, markeredgecolor=INK, markersize=8, label=labels[1])
    expected = asks["expected"].iloc[0]
    axes.plot([expected] * 2, [y - 0.36, y + 0.36], color=INK, linewidth=2.4, label=labels[2])
    means = {name: asks[name].mean() for name in ("asked", "answered", "refused", "failed")}
    said = ", ".join(f"{name} {mean:.3g}" for name, mean in means.items())
    bias = f"bias {done['value'].mean() - asks['exact'].iloc[0]:+.2f}" if len(done) else "nothing released"
    wrong = done[(done["says"] != "") & (done["says"] != done["truth"])]
    return f"n = {len(done)}, {bias}" + (f", {len(wrong)} wrong" if (done["says"] != "").any() else "") + f"\n{said}"


def decay(asks: pd.DataFrame) -> Figure:
    """What was released and who took part, ask after ask, until all budgets are spent.

    Args:
        asks: as `measure.budget_decay.repeat` gives them.
    """
    from matplotlib.ticker import MaxNLocator

    figure = empty(width=9.5, height=6.2)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.2, 1.0))
    done = asks[asks["ok"]]
    bars = [(done["value"] - done["low"]), (done["high"] - done["value"])]
    style: dict[str, Any] = {"color": BLUE, "markersize": 4, "ecolor": "#7f9aab", "elinewidth": 1.2}
    sure = f"released, with its {100 * (1 - asks['alpha'].iloc[0]):g} % interval" if len(asks) else "released"
    above.errorbar(done["round"], done["value"], yerr=bars, fmt="o", label=sure, **style)
    above.step(asks["round"], asks["expected"], where="mid", color=INK, label="exact, whose budgets last")
    if len(asks):
        above.axhline(asks["exact"].iloc[0], color=INK, linestyle="--", linewidth=1.0, label="exact, everybody")
    above.set_ylabel(f"answer ({asks['unit'].iloc[0] if len(asks) else 'users'})")
    nothing = int((~asks["ok"]).sum())
    cost = f"epsilon {asks['epsilon'].iloc[0]:.4g} each" if len(asks) else ""
    title(above, "Answers until budgets are spent", f"{len(asks)} asks, {nothing} without a release; {cost}")
    above.legend(loc="upper right", frameon=False, fontsize=8.5)
    bottom = 0.0 * asks["round"]
    for outcome, (colour, hatch) in OUTCOMES.items():
        label = f"{outcome}: {_count(asks[outcome].sum())} in all"
        below.bar(
            asks["round"], asks[outcome], bottom=bottom, width=1.0, color=colour, hatch=hatch, edgecolor="white",
            linewidth=0.3, label=label,
        )  # fmt: skip
        bottom = bottom + asks[outcome]
    below.step(asks["round"], asks["expected"], where="mid", color=INK, linewidth=2.0, label="expected from policies")
    below.set(
        xlabel="number of the ask", ylabel="clouds", ylim=(0, 1.35 * max(1.0, float(bottom.max() if len(asks) else 1)))
    )
    below.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    below.legend(loc="upper right", ncols=2, frameon=False, fontsize=8.5)
    below.spines[["top", "right"]].set_visible(False)
    return figure


def model_errors(asks: pd.DataFrame) -> Figure:
    """Errors of the central and of the local model at the same privacy loss, for more and more people.

    Each dot is a release, each box holds the middle half of them; the shade is the interval that the release itself
    states.

    Args:
        asks: as `measure.models.repeat` gives them; those without a release of all people are left out, and counted.
    """
    figure = empty(width=9.0, height=4.8)
    axes = figure.add_subplot()
    sizes = sorted(set(asks["people"]))
    notes = []
    for place, size in enumerate(sizes):
        texts = [f"{size}"]
        for model, (colour, marker) in MODELS.items():
            one = asks[(asks["people"] == size) & (asks["model"] == model)]
            shift = -0.2 if model == "central" else 0.2
            texts.append(f"{model}: n = {_model(axes, place + shift, one, colour, marker, first=place == 0)}")
        notes.append("\n".join(texts))
    axes.axhline(0.0, color=INK, linewidth=0.8)
    whole = _whole(asks)
    ends = [(whole["value"] - whole["exact"]).abs(), (whole["high"] - whole["low"]) / 2]
    reach = 1.08 * max([1.0, *(end.max() for end in ends if len(end))])
    axes.set_ylim(-reach, reach)
    axes.set_xticks(range(len(sizes)), notes, fontsize=9)
    axes.set(xlabel="people", ylabel=f"released - exact ({asks['unit'].iloc[0] if len(asks) else 'users'})")
    left_out = len(asks) - len(whole)
    loss = f"epsilon {asks['epsilon'].iloc[0]:g} each" if len(asks) else ""
    title(axes, "Error of either model", f"{len(asks)} asks, {left_out} without a release of all people; {loss}")
    axes.grid(visible=True, axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    if len(whole):
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    return figure


def _model(axes: Axes, x: float, asks: pd.DataFrame, colour: str, marker: str, *, first: bool) -> int:
    """The releases of one model at that place; how many there are."""
    whole = _whole(asks)
    if whole.empty:
        return 0
    found = list(whole["value"] - whole["exact"])
    half = float((whole["high"] - whole["low"]).mean()) / 2
    sure = f"{100 * (1 - whole['alpha'].iloc[0]):g} % interval"
    model = whole["model"].iloc[0]
    label = {True: (f"{model}: a release", f"stated {sure}" if model == "central" else None), False: (None, None)}[
        first
    ]
    axes.bar([x], [2 * half], bottom=-half, width=0.34, color="#e6e6e6", edgecolor="#bbbbbb", zorder=0, label=label[1])
    spread = [x + 0.13 * math.sin(2.4 * k) for k in range(len(found))]  # beside each other, in no order
    axes.plot(spread, found, marker, color=colour, markersize=3.6, alpha=0.7, label=label[0])
    axes.boxplot(
        [found], positions=[x], widths=0.3, showfliers=False, manage_ticks=False, medianprops={"color": INK},
        boxprops={"color": INK}, whiskerprops={"color": INK}, capprops={"color": INK},
    )  # fmt: skip
    return len(found)
