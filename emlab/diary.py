"""A person's travel diary: trips, sections and places as tables, from the entries that intake computed.

Imports pandas where a table is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from emlab.entries import JsonObject
from emlab.entries.codes import Mode, Motion
from emlab.store.base import at

if TYPE_CHECKING:
    import pandas as pd

TRIPS, PLACES = "analysis/confirmed_trip", "analysis/confirmed_place"
SECTIONS, SENSED = "analysis/inferred_section", "analysis/cleaned_section"
TRIP_COLUMNS = (
    *("trip", "start_ts", "end_ts", "duration_s", "distance_m", "mode", "start_lon", "start_lat", "end_lon", "end_lat"),
    *("start_local", "end_local", "labels"),
)
SECTION_COLUMNS = (
    *("section", "trip", "start_ts", "end_ts", "duration_s", "distance_m", "mode", "sensed_mode", "speed_mps"),
    *("start_lon", "start_lat", "end_lon", "end_lat", "start_local", "end_local"),
)
PLACE_COLUMNS = ("place", "enter_ts", "exit_ts", "duration_s", "lon", "lat", "enter_local", "exit_local")


def entries(found: Iterable[JsonObject], time_key: str) -> pd.DataFrame:
    """One row per entry, as `UserCloud.entries` says, indexed by the UTC time in the field `time_key`."""
    import pandas as pd

    frame = pd.DataFrame([_row(entry) for entry in found])
    column = time_key.removeprefix("data.").replace("metadata.", "metadata_")
    times = frame[column] if column in frame else pd.Series(math.nan, index=frame.index)
    frame.index = _times(times)
    return frame


def trips(entries: Iterable[JsonObject]) -> pd.DataFrame:
    """One row per trip (TRIP_COLUMNS), indexed by its start in UTC.

    `trip` is the id by which sections refer to it, `mode` that of most of the distance, `labels` what its owner said.
    """
    rows = []
    for entry in entries:
        data = cast(JsonObject, entry["data"])
        ends = (*_lon_lat(data, "start_loc"), *_lon_lat(data, "end_loc"))
        times = data["start_ts"], data["end_ts"], data["duration"], data["distance"]
        local = data["start_fmt_time"], data["end_fmt_time"]
        rows.append((_oid(data["cleaned_trip"]), *times, _main_mode(data), *ends, *local, data.get("user_input") or {}))
    return _frame(rows, TRIP_COLUMNS, "start_ts")


def sections(inferred: Iterable[JsonObject], cleaned: Iterable[JsonObject]) -> pd.DataFrame:
    """One row per section (SECTION_COLUMNS), indexed by its start in UTC, from entries of SECTIONS and of SENSED.

    `section` is the id by which analysis/recreated_location refers to it, `mode` what was inferred, `sensed_mode` what
    the phone sensed, `speed_mps` the median along the way.
    """
    rows = []
    sensed = {_oid(entry["_id"]): Motion(cast(int, at(entry, "data.sensed_mode"))).name for entry in cleaned}
    for entry in inferred:
        data = cast(JsonObject, entry["data"])
        times = data["start_ts"], data["end_ts"], data["duration"], data["distance"]
        modes = Mode(cast(int, data["sensed_mode"])).name, sensed.get(_oid(data["cleaned_section"]))
        ends = (*_lon_lat(data, "start_loc"), *_lon_lat(data, "end_loc"))
        local = data["start_fmt_time"], data["end_fmt_time"]
        speed = _median(cast("Sequence[float]", data.get("speeds") or ()))
        links = _oid(data["cleaned_section"]), _oid(data["trip_id"])
        rows.append((*links, *times, *modes, speed, *ends, *local))
    return _frame(rows, SECTION_COLUMNS, "start_ts")


def places(entries: Iterable[JsonObject]) -> pd.DataFrame:
    """One row per stay (PLACE_COLUMNS), indexed by its beginning in UTC; the first has none, the last no end."""
    rows = []
    for entry in entries:
        data = cast(JsonObject, entry["data"])
        times = data.get("enter_ts"), data.get("exit_ts"), data.get("duration")
        local = data.get("enter_fmt_time"), data.get("exit_fmt_time")
        rows.append((_oid(entry["_id"]), *times, *_lon_lat(data, "location"), *local))
    return _frame(rows, PLACE_COLUMNS, "enter_ts")


def _frame(rows: Sequence[tuple[object, ...]], columns: Sequence[str], index: str) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(columns))
    numbers = [name for name in columns if name.endswith(("_ts", "_s", "_m", "_mps", "lon", "lat"))]
    frame[numbers] = frame[numbers].astype("float64")
    frame.index = _times(frame[index])
    return frame


def _times(seconds: pd.Series[float]) -> pd.DatetimeIndex:
    import pandas as pd

    return pd.DatetimeIndex(pd.to_datetime((seconds * 1e6).round(), unit="us", utc=True), name="time")


def _row(entry: JsonObject) -> dict[str, object]:
    data, metadata = entry.get("data"), entry.get("metadata")
    row: dict[str, object] = dict(data) if isinstance(data, dict) else {}
    row["_id"] = _oid(entry["_id"]) if isinstance(entry.get("_id"), dict) else None
    if isinstance(metadata, dict):
        row |= {f"metadata_{name}": value for name, value in metadata.items()}
    return row


def _oid(value: object) -> str:
    return cast("dict[str, str]", value)["$oid"]


def _lon_lat(data: JsonObject, name: str) -> tuple[float, float]:
    lon, lat = cast("dict[str, list[float]]", data[name])["coordinates"]
    return lon, lat


def _main_mode(trip: JsonObject) -> str:
    summary = cast("Mapping[str, Mapping[str, float]]", trip.get("inferred_section_summary") or {})
    distances = summary.get("distance") or {}
    return max(distances, key=lambda mode: distances[mode], default=Mode.UNKNOWN.name)


def _median(values: Sequence[float]) -> float:
    import statistics

    return statistics.median(values) if values else math.nan
