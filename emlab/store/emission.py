"""What e-mission's routes read and write besides entries: its collections of profiles and stages, and raw queries.

Imports pymongo, and of emlab errors, mongo_errors and the store.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import bson
import pymongo
from bson.datetime_ms import DatetimeMS
from bson.objectid import ObjectId

from emlab.entries import RESULT_PREFIXES, JsonObject
from emlab.mongo_errors import wrapped
from emlab.store.base import ANALYSIS, CLAIMED, PIPELINE, TIMESERIES, USERCACHE
from emlab.store.documents import WIRE, legacy, typed
from emlab.store.mongo import DATABASE

PROFILES, UUIDS = "Stage_Profiles", "Stage_uuids"
FOUND_LIMIT = {TIMESERIES: 250_000, ANALYSIS: 250_000, USERCACHE: 100_000}  # as e-mission's server has it
# Entries of one time come as they were written; results, which are all written at once, as they happened. That is
# mostly their order at e-mission's server, too.
TIES = ("metadata.write_ts", "data.start_ts", "data.ts", "_id")
BATCH = 500  # entries that are mappings at once
TAIL = 10_000  # entries that are read from the end, and turned round in memory
Where = Mapping[str, object]


class EmissionStore:
    """One person's documents as e-mission's routes see them. Thread-safe; each method blocks.

    Args:
        client, user_id, data_dir: as for MongoStore.
    """

    def __init__(
        self, client: pymongo.MongoClient[JsonObject], user_id: uuid.UUID, *, data_dir: Path | None = None
    ) -> None:
        self._database = client.get_database(
            DATABASE, codec_options=WIRE, write_concern=pymongo.WriteConcern(w=1, j=True)
        )
        self._hasty = self._database.with_options(write_concern=pymongo.WriteConcern(w=1, j=False))
        self._user = legacy(user_id)
        self._uuid = user_id
        self._data_dir = data_dir

    @property
    def user_id(self) -> uuid.UUID:
        """Whose documents they are."""
        return self._uuid

    def profile(self) -> JsonObject | None:
        """The profile in wire form, None if there is none."""
        with self._errors("read the profile"):
            return self._database[PROFILES].find_one({"user_id": self._user})

    def create_profile(self, fields: JsonObject, now: float) -> None:
        """There is a profile; if there was none, with these fields. e-mission's table of users has this one."""
        made = {"create_ts": _date(now), "update_ts": _date(now)}
        with self._errors("make the profile"):
            # the user's name there would be the token, which is kept nowhere
            known = {"user_email": self._uuid.hex, **made}
            self._database[UUIDS].update_one({"uuid": self._user}, {"$setOnInsert": known}, upsert=True)
            fresh = {**fields, **made}
            self._database[PROFILES].update_one({"user_id": self._user}, {"$setOnInsert": fresh}, upsert=True)

    def set_profile(self, fields: JsonObject) -> None:
        """The profile has these fields, journaled; values may hold extended JSON at any depth."""
        with self._errors("keep the profile"):
            self._database[PROFILES].update_one({"user_id": self._user}, {"$set": typed(fields)})

    def note(self, fields: JsonObject) -> None:
        """The profile, if there is one, has these fields, not yet journaled: a crash may lose them."""
        with self._errors("note a call"):
            self._hasty[PROFILES].update_one({"user_id": self._user}, {"$set": fields})

    def complete_ts(self) -> float | None:
        """What the last stage of the pipeline has processed; None before it ran."""
        with self._errors("read the pipeline's state"):
            last = self._database[PIPELINE].find_one(
                {"user_id": self._user}, sort=[("pipeline_stage", pymongo.DESCENDING)]
            )
        return None if last is None else cast("float | None", last.get("last_processed_ts"))

    def has_run(self) -> bool:
        """Whether the pipeline ever did."""
        with self._errors("read the pipeline's state"):
            return self._database[PIPELINE].find_one({"user_id": self._user}, {"_id": 1}) is not None

    def bounds(self, key: str) -> tuple[float | None, float | None]:
        """The first data.start_ts and the last data.end_ts of computed entries of a key."""
        with self._errors("look for the first and the last trip"):
            return self._end(key, "start_ts", pymongo.ASCENDING), self._end(key, "end_ts", pymongo.DESCENDING)

    def _end(self, key: str, name: str, direction: int) -> float | None:
        query = {**self._mine([key]), f"data.{name}": {"$type": "number"}}
        found = self._database[ANALYSIS].find_one(query, {f"data.{name}": 1}, sort=[(f"data.{name}", direction)])
        return None if found is None else cast("dict[str, float]", found["data"])[name]

    def count(self, key: str, where: Where | None = None) -> int:
        """How many computed entries there are of a key."""
        with self._errors("count entries"):
            return self._database[ANALYSIS].count_documents({**self._mine([key]), **(where or {})})

    def results(
        self, keys: Sequence[str], where: Where, *, order: str, limit: int, fields: Sequence[str] | None = None
    ) -> list[JsonObject]:
        """Computed entries of these keys, in wire form, by a path and then `_id`: at most `limit`."""
        shown = None if fields is None else dict.fromkeys(fields, 1)
        by = [(order, pymongo.ASCENDING), ("_id", pymongo.ASCENDING)]
        with self._errors("read results"):
            found = self._database[ANALYSIS].find({**self._mine(keys), **where}, shown)
            return list(found.sort(by).limit(limit).allow_disk_use(True))

    def by_ids(self, ids: Sequence[str]) -> dict[str, JsonObject]:
        """Computed entries of these ids (hex), in wire form."""
        query = {"user_id": self._user, "_id": {"$in": [ObjectId(one) for one in ids if ObjectId.is_valid(one)]}}
        with self._errors("read results"):
            return {cast("dict[str, str]", one["_id"])["$oid"]: one for one in self._database[ANALYSIS].find(query)}

    def find(
        self, keys: Sequence[str] | None, where: Where, *, order: str, pick: Callable[[int], range] | None = None
    ) -> Iterator[JsonObject]:
        """Entries in wire form, as e-mission answers: the time series', then computed ones, then unformatted ones.

        Args:
            keys: null for all; an empty list finds unformatted ones of all keys, and no others, as e-mission does.
            where: the rest of the query. order: by which path each of the three is sorted.
            pick: of how many there are, which are wanted, by their places; all without it. No others are read.
        """
        with self._errors("find entries"):
            queries = list(self._queries(keys, where))
            if pick is None:
                for name, query in queries:
                    yield from self._read(name, query, order)
            else:
                yield from self._picked(queries, order, pick)

    def size(self, keys: Sequence[str] | None, where: Where) -> int:
        """How many bytes the entries have that `find` gives, as they are kept."""
        sizes: list[JsonObject] = [{"$group": {"_id": None, "bytes": {"$sum": {"$bsonSize": "$$ROOT"}}}}]
        total = 0
        with self._errors("measure entries"):
            for name, query in self._queries(keys, where):
                steps: list[JsonObject] = [{"$match": query}, {"$limit": FOUND_LIMIT[name]}, *sizes]
                total += sum(cast(int, group["bytes"]) for group in self._database[name].aggregate(steps))
        return total

    def _queries(self, keys: Sequence[str] | None, where: Where) -> Iterator[tuple[str, JsonObject]]:
        computed = None if keys is None else [key for key in keys if key.startswith(RESULT_PREFIXES)]
        others = None if keys is None else [key for key in keys if not key.startswith(RESULT_PREFIXES)]
        for name, wanted in ((TIMESERIES, others), (ANALYSIS, computed), (USERCACHE, keys or None)):
            if wanted is None or wanted:
                yield name, {**self._mine(wanted), **where}

    def _picked(
        self, queries: Sequence[tuple[str, JsonObject]], order: str, pick: Callable[[int], range]
    ) -> Iterator[JsonObject]:
        totals = [self._database[name].count_documents(query) for name, query in queries]
        counts = [min(total, FOUND_LIMIT[name]) for total, (name, _) in zip(totals, queries, strict=True)]
        wanted, before = pick(sum(counts)), 0
        for (name, query), total, count in zip(queries, totals, counts, strict=True):
            if at := part(wanted, before, count):
                yield from self._some(name, query, order, at, total)
            before += count

    def _some(self, name: str, query: JsonObject, order: str, at: range, total: int) -> Iterator[JsonObject]:
        if at.step > 1:
            return self._sampled(name, query, order, at)
        if at.start and len(at) <= TAIL:  # so mongod need not sort the others
            last = self._read(name, query, order, skip=total - at.stop, limit=len(at), down=True)
            return reversed(list(last))
        return self._read(name, query, order, skip=at.start, limit=len(at))

    def _sampled(self, name: str, query: JsonObject, order: str, at: range) -> Iterator[JsonObject]:
        """Of entries that are not wanted, only times and ids are sorted, and only ids are read."""
        by = _by(order)
        steps: list[JsonObject] = [{"$match": query}, {"$project": by}, {"$sort": by}, {"$limit": at.stop}]
        steps.append({"$project": {"_id": True}})
        batches = self._database[name].aggregate_raw_batches(steps, allowDiskUse=True)
        ids = [entry["_id"] for batch in batches for entry in bson.decode_all(cast(bytes, batch))][at.start :: at.step]
        for start in range(0, len(ids), BATCH):
            yield from self._read(name, {**query, "_id": {"$in": ids[start : start + BATCH]}}, order)

    def _read(
        self, name: str, query: JsonObject, order: str, *, skip: int = 0, limit: int | None = None, down: bool = False
    ) -> Iterator[JsonObject]:
        """In batches, which takes less Python to decode, and without the user, who is the same: a fifth faster."""
        by = list(_by(order, pymongo.DESCENDING if down else pymongo.ASCENDING).items())
        found = self._database[name].find_raw_batches(query, {"user_id": False, CLAIMED: False}).sort(by).skip(skip)
        found = found.limit(FOUND_LIMIT[name] if limit is None else limit)
        user: JsonObject = {"user_id": {"$uuid": self._uuid.hex}}
        for batch in found.batch_size(BATCH).allow_disk_use(True):
            yield from (entry | user for entry in bson.decode_all(cast(bytes, batch), WIRE))

    def _mine(self, keys: Sequence[str] | None) -> JsonObject:
        query: JsonObject = {"user_id": self._user, "invalid": {"$exists": False}}
        if keys is not None:
            query["metadata.key"] = {"$in": list(keys)} if len(keys) != 1 else keys[0]
        return query

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return wrapped(doing, self._data_dir)


def part(at: range, before: int, count: int) -> range:
    """Which of `count` entries are wanted, by places in a list where so many come before them; by their own places."""
    first, last = (-(-(place - at.start) // at.step) for place in (before, before + count))
    inner = at[max(0, first) : max(0, last)]
    return range(inner.start - before, inner.stop - before, at.step)


def _by(order: str, direction: int = pymongo.ASCENDING) -> dict[str, int]:
    """What entries are sorted by: no two of them are the same in all of it."""
    return dict.fromkeys((order, *TIES), direction)


def _date(now: float) -> DatetimeMS:
    return DatetimeMS(int(now * 1000))
