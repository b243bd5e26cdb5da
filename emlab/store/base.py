"""The contract of a store, tested by tests/contract/test_store.py on both; and the checks that they share.

Imports of emlab errors, entries and query.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, cast

from emlab.entries import TIME_FIELDS, JsonObject, Rejected, StoreReport
from emlab.errors import BadQuery
from emlab.query import Section, Trip

Fix = tuple[float, float, float]


class Progress(NamedTuple):
    """How far the pipeline got.

    Attributes:
        checkpoint: what it kept; None before it ran.
        changes: how many times formatted entries were replaced by others of the same id since then.
        changed_ts: the earliest time of such an entry, before or after; None if there is none.
    """

    checkpoint: JsonObject | None
    changes: int
    changed_ts: float | None


class Replaced(NamedTuple):
    """How many computed entries were written because they were new or had changed, and how many removed."""

    written: int
    removed: int


TIMESERIES, ANALYSIS, USERCACHE = "Stage_timeseries", "Stage_analysis_timeseries", "Stage_usercache"
STARTS = ("ts", "start_ts", "enter_ts")  # of which an entry has one, with few exceptions
COMPOSITE = "analysis/composite_trip"
CLAIMED = "emlab_claimed"  # a raw entry that is being formatted
CHANGES, CHANGED = "emlab_changes", "emlab_changed_ts"  # in the pipeline's state
ERRORS, PIPELINE = "Stage_timeseries_error", "Stage_pipeline_state"
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

    def pending(self, limit: int | None = None) -> Iterator[JsonObject]:
        """Raw phone entries, which nobody has formatted yet, in wire form and order of metadata.write_ts."""

    def claim(self, limit: int) -> list[JsonObject]:
        """The first pending entries, for `settle`. One that is stored again before that is claimed no more."""

    def settle(self, formatted: Sequence[JsonObject], failed: Sequence[str]) -> list[Rejected]:
        """These claimed entries are pending no more: each has its formatted form, or lies in the collection of errors.

        Args:
            formatted: what became of claimed entries, with their `_id`.
            failed: ids (hex) of those of which nothing could become.
        Returns:
            the malformed ones among `formatted`, which count as failed too.
        """

    def columns(
        self,
        key: str,
        fields: Sequence[str],
        *,
        start_ts: float | None = None,
        end_ts: float | None = None,
        limit: int | None = None,
    ) -> dict[str, list[object]]:
        """Fields of the entries of a key with data.ts in the closed interval, as equally long columns by data.ts.

        Args:
            fields: names in `data`, or metadata.NAME; None stands where an entry has none.
        Returns:
            a column for each field, and `_id` (hex).
        """

    def count(self, keys: Sequence[str], *, before_ts: float, time_key: str) -> int:
        """How many formatted entries of these keys have a time before that, those marked invalid too."""

    def replace_results(
        self, results: Sequence[object], *, keys: Sequence[str], from_ts: float | None, until_ts: float | None
    ) -> Replaced:
        """Computed entries of a time are these; what is the same but written later stays.

        A reader meanwhile sees old and new ones; after a crash, calling it again ends it.

        Args:
            results: formatted entries in wire form, each with its `_id`.
            keys: whose earlier entries are removed if `results` lacks them; an entry's time is its data.ts, start_ts
                or enter_ts (exit_ts where that is missing).
            from_ts, until_ts: the time, both included; None is no bound.
        Raises:
            BadEntry: one is malformed; nothing was stored.
        """

    def embed_place(self, place: JsonObject) -> None:
        """Composite trips that end at this confirmed place show it as it is now."""

    def progress(self) -> Progress:
        """What `keep_progress` was last given, and what has changed since."""

    def forget_changes(self, changes: int) -> None:
        """`progress` tells no more of the changes that it told of; one that has come since makes it tell all again."""

    def keep_progress(self, stage: int, last_ts: float | None, now: float, checkpoint: JsonObject) -> None:
        """How far the pipeline got, where e-mission's tools look for it, is journaled.

        Args:
            stage: e-mission's number of the pipeline's stage. last_ts: what it has processed, UTC seconds.
            checkpoint: what the next run wants to know.
        """

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether an entry of a key has its data.ts in the closed interval and its data.loc in the region.

        Args:
            region: a GeoJSON Polygon or MultiPolygon, whose edges are straight on a map of degrees; None is anywhere.
        Raises:
            BadQuery: the region or the interval is not acceptable.
        """

    def check_region(self, region: Mapping[str, object]) -> None:
        """Returns if `exists` would take this region; reads no entry. Raises BadQuery.

        Its rings neither cross nor touch, on the map or (as mongod looks at them) on the sphere.
        """

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[Fix]:
        """(ts, longitude, latitude) of the entries of a key with data.ts in the closed interval, by ts."""

    def fixes(
        self,
        key: str,
        *,
        start_ts: float,
        end_ts: float,
        region: Mapping[str, object] | None,
        but: Sequence[Mapping[str, object]] = (),
    ) -> Iterator[Fix]:
        """The same as `track` of what lies in the region, which is as that of `exists`; in any order.

        Args:
            but: what lies in one of these regions may be left out, or not; valid ones, as of `check_region`.
        """

    def trips(self, *, start_ts: float, end_ts: float) -> Iterator[Trip]:
        """The diary's trips (analysis/confirmed_trip) with start_ts <= data.start_ts < end_ts, by it and then `_id`.

        Malformed ones are left out. Few fields of each leave the database. Raises BadQuery: a bound is not finite.
        """

    def sections(self, *, start_ts: float, end_ts: float) -> Iterator[Section]:
        """The diary's sections (analysis/inferred_section), in the same way."""

    def counts(self) -> dict[str, int]:
        """How many entries there are of each key, pending ones included."""

    def collections(self) -> dict[str, int]:
        """How many documents of this person each collection has, invalid ones included, in the order of an export."""

    def page(self, collection: str, *, after: str | None = None) -> Iterator[JsonObject]:
        """This person's documents of a collection in wire form, whatever they are, by `_id`; those after that one.

        Raises:
            BadQuery: at once; no such collection, or no such id.
        """

    def restore(self, collection: str, documents: Sequence[object], *, partial: bool = False) -> StoreReport:
        """Documents of `page`, of any cloud, are kept in this collection with their ids, and this person's.

        Args:
            partial: keep the good ones and count the others, instead of none.
        Raises:
            BadEntry: no such collection; one is malformed, and `partial` is false. Nothing was stored.
        """

    def delete(self, start_ts: float | None, end_ts: float | None) -> dict[str, int]:
        """No document is left that tells of the period, raw, formatted, computed or rejected, nor a checkpoint of it.

        What tells of a period: see `store.period`. A crash in between leaves some; calling it again ends it.

        Args:
            start_ts, end_ts: UTC seconds, both included; None is no bound.
        Returns:
            how many there were in each collection that had some.
        Raises:
            BadQuery: it is no period.
        """

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


def path_of(field: str) -> str:
    """Where in an entry a column of `columns` comes from."""
    return field if field.startswith("metadata.") else f"data.{field}"


def at(entry: Mapping[str, object], path: str) -> object:
    """What stands at a dotted path, None if nothing does."""
    value: object = entry
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def start_of(entry: Mapping[str, object]) -> float:
    """When an entry is of or begins, UTC seconds; 0 if it does not say."""
    times = (at(entry, f"data.{name}") for name in STARTS)
    return next((time for time in times if isinstance(time, float)), 0.0)


def oid_of(entry: JsonObject) -> str:
    """The entry's id, 24 hex digits."""
    return cast("dict[str, str]", entry["_id"])["$oid"]


def order_of(entry: JsonObject, time_key: str) -> tuple[float, str]:
    """Where mongod sorts it: without a time first, then by time, then by id."""
    time = cast("float | None", at(entry, time_key))
    return (-math.inf if time is None else time, oid_of(entry))
