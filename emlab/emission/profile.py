"""What a profile holds. Pure: no database, no clock."""

from __future__ import annotations

import re

import msgspec

from emlab.entries import JsonObject
from emlab.entries.fault import Fault
from emlab.entries.tree import check_object
from emlab.errors import BadQuery

# What e-mission's server gives everybody: a name of its own, and the miles per gallon of a car that emits 278 g CO2 a
# mile (1609 m), at 8.91 kg a gallon.
FRESH: JsonObject = {
    "source": "Shankari",
    "mpg_array": [8.91 / (1.6093 * (278.0 / 1609))],
    "mode": {},
    "purpose": {},
}
RESERVED = frozenset({"_id", "user_id", "create_ts", "update_ts", "pipeline_range", "total_trips", "labeled_trips"})
RESERVED |= {"user"}  # in a request it holds the owner's token, which must not be kept
LABELLED = frozenset({"mode", "purpose"})  # hold labels with their uses, which have routes of their own
MAX_BYTES = 200_000  # of a profile's JSON
MAX_FIELDS = 200
_NAME = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_\- ]{0,99}")


def check_update(profile: JsonObject, fields: JsonObject) -> None:
    """Returns if a profile may be given these fields. Raises BadQuery."""
    odd = next((name for name in fields if _NAME.fullmatch(name) is None), None)
    if odd is not None:
        raise BadQuery("a field of a profile is named with up to 100 letters, digits, spaces, _ and -")
    if taken := sorted(fields.keys() & (RESERVED | LABELLED)):
        raise BadQuery(f"a profile's {', '.join(taken)} cannot be set")
    try:
        check_object(fields, "update_doc", 1)
    except Fault as fault:
        raise BadQuery(fault.sentence) from None
    check_size({**profile, **fields})


def check_size(profile: JsonObject) -> None:
    """Returns if a profile is not too large. Raises BadQuery."""
    if len(profile) > MAX_FIELDS or len(msgspec.json.encode(profile)) > MAX_BYTES:
        raise BadQuery(f"a profile has at most {MAX_FIELDS} fields and {MAX_BYTES} bytes of JSON")


def calls_noted(route: str, now: float) -> JsonObject:
    """Which times of a profile a call sets, by e-mission's names."""
    noted: JsonObject = {"last_call_ts": now}
    if route.startswith("usercache"):
        noted["last_sync_ts"] = now
    if route.startswith("usercache_put"):
        noted["last_put_ts"] = now
    if route == "pipeline_range":
        noted["last_diary_fetch_ts"] = now
    return noted
