"""The contract of a store, tested by tests/contract/test_store.py on both; and the checks that they share.

Imports of emlab errors and entries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

from emlab.entries import TIME_FIELDS, JsonObject, StoreReport
from emlab.errors import BadQuery

Fix = tuple[float, float, float]

TIMESERIES, ANALYSIS, USERCACHE = "Stage_timeseries", "Stage_analysis_timeseries", "Stage_usercache"
TIME_KEYS = frozenset({"metadata.write_ts", *(f"data.{name}" for name in TIME_FIELDS)})


class Store(Protocol):
    """One person's entries. Every method blocks and is thread-safe; what `put` returned for survives a crash.

    Raises StoreError when the database cannot be reached, DiskFull (with path and free bytes) when it has no room.
    """

    def put(self, entries: Sequence[object], *, partial: bool = False) -> StoreReport:
        """The entries are kept and journaled; storing them again changes nothing.

        Formatted entries replace the one of the same `_id` (without one: of the same content), raw phone entries the
        one of the same metadata.type, key and write_ts. Of duplicates in one call the last stays, the others count as
        replaced. `user_id` becomes this person's.

        Args:
            entries: in wire form.
            partial: keep the good ones and count the others, instead of none.
        Raises:
            BadEntry: one is malformed, and `partial` is false; nothing was stored.
        """

    def find(
        self,
        key: str,
        *,
        start_ts: float | None = None,
        end_ts: float | None = None,
        time_key: str = "data.ts",
        limit: int | None = None,
    ) -> Iterator[JsonObject]:
        """Formatted and computed entries of a key, in wire form, by `time_key` and then `_id`.

        Args:
            start_ts, end_ts: seconds, both included; None is no bound.
            time_key: metadata.write_ts, or data.ts, data.start_ts, data.end_ts, data.enter_ts, data.exit_ts.
            limit: at most so many, from the earliest.
        Raises:
            BadQuery: at once, not at the first entry.
        """

    def pending(self) -> Iterator[JsonObject]:
        """Raw phone entries, which nobody has formatted yet, in wire form and order of metadata.write_ts."""

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether an entry of a key has its data.ts in the closed interval and its data.loc in the region.

        Args:
            region: a GeoJSON Polygon or MultiPolygon; None is anywhere. Within a metre of its border either may come
                out: mongod draws edges on the sphere, MemoryStore on the map.
        Raises:
            BadQuery: the region or the interval is not acceptable.
        """

    def check_region(self, region: Mapping[str, object]) -> None:
        """Returns if `exists` would take this region; reads no entry. Raises BadQuery."""

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[Fix]:
        """(ts, longitude, latitude) of the entries of a key with data.ts in the closed interval, by ts."""

    def counts(self) -> dict[str, int]:
        """How many entries there are of each key, pending ones included."""

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """A block whose database calls end with StoreError when that much time has passed."""


def check_find(time_key: str, start_ts: float | None, end_ts: float | None, limit: int | None) -> None:
    """Returns if `find` would take these. Raises BadQuery."""
    if time_key not in TIME_KEYS:
        raise BadQuery(f"{time_key!r} is no time of an entry; there are {', '.join(sorted(TIME_KEYS))}")
    if not all(bound is None or math.isfinite(bound) for bound in (start_ts, end_ts)):
        raise BadQuery(f"the interval {start_ts}..{end_ts} is not finite")
    if limit is not None and limit < 1:
        raise BadQuery(f"a limit is 1 or more, not {limit}")


def check_shape(region: Mapping[str, object]) -> None:
    """Returns if a region has the form of one; whether its rings make sense is for the store. Raises BadQuery."""
    if region.keys() != {"type", "coordinates"} or region["type"] not in ("Polygon", "MultiPolygon"):
        raise BadQuery("a region is a GeoJSON Polygon or MultiPolygon, with `type` and `coordinates` and nothing else")


def at(entry: Mapping[str, object], path: str) -> object:
    """What stands at a dotted path, None if nothing does."""
    value: object = entry
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def order_of(entry: JsonObject, time_key: str) -> tuple[float, str]:
    """Where mongod sorts it: without a time first, then by time, then by id."""
    time = cast("float | None", at(entry, time_key))
    return (-math.inf if time is None else time, cast("dict[str, str]", entry["_id"])["$oid"])
