"""How documents get into a mongod: with indexes, replacing others, while there is room. See MongoStore.

Imports pymongo, and of emlab mongod and store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import bson
import pymongo
from bson.codec_options import CodecOptions
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.errors import BulkWriteError

from emlab.mongod import disk_full, free_bytes
from emlab.store.base import ANALYSIS, CHANGED, CHANGES, PIPELINE, TIMESERIES, USERCACHE, start_of
from emlab.store.indexes import indexes

if TYPE_CHECKING:
    from bson.binary import Binary
    from pymongo.collection import Collection
    from pymongo.database import Database

    Documents = Collection[dict[str, object]]

RESERVE_BYTES = 16 << 20  # stays free: mongod aborts when it cannot write its checkpoint
_DUPLICATE_KEY = 11000
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_INDEXED = frozenset({TIMESERIES, ANALYSIS, USERCACHE})


class Writer:
    """Writes one person's documents.

    Args:
        user: whose they are.
        data_dir: where mongod keeps its files, to see a full disk before mongod does; None does not look.
    """

    def __init__(self, database: Database[dict[str, object]], user: Binary, data_dir: Path | None) -> None:
        self._database = database
        self._user = user
        self._data_dir = data_dir
        self._indexed: set[str] = set()
        self._unsaved_bytes = 0

    def collection(self, name: str) -> Documents:
        """The collection, with e-mission's indexes, if it has some, since its first write."""
        collection = self._database[name]
        if name in _INDEXED - self._indexed:
            collection.create_indexes(indexes(name))
            self._indexed.add(name)
        return collection

    def write(self, accepted: Mapping[str, Mapping[ObjectId, bytes]]) -> int:
        """The documents of each collection are kept; how many of them are new. Raises DiskFull."""
        self._make_room(sum(len(one) for documents in accepted.values() for one in documents.values()))
        return sum(
            self._upsert(self.collection(name), list(documents.items()))
            for name, documents in accepted.items()
            if documents
        )

    def _upsert(self, collection: Documents, documents: list[tuple[ObjectId, bytes]]) -> int:
        """How many are new. Inserting all and replacing what was there is faster than asking first."""
        raw = [RawBSONDocument(encoded) for _, encoded in documents]
        try:
            collection.insert_many(raw, ordered=False)
        except BulkWriteError as exc:
            faults = exc.details["writeErrors"]
            if any(fault["code"] != _DUPLICATE_KEY for fault in faults) or exc.details["writeConcernErrors"]:
                raise
        else:
            return len(raw)
        known = dict(documents[fault["index"]] for fault in faults)
        self._replace(collection, known)
        return len(raw) - len(known)

    def _replace(self, collection: Documents, documents: Mapping[ObjectId, bytes]) -> None:
        """What was there already is this now; that the pipeline has to look at it again is noted first."""
        found = collection.with_options(_RAW).find({"_id": {"$in": list(documents)}})
        old = {document["_id"]: bytes(document.raw) for document in found}
        changed = {oid: encoded for oid, encoded in documents.items() if old.get(oid) != encoded}
        if not changed:
            return
        if collection.name == TIMESERIES:
            self._note_change([*changed.values(), *(old[oid] for oid in changed if oid in old)])
        collection.bulk_write(
            [pymongo.ReplaceOne({"_id": oid}, RawBSONDocument(one), upsert=True) for oid, one in changed.items()],
            ordered=False,
        )

    def _note_change(self, encoded: Iterable[bytes]) -> None:
        """The pipeline, if it ever ran, has to look at the time of these entries again."""
        note = {"$min": {CHANGED: min(start_of(bson.decode(one)) for one in encoded)}, "$inc": {CHANGES: 1}}
        self._database[PIPELINE].update_one({"user_id": self._user, "emlab": {"$exists": True}}, note)

    def _make_room(self, size: int) -> None:
        """Returns if `size` bytes fit beside what mongod needs to write its next checkpoint. Raises DiskFull."""
        if self._data_dir is None:
            return
        room = free_bytes(self._data_dir) - RESERVE_BYTES
        if room < 2 * size:  # once in the journal, once in the data files
            raise disk_full(self._data_dir)
        self._unsaved_bytes += size
        if self._unsaved_bytes > room / 4:
            self._database.client.admin.command("fsync")
            self._unsaved_bytes = 0
