"""What was observed, as arrays without what cannot be used, and the reasons. Imports numpy; reads pandas frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from emlab.entries import DEFAULT_TIME_ZONE
from emlab.entries.times import zone_named
from emlab.entries.view import MILLISECONDS_FROM
from emlab.intake.sphere import Floats

if TYPE_CHECKING:
    import pandas as pd

    from emlab.intake.outcome import Checkpoint

Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]
Texts = NDArray[np.object_]
LATE_S = 1000.0  # with the time filter, a point written so much later tells of no trip's end
FUTURE_S = 86_400.0  # no clock is that wrong: a point from so long after its own writing is none
NOBODY = -1  # a code that stands for none


@dataclass(frozen=True, slots=True)
class Fixes:
    """Points in order of time.

    Attributes:
        id: hex. ts, write_ts: UTC seconds. lon, lat: degrees. altitude: m, 0 where unknown.
        by_distance: whether the phone's filter was one of distance. late: written too late to tell of a trip's end.
        zone: IANA name.
    """

    id: Texts
    ts: Floats
    write_ts: Floats
    lon: Floats
    lat: Floats
    altitude: Floats
    by_distance: Booleans
    late: Booleans
    zone: Texts

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, chosen: Booleans | Integers | slice) -> Fixes:
        """Only these points."""
        return Fixes(*(getattr(self, name)[chosen] for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Motions:
    """What the phone took its movement for, in order of time: `ts`, `kind` (a `codes.Motion`), `confidence` 0..100."""

    ts: Floats
    kind: Integers
    confidence: Floats


@dataclass(frozen=True, slots=True)
class Transitions:
    """What moved the phone's state machine, in order of time: `ts`, `state` before it, `kind`; -1 for none."""

    ts: Floats
    state: Integers
    kind: Integers


def fixes(frame: pd.DataFrame, checkpoint: Checkpoint | None, dropped: Counter[str]) -> Fixes:
    """The points that can be used, from the checkpoint on. `dropped` counts the others."""
    points = _usable(_fixes(frame), dropped)
    points = points.take(np.lexsort((points.id.astype(str), points.write_ts)))
    points = _kept(points, ~_repeated(points), "the same point again", dropped)
    steps = np.diff(points.ts, prepend=-np.inf)
    points = _kept(points, steps >= 0, "a point from before the one that was written last", dropped)
    points = points.take(np.argsort(points.ts, kind="stable"))
    if checkpoint is not None:
        points = points.take(slice(_resume(points, checkpoint), None))
    return replace(points, lon=_unbroken(points.lon, checkpoint))


def _unbroken(lon: Floats, checkpoint: Checkpoint | None) -> Floats:
    """Longitudes without a jump where a track crosses the date line: 179.9 is followed by 180.1."""
    before = [] if checkpoint is None else [checkpoint.cleaned_place.lon]
    return np.asarray(np.unwrap(np.concatenate([before, lon]), period=360.0)[len(before) :])


def _fixes(frame: pd.DataFrame) -> Fixes:
    ts, write_ts = _floats(frame, "ts"), _floats(frame, "write_ts")
    write_ts = np.where(np.isfinite(write_ts), write_ts, ts)
    names, platforms = _texts(frame, "filter"), _texts(frame, "platform")
    with np.errstate(invalid="ignore"):  # infinite times, which are left out next
        delays = write_ts - ts
    by_distance = (names == "distance") | ((names != "time") & (platforms == "ios"))
    return Fixes(
        id=_texts(frame, "_id"),
        ts=ts,
        write_ts=write_ts,
        lon=_floats(frame, "longitude"),
        lat=_floats(frame, "latitude"),
        altitude=np.nan_to_num(_floats(frame, "altitude"), nan=0.0, posinf=0.0, neginf=0.0),
        by_distance=np.asarray(by_distance, dtype=bool),
        late=~by_distance & (delays >= LATE_S),
        zone=_zones(frame),
    )


def _usable(points: Fixes, dropped: Counter[str]) -> Fixes:
    points = _kept(points, _is_time(points.ts), "a point without a time since 1970", dropped)
    points = _kept(points, points.ts - points.write_ts < FUTURE_S, "a point from a day after its writing", dropped)
    finite = np.isfinite(points.lat) & np.isfinite(points.lon)
    points = _kept(points, finite, "a point without latitude and longitude", dropped)
    on_earth = (np.abs(points.lat) <= 90) & (np.abs(points.lon) <= 180)
    points = _kept(points, on_earth, "a point that is not on earth", dropped)
    late = int(points.late.sum())
    if late:
        dropped["a point written so late that it tells of no trip's end"] += late
    return points


def _kept(points: Fixes, good: Booleans, reason: str, dropped: Counter[str]) -> Fixes:
    if bad := int((~good).sum()):
        dropped[reason] += bad
        return points.take(good)
    return points


def _repeated(points: Fixes) -> Booleans:
    """Which points say what one written at the same moment has said, or are it."""
    seen: set[object] = set()
    repeated = np.zeros(len(points), dtype=bool)
    columns = (points.ts.tolist(), points.write_ts.tolist(), points.lon.tolist(), points.lat.tolist())
    for index, (oid, point) in enumerate(zip(points.id.tolist(), zip(*columns, strict=True), strict=True)):
        repeated[index] = point in seen or (oid and oid in seen)
        seen.update((oid, point))
    return repeated


def _resume(points: Fixes, checkpoint: Checkpoint) -> int:
    """Where the point stands that the checkpoint names, or else the first of its time or later."""
    first = int(np.searchsorted(points.ts, checkpoint.resume_ts, side="left"))
    last = int(np.searchsorted(points.ts, checkpoint.resume_ts, side="right"))
    named = np.flatnonzero(points.id[first:last] == checkpoint.resume_id)
    return first + int(named[0]) if len(named) else first


def motions(frame: pd.DataFrame, dropped: Counter[str]) -> Motions:
    """The motions that can be used. `dropped` counts the others."""
    ts, kind, confidence = _floats(frame, "ts"), _floats(frame, "type"), _floats(frame, "confidence")
    good = _is_time(ts)
    _count(~good, "a motion without a time since 1970", dropped)
    whole = good & np.isfinite(kind) & np.isfinite(confidence)
    _count(good & ~whole, "a motion without type or confidence", dropped)
    rows = np.column_stack([ts, np.nan_to_num(_floats(frame, "write_ts")), kind, confidence])[whole]
    rows, first = np.unique(rows, axis=0, return_index=True)
    if again := int(whole.sum()) - len(rows):
        dropped["the same motion again"] += again
    rows = rows[np.argsort(first)]
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return Motions(rows[:, 0], _codes(rows[:, 2]), rows[:, 3])


def transitions(frame: pd.DataFrame, dropped: Counter[str]) -> Transitions:
    """The transitions that can be used. `dropped` counts the others."""
    ts = _floats(frame, "ts")
    good = _is_time(ts)
    _count(~good, "a transition without a time since 1970", dropped)
    order = np.argsort(ts[good], kind="stable")
    state, kind = (_codes(_floats(frame, name)[good])[order] for name in ("curr_state", "transition"))
    return Transitions(ts[good][order], state, kind)


def _count(bad: Booleans, reason: str, dropped: Counter[str]) -> None:
    if number := int(bad.sum()):
        dropped[reason] += number


def _is_time(ts: Floats) -> Booleans:
    with np.errstate(invalid="ignore"):
        return np.asarray((ts >= 0) & (ts < MILLISECONDS_FROM))


def _codes(values: Floats) -> Integers:
    """Whole numbers; NOBODY for everything else."""
    with np.errstate(invalid="ignore"):
        good = (values >= 0) & (values < 1e6) & (values == np.floor(values))
    return np.where(good, values, NOBODY).astype(np.int64)


def _floats(frame: pd.DataFrame, name: str) -> Floats:
    if name not in frame:
        return np.full(len(frame), np.nan)
    return np.asarray(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))


def _texts(frame: pd.DataFrame, name: str) -> Texts:
    if name not in frame:
        return np.full(len(frame), "", dtype=object)
    values = frame[name].to_numpy(dtype=object)
    return np.array([value if isinstance(value, str) else "" for value in values], dtype=object)


def _zones(frame: pd.DataFrame) -> Texts:
    names = _texts(frame, "time_zone")
    known = {name: name if name and zone_named(name) else DEFAULT_TIME_ZONE for name in set(names.tolist())}
    return np.array([known[name] for name in names.tolist()], dtype=object)
