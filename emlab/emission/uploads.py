"""What a profile learns of an upload. Pure. Imports of emlab entries and errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from emlab.entries import JsonObject, parse
from emlab.errors import BadEntry

LOCATION = "background/location"


def last_times(entries: Sequence[msgspec.Raw]) -> dict[str, float]:
    """When the last location was, and when the last entry was written; absent if there is none."""
    times: dict[str, float] = {}
    for raw in reversed(entries):
        if "last_phone_data_ts" in times and (LOCATION.encode() not in memoryview(raw).tobytes()):
            continue
        try:
            entry = parse(raw)
        except BadEntry:
            continue
        metadata, data = cast(JsonObject, entry["metadata"]), cast(JsonObject, entry["data"])
        times.setdefault("last_phone_data_ts", cast(float, metadata["write_ts"]))
        if metadata["key"] == LOCATION:
            times["last_location_ts"] = cast(float, data["ts"])
            break
    return times
