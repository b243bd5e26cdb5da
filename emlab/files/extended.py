"""Extended JSON as MongoDB's own tools write it, in the three forms that entries have. Imports nothing.

Entries have {"$oid"}, {"$uuid": hex digits} and {"$date": milliseconds}; mongoexport writes binary ids, dates as texts
and, in its canonical mode, an object for each number.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime

from emlab.entries import JsonObject

UUID_TYPES = ("03", "04", "3", "4")


def plain(value: JsonObject) -> object:
    """An object as entries have it; what is none of MongoDB's forms, or a malformed one, stays as it is."""
    if len(value) == 1:
        ((name, inner),) = value.items()
        if not name.startswith("$"):
            return value
        try:
            return _number(name, inner) if name.startswith("$number") else _typed(name, inner, value)
        except (ValueError, OverflowError, binascii.Error):
            return value
    if value.keys() == {"$binary", "$type"}:  # of versions before 4.2
        return plain({"$binary": {"base64": value["$binary"], "subType": value["$type"]}})
    return value


def _number(name: str, inner: object) -> object:
    if name in ("$numberLong", "$numberInt") and isinstance(inner, str):
        return int(inner)
    if name == "$numberDouble" and isinstance(inner, str):
        return float(inner)
    return {name: inner}


def _typed(name: str, inner: object, value: JsonObject) -> object:
    if name == "$date" and isinstance(inner, str):
        time = datetime.fromisoformat(inner)
        return {"$date": round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)}
    if name == "$binary" and isinstance(inner, dict) and inner.get("subType") in UUID_TYPES:
        raw = base64.b64decode(str(inner.get("base64")), validate=True)
        return {"$uuid": raw.hex()} if len(raw) == 16 else value
    return value
