"""What is known of an entry's fields, as types that check them. Fields that stand here nowhere pass unchecked.

Imports msgspec only.
"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

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


class _Point(msgspec.Struct, forbid_unknown_fields=True):
    """A GeoJSON position, [longitude, latitude]. A geographic index takes no other fields in it."""

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


class Fix(_Data, kw_only=True):
    """One position fix."""

    latitude: _Latitude
    longitude: _Longitude
    ts: _SecondsOrMs
    accuracy: _Finite | None = None


class _Oid(msgspec.Struct, forbid_unknown_fields=True):
    hex: str = msgspec.field(name="$oid")


class _Uuid(msgspec.Struct, forbid_unknown_fields=True):
    hex: str = msgspec.field(name="$uuid")


class Envelope(msgspec.Struct):
    """An entry of a key that has no type of its own."""

    metadata: _Metadata
    data: _Data
    id: _Oid | UnsetType = msgspec.field(default=UNSET, name="_id")
    user_id: _Uuid | UnsetType = UNSET


class ResultEnvelope(Envelope):
    """A computed entry."""

    data: _Result


class FixEnvelope(Envelope):
    """An entry of one of LOCATION_KEYS."""

    data: Fix


_Scalar = (
    None
    | bool
    | str
    | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    | Annotated[float, Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
)
_Branch = _Scalar | list[_Scalar] | dict[str, _Scalar]
_Branch2 = _Scalar | list[_Branch] | dict[str, _Branch]
_Branch3 = _Scalar | list[_Branch2] | dict[str, _Branch2]
_Branch4 = _Scalar | list[_Branch3] | dict[str, _Branch3]
_Branch5 = _Scalar | list[_Branch4] | dict[str, _Branch4]  # data.locations of a composite trip


class PlainTree(msgspec.Struct):
    """What JSON has, as deep as e-mission's entries go."""

    metadata: dict[str, _Branch]
    data: dict[str, _Branch5]


class PlainEntry(msgspec.Struct, forbid_unknown_fields=True):
    """A whole entry of plain JSON, decoded and checked at once."""

    metadata: dict[str, _Branch]
    data: dict[str, _Branch5]
    id: dict[str, str] | UnsetType = msgspec.field(default=UNSET, name="_id")
    user_id: dict[str, str] | UnsetType = UNSET


ENVELOPE = frozenset({"_id", "user_id", "metadata", "data"})


def view_type(raw: JsonObject) -> type[Envelope]:
    """The type that checks this entry, by its key."""
    metadata = raw.get("metadata")
    key = metadata.get("key") if type(metadata) is dict else None
    if type(key) is not str:
        return Envelope
    if key in LOCATION_KEYS:
        return FixEnvelope
    return ResultEnvelope if key.startswith(RESULT_PREFIXES) else Envelope
