"""Entries in this process's memory, for unit tests, documentation and MemoryEngine: the same answers, nothing kept.

Imports bson, shapely where a region is looked at, and of emlab errors, entries, query and store.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, cast

import bson
from bson.objectid import ObjectId

from emlab.entries import JsonObject, Rejected, StoreReport
from emlab.errors import BadQuery
from emlab.query import Section, Trip
from emlab.store import period, results
from emlab.store.archive import accept_documents, in_order, page_after
from emlab.store.base import (
    ANALYSIS,
    COMPOSITE,
    ERRORS,
    STARTS,
    TIMESERIES,
    USERCACHE,
    Fix,
    Progress,
    Replaced,
    at,
    check_find,
    check_shape,
    oid_of,
    order_of,
    path_of,
    start_of,
)
from emlab.store.documents import WIRE, accept, legacy, report, unwritten

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


class MemoryStore:
    """One person's entries, gone with the object. See Store."""

    def __init__(self, user_id: uuid.UUID) -> None:
        self._user = legacy(user_id)
        self._lock = threading.Lock()
        self._kept: dict[str, dict[ObjectId, bytes]] = {TIMESERIES: {}, ANALYSIS: {}, USERCACHE: {}, ERRORS: {}}
        self._claimed: dict[ObjectId, bytes] = {}
        self._progress = Progress(None, 0, None)

    def put(self, entries: Sequence[object], *, partial: bool = False) -> StoreReport:
        """Keep entries; see Store."""
        accepted, rejected = accept(entries, self._user, partial=partial)
        with self._lock:
            inserted = sum(len(documents.keys() - self._kept[name].keys()) for name, documents in accepted.items())
            self._write(accepted)
        return report(len(entries), inserted, rejected)

    def find(
        self,
        key: str,
        *,
        start_ts: float | None = None,
        end_ts: float | None = None,
        time_key: str = "data.ts",
        limit: int | None = None,
    ) -> Iterator[JsonObject]:
        """Entries of one key by time; see Store."""
        check_find(time_key, start_ts, end_ts, limit)
        found = [entry for entry in self._of(key) if _within(at(entry, time_key), start_ts, end_ts)]
        found.sort(key=lambda entry: order_of(entry, time_key))
        return itertools.islice(found, limit)

    def pending(self, limit: int | None = None) -> Iterator[JsonObject]:
        """Raw phone entries; see Store."""
        found = sorted(self._all(USERCACHE), key=lambda entry: order_of(entry, "metadata.write_ts"))
        return itertools.islice(found, limit)

    def claim(self, limit: int) -> list[JsonObject]:
        """The first pending entries; see Store."""
        claimed = list(self.pending(limit))
        with self._lock:
            self._claimed = {oid: self._kept[USERCACHE][oid] for oid in map(ObjectId, map(oid_of, claimed))}
        return claimed

    def settle(self, formatted: Sequence[JsonObject], failed: Sequence[str]) -> list[Rejected]:
        """Claimed entries are pending no more; see Store."""
        accepted, rejected = accept(formatted, self._user, partial=True)
        bad = {*failed, *(oid_of(formatted[one.position]) for one in rejected)}
        with self._lock:
            self._write(accepted)
            for oid in map(ObjectId, {*bad, *map(oid_of, formatted)}):
                if self._kept[USERCACHE].get(oid) is self._claimed.get(oid):  # not another one since
                    encoded = self._kept[USERCACHE].pop(oid, None)
                    if encoded is not None and str(oid) in bad:
                        self._kept[ERRORS][oid] = encoded
        return rejected

    def columns(
        self,
        key: str,
        fields: Sequence[str],
        *,
        start_ts: float | None = None,
        end_ts: float | None = None,
        limit: int | None = None,
    ) -> dict[str, list[object]]:
        """Fields as columns; see Store."""
        found = list(self.find(key, start_ts=start_ts, end_ts=end_ts, limit=limit))
        paths = {"_id": "_id.$oid", **{field: path_of(field) for field in fields}}
        return {field: [at(entry, path) for entry in found] for field, path in paths.items()}

    def count(self, keys: Sequence[str], *, before_ts: float, time_key: str) -> int:
        """How many entries are older; see Store."""
        times = (at(entry, time_key) for key in keys for entry in self._of(key))
        return sum(isinstance(ts, float) and ts < before_ts for ts in times)

    def replace_results(
        self, results: Sequence[object], *, keys: Sequence[str], from_ts: float | None, until_ts: float | None
    ) -> Replaced:
        """Computed entries are these; see Store."""
        accepted, _ = accept(results, self._user, partial=False)
        fresh = accepted.get(ANALYSIS, {})
        with self._lock:
            kept = self._kept[ANALYSIS]
            others = {oid: encoded for oid, encoded in kept.items() if oid not in fresh}
            stale = [oid for oid, encoded in others.items() if _is_result(encoded, keys, from_ts, until_ts)]
            for oid in stale:
                del kept[oid]
            changed = {oid: new for oid, new in fresh.items() if oid not in kept or _differ(kept[oid], new)}
            kept.update(changed)
        return Replaced(len(changed), len(stale))

    def embed_place(self, place: JsonObject) -> None:
        """Composite trips that end at this place have it as it is now; see Store."""
        embedded = {name: value for name, value in place.items() if name != "user_id"}
        for trip in self._of(COMPOSITE):
            data = cast(JsonObject, trip["data"])
            if at(data, "end_confirmed_place._id") == place["_id"]:
                self.put([{**trip, "data": {**data, "end_confirmed_place": embedded}}])

    def progress(self) -> Progress:
        """How far the pipeline got; see Store."""
        return self._progress

    def forget_changes(self, changes: int) -> None:
        """Changes are seen to; see Store."""
        with self._lock:
            if self._progress.changes == changes:
                self._progress = Progress(self._progress.checkpoint, 0, None)

    def keep_progress(self, stage: int, last_ts: float | None, now: float, checkpoint: JsonObject) -> None:
        """How far the pipeline got is kept; see Store."""
        with self._lock:
            self._progress = self._progress._replace(checkpoint=checkpoint)

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is one; see Store."""
        found = self.find(key, start_ts=start_ts, end_ts=end_ts)
        if region is None:
            return any(True for _ in found)
        shape = _shape(region)
        return any(_covers(shape, at(entry, "data.loc.coordinates")) for entry in found)

    def check_region(self, region: Mapping[str, object]) -> None:
        """Whether a region can be used; see Store."""
        _shape(region)

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[Fix]:
        """Times and positions only; see Store."""
        found = self.find(key, start_ts=start_ts, end_ts=end_ts)
        places = ((at(entry, "data.ts"), at(entry, "data.loc.coordinates")) for entry in found)
        return (cast(Fix, (ts, *cast("list[float]", place))) for ts, place in places if place is not None)

    def fixes(
        self,
        key: str,
        *,
        start_ts: float,
        end_ts: float,
        region: Mapping[str, object] | None,
        but: Sequence[Mapping[str, object]] = (),
    ) -> Iterator[Fix]:
        """Times and positions in a region; see Store."""
        found = self.track(key, start_ts=start_ts, end_ts=end_ts)
        if region is None:
            return found
        shape = _shape(region)
        return (fix for fix in found if _covers(shape, fix[1:]))

    def trips(self, *, start_ts: float, end_ts: float) -> Iterator[Trip]:
        """Trips as intake found them; see Store."""
        found = self.find(results.TRIPS, start_ts=start_ts, end_ts=end_ts, time_key="data.start_ts")
        return results.trips(found, before_ts=end_ts)

    def sections(self, *, start_ts: float, end_ts: float) -> Iterator[Section]:
        """Sections as intake found them; see Store."""
        found = self.find(results.SECTIONS, start_ts=start_ts, end_ts=end_ts, time_key="data.start_ts")
        return results.sections(found, before_ts=end_ts)

    def collections(self) -> dict[str, int]:
        """How many documents there are; see Store."""
        with self._lock:
            return in_order({name: len(documents) for name, documents in self._kept.items()})

    def page(self, collection: str, *, after: str | None = None) -> Iterator[JsonObject]:
        """Documents by id; see Store."""
        start = page_after(collection, after)
        with self._lock:
            kept = sorted(self._kept.get(collection, {}).items())
        return (bson.decode(encoded, codec_options=WIRE) for oid, encoded in kept if start is None or oid > start)

    def restore(self, collection: str, documents: Sequence[object], *, partial: bool = False) -> StoreReport:
        """Documents are kept with their ids; see Store."""
        accepted, rejected = accept_documents(collection, documents, self._user, partial=partial)
        with self._lock:
            kept = self._kept.setdefault(collection, {})
            inserted = len(accepted.keys() - kept.keys())
            self._write({collection: accepted})
        return report(len(documents), inserted, rejected)

    def delete(self, start_ts: float | None, end_ts: float | None) -> dict[str, int]:
        """Nothing tells of the period any more; see Store."""
        period.check_period(start_ts, end_ts)
        gone: dict[str, int] = {}
        with self._lock:
            self._progress = self._progress._replace(checkpoint=period.settled(self._progress.checkpoint, start_ts))
            for name in period.DELETED_FROM:
                kept = self._kept[name]
                for oid, encoded in list(kept.items()):
                    if period.tells_of(name, bson.decode(encoded, codec_options=WIRE), start_ts, end_ts):
                        del kept[oid]
                        gone[name] = gone.get(name, 0) + 1
        return gone

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """Nothing here waits for a database; see Store."""
        return nullcontext()

    def counts(self) -> dict[str, int]:
        """Entries by key; see Store."""
        total: dict[str, int] = {}
        for entry in self._all(TIMESERIES, ANALYSIS, USERCACHE):
            key = cast(str, at(entry, "metadata.key"))
            total[key] = total.get(key, 0) + 1
        return total

    def _write(self, accepted: Mapping[str, Mapping[ObjectId, bytes]]) -> None:
        """The documents are there; that some were others is noted."""
        for name, documents in accepted.items():
            kept = self._kept[name]
            changed = [oid for oid, encoded in documents.items() if kept.get(oid, encoded) != encoded]
            if name == TIMESERIES and changed and self._progress.checkpoint is not None:
                times = [start_of(bson.decode(one)) for oid in changed for one in (kept[oid], documents[oid])]
                earliest = min([*times, *filter(None, [self._progress.changed_ts])])
                self._progress = Progress(self._progress.checkpoint, self._progress.changes + 1, earliest)
            kept.update(documents)

    def _all(self, *collections: str, holding: str = "") -> list[JsonObject]:
        """Fresh copies of what is there, holds this text and was not marked invalid."""
        with self._lock:
            kept = [encoded for name in collections for encoded in self._kept[name].values()]
        text = holding.encode()  # decoding is what takes time
        entries = (bson.decode(encoded, codec_options=WIRE) for encoded in kept if text in encoded)
        return [entry for entry in entries if "invalid" not in entry]

    def _of(self, key: str) -> list[JsonObject]:
        return [entry for entry in self._all(TIMESERIES, ANALYSIS, holding=key) if at(entry, "metadata.key") == key]


def _within(time: object, start_ts: float | None, end_ts: float | None) -> bool:
    if start_ts is None and end_ts is None:
        return True
    return isinstance(time, float) and (start_ts is None or start_ts <= time) and (end_ts is None or time <= end_ts)


def _is_result(encoded: bytes, keys: Sequence[str], from_ts: float | None, until_ts: float | None) -> bool:
    entry = bson.decode(encoded, codec_options=WIRE)
    times = (at(entry, f"data.{name}") for name in (*STARTS, "exit_ts"))
    time = next((ts for ts in times if isinstance(ts, float)), None)
    return at(entry, "metadata.key") in keys and _within(time, from_ts, until_ts)


def _differ(old: bytes, new: bytes) -> bool:
    return unwritten(bson.decode(old)) != unwritten(bson.decode(new))


def _shape(region: Mapping[str, object]) -> BaseGeometry:
    from shapely import GEOSException
    from shapely.geometry import shape
    from shapely.validation import explain_validity

    check_shape(region)
    try:
        geometry = shape(region)
    except (GEOSException, ValueError, TypeError, AttributeError, IndexError) as exc:
        raise BadQuery(f"the region is not acceptable: {exc}") from exc
    if geometry.is_empty or not geometry.is_valid:
        why = "it is empty" if geometry.is_empty else explain_validity(geometry)
        raise BadQuery(f"the region is not acceptable: {why}")
    return geometry


def _covers(shape: BaseGeometry, place: object) -> bool:
    from shapely import Point

    return isinstance(place, (list, tuple)) and bool(shape.covers(Point(place)))
