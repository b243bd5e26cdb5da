"""Raw mappings in, checked entries out, each kept whole.

Imports msgspec, and of emlab errors and the rest of entries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import UNSET

from emlab.entries.fault import Fault, fault_of, is_key, message, shown
from emlab.entries.report import Rejected
from emlab.entries.tree import MAX_DEPTH, OID, check_object, is_uuid
from emlab.entries.view import (
    ENVELOPE,
    MILLISECONDS_FROM,
    TIME_FIELDS,
    Envelope,
    Fix,
    JsonObject,
    PlainEntry,
    PlainTree,
    view_type,
)
from emlab.errors import BadEntry

MAX_ENTRY_BYTES = 1_000_000  # of JSON
DEFAULT_TIME_ZONE = "America/Los_Angeles"  # what e-mission assumes for a phone that names none
_ENCODER = msgspec.json.Encoder()
_EXTENDED = re.compile(
    rb'\{\s*"\$(?:oid"\s*:\s*"[0-9a-fA-F]{24}"|uuid"\s*:\s*"[0-9a-fA-F]{32}"|date"\s*:\s*-?[0-9]{1,13})\s*\}'
)
_PLAIN = msgspec.json.Decoder(PlainEntry)


def is_formatted(entry: Mapping[str, object]) -> bool:
    """Whether an accepted entry has the server's form; otherwise it is as the phone sent it."""
    metadata = entry["metadata"]
    return isinstance(metadata, dict) and "write_fmt_time" in metadata


def parse(raw: object, position: int = 0) -> JsonObject:
    """The entry as it is to be kept: whole, its times as float seconds, its time zone named.

    Args:
        raw: a mapping as a JSON decoder makes it, or its JSON as msgspec.Raw. It is not changed; unchanged parts are
            shared with the result.
        position: its index in what was handed over, for the message.
    Raises:
        BadEntry: it is malformed; says which entry, which field and how.
    """
    try:
        return _parsed(raw)
    except Fault as fault:
        raise BadEntry(message(_shown_of(raw), position, fault), position) from None


def parse_each(raws: Iterable[object]) -> Iterator[JsonObject | Rejected]:
    """Each entry as `parse` gives it, or why it is malformed; one after the other, so that many need little memory."""
    for position, raw in enumerate(raws):
        try:
            yield _parsed(raw)
        except Fault as fault:  # costs nothing unless raised, since Python 3.11
            yield Rejected(position, fault.reason, message(_shown_of(raw), position, fault))


def parse_all(raws: Iterable[object]) -> tuple[list[JsonObject], list[Rejected]]:
    """The good entries in their order, and the malformed ones with their positions."""
    good: list[JsonObject] = []
    rejected: list[Rejected] = []
    for one in parse_each(raws):
        if isinstance(one, Rejected):
            rejected.append(one)
        else:
            good.append(one)
    return good, rejected


def _parsed(raw: object) -> JsonObject:
    if type(raw) is msgspec.Raw:
        plain = _plain_entry(raw)
        if plain is not None:
            view = _view(plain)
            _check_view(view)
            return _normal(plain, view)
        raw = _decoded(raw)
    if type(raw) is not dict:
        raise Fault("the entry", "is no JSON object", shown(raw))
    if not _is_plain(raw):
        check_object(raw, "", 1)
        _check_size(len(_ENCODER.encode(raw)))
    view = _view(raw)
    _check_view(view)
    return _normal(raw, view)


def _plain_entry(raw: msgspec.Raw) -> JsonObject | None:
    """The entry if its JSON surely passes `check_object`, as nearly all does; None sends it to the close look."""
    encoded = memoryview(raw).tobytes()
    try:
        tree = _PLAIN.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    ids = (tree.id is not UNSET) + (tree.user_id is not UNSET)
    if not _is_tame(encoded, ids) or len(encoded) > MAX_ENTRY_BYTES:
        return None
    entry: JsonObject = {} if tree.id is UNSET else {"_id": tree.id}
    if tree.user_id is not UNSET:
        entry["user_id"] = tree.user_id
    return entry | {"metadata": tree.metadata, "data": tree.data}


def _is_tame(encoded: bytes, ids: int) -> bool:
    """Whether JSON surely has no names with $ but those of its ids and dates, and nothing escaped."""
    signs = encoded.count(b"$")
    return b"\\" not in encoded and (signs == ids or signs == len(_EXTENDED.findall(encoded)))


def _decoded(raw: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Fault("the entry", "is no JSON") from None
    except RecursionError:
        raise Fault("the entry", f"is nested deeper than {MAX_DEPTH}") from None


def _shown_of(raw: object) -> object:
    """What a message may name of a malformed entry: nothing if it is no JSON."""
    try:
        return _decoded(raw) if type(raw) is msgspec.Raw else raw
    except Fault:
        return None


def _is_plain(raw: JsonObject) -> bool:
    """Whether an entry surely passes `check_object`, as nearly all do; a quarter of its time, and all of it in C."""
    try:
        tree = msgspec.convert(raw, PlainTree)
        encoded = _ENCODER.encode(raw)
    except (msgspec.ValidationError, TypeError, UnicodeEncodeError, RecursionError):
        return False  # the close look will say what is wrong
    _check_size(len(encoded))
    ids = ("_id" in raw) + ("user_id" in raw)  # the view looks into these two, whose only field starts with $
    if not raw.keys() <= ENVELOPE or not _is_tame(encoded, ids):
        return False
    return tree.data == raw["data"] and tree.metadata == raw["metadata"]  # no set or tuple became a list


def _view(raw: JsonObject) -> Envelope:
    try:
        return msgspec.convert(raw, view_type(raw))
    except msgspec.ValidationError as exc:
        raise fault_of(raw, str(exc)) from None


def _check_view(view: Envelope) -> None:
    """The rules that concern more than one field."""
    metadata, data = view.metadata, view.data
    if not is_key(metadata.key):
        raise Fault("metadata.key", "has characters that no key has", shown(metadata.key))
    if metadata.write_fmt_time is UNSET and metadata.type is UNSET:
        raise Fault("metadata.type", "is missing, which only formatted entries may lack")
    if view.id is not UNSET and OID.fullmatch(view.id.hex) is None:
        raise Fault("_id.$oid", "is not 24 hex digits", shown(view.id.hex))
    if view.user_id is not UNSET and not is_uuid(view.user_id.hex):
        raise Fault("user_id.$uuid", "is not 32 hex digits", shown(view.user_id.hex))
    if isinstance(data, Fix):
        _check_fix(data, metadata.write_fmt_time is not UNSET)


def _check_fix(fix: Fix, formatted: bool) -> None:  # noqa: FBT001
    if fix.loc is None:
        if formatted:
            raise Fault("data.loc", "is missing, which only raw phone entries may lack")
        return
    longitude, latitude = fix.loc.coordinates
    # 1e-5 degrees are about a metre: rounding passes, swapped or stale coordinates do not.
    if abs(longitude - fix.longitude) > 1e-5 or abs(latitude - fix.latitude) > 1e-5:
        raise Fault("data.loc", "is not [data.longitude, data.latitude]", shown([longitude, latitude]))


def _normal(raw: JsonObject, view: Envelope) -> JsonObject:
    """`raw`, copied only where a value changes."""
    metadata, data = raw["metadata"], raw["data"]
    new_metadata = _times_as_seconds(metadata, ("write_ts",))  # type: ignore[arg-type]  # the view saw two dicts
    if view.metadata.time_zone is UNSET:
        new_metadata = {**new_metadata, "time_zone": DEFAULT_TIME_ZONE}
    new_data = _times_as_seconds(data, TIME_FIELDS)  # type: ignore[arg-type]
    if new_metadata is metadata and new_data is data:
        return raw
    return {**raw, "metadata": new_metadata, "data": new_data}


def _times_as_seconds(fields: JsonObject, names: tuple[str, ...]) -> JsonObject:
    """The same mapping, or a copy in which these times are floats of seconds."""
    for name in names:
        value = fields.get(name)
        if type(value) is int or (type(value) is float and value >= MILLISECONDS_FROM):
            seconds = float(value)
            fields = {**fields, name: seconds / 1000 if seconds >= MILLISECONDS_FROM else seconds}
    return fields


def _check_size(size: int) -> None:
    if size > MAX_ENTRY_BYTES:
        raise Fault("the entry", f"has more than {MAX_ENTRY_BYTES:_} bytes of JSON", f"({size:_} bytes)")
