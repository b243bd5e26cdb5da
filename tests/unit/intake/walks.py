"""Made-up observations for the tests of intake: points along a line, motions, transitions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import pandas as pd

from emlab import intake
from emlab.entries.codes import Motion, State, Transition
from emlab.intake import Checkpoint, Observed, Outcome

NOW = 1_800_000_000.0
START = 1_440_700_000.0
LON, LAT = -122.27, 37.87
METRES_PER_DEGREE = 111_195.0
Row = tuple[Any, ...]
Data = dict[str, Any]


def fix(ts: float, north_m: float = 0.0, east_m: float = 0.0, **fields: object) -> Data:
    """One point, in metres from (LON, LAT)."""
    at = {
        "latitude": LAT + north_m / METRES_PER_DEGREE,
        "longitude": LON + east_m / METRES_PER_DEGREE / math.cos(math.radians(LAT)),
    }
    rest = {"altitude": 10.0, "accuracy": 5.0, "sensed_speed": 0.0, "heading": 0.0}
    kind = {"filter": "time", "platform": "android", "time_zone": "America/Los_Angeles"}
    return {"ts": ts, "write_ts": ts + 1.0, **at, **rest, **kind, **fields}


def observed(
    fixes: Iterable[Data], motions: Iterable[Row] = (), transitions: Iterable[Row] = (), inputs: Sequence[Data] = ()
) -> Observed:
    """Points as `fix` makes them, motions as (ts, type, confidence), transitions as (ts, state, transition)."""
    points = pd.DataFrame([{"_id": f"{number:024x}", **each} for number, each in enumerate(fixes)])
    if points.empty:
        points = pd.DataFrame([{"_id": "", **fix(0.0)}]).iloc[:0]
    return Observed(
        locations=points.sort_values("ts", kind="stable", ignore_index=True),
        motions=_frame(motions, ("type", "confidence")),
        transitions=_frame(transitions, ("curr_state", "transition")),
        inputs=list(inputs),
    )


def _frame(rows: Iterable[Row], names: tuple[str, str]) -> pd.DataFrame:
    columns = ["_id", "ts", "write_ts", *names]
    made = [(f"{number:024x}", row[0], row[0], row[1], row[2]) for number, row in enumerate(rows)]
    frame = pd.DataFrame(made, columns=columns).sort_values("ts", kind="stable", ignore_index=True)
    return frame.astype(dict.fromkeys(columns[1:], float))


def rest(start: float, minutes: float, north_m: float = 0.0, *, step_s: float = 30.0) -> list[Data]:
    """Points at one place."""
    return [fix(start + step_s * k, north_m + 3.0 * (k % 2)) for k in range(int(minutes * 60 / step_s) + 1)]


def way(start: float, length_m: float, speed: float, from_m: float = 0.0) -> list[Data]:
    """Points every 30 s due north."""
    steps = int(length_m / speed / 30)
    return [fix(start + 30.0 * k, from_m + 30.0 * speed * k) for k in range(1, steps + 1)]


def sensed(start: float, end: float, kind: Motion, confidence: float = 90.0) -> list[Row]:
    """The same motion every 45 s."""
    return [(start + 45.0 * k, int(kind), confidence) for k in range(int((end - start) / 45) + 1)]


def ride(start: float, *, from_m: float = 0.0) -> tuple[list[Data], list[Row], list[Row]]:
    """Ten minutes by car, 6 km north, then six at rest; with motions and transitions."""
    points = [*way(start, 6_000, 10.0, from_m), *rest(start + 630, 6, from_m + 6_000)]
    motions = [*sensed(start + 20, start + 590, Motion.IN_VEHICLE), *sensed(start + 620, start + 990, Motion.STILL)]
    left = (start - 5, int(State.WAITING_FOR_TRIP_START), int(Transition.EXITED_GEOFENCE))
    stopped = (start + 1_000, int(State.ONGOING_TRIP), int(Transition.STOPPED_MOVING))
    return points, motions, [left, stopped]


def rides(count: int = 3, *, apart_s: float = 7_200.0) -> Observed:
    """Rides there and on, each from where the one before ended."""
    each = [ride(START + apart_s * number, from_m=6_000.0 * number) for number in range(count)]
    points = [point for one in each for point in one[0]]
    return observed(points, [row for one in each for row in one[1]], [row for one in each for row in one[2]])


def run(seen: Observed, checkpoint: Checkpoint | None = None, **options: Any) -> Outcome:
    return intake.run(seen, checkpoint=checkpoint, now=NOW, **options)


def data(outcome: Outcome, key: str) -> list[Data]:
    """The content of all entries of a key."""
    return [cast(Data, entry["data"]) for entry in outcome.documents if cast(Data, entry["metadata"])["key"] == key]


def by_id(outcome: Outcome) -> dict[str, Data]:
    found = {cast(Data, entry["_id"])["$oid"]: cast(Data, entry) for entry in outcome.documents}
    assert len(found) == len(outcome.documents)
    return found
