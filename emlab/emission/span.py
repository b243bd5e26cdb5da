"""Which entries a request's times mean: a query, and by what they are sorted. Pure."""

from __future__ import annotations

import msgspec

from emlab.entries import JsonObject
from emlab.errors import BadQuery
from emlab.wire.emission import LocalDate, LocalKey, TimeKey, TimeSpan


def where(span: TimeSpan, *, key_time: TimeKey, key_local_date: LocalKey) -> tuple[JsonObject, str]:
    """The query, and the path of the time that entries are sorted by.

    Args:
        key_time: what start_time and end_time bound, if the span has no local dates.
        key_local_date: what holds the components that local dates bound.
    Raises:
        BadQuery: the span is not complete, or the dates do not name the same components.
    """
    if span.from_local_date is not None and span.to_local_date is not None:
        query = local_dates(key_local_date, span.from_local_date, span.to_local_date)
        return query, key_local_date.replace("local_dt", "ts")
    if span.start_time is None or span.end_time is None:
        raise BadQuery("a time span is start_time and end_time, or from_local_date and to_local_date")
    return {key_time: {"$gte": span.start_time, "$lte": span.end_time}}, key_time


def local_dates(path: str, first: LocalDate, last: LocalDate) -> JsonObject:
    """The query of entries each of whose components at a path is in its interval; 20 to 9 o'clock is 20..23 and 0..9.

    Raises BadQuery if the two dates do not name the same components.
    """
    low, high = _named(first), _named(last)
    if low.keys() != high.keys():
        raise BadQuery(f"from {', '.join(low) or 'nothing'} to {', '.join(high) or 'nothing'} is no interval")
    return {f"{path}.{name}": _between(low[name], high[name]) for name in low}


def _named(date: LocalDate) -> dict[str, int]:
    return {name: value for name, value in msgspec.structs.asdict(date).items() if value is not None}


def _between(low: int, high: int) -> JsonObject:
    if low <= high:
        return {"$gte": low, "$lte": high}
    return {"$exists": True, "$not": {"$gt": high, "$lt": low}}
