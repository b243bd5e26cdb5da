"""Which JSON may go into the database at all, whatever it means: its types, names and depth.

Imports of emlab entries.fault and entries.view.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping

from emlab.entries.fault import Fault, shown
from emlab.entries.view import MILLISECONDS_FROM, JsonObject

MAX_DEPTH = 16  # objects and lists within each other; an e-mission composite trip has 7
OID = re.compile(r"[0-9a-fA-F]{24}")
_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@functools.lru_cache(maxsize=1024)
def is_uuid(text: str) -> bool:
    """Whether a text is 32 hex digits, in one piece or with the four usual dashes."""
    return _UUID.fullmatch(text) is not None


def check_object(fields: JsonObject, path: str, depth: int) -> None:
    """Returns if an object holds nothing that the database would take for an operator, or not take at all."""
    if depth > MAX_DEPTH:
        raise Fault("the entry", f"is nested deeper than {MAX_DEPTH}")
    if not all(type(name) is str for name in fields):
        raise Fault(path or "the entry", "has a field name that is no text")
    _check_names(fields, path or "the entry", nested=depth > 1)
    for name, item in fields.items():
        _check_value(item, f"{path}.{name}" if path else name, depth)


def _check_value(item: object, path: str, depth: int) -> None:
    if isinstance(item, dict):
        check_object(item, path, depth + 1)
    elif isinstance(item, list):
        if depth >= MAX_DEPTH:
            raise Fault("the entry", f"is nested deeper than {MAX_DEPTH}")
        for inner in item:
            _check_value(inner, path, depth + 1)
    else:
        _check_scalar(item, path)


def _check_scalar(item: object, path: str) -> None:
    if type(item) is int and not -(2**63) <= item < 2**63:
        raise Fault(path, "is an integer of more than 64 bits")
    if type(item) is float and not math.isfinite(item):
        raise Fault(path, "is not finite", shown(item))
    if type(item) is str and _has_surrogate(item):
        raise Fault(path, "is text that is no valid Unicode")
    if type(item) not in (str, int, float, bool, type(None)):
        raise Fault(path, f"is a {type(item).__name__}, which JSON does not have")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _check_names(fields: JsonObject, place: str, *, nested: bool) -> None:
    """Returns if the object is one of the three known forms of extended JSON, or has no operator."""
    if any("\0" in name or _has_surrogate(name) for name in fields):
        raise Fault(place, "has a field name with a zero byte, or that is no valid Unicode")
    operators = [name for name in fields if name.startswith("$")]
    if operators and not (nested and len(fields) == 1 and is_extended(fields)):
        raise Fault(place, "has a field name that starts with $, or an unknown or malformed extended form")


def is_extended(value: Mapping[str, object]) -> bool:
    """Whether a mapping of one field is {"$oid": ...}, {"$uuid": ...} or {"$date": milliseconds}."""
    ((name, item),) = value.items()
    if name == "$oid":
        return type(item) is str and OID.fullmatch(item) is not None
    if name == "$uuid":
        return type(item) is str and is_uuid(item)
    return name == "$date" and type(item) is int and abs(item) < 1000 * MILLISECONDS_FROM
