"""The indexes of e-mission's collections, by its names. Imports pymongo, and of emlab store.base."""

from __future__ import annotations

import pymongo

from emlab.store.base import ANALYSIS, TIMESERIES, USERCACHE

COMPOUND = {TIMESERIES: "timeseries_compound_hack", ANALYSIS: "analysis_compound_hack"}  # e-mission's names
_UP, _DOWN, _GEO = pymongo.ASCENDING, pymongo.DESCENDING, pymongo.GEOSPHERE


def _plain(*fields: str) -> list[pymongo.IndexModel]:
    return [pymongo.IndexModel([(field, _UP)]) for field in fields]


def _sparse(direction: int, *fields: str) -> list[pymongo.IndexModel]:
    return [pymongo.IndexModel([(field, direction)], sparse=True) for field in fields]


def _compound(collection: str) -> pymongo.IndexModel:
    fields = ("user_id", "metadata.key", "metadata.write_ts", "data.ts", "data.start_ts", "data.end_ts")
    return pymongo.IndexModel([(field, _UP) for field in fields], name=COMPOUND[collection])


def _local_dates() -> list[str]:
    prefixes = ("start_", "end_", "enter_", "exit_", "")
    parts = ("year", "month", "day", "hour", "minute", "second", "weekday")
    return [f"data.{prefix}local_dt.{part}" for prefix in prefixes for part in parts]


def indexes(collection: str) -> list[pymongo.IndexModel]:
    """The indexes that e-mission's server makes on this collection, by its names."""
    by_write_ts = pymongo.IndexModel([("metadata.write_ts", _DOWN)])
    if collection == USERCACHE:
        order = [("user_id", _UP), ("metadata.type", _UP), ("metadata.key", _UP)]
        hack = pymongo.IndexModel(
            [*order, ("metadata.write_ts", _DOWN), ("data.ts", _DOWN)], name="usercache_compound_hack"
        )
        plain = _plain("user_id", "metadata.type", "metadata.key")
        return [*plain, by_write_ts, *_sparse(_DOWN, "data.ts"), hack]
    plain = _plain("user_id", "metadata.key")
    if collection == TIMESERIES:
        times = _sparse(_DOWN, "data.ts", "data.start_ts")
        return [*plain, by_write_ts, *times, *_geo("data.loc"), _compound(collection)]
    times = _sparse(
        _DOWN, *(f"data.{name}" for name in ("start_ts", "end_ts", "enter_ts", "exit_ts", "ts", "duration"))
    )
    links = _sparse(_UP, "data.mode", "data.section", "data.cleaned_section")
    places = _geo("data.start_loc", "data.end_loc", "data.location", "data.loc")
    return [*plain, *times, *links, *places, *_sparse(_DOWN, *_local_dates()), _compound(collection)]


def _geo(*fields: str) -> list[pymongo.IndexModel]:
    return [pymongo.IndexModel([(field, _GEO)]) for field in fields]
