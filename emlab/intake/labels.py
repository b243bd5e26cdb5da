"""What people said of their trips and places, matched to them. Imports nothing but emlab's words.

The rules are e-mission's: an input belongs to the trip during which it starts, if it also ends with it, or covers more
than half of it and ends before the next one. Of several, the one that was written last counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from emlab.entries import JsonObject

ENDS_WITHIN_S = 900.0
OVERLAP = 0.5
WHOLE = ("trip_user_input", "place_user_input")  # kept as entries; of the others, only the label is
TRIP_NAMES = ("mode_confirm", "purpose_confirm", "replaced_mode", "trip_user_input")
PLACE_NAMES = ("place_user_input",)
TRIP_ADDITION, PLACE_ADDITION = "trip_addition_input", "place_addition_input"


@dataclass(frozen=True, slots=True)
class Said:
    """One input: its name (of the key), the time that it is about, when it was written, and the entry."""

    name: str
    start_ts: float
    end_ts: float
    write_ts: float
    entry: JsonObject


def said(entries: Iterable[JsonObject], dropped: Counter[str]) -> list[Said]:
    """The inputs that can be matched, in the order of their writing. `dropped` counts the others."""
    read = [(entry, _read(entry)) for entry in entries]
    if bad := sum(one is None for _, one in read):
        dropped["an input without the times that it is about"] += bad
    return sorted((one for _, one in read if one is not None), key=lambda one: one.write_ts)


def _read(entry: object) -> Said | None:
    metadata, data = _part(entry, "metadata"), _part(entry, "data")
    key = metadata.get("key")
    start, end = (_first(data, *names) for names in (("start_ts", "enter_ts"), ("end_ts", "exit_ts")))
    written = _number(metadata.get("write_ts"))
    if not isinstance(key, str) or not key.startswith("manual/") or start is None or written is None:
        return None
    return Said(key.removeprefix("manual/"), start, start if end is None else end, written, cast(JsonObject, entry))


def _part(entry: object, name: str) -> JsonObject:
    part = entry.get(name) if isinstance(entry, dict) else None
    return part if isinstance(part, dict) else {}


def _first(data: JsonObject, *names: str) -> float | None:
    return next((value for name in names if (value := _number(data.get(name))) is not None), None)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def user_input(
    inputs: list[Said], names: tuple[str, ...], start_ts: float, end_ts: float, next_ts: float | None
) -> JsonObject:
    """What was said of a trip or a stay, by name.

    Args:
        names: of the inputs that count.
        start_ts, end_ts: of the trip or stay, UTC seconds. next_ts: when the next one starts, None if unknown.
    """
    matched = {one.name: one for one in inputs if one.name in names and _is_about(one, start_ts, end_ts, next_ts)}
    return {
        name: one.entry if name in WHOLE else cast(JsonObject, one.entry["data"]).get("label")
        for name, one in matched.items()
    }


def additions(inputs: list[Said], name: str, start_ts: float, end_ts: float, next_ts: float | None) -> list[JsonObject]:
    """What was added to a trip or a stay and not deleted since, in the order of its writing."""
    about = [one for one in inputs if one.name == name and _is_about(one, start_ts, end_ts, next_ts)]
    deleted = {_match(one) for one in about if _data(one).get("status") == "DELETED"}
    return [one.entry for one in about if _data(one).get("status") != "DELETED" and _match(one) not in deleted]


def _match(one: Said) -> object:
    """What a deletion and the thing deleted have in common."""
    match = _data(one).get("match_id")
    return match if isinstance(match, str) else id(one)


def _data(one: Said) -> JsonObject:
    return cast(JsonObject, one.entry["data"])


def _is_about(one: Said, start_ts: float, end_ts: float, next_ts: float | None) -> bool:
    if not start_ts <= one.start_ts <= end_ts:
        return False
    if one.end_ts <= end_ts + ENDS_WITHIN_S:
        return True
    if next_ts is not None and one.end_ts > next_ts:
        return False
    return end_ts > start_ts and (min(one.end_ts, end_ts) - one.start_ts) / (end_ts - start_ts) > OVERLAP
