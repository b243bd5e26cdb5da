"""All that a person's database holds, document by document, and back: for archives.

Imports pymongo, and of emlab entries, errors and the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import bson
import msgspec
from bson.binary import Binary
from bson.objectid import ObjectId

from emlab.entries import JsonObject, Rejected
from emlab.entries.fault import Fault, message
from emlab.entries.tree import OID, check_object
from emlab.errors import BadEntry, BadQuery
from emlab.store.base import ANALYSIS, ERRORS, PIPELINE, TIMESERIES, USERCACHE
from emlab.store.documents import accept, typed

# The order of an export: what the pipeline moves meanwhile, it moves to a later one, so it is there twice, not never.
ENTRIES = (USERCACHE, ERRORS, TIMESERIES, ANALYSIS)
PROFILES = "Stage_Profiles"
# What of a collection a person has one of, for each value of these fields.
SINGLE: dict[str, tuple[str, ...]] = {PROFILES: (), PIPELINE: ("pipeline_stage",)}
COLLECTIONS = (*ENTRIES, *SINGLE)


def in_order(counts: dict[str, int]) -> dict[str, int]:
    """Collections that have documents: those of entries first."""
    rest = sorted(counts.keys() - set(ENTRIES))
    return {name: counts[name] for name in (*ENTRIES, *rest) if counts.get(name)}


def page_after(collection: str, after: str | None) -> ObjectId | None:
    """The id after which a page of this collection begins. Raises BadQuery."""
    if not collection.startswith("Stage_"):
        raise BadQuery(f"{collection[:80]!r} is none of e-mission's collections")
    if after is not None and not OID.fullmatch(after):
        raise BadQuery("a page begins after an id of 24 hex digits")
    return None if after is None else ObjectId(after)


def accept_documents(
    collection: str, documents: Sequence[object], user: Binary, *, partial: bool
) -> tuple[dict[ObjectId, bytes], list[Rejected]]:
    """Documents as they are kept, by id, and what is malformed. Raises BadEntry unless `partial`."""
    if collection not in COLLECTIONS:
        raise BadEntry(f"an archive has no {collection[:80]!r}; it has {', '.join(COLLECTIONS)}")
    if collection in ENTRIES:
        accepted, rejected = accept(documents, user, partial=partial)
        return {oid: encoded for found in accepted.values() for oid, encoded in found.items()}, rejected
    kept: dict[ObjectId, bytes] = {}
    wrong: list[Rejected] = []
    for position, document in enumerate(documents):
        try:
            kept.update([_document(document, user)])
        except Fault as fault:
            one = Rejected(position, fault.reason, message(None, position, fault))
            if not partial:
                raise BadEntry(one.message, position) from None
            wrong.append(one)
    return kept, wrong


def _document(document: object, user: Binary) -> tuple[ObjectId, bytes]:
    decoded = _decoded(document)
    check_object(decoded, "", 1)
    given = decoded.get("_id")
    if not isinstance(given, dict) or given.keys() != {"$oid"}:
        raise Fault("_id", "is missing or no object id")
    oid = ObjectId(cast(str, given["$oid"]))
    return oid, bson.encode(cast("dict[str, object]", typed({**decoded, "_id": oid, "user_id": user})))


def _decoded(document: object) -> JsonObject:
    try:
        decoded = msgspec.json.decode(document) if isinstance(document, msgspec.Raw) else document
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise Fault("the document", "is no JSON object")
    return decoded
