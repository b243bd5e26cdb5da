"""Which documents tell of a period, as a query and as a decision; for deleting it.

An entry tells of a period if its time lies in it, if it lasts into it, or if a place that it embeds does. One that has
neither a time nor a span is of when it was written; of a raw one, whose own times are not checked yet, that counts too.
Both ends of a period are in it. Imports of emlab entries, errors and store.base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from emlab.entries import JsonObject
from emlab.errors import BadQuery
from emlab.store.base import ANALYSIS, ERRORS, PIPELINE, TIMESERIES, USERCACHE, at

if TYPE_CHECKING:
    from pymongo.database import Database

DELETED_FROM = (ANALYSIS, TIMESERIES, USERCACHE, ERRORS)
WRITTEN = "metadata.write_ts"
# Where an entry has its times; a composite trip has those of the places around it, too.
_DATA = ("data", "data.start_confirmed_place.data", "data.end_confirmed_place.data")
_SPANS = (("start_ts", "end_ts"), ("enter_ts", "exit_ts"))
# A checkpoint of the pipeline knows a place of the time before it, so those of later are forgotten.
MARKS = "marks"
_REACH = ("checkpoint.since_ts", "checkpoint.resume_ts")


def check_period(start_ts: float | None, end_ts: float | None) -> None:
    """Returns if it is a period. Raises BadQuery."""
    bounds = [bound for bound in (start_ts, end_ts) if bound is not None]
    if any(isinstance(bound, bool) or not math.isfinite(bound) for bound in bounds):
        raise BadQuery(f"a period is of UTC seconds, not {start_ts!r} to {end_ts!r}")
    if start_ts is not None and end_ts is not None and start_ts > end_ts:
        raise BadQuery(f"the period ends before it starts: {start_ts} to {end_ts}")


def query(collection: str, start_ts: float | None, end_ts: float | None) -> dict[str, object]:
    """The query for the documents of a collection that tell of the period."""
    low, high = _bounds(start_ts, end_ts)
    within = {"$gte": low, "$lte": high}
    ways: list[dict[str, object]] = [{"data.ts": within}]
    for where in _DATA if collection == ANALYSIS else _DATA[:1]:
        for begins, ends in _SPANS:
            begin, end = f"{where}.{begins}", f"{where}.{ends}"
            missing, endless = {begin: {"$exists": False}}, {end: {"$exists": False}}
            early, late = {begin: {"$lte": high}}, {end: {"$gte": low}}
            ways += [{"$and": pair} for pair in ([early, late], [early, endless], [missing, late])]
    untimed = {f"data.{name}": {"$exists": False} for name in ("ts", *(name for span in _SPANS for name in span))}
    return {"$or": [*ways, {WRITTEN: within} if _is_raw(collection) else {WRITTEN: within, **untimed}]}


def tells_of(collection: str, entry: JsonObject, start_ts: float | None, end_ts: float | None) -> bool:
    """The same, of one document in wire form."""
    low, high = _bounds(start_ts, end_ts)
    moment, written = at(entry, "data.ts"), at(entry, WRITTEN)
    if isinstance(moment, (int, float)) and low <= moment <= high:
        return True
    spans = list(_spans(entry, _DATA if collection == ANALYSIS else _DATA[:1]))
    if any(begin <= high and end >= low for begin, end in spans):
        return True
    untimed = moment is None and not list(_spans(entry, _DATA[:1]))
    return (untimed or _is_raw(collection)) and isinstance(written, (int, float)) and low <= written <= high


def _spans(entry: JsonObject, paths: tuple[str, ...]) -> Iterator[tuple[float, float]]:
    for path in paths:
        for begins, ends in _SPANS:
            begin, end = at(entry, f"{path}.{begins}"), at(entry, f"{path}.{ends}")
            if begin is not None or end is not None:
                yield _number(begin, -math.inf), _number(end, math.inf)


def _number(value: object, otherwise: float) -> float:
    return value if isinstance(value, (int, float)) else otherwise


def _bounds(start_ts: float | None, end_ts: float | None) -> tuple[float, float]:
    return -math.inf if start_ts is None else start_ts, math.inf if end_ts is None else end_ts


def _is_raw(collection: str) -> bool:
    return collection in (USERCACHE, ERRORS)


def remove(
    database: Database[dict[str, object]], mine: Mapping[str, object], start_ts: float | None, end_ts: float | None
) -> dict[str, int]:
    """Of the documents that match `mine` none tells of the period any more; how many did, by collection."""
    low, _ = _bounds(start_ts, None)
    marked = {**mine, f"emlab.{MARKS}": {"$exists": True}}
    late = {"$or": [{reach: {"$gt": low}} for reach in _REACH]}
    database[PIPELINE].update_many(marked, {"$pull": {f"emlab.{MARKS}": late}})
    gone = {
        name: database[name].delete_many({**mine, **query(name, start_ts, end_ts)}).deleted_count
        for name in DELETED_FROM
    }
    return {name: number for name, number in gone.items() if number}


def settled(checkpoint: Mapping[str, object] | None, start_ts: float | None) -> JsonObject | None:
    """The pipeline's state without checkpoints of after that time."""
    if checkpoint is None:
        return None
    low, _ = _bounds(start_ts, None)
    marks = cast("list[JsonObject]", checkpoint.get(MARKS, []))
    kept = [mark for mark in marks if not any(_number(at(mark, reach), low) > low for reach in _REACH)]
    return {**checkpoint, MARKS: kept}
