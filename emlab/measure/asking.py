"""One question asked again and again of a crowd: each time a row with what was released beside what is exact.

    with Crowd("process", list(Simulator(20, 3, 1))) as crowd:
        asks = Asks(crowd)
        asks.take(question, number=0, arm="all")
    asks.frame()

An ask that released nothing is a row too, with the reason. Imports pandas when a frame is made, and crowd.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from emlab import ask as admitting
from emlab import privacy
from emlab.aggregate import Release
from emlab.ask import Model
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.errors import EmlabError
from emlab.measure.crowd import Crowd
from emlab.measure.results import write_run
from emlab.measure.samples import DTYPES
from emlab.queries.in_range import InRange
from emlab.query import Query
from emlab.record import Event, describe

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

T = TypeVar("T")
MORE = {
    "duration_s": "float64",
    "model": "string",
    "lab": "int64",
    "offset": "float64",
    "alpha": "float64",
    "epsilon": "float64",
    "scale": "float64",
    "low": "float64",
    "high": "float64",
    "exact": "float64",
    "expected": "float64",
    "people": "int64",
    "asked": "int64",
    "answered": "int64",
    "refused": "int64",
    "failed": "int64",
    "reasons": "string",
    "range_low": "float64",
    "range_high": "float64",
    "truth": "string",
    "says": "string",
    "verdict": "string",
}
REFUSALS = {kind.__name__ for kind in admitting.REFUSALS}


@dataclass(frozen=True)
class Question:
    """What is asked, on which terms.

    Attributes:
        name: for people. query: of one number. exact: its answer over everybody, from the simulation.
        offset, alpha: the noise may exceed `offset` with probability `alpha`; or else
        epsilon: the loss; `alpha` is then that of the interval alone.
    """

    name: str
    query: Query
    exact: float
    offset: float | None = None
    alpha: float = 0.05
    epsilon: float | None = None
    model: Model = "central"

    @property
    def cost_micro(self) -> int:
        """What it costs each person who is asked, in millionths of epsilon. Raises BadQuery."""
        if self.offset is not None:
            return privacy.solve_epsilon(self.query.sensitivity, self.offset, self.alpha)
        return privacy.micro_epsilon(math.nan if self.epsilon is None else self.epsilon)


class Asks:
    """Collects the asks of one crowd. One thread."""

    def __init__(self, crowd: Crowd, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._crowd = crowd
        self._clock = clock
        self._rows: list[dict[str, object]] = []

    def take(self, question: Question, number: int, *, arm: str, expected: float | None = None) -> None:
        """The question was asked once more, in this round.

        Args:
            expected: the exact answer over those whose policies and budgets should let them answer; everybody's
                without it.
        """
        self._crowd.cover(question.cost_micro)
        lab = self._crowd.lab
        _, before = lab.recorder.since(0)
        start_ts, start, error = self._clock.now(), self._clock.monotonic(), ""
        release: Release | None = None
        try:
            release = self._crowd.provider.ask(
                question.query,
                epsilon=question.epsilon,
                offset=question.offset,
                alpha=None if question.offset is None else question.alpha,
                model=question.model,
                min_users=1,
                progress=False,
            )
        except EmlabError as exc:
            error = describe(exc)
        duration_s = self._clock.monotonic() - start
        events, _ = lab.recorder.since(before)
        self._rows.append(
            {
                "measure": question.name,
                "arm": arm,
                "engine": lab.engine,
                "round": number,
                "unit": question.query.unit,
                "start_ts": start_ts,
                "ok": not error,
                "error": error,
                "duration_s": duration_s,
                "model": question.model,
                "lab": self._crowd.labs,
                "offset": math.nan if question.offset is None else question.offset,
                "alpha": question.alpha,
                "exact": question.exact,
                "expected": question.exact if expected is None else expected,
                "people": len(self._crowd.people),
                **_range(question),
                **(_nothing(question, events) if release is None else _released(release, question.alpha)),
            }
        )

    def frame(self) -> pd.DataFrame:
        """One row for each ask so far: the columns of `Samples.frame()`, `value` being what was released, and more.

        duration_s; model; lab (from 1 on: which one); offset, alpha, epsilon, scale (of the noise); low and high (of
        the interval that misses the exact answer with probability alpha); exact (of everybody), expected (see `take`);
        people; asked, answered, refused, failed (clouds), reasons (of the latter two). Nothing released: NaN. Of a
        range check its ends range_low and range_high, truth and says (whether the exact and the released number are in
        it), and verdict (whether all of the interval is).
        """
        import pandas as pd

        dtypes = DTYPES | MORE
        return pd.DataFrame(self._rows, columns=list(dtypes)).astype(dtypes)


def _range(question: Question) -> dict[str, object]:
    query, ends = question.query, (math.nan, math.nan)
    if isinstance(query, InRange):
        ends = (float(query.low), float(query.high))
    return {"range_low": ends[0], "range_high": ends[1], "truth": says(query, question.exact)}


def _released(release: Release, alpha: float) -> dict[str, object]:
    low, high = release.interval(alpha)
    return {
        "value": release.value,
        "low": low,
        "high": high,
        "epsilon": release.epsilon,
        "scale": release.noise_scale,
        "asked": release.asked,
        "answered": release.answered,
        "refused": release.refused,
        "failed": release.failed,
        "reasons": _listed(release.reasons),
        "says": says(release.query, release.value),
        "verdict": release.query.verdict(low, high) if isinstance(release.query, InRange) else "",
    }


def says(query: Query, value: float) -> str:
    """Whether that number is in the query's range, "yes" or "no"; "" if it has none."""
    return query.verdict(value, value) if isinstance(query, InRange) else ""


def _nothing(question: Question, events: Iterable[Event]) -> dict[str, object]:
    """Of an ask that released nothing: how its clouds answered, as the lab has recorded."""
    answers = [event for event in events if event.span == "answer"]
    kinds = Counter(event.error.partition(":")[0] for event in answers if not event.ok)
    refused = sum(count for kind, count in kinds.items() if kind in REFUSALS)
    return {
        **dict.fromkeys(("value", "low", "high", "scale"), math.nan),
        "epsilon": question.cost_micro / privacy.MICRO,
        "asked": len(answers),
        "answered": len(answers) - kinds.total(),
        "refused": refused,
        "failed": kinds.total() - refused,
        "reasons": _listed(kinds),
        "says": "",
        "verdict": "",
    }


def _listed(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))


def rounds(of: Iterable[T], description: str) -> Iterator[T]:
    """The same, with a progress bar where somebody looks."""
    from tqdm.auto import tqdm

    yield from tqdm(of, desc=description, leave=False, disable=None)


def spent(asks: pd.DataFrame) -> pd.DataFrame:
    """What the asks cost a person who answered all of them, by arm and lab: asks, nothing (no release), epsilon."""
    shown = asks.assign(nothing=~asks["ok"])
    groups = shown.groupby(["arm", "lab"], sort=False)
    return groups.agg(asks=("epsilon", "size"), nothing=("nothing", "sum"), epsilon=("epsilon", "sum")).reset_index()


def write_asks(
    out_dir: str,
    asks: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    *,
    params: Mapping[str, Any],
    figures: Mapping[str, Figure],
    title: str,
) -> Sequence[Path]:
    """The folder holds the asks (events.parquet), tables, figures and report.html. With "" nothing is written."""
    from emlab import report

    if not out_dir:
        return []
    engine = " ".join(asks["engine"].unique())
    return write_run(
        Path(out_dir),
        asks,
        tables,
        params=params,
        figures=figures,
        title=title,
        environment=report.environment(engine, "plain"),
    )
