"""Trips and sections as queries read them, from the entries that intake computed; the same for every store.

Plain Python, because it runs inside a cloud. Imports of emlab entries, query and store.base.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

from emlab.entries import JsonObject
from emlab.entries.codes import Mode
from emlab.query import Move, Position, Section, Trip
from emlab.store.base import at

TRIPS, SECTIONS = "analysis/confirmed_trip", "analysis/inferred_section"  # what the diary shows
_BOTH = ("start_ts", "end_ts", "distance", "duration", "start_loc.coordinates", "end_loc.coordinates")
_SHOWN = tuple(f"data.{name}" for name in (*_BOTH, "start_local_dt.hour"))
OF_TRIPS = (*_SHOWN, "data.inferred_section_summary.distance")  # all that is read of an entry
OF_SECTIONS = (*_SHOWN, "data.sensed_mode")
_Common = tuple[float, float, float, float]


def trips(entries: Iterable[JsonObject], *, before_ts: float) -> Iterator[Trip]:
    """The well-formed ones among these entries of TRIPS, which may hold no more than OF_TRIPS."""
    return itertools.starmap(Trip, _moves(entries, before_ts, _main_mode))


def sections(entries: Iterable[JsonObject], *, before_ts: float) -> Iterator[Section]:
    """The well-formed ones among these entries of SECTIONS, which may hold no more than OF_SECTIONS."""
    return itertools.starmap(Section, _moves(entries, before_ts, _sensed_mode))


def _moves(
    entries: Iterable[JsonObject], before_ts: float, mode_of: Callable[[JsonObject], str | None]
) -> Iterator[Move]:
    for entry in entries:
        numbers, mode = _numbers(entry, before_ts), mode_of(entry)
        start, end = _position(entry, "start_loc"), _position(entry, "end_loc")
        if numbers is not None and mode is not None and start is not None and end is not None:
            yield Move(*numbers, mode, start, end, _hour(entry))


_MODES = {int(mode): mode.name for mode in Mode}


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= cast(float, value) < math.inf


def _numbers(entry: JsonObject, before_ts: float) -> _Common | None:
    """Start, end, distance and duration, if they make sense together and it starts before that time."""
    found = [at(entry, f"data.{name}") for name in ("start_ts", "end_ts", "distance", "duration")]
    if not all(map(_is_amount, found)):
        return None
    start_ts, end_ts, distance_m, duration_s = map(float, cast("list[float]", found))
    return (start_ts, end_ts, distance_m, duration_s) if start_ts <= end_ts and start_ts < before_ts else None


def _position(entry: JsonObject, name: str) -> Position | None:
    found = at(entry, f"data.{name}.coordinates")
    if not isinstance(found, list) or len(found) != 2 or any(type(one) not in (int, float) for one in found):
        return None
    lon, lat = float(found[0]), float(found[1])
    return (lon, lat) if abs(lon) <= 180 and abs(lat) <= 90 else None


def _main_mode(entry: JsonObject) -> str:
    """The mode of most of the distance, of equal ones the first, as the diary has it."""
    found = at(entry, "data.inferred_section_summary.distance")
    known = {name: one for name, one in found.items() if _is_amount(one)} if isinstance(found, Mapping) else {}
    mode = max(known, key=lambda name: known[name], default=Mode.UNKNOWN.name)
    return mode if mode in Mode.__members__ else Mode.UNKNOWN.name


def _sensed_mode(entry: JsonObject) -> str | None:
    found = at(entry, "data.sensed_mode")
    return _MODES.get(found) if type(found) is int else None


def _hour(entry: JsonObject) -> int | None:
    found = at(entry, "data.start_local_dt.hour")
    return found if type(found) is int and 0 <= found <= 23 else None
