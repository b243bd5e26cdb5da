"""Entries as the documents that e-mission keeps, and back: ids, the owner, extended JSON.

Imports bson, and of emlab entries and store.base.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import NamedTuple, cast

import bson
import msgspec
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from bson.objectid import ObjectId

from emlab.entries import (
    MAX_EXAMPLES,
    RESULT_PREFIXES,
    JsonObject,
    Rejected,
    StoreReport,
    count_reasons,
    is_formatted,
    parse_each,
)
from emlab.errors import BadEntry
from emlab.store.base import ANALYSIS, TIMESERIES, USERCACHE


class _OidOut(TypeDecoder):
    bson_type = ObjectId

    def transform_bson(self, value: ObjectId) -> object:
        return {"$oid": str(value)}


class _UuidOut(TypeDecoder):
    bson_type = uuid.UUID

    def transform_bson(self, value: uuid.UUID) -> object:
        return {"$uuid": value.hex}


class _DateOut(TypeDecoder):
    bson_type = DatetimeMS

    def transform_bson(self, value: DatetimeMS) -> object:
        return {"$date": int(value)}


class _IntOut(TypeDecoder):
    bson_type = Int64

    def transform_bson(self, value: Int64) -> object:
        return int(value)


# Decoding gives the wire form at once.
WIRE: CodecOptions[dict[str, object]] = CodecOptions(
    uuid_representation=UuidRepresentation.PYTHON_LEGACY,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    type_registry=TypeRegistry([_OidOut(), _UuidOut(), _DateOut(), _IntOut()]),
)


_NESTED = (dict, list)
_TYPED_NAME = re.compile(rb"\$(?:oid|uuid|date)\0")


class _Document(NamedTuple):
    collection: str
    id: ObjectId
    bson: bytes


def legacy(user_id: uuid.UUID) -> Binary:
    """A user id as e-mission keeps it: BSON binary of subtype 3."""
    return Binary.from_uuid(user_id, UuidRepresentation.PYTHON_LEGACY)


def accept(
    entries: Sequence[object], user: Binary, *, partial: bool
) -> tuple[dict[str, dict[ObjectId, bytes]], list[Rejected]]:
    """Documents by collection and id, the last of each id; and what is malformed. Raises BadEntry unless `partial`."""
    accepted: dict[str, dict[ObjectId, bytes]] = {}
    rejected: list[Rejected] = []
    for one in parse_each(entries):  # of many entries only the encoded form is held at once
        if isinstance(one, Rejected):
            if not partial:
                raise BadEntry(one.message, one.position)
            rejected.append(one)
            continue
        document = _document(one, user)
        accepted.setdefault(document.collection, {})[document.id] = document.bson
    return accepted, rejected


def _document(entry: JsonObject, user: Binary) -> _Document:
    """An accepted entry as the database keeps it."""
    metadata = cast(JsonObject, entry["metadata"])
    if is_formatted(entry):
        computed = cast(str, metadata["key"]).startswith(RESULT_PREFIXES)
        collection, oid = ANALYSIS if computed else TIMESERIES, _formatted_id(entry)
    else:
        collection, oid = USERCACHE, _raw_id(metadata)
    document = {**entry, "_id": oid, "user_id": user}
    encoded = bson.encode(document)
    if _TYPED_NAME.search(encoded):  # rarely: ids within results
        encoded = bson.encode({name: typed(value) for name, value in document.items()})
    return _Document(collection, oid, encoded)


def _formatted_id(entry: JsonObject) -> ObjectId:
    given = cast("dict[str, str] | None", entry.get("_id"))
    if given is not None:
        return ObjectId(given["$oid"])
    content = {name: value for name, value in entry.items() if name != "user_id"}
    return _hashed_id(msgspec.json.encode(content, order="sorted"))


def _raw_id(metadata: JsonObject) -> ObjectId:
    """The same for the same type, key and write_ts, which together are e-mission's upsert key in one person's data."""
    return _hashed_id(f"{metadata['type']}\0{metadata['key']}\0{metadata['write_ts']!r}".encode())


def _hashed_id(content: bytes) -> ObjectId:
    return ObjectId(hashlib.blake2b(content, digest_size=12).digest())


def typed(value: object) -> object:
    """Extended JSON as the database's own types, at any depth."""
    if type(value) is list:
        return [typed(item) if type(item) in _NESTED else item for item in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        ((name, item),) = value.items()
        if name == "$oid":
            return ObjectId(item)
        if name == "$uuid":
            return legacy(uuid.UUID(item))
        if name == "$date":
            return DatetimeMS(item)
    return {name: typed(item) if type(item) in _NESTED else item for name, item in value.items()}


def unwritten(value: object) -> object:
    """A document without the times of its writing, also in those that it embeds: equal ones say the same."""
    if type(value) is list:
        return [unwritten(item) if type(item) in _NESTED else item for item in value]
    if type(value) is not dict:
        return value
    inner = {name: unwritten(item) if type(item) in _NESTED else item for name, item in value.items()}
    metadata = inner.get("metadata")
    if type(metadata) is dict:
        inner["metadata"] = {name: item for name, item in metadata.items() if not name.startswith("write_")}
    return inner


def report(received: int, inserted: int, rejected: list[Rejected]) -> StoreReport:
    """What became of entries, all of which were accepted and stored or rejected."""
    return StoreReport(
        received=received,
        inserted=inserted,
        replaced=received - inserted - len(rejected),
        rejected=count_reasons(rejected),
        examples=rejected[:MAX_EXAMPLES],
    )
