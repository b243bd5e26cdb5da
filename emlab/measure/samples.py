"""The samples of a run: what was measured, on which arm, in which round, the failed attempts too.

Imports pandas when a frame is made, and of emlab clock and record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.record import describe

if TYPE_CHECKING:
    import pandas as pd

DTYPES = {
    "measure": "string",
    "arm": "string",
    "engine": "string",
    "round": "int64",
    "value": "float64",
    "unit": "string",
    "start_ts": "float64",
    "ok": "bool",
    "error": "string",
}


class Samples:
    """Collects the samples of one engine ("" if it concerns none). One thread."""

    def __init__(self, engine: str, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._engine = engine
        self._clock = clock
        self._rows: list[tuple[object, ...]] = []

    def time(
        self,
        measure: str,
        arm: str,
        number: int,
        action: Callable[[], object],
        *,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """The action's seconds are a sample of this measure, in this round.

        Args:
            before: brings about what the action needs, and is not timed; if it fails, so has the attempt.
        """

        def seconds() -> float:
            before()
            start = self._clock.monotonic()
            action()
            return self._clock.monotonic() - start

        self.take(measure, arm, number, seconds, unit="s")

    def take(self, measure: str, arm: str, number: int, read: Callable[[], float], *, unit: str) -> None:
        """What `read` returns is a sample of this measure; if it fails, the value is NaN and `error` says why."""
        start_ts, value, error = self._clock.now(), float("nan"), ""
        try:
            value = read()
        except Exception as exc:
            # whatever ends one attempt, in emlab, docker or pymongo, is its result and not the run's end
            error = describe(exc)
        self._rows.append((measure, arm, self._engine, number, value, unit, start_ts, not error, error))

    def frame(self) -> pd.DataFrame:
        """All samples so far, one row each: measure, arm, engine, round, value, unit, start_ts, ok, error."""
        import pandas as pd

        return pd.DataFrame(self._rows, columns=list(DTYPES)).astype(DTYPES)


def as_events(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with the columns of `Recorder.frame()` too, so that reports and figures of events can show them.

    `span` is the measure and the arm; `duration_s`, if the samples do not have it, is NaN for what is no time.
    """
    took_s = samples.get("duration_s", samples["value"].where(samples["unit"] == "s"))
    return samples.assign(
        span=samples["measure"] + " (" + samples["arm"] + ")",
        user="",
        duration_s=took_s,
    ).astype({"span": "string", "user": "string"})
