"""Entries in this process's memory, for unit tests, documentation and MemoryEngine: the same answers, nothing kept.

Imports bson, shapely where a region is looked at, and of emlab errors and entries.
"""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, cast

import bson

from emlab.entries import JsonObject, StoreReport
from emlab.errors import BadQuery
from emlab.store.base import ANALYSIS, TIMESERIES, USERCACHE, Fix, at, check_find, check_shape, order_of
from emlab.store.documents import WIRE, accept, legacy, report

if TYPE_CHECKING:
    from bson.objectid import ObjectId
    from shapely.geometry.base import BaseGeometry


class MemoryStore:
    """One person's entries, gone with the object. See Store."""

    def __init__(self, user_id: uuid.UUID) -> None:
        self._user = legacy(user_id)
        self._lock = threading.Lock()
        self._kept: dict[str, dict[ObjectId, bytes]] = {TIMESERIES: {}, ANALYSIS: {}, USERCACHE: {}}

    def put(self, entries: Sequence[object], *, partial: bool = False) -> StoreReport:
        """Keep entries; see Store."""
        accepted, rejected = accept(entries, self._user, partial=partial)
        with self._lock:
            inserted = sum(len(documents.keys() - self._kept[name].keys()) for name, documents in accepted.items())
            for name, documents in accepted.items():
                self._kept[name].update(documents)
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

    def pending(self) -> Iterator[JsonObject]:
        """Raw phone entries; see Store."""
        return iter(sorted(self._all(USERCACHE), key=lambda entry: order_of(entry, "metadata.write_ts")))

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is one; see Store."""
        found = self.find(key, start_ts=start_ts, end_ts=end_ts)
        if region is None:
            return any(True for _ in found)
        shape = _shape(region)
        return any(_covers(shape, entry) for entry in found)

    def check_region(self, region: Mapping[str, object]) -> None:
        """Whether a region can be used; see Store."""
        _shape(region)

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[Fix]:
        """Times and positions only; see Store."""
        found = self.find(key, start_ts=start_ts, end_ts=end_ts)
        places = ((at(entry, "data.ts"), at(entry, "data.loc.coordinates")) for entry in found)
        return (cast(Fix, (ts, *cast("list[float]", place))) for ts, place in places if place is not None)

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

    def _all(self, *collections: str) -> list[JsonObject]:
        """Fresh copies of what is there and was not marked invalid."""
        with self._lock:
            kept = [encoded for name in collections for encoded in self._kept[name].values()]
        entries = (bson.decode(encoded, codec_options=WIRE) for encoded in kept)
        return [entry for entry in entries if "invalid" not in entry]

    def _of(self, key: str) -> list[JsonObject]:
        return [entry for entry in self._all(TIMESERIES, ANALYSIS) if at(entry, "metadata.key") == key]


def _within(time: object, start_ts: float | None, end_ts: float | None) -> bool:
    if start_ts is None and end_ts is None:
        return True
    return isinstance(time, float) and (start_ts is None or start_ts <= time) and (end_ts is None or time <= end_ts)


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


def _covers(shape: BaseGeometry, entry: JsonObject) -> bool:
    from shapely import Point

    place = at(entry, "data.loc.coordinates")
    return isinstance(place, list) and bool(shape.covers(Point(place)))
