"""Entries in a mongod, in e-mission's own collections. Imports pymongo, and of emlab entries, errors, query, store."""

from __future__ import annotations

import heapq
import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import bson
import pymongo
from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from pymongo.errors import OperationFailure

from emlab.entries import RESULT_PREFIXES, JsonObject, Rejected, StoreReport
from emlab.errors import BadQuery
from emlab.mongo_errors import wrapped
from emlab.query import Section, Trip
from emlab.store import period, results
from emlab.store.archive import SINGLE, accept_documents, in_order, page_after
from emlab.store.base import (
    ANALYSIS,
    CHANGED,
    CHANGES,
    CLAIMED,
    COMPOSITE,
    ERRORS,
    PIPELINE,
    STARTS,
    TIMESERIES,
    USERCACHE,
    Fix,
    Progress,
    Replaced,
    check_find,
    check_shape,
    oid_of,
    order_of,
    path_of,
)
from emlab.store.documents import WIRE, accept, legacy, report, typed, unwritten
from emlab.store.indexes import COMPOUND
from emlab.store.regions import lies_in
from emlab.store.writing import Writer

if TYPE_CHECKING:
    from pymongo.cursor import Cursor

T = TypeVar("T")

DATABASE = "Stage_database"
NOTHING = "Stage_nothing"  # always empty: a query on it is checked and reads nothing
_PLAIN: CodecOptions[dict[str, object]] = CodecOptions()  # ids stay as they are kept
_UP = pymongo.ASCENDING
_FIX = {"_id": 0, "t": "$data.ts", "at": "$data.loc.coordinates"}


def _by(time_key: str) -> list[tuple[str, int]]:
    return [(time_key, _UP), ("_id", _UP)]


def _results(keys: Sequence[str], from_ts: float | None, until_ts: float | None) -> dict[str, object]:
    """The query of results of these keys in a time."""
    query: dict[str, object] = {"metadata.key": {"$in": list(keys)}}
    within = {sign: ts for sign, ts in (("$gte", from_ts), ("$lte", until_ts)) if ts is not None}
    if within:
        first: dict[str, object] = {"data.enter_ts": {"$exists": False}, "data.start_ts": {"$exists": False}}
        query["$or"] = [*({f"data.{name}": within} for name in STARTS), {**first, "data.exit_ts": within}]
    return query


def _fixes(found: Iterable[Mapping[str, object]]) -> Iterator[Fix]:
    return (cast(Fix, (one["t"], *cast("list[float]", one["at"]))) for one in found)


class MongoStore:
    """Entries in e-mission's collections of one mongod, so that its own tools read them. See Store.

    Args:
        client: a client of the cloud's mongod; stays the caller's.
        user_id: whose entries they are.
        data_dir: where that mongod keeps its files, to see a full disk before mongod does.
    """

    def __init__(
        self, client: pymongo.MongoClient[dict[str, object]], user_id: uuid.UUID, *, data_dir: Path | None = None
    ) -> None:
        concern = pymongo.WriteConcern(w=1, j=True)
        self._database = client.get_database(DATABASE, codec_options=WIRE, write_concern=concern)
        self._user = legacy(user_id)
        self._data_dir = data_dir
        self._writer = Writer(self._database, self._user, data_dir)

    def put(self, entries: Sequence[object], *, partial: bool = False) -> StoreReport:
        """Keep entries; see Store."""
        accepted, rejected = accept(entries, self._user, partial=partial)
        with self._errors("store entries"):
            inserted = self._writer.write(accepted)
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
        query = self._query(key, start_ts, end_ts, time_key)
        found = [one.sort(_by(time_key)).limit(limit or 0).batch_size(100) for one in self._formatted(query)]
        merged = heapq.merge(*found, key=lambda entry: order_of(entry, time_key))
        return self._read(itertools.islice(merged, limit))

    def pending(self, limit: int | None = None) -> Iterator[JsonObject]:
        """Raw phone entries; see Store."""
        found = self._database[USERCACHE].find({"user_id": self._user}, {CLAIMED: 0})
        return self._read(found.sort(_by("metadata.write_ts")).limit(limit or 0))

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is one; see Store."""
        query = self._located(key, start_ts, end_ts, region)
        with self._errors("look for an entry"):
            found = (self._database[name].find_one(query, {"_id": 1}) for name in (TIMESERIES, ANALYSIS))
            return any(entry is not None for entry in found)

    def check_region(self, region: Mapping[str, object]) -> None:
        """Ask mongod about a region, on a collection that is always empty; see Store."""
        check_shape(region)
        with self._errors("check a region"):
            try:
                self._database[NOTHING].find_one({"loc": {"$geoWithin": {"$geometry": region}}})
            except OperationFailure as exc:
                raise BadQuery(
                    f"the region is not acceptable: {str(exc.details and exc.details['errmsg'])[:200]}"
                ) from None

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[Fix]:
        """Times and positions only; see Store."""
        query = {**self._located(key, start_ts, end_ts, None), "data.loc.type": "Point"}
        found = [one.sort(_by("data.ts")) for one in self._formatted(query, _FIX)]
        return self._read(heapq.merge(*map(_fixes, found)))

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
        query = {**self._located(key, start_ts, end_ts, region), "data.loc.type": "Point"}
        if but:
            query["$nor"] = [lies_in(one) for one in but]
        return self._read(_fixes(itertools.chain.from_iterable(self._formatted(query, _FIX))))

    def trips(self, *, start_ts: float, end_ts: float) -> Iterator[Trip]:
        """Trips as intake found them; see Store."""
        return results.trips(self._shown(results.TRIPS, results.OF_TRIPS, start_ts, end_ts), before_ts=end_ts)

    def sections(self, *, start_ts: float, end_ts: float) -> Iterator[Section]:
        """Sections as intake found them; see Store."""
        return results.sections(self._shown(results.SECTIONS, results.OF_SECTIONS, start_ts, end_ts), before_ts=end_ts)

    def _shown(self, key: str, fields: Sequence[str], start_ts: float, end_ts: float) -> Iterator[JsonObject]:
        """These fields of the entries of a key that start in the closed interval, by start and id."""
        check_find("data.start_ts", start_ts, end_ts, None)
        query = self._query(key, start_ts, end_ts, "data.start_ts")
        found = [one.sort(_by("data.start_ts")) for one in self._formatted(query, list(fields))]
        return self._read(heapq.merge(*found, key=lambda entry: order_of(entry, "data.start_ts")))

    def claim(self, limit: int) -> list[JsonObject]:
        """The first pending entries; see Store. What replaces one of them lacks the mark."""
        chosen = {"_id": {"$in": [ObjectId(oid_of(entry)) for entry in self.pending(limit)]}}
        pending = self._database[USERCACHE]
        with self._errors("claim raw entries"):
            pending.update_many(chosen, {"$set": {CLAIMED: True}})
            return list(pending.find({**chosen, CLAIMED: True}, {CLAIMED: 0}))

    def settle(self, formatted: Sequence[JsonObject], failed: Sequence[str]) -> list[Rejected]:
        """Raw entries are pending no more; see Store."""
        accepted, rejected = accept(formatted, self._user, partial=True)
        bad = {*failed, *(oid_of(formatted[one.position]) for one in rejected)}
        with self._errors("settle raw entries"):
            self._writer.write(accepted)
            pending = self._database[USERCACHE].with_options(_PLAIN)
            for document in pending.find({"_id": {"$in": [ObjectId(oid) for oid in bad]}, CLAIMED: True}, {CLAIMED: 0}):
                self._database[ERRORS].replace_one({"_id": document["_id"]}, document, upsert=True)
            gone = [ObjectId(oid) for oid in {*bad, *map(oid_of, formatted)}]
            pending.delete_many({"_id": {"$in": gone}, CLAIMED: True})
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
        check_find("data.ts", start_ts, end_ts, limit)
        query = self._query(key, start_ts, end_ts, "data.ts")
        shown: dict[str, object] = {f"c{number}": f"${path_of(field)}" for number, field in enumerate(fields)}
        name = ANALYSIS if key.startswith(RESULT_PREFIXES) else TIMESERIES
        found = self._database[name].find(query, shown).sort(_by("data.ts")).limit(limit or 0)
        rows = list(self._read(found))
        columns = {field: [row.get(f"c{number}") for row in rows] for number, field in enumerate(fields)}
        return {"_id": [oid_of(row) for row in rows], **columns}

    def count(self, keys: Sequence[str], *, before_ts: float, time_key: str) -> int:
        """How many entries are older; see Store."""
        # all of it stands in one index, so no document is read, of however many years
        query = {"user_id": self._user, "metadata.key": {"$in": list(keys)}, time_key: {"$lt": before_ts}}
        with self._errors("count entries"):
            return self._writer.collection(TIMESERIES).count_documents(query, hint=COMPOUND[TIMESERIES])

    def replace_results(
        self, results: Sequence[object], *, keys: Sequence[str], from_ts: float | None, until_ts: float | None
    ) -> Replaced:
        """Computed entries are these; see Store."""
        accepted, _ = accept(results, self._user, partial=False)
        fresh = accepted.get(ANALYSIS, {})
        with self._errors("replace results"):
            collection = self._writer.collection(ANALYSIS)
            known = {
                cast(ObjectId, document["_id"]): document
                for document in collection.with_options(_PLAIN).find({"_id": {"$in": list(fresh)}})
            }
            changed = [
                (oid, encoded)
                for oid, encoded in fresh.items()
                if oid not in known or unwritten(known[oid]) != unwritten(bson.decode(encoded))
            ]
            self._writer.write({ANALYSIS: dict(changed)})
            query = {"user_id": self._user, "_id": {"$nin": list(fresh)}, **_results(keys, from_ts, until_ts)}
            return Replaced(len(changed), collection.delete_many(query).deleted_count)

    def embed_place(self, place: JsonObject) -> None:
        """Composite trips that end at this place have it as it is now; see Store."""
        embedded = typed({name: value for name, value in place.items() if name != "user_id"})
        ends_here = {"data.end_confirmed_place._id": ObjectId(oid_of(place))}
        query = {"user_id": self._user, "metadata.key": COMPOSITE, **ends_here}
        with self._errors("renew a place"):
            self._database[ANALYSIS].update_many(query, {"$set": {"data.end_confirmed_place": embedded}})

    def progress(self) -> Progress:
        """How far the pipeline got; see Store."""
        with self._errors("read how far the pipeline got"):
            found = self._database[PIPELINE].find_one({"user_id": self._user, "emlab": {"$exists": True}}) or {}
        checkpoint, changed_ts = cast("JsonObject | None", found.get("emlab")), cast("float | None", found.get(CHANGED))
        return Progress(checkpoint, cast(int, found.get(CHANGES, 0)), changed_ts)

    def forget_changes(self, changes: int) -> None:
        """Changes are seen to; see Store."""
        query = {"user_id": self._user, "emlab": {"$exists": True}, CHANGES: changes}
        with self._errors("note that changes are seen to"):
            self._database[PIPELINE].update_one(query, {"$unset": {CHANGES: 1, CHANGED: 1}})

    def keep_progress(self, stage: int, last_ts: float | None, now: float, checkpoint: JsonObject) -> None:
        """How far the pipeline got is journaled; see Store."""
        query = {"user_id": self._user, "pipeline_stage": stage}
        state = {"curr_run_ts": None, "last_processed_ts": last_ts, "last_ts_run": now, "emlab": checkpoint}
        with self._errors("keep how far the pipeline got"):
            self._database[PIPELINE].update_one(query, {"$set": state}, upsert=True)

    def collections(self) -> dict[str, int]:
        """How many documents there are; see Store."""
        with self._errors("count documents"):
            names = [name for name in self._database.list_collection_names() if name.startswith("Stage_")]
            return in_order({name: self._database[name].count_documents({"user_id": self._user}) for name in names})

    def page(self, collection: str, *, after: str | None = None) -> Iterator[JsonObject]:
        """Documents by id; see Store."""
        start = page_after(collection, after)
        query = {"user_id": self._user, **({} if start is None else {"_id": {"$gt": start}})}
        return self._read(self._database[collection].find(query, {CLAIMED: 0}).sort("_id", _UP).batch_size(100))

    def restore(self, collection: str, documents: Sequence[object], *, partial: bool = False) -> StoreReport:
        """Documents are kept with their ids; see Store."""
        accepted, rejected = accept_documents(collection, documents, self._user, partial=partial)
        with self._errors("restore documents"):
            inserted = self._writer.write({collection: accepted})
            for encoded in accepted.values() if collection in SINGLE else ():
                self._keep_single(collection, bson.decode(encoded, codec_options=_PLAIN))
        return report(len(documents), inserted, rejected)

    def _keep_single(self, collection: str, document: dict[str, object]) -> None:
        """Of what a person has one of, this one stays."""
        same = {name: document.get(name) for name in SINGLE[collection]}
        others = {"user_id": self._user, "_id": {"$ne": document["_id"]}, **same}
        self._database[collection].delete_many(others)

    def delete(self, start_ts: float | None, end_ts: float | None) -> dict[str, int]:
        """Nothing tells of the period any more; see Store."""
        period.check_period(start_ts, end_ts)
        with self._errors("delete a period"):
            return period.remove(self._database, {"user_id": self._user}, start_ts, end_ts)

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """A bound on the time of what is called inside; see Store."""
        return pymongo.timeout(seconds)

    def counts(self) -> dict[str, int]:
        """Entries by key; see Store."""
        total: dict[str, int] = {}
        steps: list[dict[str, object]] = [
            {"$match": {"user_id": self._user, "invalid": {"$exists": False}}},
            {"$group": {"_id": "$metadata.key", "n": {"$sum": 1}}},
        ]
        with self._errors("count entries"):
            for name in (TIMESERIES, ANALYSIS, USERCACHE):
                for group in self._database[name].aggregate(steps):
                    key = cast(str, group["_id"])
                    total[key] = total.get(key, 0) + cast(int, group["n"])
        return total

    def _query(self, key: str, start_ts: float | None, end_ts: float | None, time_key: str) -> dict[str, object]:
        query: dict[str, object] = {"user_id": self._user, "metadata.key": key, "invalid": {"$exists": False}}
        bounds = {"$gte": start_ts, "$lte": end_ts}
        if given := {name: bound for name, bound in bounds.items() if bound is not None}:
            query[time_key] = given
        return query

    def _located(
        self, key: str, start_ts: float, end_ts: float, region: Mapping[str, object] | None
    ) -> dict[str, object]:
        """The query of entries of a key by data.ts and where they were. Raises BadQuery."""
        check_find("data.ts", start_ts, end_ts, None)
        query = self._query(key, start_ts, end_ts, "data.ts")
        if region is not None:
            self.check_region(region)
            query["$and"] = [lies_in(region)]
        return query

    def _formatted(
        self, query: Mapping[str, object], shown: Mapping[str, object] | Sequence[str] | None = None
    ) -> list[Cursor[dict[str, object]]]:
        """What matches of the entries that came, and of those that intake computed."""
        return [self._database[name].find(query, shown) for name in (TIMESERIES, ANALYSIS)]

    def _read(self, found: Iterable[T]) -> Iterator[T]:
        with self._errors("read entries"):
            yield from found

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return wrapped(doing, self._data_dir)
