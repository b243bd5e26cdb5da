"""The e-mission entry: which mappings are one, and what is said of those that are not.

A typed view checks an entry; the original mapping is what goes on, so fields that nobody here knows pass unchanged.
Two forms are accepted: formatted (`metadata.write_fmt_time` is there) and the raw form that a phone uploads.
Imports msgspec and emlab.errors.
"""

from __future__ import annotations

import functools
import html
import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from emlab.errors import BadEntry

MAX_ENTRY_BYTES = 1_000_000  # of JSON
MAX_DEPTH = 16  # objects and lists within each other; an e-mission composite trip has 7
MAX_EXAMPLES = 20  # rejected entries that a report names one by one
DEFAULT_TIME_ZONE = "America/Los_Angeles"  # what e-mission assumes for a phone that names none
MILLISECONDS_FROM = 1e11  # no time in seconds is that large (year 5138), every time since 1973 in milliseconds is
LOCATION_KEYS = frozenset({"background/location", "background/filtered_location", "analysis/recreated_location"})
RESULT_PREFIXES = ("segmentation/", "analysis/", "inference/")  # keys of computed entries
TIME_FIELDS = ("ts", "start_ts", "end_ts", "enter_ts", "exit_ts")

JsonObject = dict[str, object]

_Latitude = Annotated[float, Meta(ge=-90, le=90)]
_Longitude = Annotated[float, Meta(ge=-180, le=180)]
_Seconds = Annotated[float, Meta(ge=0, lt=MILLISECONDS_FROM)]
_SecondsOrMs = Annotated[float, Meta(ge=0, lt=1000 * MILLISECONDS_FROM)]
_Finite = Annotated[float, Meta(ge=0, le=1e9)]
_Short = Annotated[str, Meta(min_length=1, max_length=64)]
_Text = Annotated[str, Meta(min_length=1, max_length=128)]


class _LocalDate(msgspec.Struct):
    """Components in the zone of the point. weekday is 0..7 because old files count from 1."""

    year: Annotated[int, Meta(ge=1, le=9999)] | None = None
    month: Annotated[int, Meta(ge=1, le=12)] | None = None
    day: Annotated[int, Meta(ge=1, le=31)] | None = None
    hour: Annotated[int, Meta(ge=0, le=23)] | None = None
    minute: Annotated[int, Meta(ge=0, le=59)] | None = None
    second: Annotated[int, Meta(ge=0, le=60)] | None = None
    weekday: Annotated[int, Meta(ge=0, le=7)] | None = None
    timezone: _Short | None = None


class _Point(msgspec.Struct):
    """A GeoJSON position, [longitude, latitude]."""

    type: Literal["Point"]
    coordinates: tuple[_Longitude, _Latitude]


class _Metadata(msgspec.Struct):
    key: _Text
    platform: Literal["android", "ios", "server"]
    write_ts: _SecondsOrMs
    type: Literal["sensor-data", "message", "document", "rw-document"] | UnsetType = UNSET
    time_zone: _Short | UnsetType = UNSET
    write_fmt_time: _Short | UnsetType = UNSET
    write_local_dt: _LocalDate | None = None


class _Data(msgspec.Struct):
    """What every key may have: times, and a position that a geographic index has to accept."""

    ts: _SecondsOrMs | None = None
    start_ts: _Seconds | None = None
    end_ts: _Seconds | None = None
    enter_ts: _Seconds | None = None
    exit_ts: _Seconds | None = None
    loc: _Point | None = None
    local_dt: _LocalDate | None = None


class _Result(_Data):
    """What the pipeline computes; the database indexes these positions too."""

    start_loc: _Point | None = None
    end_loc: _Point | None = None
    location: _Point | None = None
    start_local_dt: _LocalDate | None = None
    end_local_dt: _LocalDate | None = None
    enter_local_dt: _LocalDate | None = None
    exit_local_dt: _LocalDate | None = None


class _Fix(_Data, kw_only=True):
    """One position fix."""

    latitude: _Latitude
    longitude: _Longitude
    ts: _SecondsOrMs
    accuracy: _Finite | None = None


class _Oid(msgspec.Struct, forbid_unknown_fields=True):
    oid: str = msgspec.field(name="$oid")  # that it is 24 hex digits was seen before


class _Envelope(msgspec.Struct):
    metadata: _Metadata
    data: _Data
    id: _Oid | UnsetType = msgspec.field(default=UNSET, name="_id")


class _ResultEnvelope(_Envelope):
    data: _Result


class _FixEnvelope(_Envelope):
    data: _Fix


class Rejected(msgspec.Struct, frozen=True):
    """One entry that was not accepted: where it stood, why (no value of it), and the sentence with the value."""

    position: int
    reason: str
    message: str


class StoreReport(msgspec.Struct, frozen=True):
    """What became of the entries handed over: received = inserted + replaced + all rejected.

    Attributes:
        received: how many were handed over.
        inserted: how many are new.
        replaced: how many took the place of an earlier one, also of one in the same call.
        rejected: how many were malformed, by reason.
        examples: the first malformed ones, at most 20, each with its position.
    """

    received: int
    inserted: int
    replaced: int
    rejected: dict[str, int] = {}
    examples: list[Rejected] = []

    @property
    def rejected_total(self) -> int:
        """How many entries were malformed."""
        return sum(self.rejected.values())

    def __str__(self) -> str:
        head = (
            f"{self.received} received: {self.inserted} inserted, {self.replaced} replaced, "
            f"{self.rejected_total} rejected"
        )
        return "\n".join([head, *(f"  {count} x {reason}" for reason, count in sorted(self.rejected.items()))])

    def _repr_html_(self) -> str:
        rows = [("received", self.received), ("inserted", self.inserted), ("replaced", self.replaced)]
        rows += [(f"rejected: {reason}", count) for reason, count in sorted(self.rejected.items())]
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{count}</td></tr>" for name, count in rows)
        return f"<table><caption>StoreReport</caption>{cells}</table>"


class _Fault(Exception):
    """What is wrong with an entry; `reason` names the field and holds no value."""

    def __init__(self, field: str, phrase: str, shown: str = "") -> None:
        self.reason = f"{field} {phrase}"
        self.sentence = f"{field} {shown} {phrase}" if shown else self.reason
        super().__init__(self.reason)


def is_formatted(entry: Mapping[str, object]) -> bool:
    """Whether an accepted entry has the server's form; otherwise it is as the phone sent it."""
    metadata = entry["metadata"]
    return isinstance(metadata, dict) and "write_fmt_time" in metadata


def parse(raw: object, position: int = 0) -> JsonObject:
    """The entry as it is to be kept: whole, its times as float seconds, its time zone named.

    Args:
        raw: a mapping as a JSON decoder makes it. It is not changed; unchanged parts are shared with the result.
        position: its index in what was handed over, for the message.
    Raises:
        BadEntry: it is malformed; says which entry, which field and how.
    """
    try:
        return _parsed(raw)
    except _Fault as fault:
        raise BadEntry(_message(raw, position, fault), position) from None


def parse_all(raws: Iterable[object]) -> tuple[list[JsonObject], list[Rejected]]:
    """The good entries in their order, and the malformed ones with their positions."""
    good: list[JsonObject] = []
    rejected: list[Rejected] = []
    for position, raw in enumerate(raws):
        try:
            good.append(_parsed(raw))
        except _Fault as fault:  # costs nothing unless raised, since Python 3.11
            rejected.append(Rejected(position, fault.reason, _message(raw, position, fault)))
    return good, rejected


def count_reasons(rejected: Iterable[Rejected]) -> dict[str, int]:
    """How often each reason occurs."""
    counts: dict[str, int] = {}
    for one in rejected:
        counts[one.reason] = counts.get(one.reason, 0) + 1
    return counts


def _parsed(raw: object) -> JsonObject:
    if type(raw) is not dict:
        raise _Fault("the entry", "is no JSON object", _shown(raw))
    try:
        clean = _is_clean(raw, 1)
    except TypeError:  # a field name that is no text
        clean = False
    if not clean:
        _check_object(raw, "", 1)
    _check_size(raw)
    view = _view(raw)
    _check_view(view)
    return _normal(raw, view)


def _view(raw: JsonObject) -> _Envelope:
    try:
        return msgspec.convert(raw, _view_type(raw))
    except msgspec.ValidationError as exc:
        raise _fault(raw, str(exc)) from None


def _view_type(raw: JsonObject) -> type[_Envelope]:
    metadata = raw.get("metadata")
    key = metadata.get("key") if type(metadata) is dict else None
    if type(key) is not str:
        return _Envelope
    if key in LOCATION_KEYS:
        return _FixEnvelope
    return _ResultEnvelope if key.startswith(RESULT_PREFIXES) else _Envelope


_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_.\-]+)*")
_OID = re.compile(r"[0-9a-fA-F]{24}")
_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@functools.lru_cache(maxsize=1024)
def _is_key(key: str) -> bool:
    return _KEY.fullmatch(key) is not None


def _check_view(view: _Envelope) -> None:
    """The rules that concern more than one field."""
    metadata, data = view.metadata, view.data
    if not _is_key(metadata.key):
        raise _Fault("metadata.key", "has characters that no key has", _shown(metadata.key))
    if metadata.write_fmt_time is UNSET and metadata.type is UNSET:
        raise _Fault("metadata.type", "is missing, which only formatted entries may lack")
    if isinstance(data, _Fix):
        _check_fix(data, metadata.write_fmt_time is not UNSET)


def _check_fix(fix: _Fix, formatted: bool) -> None:  # noqa: FBT001
    if fix.loc is None:
        if formatted:
            raise _Fault("data.loc", "is missing, which only raw phone entries may lack")
        return
    longitude, latitude = fix.loc.coordinates
    # 1e-5 degrees are about a metre: rounding passes, swapped or stale coordinates do not.
    if abs(longitude - fix.longitude) > 1e-5 or abs(latitude - fix.latitude) > 1e-5:
        raise _Fault("data.loc", "is not [data.longitude, data.latitude]", _shown([longitude, latitude]))


def _normal(raw: JsonObject, view: _Envelope) -> JsonObject:
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


def _check_size(raw: JsonObject) -> None:
    try:
        size = len(_ENCODER.encode(raw))
    except UnicodeEncodeError:
        raise _Fault("the entry", "holds text that is no valid Unicode") from None
    if size > MAX_ENTRY_BYTES:
        raise _Fault("the entry", f"has more than {MAX_ENTRY_BYTES:_} bytes of JSON", f"({size:_} bytes)")


_ENCODER = msgspec.json.Encoder()
_PLAIN = frozenset({str, bool, type(None)})


def _is_clean(fields: JsonObject, depth: int) -> bool:
    """Whether an object surely needs no closer look. One pass, no texts: it runs for every entry."""
    names = "".join(fields)
    if depth > MAX_DEPTH or "\0" in names:
        return False
    if "$" in names:
        return depth > 1 and len(fields) == 1 and is_extended(fields)
    for item in fields.values():
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is float:
            if item - item != 0.0:  # type: ignore[operator]  # true of NaN and of both infinities only
                return False
        elif kind is int:
            if not -(2**63) <= item < 2**63:  # type: ignore[operator]
                return False
        elif kind is dict:
            if not _is_clean(item, depth + 1):  # type: ignore[arg-type]
                return False
        elif kind is not list or not _are_numbers(item):  # type: ignore[arg-type]
            return False
    return True


def _are_numbers(items: list[object]) -> bool:
    for item in items:  # noqa: SIM110  # all() over a generator takes three times as long
        if type(item) is not float or item - item != 0.0:
            return False
    return True


def _check_object(fields: JsonObject, path: str, depth: int) -> None:
    """Returns if an object holds nothing that the database would take for an operator, or not take at all."""
    if depth > MAX_DEPTH:
        raise _Fault("the entry", f"is nested deeper than {MAX_DEPTH}")
    if not all(type(name) is str for name in fields):
        raise _Fault(path or "the entry", "has a field name that is no text")
    _check_names(fields, path or "the entry", nested=depth > 1)
    for name, item in fields.items():
        _check_value(item, f"{path}.{name}" if path else name, depth)


def _check_value(item: object, path: str, depth: int) -> None:
    if isinstance(item, dict):
        _check_object(item, path, depth + 1)
    elif isinstance(item, list):
        if depth >= MAX_DEPTH:
            raise _Fault("the entry", f"is nested deeper than {MAX_DEPTH}")
        for inner in item:
            _check_value(inner, path, depth + 1)
    elif type(item) is int:
        if not -(2**63) <= item < 2**63:
            raise _Fault(path, "is an integer of more than 64 bits")
    elif type(item) is float:
        if not math.isfinite(item):
            raise _Fault(path, "is not finite", _shown(item))
    elif type(item) not in _PLAIN:
        raise _Fault(path, f"is a {type(item).__name__}, which JSON does not have")


def _check_names(fields: JsonObject, place: str, *, nested: bool) -> None:
    """Returns if the object is one of the three known forms of extended JSON, or has no operator."""
    if any("\0" in name for name in fields):
        raise _Fault(place, "has a field name with a zero byte")
    operators = [name for name in fields if name.startswith("$")]
    if operators and not (nested and len(fields) == 1 and is_extended(fields)):
        raise _Fault(place, "has a field name that starts with $, or an unknown or malformed extended form")


def is_extended(value: Mapping[str, object]) -> bool:
    """Whether a mapping of one field is {"$oid": ...}, {"$uuid": ...} or {"$date": milliseconds}."""
    ((name, item),) = value.items()
    if name == "$oid":
        return type(item) is str and _OID.fullmatch(item) is not None
    if name == "$uuid":
        return type(item) is str and _UUID.fullmatch(item) is not None
    return name == "$date" and type(item) is int and abs(item) < 1000 * MILLISECONDS_FROM


# How a broken bound reads; msgspec's own words for the rest.
_PHRASES = {
    "latitude": "is not within -90..90",
    "longitude": "is not within -180..180",
    "accuracy": "is not a number of metres, 0 or more",
    "coordinates": "is not [longitude within -180..180, latitude within -90..90]",
    "write_ts": "is no time in seconds since 1970",
    **dict.fromkeys(TIME_FIELDS, "is no time in seconds since 1970"),
}
_STEP = re.compile(r"\.([A-Za-z0-9_$]+)|\[(\d+)\]")


def _fault(raw: JsonObject, problem: str) -> _Fault:
    """msgspec's message, as a sentence with the value that it is about."""
    said, _, place = problem.partition(" - at ")
    path = [name or int(index) for name, index in _STEP.findall(place.strip("`")[1:])]
    missing = re.search(r"missing required field `(.+)`", said)
    if missing:
        return _Fault(".".join(map(str, [*path, missing[1]])), "is missing")
    while path and type(path[-1]) is int:
        path.pop()
    value: object = raw
    for step in path:
        value = value.get(step) if type(value) is dict else None
    phrase = _PHRASES.get(str(path[-1]) if path else "") or f"is not as it should be: {said.replace('`', '').lower()}"
    return _Fault(".".join(map(str, path)) or "the entry", phrase, _shown(value))


def _message(raw: object, position: int, fault: _Fault) -> str:
    metadata = raw.get("metadata") if type(raw) is dict else None
    key = metadata.get("key") if type(metadata) is dict else None
    name = key if type(key) is str and len(key) <= 128 and _is_key(key) else "no key"
    return f"entry {position} ({name}): {fault.sentence}"


def _shown(value: object) -> str:
    """A short form of a value for a message."""
    if type(value) is dict or (type(value) is list and len(value) > 3):
        return f"({type(value).__name__} of {len(value)})"
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "(a very large integer)"
    return text if len(text) <= 40 else f"{text[:37]}..."
