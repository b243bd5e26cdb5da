"""What happened and how long it took: one event per pause, wake, answer ..., the failed ones too.

Imports pandas when a frame is made, and nothing of emlab but clock.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from emlab.clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    import pandas as pd

ERROR_LENGTH = 200
# "string" is the same type in pandas 2 and 3, and an empty column keeps it.
DTYPES = {
    "span": "string",
    "user": "string",
    "engine": "string",
    "start_ts": "float64",
    "duration_s": "float64",
    "ok": "bool",
    "error": "string",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that was done.

    Attributes:
        span: what, as a verb: pause, wake, answer ...
        user, engine: for whom and on what; "" if it concerns none.
        start_ts: UTC seconds since 1970.
        duration_s: seconds of the monotonic clock, until it was done or had failed.
        ok: whether it was done.
        error: "" if it was, else the kind of the error and the first line of its message.
    """

    span: str
    user: str
    engine: str
    start_ts: float
    duration_s: float
    ok: bool = True
    error: str = ""


def describe(error: BaseException) -> str:
    """The error as one short line, "Kind: first line of the message", at most 200 characters."""
    lines = str(error).strip().splitlines()
    kind = type(error).__name__
    return (f"{kind}: {lines[0]}" if lines else kind)[:ERROR_LENGTH]


def summarize(frame: pd.DataFrame) -> pd.DataFrame:
    """How many events of each span and engine there are, how many failed, and how long the others took.

    Args:
        frame: events, as `Recorder.frame()` gives them.
    Returns:
        one row per (span, engine) with the columns n, failed, p50_ms, p95_ms, max_ms. The milliseconds are those
        of the events that succeeded, interpolated between samples; NaN if none did.
    """
    import pandas as pd

    done_ms = frame["duration_s"].where(frame["ok"]) * 1000.0
    groups = frame.assign(failed=~frame["ok"], ms=done_ms).groupby(["span", "engine"], dropna=False)
    times = groups["ms"]
    return pd.DataFrame(
        {
            "n": groups.size(),
            "failed": groups["failed"].sum(),
            "p50_ms": times.quantile(0.5),
            "p95_ms": times.quantile(0.95),
            "max_ms": times.max(),
        }
    )


def three_digits(value: float) -> str:
    """A positive number as a table shows it: 1,234 or 56.7 or 0.0890."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


class Recorder:
    """Collects events; every method may be called from several threads."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._count = 0
        self.run = secrets.token_hex(4)  # with which its numbers of events are told from those of another process

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far, in the order in which they ended."""
        with self._lock:
            return tuple(self._events)

    def add(self, event: Event) -> None:
        """The event is recorded: for what was measured elsewhere."""
        with self._lock:
            self._events.append(event)
            self._count += 1

    def keep(self, latest: int) -> None:
        """No more than so many events, the latest ones, are kept from now on: for what runs for weeks."""
        with self._lock:
            self._events = deque(self._events, maxlen=latest)

    @property
    def count(self) -> int:
        """How many events there were in all."""
        return self._count

    def since(self, count: int) -> tuple[list[Event], int]:
        """What happened after the first `count` events, as far as it is kept, and how many there were in all."""
        with self._lock:
            fresh = min(max(self._count - count, 0), len(self._events))
            latest = list(itertools.islice(reversed(self._events), fresh))
            return latest[::-1], self._count

    @contextmanager
    def span(self, span: str, *, user: str = "", engine: str = "") -> Iterator[None]:
        """What the `with` block does is recorded when it ends, as failed if an exception leaves it.

        The exception goes through, KeyboardInterrupt too.
        """
        start_ts, start = self._clock.now(), self._clock.monotonic()
        error = ""
        try:
            yield
        except BaseException as exc:
            error = describe(exc)
            raise
        finally:
            duration_s = self._clock.monotonic() - start
            self.add(Event(span, user, engine, start_ts, duration_s, ok=not error, error=error))

    def frame(self) -> pd.DataFrame:
        """All events so far, one row each, with the columns of Event; the types are the same when there are none."""
        import pandas as pd

        columns = [field.name for field in fields(Event)]
        rows = [tuple(getattr(event, name) for name in columns) for event in self.events]
        return pd.DataFrame(rows, columns=columns).astype(DTYPES)

    def __repr__(self) -> str:
        failed = sum(not event.ok for event in self.events)
        return f"Recorder({len(self.events)} events, {failed} failed)"

    def _repr_html_(self) -> str:
        return html_table(self.frame())


def html_table(frame: pd.DataFrame) -> str:
    """The summary of these events as an HTML table; a dash stands where nothing succeeded."""
    table = summarize(frame).reset_index()
    names = {name: name.replace("_ms", " (ms)") for name in table.columns}
    return table.rename(columns=names).to_html(index=False, border=0, float_format=three_digits, na_rep="–")
