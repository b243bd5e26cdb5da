"""How somebody travelled, by mode and span of time, in the form of e-mission's UPC era. Pure.

Spans without a section between the first and the last are listed for UTC time, as pandas lists them, and left out for
local dates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from emlab.entries import JsonObject
from emlab.entries.codes import Mode
from emlab.errors import BadQuery
from emlab.wire.emission import LocalMetrics, Metric, TimeMetrics

MAX_SPANS = 20_000
FIELDS = ("start_ts", "start_local_dt", "sensed_mode", "distance", "duration", "speeds")  # that `section_of` reads
FREQUENCIES = {"D": "day", "DAILY": "day", "W": "week", "WEEKLY": "week", "M": "month", "ME": "month"}
FREQUENCIES |= {"MONTHLY": "month", "Y": "year", "YE": "year", "A": "year", "YEARLY": "year"}


class Section(NamedTuple):
    """What metrics need of an inferred section. Seconds, metres, metres a second."""

    start_ts: float
    year: int
    month: int
    day: int
    zone: str
    mode: int
    distance: float
    duration: float
    speeds: Sequence[float]


Spanned = list[tuple[JsonObject, list[Section]]]  # the fields that name a span, and the sections that began in it


def asked(request: TimeMetrics | LocalMetrics) -> tuple[list[Metric], bool]:
    """The metrics, and whether it is the old form, whose answer has one list level less."""
    if request.metric is not None:
        return [request.metric], True
    names = request.metric_list or []
    old = request.is_return_aggregate is None
    if not names or (old and len(names) > 1):
        raise BadQuery("metrics are named by metric, or by metric_list with is_return_aggregate")
    return names, old


def by_time(sections: Sequence[Section], freq: str) -> Spanned:
    """Sections by spans of UTC time. A day is named by its start; a week, month and year by its last day.

    Args:
        sections: by start_ts.
    Raises:
        BadQuery: no such frequency, or too many spans.
    """
    unit = _unit(freq)
    if not sections:
        return []
    spans: dict[datetime, list[Section]] = {}
    for name in _names(_named(sections[0].start_ts, unit), _named(sections[-1].start_ts, unit), unit):
        spans[name] = []
        if len(spans) > MAX_SPANS:
            raise BadQuery(f"there are more than {MAX_SPANS} spans of a {unit}")
    for section in sections:
        spans[_named(section.start_ts, unit)].append(section)
    return [(_utc_fields(name), group) for name, group in spans.items()]


def by_local_date(sections: Sequence[Section], freq: str) -> Spanned:
    """Sections by the day, month or year in which they began where they began.

    A span's zone is that of its first section: who flies west may begin one day twice.
    Raises: BadQuery.
    """
    unit = _unit(freq)
    depth = {"year": 1, "month": 2, "day": 3}.get(unit)
    if depth is None:
        raise BadQuery("local dates are grouped DAILY, MONTHLY or YEARLY")
    spans: dict[tuple[int, ...], list[Section]] = {}
    for section in sections:
        spans.setdefault((section.year, section.month, section.day)[:depth], []).append(section)
    return [(_local_fields(key, group[0].zone), group) for key, group in sorted(spans.items())]


def summary(spanned: Spanned, metric: str) -> list[JsonObject]:
    """One metric of each span: its fields, the number of users, and the value of each mode."""
    return [{**fields, "nUsers": 1 if group else 0, **_by_mode(group, _METRICS[metric])} for fields, group in spanned]


def _by_mode(group: Sequence[Section], measure: Callable[[Sequence[Section]], float | None]) -> JsonObject:
    modes = sorted({section.mode for section in group})
    values = {mode: measure([section for section in group if section.mode == mode]) for mode in modes}
    return {Mode(mode).name: value for mode, value in values.items() if value is not None}


def _median_speed(sections: Sequence[Section]) -> float | None:
    """The median of the sections' median speeds; None if none has a speed."""
    medians = [_median(section.speeds) for section in sections if section.speeds]
    return _median(medians) if medians else None


def _median(values: Sequence[float]) -> float:
    """Not that of `statistics`, which loads a megabyte of modules into an idle custodian."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


_METRICS: dict[str, Callable[[Sequence[Section]], float | None]] = {
    "count": len,
    "distance": lambda sections: sum(section.distance for section in sections),
    "duration": lambda sections: sum(section.duration for section in sections),
    "median_speed": _median_speed,
}


def _unit(freq: str) -> str:
    try:
        return FREQUENCIES[freq.upper()]
    except KeyError:
        raise BadQuery(f"a frequency is one of {', '.join(FREQUENCIES)}") from None


def _named(ts: float, unit: str) -> datetime:
    """The midnight that names the span of a time."""
    moment = datetime.fromtimestamp(ts, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return moment + timedelta(days=6 - moment.weekday())
    if unit == "month":
        return _month_end(moment.year, moment.month)
    return moment.replace(month=12, day=31) if unit == "year" else moment


def _names(first: datetime, last: datetime, unit: str) -> Iterator[datetime]:
    """The names of all spans from one to another."""
    name = first
    while name <= last:
        yield name
        after = name + timedelta(days=1)
        name = _named(after.timestamp(), unit)


def _month_end(year: int, month: int) -> datetime:
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    return after - timedelta(days=1)


def _utc_fields(name: datetime) -> JsonObject:
    parts = {part: getattr(name, part) for part in ("year", "month", "day", "hour", "minute", "second")}
    local = {**parts, "weekday": name.weekday(), "timezone": "UTC"}
    return {"ts": int(name.timestamp()), "local_dt": local, "fmt_time": name.isoformat()}


def _local_fields(key: tuple[int, ...], zone: str) -> JsonObject:
    year, month, day = (*key, 1, 1)[:3]
    start = _midnight(year, month, day, zone)
    named = dict(zip(("year", "month", "day"), key, strict=False))
    text = f"{year:04}" + "".join(f"-{part:02}" for part in key[1:])
    return {"ts": int(start.timestamp()), "local_dt": {**named, "timezone": zone}, "fmt_time": text}


def _midnight(year: int, month: int, day: int, zone: str) -> datetime:
    from zoneinfo import ZoneInfo  # loads sysconfig: a quarter of a megabyte that an idle custodian can do without

    return datetime(year, month, day, tzinfo=ZoneInfo(zone))


def section_of(entry: JsonObject) -> Section | None:
    """What metrics need of an inferred section in wire form; None if it lacks a part of that."""
    try:
        return _section(msgspec.convert(entry["data"], _Data))
    except (KeyError, ValueError):  # also msgspec's, and a zone that nobody knows
        return None


class _LocalDate(msgspec.Struct):
    year: int
    month: int
    day: int
    timezone: str


class _Data(msgspec.Struct):
    start_ts: float
    start_local_dt: _LocalDate
    sensed_mode: int
    distance: float
    duration: float
    speeds: list[float | None] = []


def _section(data: _Data) -> Section:
    local = data.start_local_dt
    _midnight(local.year, local.month, local.day, local.timezone)  # there is such a day and zone
    speeds = [speed for speed in data.speeds if speed is not None]
    mode = Mode(data.sensed_mode)
    return Section(
        data.start_ts, local.year, local.month, local.day, local.timezone, mode, data.distance, data.duration, speeds
    )
