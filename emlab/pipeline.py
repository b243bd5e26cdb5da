"""The pipeline: raw entries are formatted, and turned into trips, sections and places, a window of days at a time.

It reads and writes a store and leaves the deciding to `intake`. Whatever ends it, running it again goes on where it
was: what a window gave is kept before the checkpoint from which the next one begins. Loads numpy and pandas; a
custodian runs it as a process of its own (`apps.job`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.entries import JsonObject
from emlab.entries.codes import Stage
from emlab.entries.times import zone_named
from emlab.errors import BadEntry, ConfigError
from emlab.intake import run
from emlab.intake.formatting import format_entry
from emlab.intake.keys import INPUT_KEYS, KEYS
from emlab.intake.outcome import Checkpoint, Observed, Outcome
from emlab.intake.report import IntakeReport
from emlab.store import Store
from emlab.store.base import at, oid_of

if TYPE_CHECKING:
    import pandas as pd

FILTERED, MOTION, TRANSITION = "background/filtered_location", "background/motion_activity", "statemachine/transition"
TRIP, PLACE = "analysis/confirmed_trip", "analysis/confirmed_place"
RAW = {
    "data.ts": [FILTERED, MOTION, TRANSITION],
    "data.start_ts": [key for key in INPUT_KEYS if not key.startswith("manual/place_")],
    "data.enter_ts": [key for key in INPUT_KEYS if key.startswith("manual/place_")],
}
FORMATTED_AT_ONCE = 2_000
WINDOW = 20_000  # locations that are looked at together: about a month, and 200 MB with all that comes of them
MAX_LINES_BYTES = 4 << 20
MARKS = 64  # checkpoints that are kept, so that what comes late does not make all begin anew
COMPLETE_AFTER_S = 5.0  # how far after the last trip's end e-mission says that it is complete

_NUMBERS = {
    FILTERED: ("ts", "metadata.write_ts", "latitude", "longitude", "altitude", "accuracy", "sensed_speed", "heading"),
    MOTION: ("ts", "metadata.write_ts", "type", "confidence"),
    TRANSITION: ("ts", "metadata.write_ts", "curr_state", "transition"),
}
_TEXTS = {FILTERED: ("filter", "metadata.platform", "metadata.time_zone"), MOTION: (), TRANSITION: ()}


def digest(store: Store, lines: JsonObject | None = None, *, clock: Clock = SYSTEM_CLOCK) -> IntakeReport:
    """All that is pending is formatted, and all raw entries are reflected in the results.

    It goes on from the newest checkpoint before which nothing has arrived since. A store without locations keeps the
    results that it has, wherever they are from.

    Args:
        lines: public transport, see `intake.run`; kept for later runs. Others than before: all results are made anew.
            None are those that were kept.
    Raises:
        ConfigError: `lines` are none, or have more than MAX_LINES_BYTES. StoreError, DiskFull.
    """
    began = clock.monotonic()
    told = None if lines is None else _told(lines)
    report = _format(store)
    progress = _resume(store, clock)
    if told is not None and told != progress.lines:
        progress = _Progress(complete_ts=progress.complete_ts, lines=told)
        _keep(store, progress, clock.now())
    known = msgspec.json.decode(progress.lines) if progress.lines else None
    window, more = WINDOW, True
    while more:
        checkpoint = progress.marks[-1].checkpoint if progress.marks else None
        observed, more = _observe(store, checkpoint, window)
        if observed.locations.empty:
            break
        outcome = run(observed, checkpoint=checkpoint, now=clock.now(), lines=known)
        # results that a later window will make anew stay until then
        until_ts = float(observed.locations["ts"].iloc[-1]) if more else None
        replaced = store.replace_results(
            outcome.documents, keys=KEYS, from_ts=outcome.replaces_from_ts, until_ts=until_ts
        )
        _renew_first_place(store, outcome)
        done = msgspec.structs.replace(outcome.report, written=replaced.written, removed=replaced.removed)
        report = report.plus(done)
        progress = _advanced(store, progress, outcome)
        _keep(store, progress, clock.now())
        # one trip may be longer than a window
        window = WINDOW if outcome.checkpoint != checkpoint else 2 * window
    return msgspec.structs.replace(report, duration_s=clock.monotonic() - began)


def _renew_first_place(store: Store, outcome: Outcome) -> None:
    """The trip before the checkpoint is not made anew, but the place at its end, which it embeds, may have changed."""
    places = (entry for entry in outcome.documents if at(entry, "metadata.key") == PLACE)
    first = next(places, None)
    if first is not None:
        store.embed_place(first)


def _format(store: Store) -> IntakeReport:
    """Every pending entry is in the time series or, if it cannot be formatted, among the errors."""
    count, reasons = 0, Counter[str]()
    while pending := store.claim(FORMATTED_AT_ONCE):
        formatted, failed = [], []
        for entry in pending:
            try:
                formatted.append(format_entry(entry))
            except BadEntry as exc:
                reasons[str(exc)] += 1
                failed.append(oid_of(entry))
        rejected = store.settle(formatted, failed)
        reasons.update(one.reason for one in rejected)
        count += len(formatted) - len(rejected)
    return IntakeReport(formatted=count, unformatted=dict(reasons))


class _Mark(msgspec.Struct, frozen=True):
    """A checkpoint, and how many raw entries were older when it was set."""

    checkpoint: Checkpoint
    older: int


class _Progress(msgspec.Struct, frozen=True):
    """What is kept between two runs: checkpoints, oldest first, until when trips are complete, and lines as JSON."""

    marks: list[_Mark] = []
    complete_ts: float | None = None
    lines: str = ""


def _told(lines: JsonObject) -> str:
    """Lines as they are kept, none as nothing. Raises ConfigError."""
    from emlab.intake import modes

    known = modes.lines(lines)
    encoded = msgspec.json.encode(lines)
    if len(encoded) > MAX_LINES_BYTES:
        raise ConfigError(f"lines have at most {MAX_LINES_BYTES} bytes as JSON, not {len(encoded)}")
    return encoded.decode() if known.modes else ""


def _resume(store: Store, clock: Clock) -> _Progress:
    """What was kept, without the checkpoints before which something has arrived or changed since."""
    kept = store.progress()
    try:
        progress = _Progress() if kept.checkpoint is None else msgspec.convert(kept.checkpoint, _Progress)
    except msgspec.ValidationError:  # another version's, or an edited archive's: all can be made anew without it
        progress = _Progress()
    marks = [mark for mark in progress.marks if zone_named(mark.checkpoint.cleaned_place.zone)]
    if kept.changed_ts is not None:
        marks = [mark for mark in marks if _reach_ts(mark.checkpoint) <= kept.changed_ts]
    while marks and _older(store, marks[-1].checkpoint) != marks[-1].older:
        marks.pop()
    progress = msgspec.structs.replace(progress, marks=marks)
    if kept.changes:
        _keep(store, progress, clock.now())  # from here on the marks tell of the changes
        store.forget_changes(kept.changes)
    return progress


def _reach_ts(checkpoint: Checkpoint) -> float:
    """What is older has been settled."""
    return max(checkpoint.since_ts, checkpoint.resume_ts)


def _older(store: Store, checkpoint: Checkpoint) -> int:
    before_ts = _reach_ts(checkpoint)
    return sum(store.count(keys, before_ts=before_ts, time_key=time_key) for time_key, keys in RAW.items())


def _advanced(store: Store, progress: _Progress, outcome: Outcome) -> _Progress:
    """With the checkpoint of a run, and when its last trip ended."""
    marks, reached = progress.marks, outcome.checkpoint
    if reached is not None and (not marks or marks[-1].checkpoint != reached):
        marks = [*marks, _Mark(reached, _older(store, reached))]
    if len(marks) > MARKS:  # fewer of what is long ago
        marks = [*marks[: MARKS // 2 : 2], *marks[MARKS // 2 :]]
    ends = [cast(float, at(entry, "data.end_ts")) for entry in outcome.documents if at(entry, "metadata.key") == TRIP]
    complete_ts = max(ends) + COMPLETE_AFTER_S if ends else progress.complete_ts
    return msgspec.structs.replace(progress, marks=marks, complete_ts=complete_ts)


def _keep(store: Store, progress: _Progress, now: float) -> None:
    kept = cast(JsonObject, msgspec.to_builtins(progress))
    store.keep_progress(Stage.CREATE_COMPOSITE_OBJECTS, progress.complete_ts, now, kept)


def _observe(store: Store, checkpoint: Checkpoint | None, window: int) -> tuple[Observed, bool]:
    """What the phone noted from the checkpoint on, and whether there is more than these `window` locations."""
    since = None if checkpoint is None else checkpoint.since_ts
    locations = _frame(store, FILTERED, since, limit=window)
    more = len(locations) == window
    until = float(locations["ts"].iloc[-1]) if more else None
    observed = Observed(
        locations=locations,
        motions=_frame(store, MOTION, since, until),
        transitions=_frame(store, TRANSITION, since, until),
        inputs=[
            entry
            for time_key, keys in RAW.items()
            for key in keys
            if key in INPUT_KEYS
            for entry in store.find(key, start_ts=since, time_key=time_key)
        ],
    )
    return observed, more


def _frame(
    store: Store, key: str, start_ts: float | None, end_ts: float | None = None, *, limit: int | None = None
) -> pd.DataFrame:
    """A column for each field: numbers as float64, NaN where there is none, and texts."""
    import pandas as pd

    numbers, texts = _NUMBERS[key], _TEXTS[key]
    found = store.columns(key, [*numbers, *texts], start_ts=start_ts, end_ts=end_ts, limit=limit)
    columns = {
        name.removeprefix("metadata."): _numbers(values) if name in numbers else values
        for name, values in found.items()
    }
    return pd.DataFrame(columns)


def _numbers(values: Sequence[object]) -> list[float]:
    return [float(value) if isinstance(value, (int, float)) else math.nan for value in values]
