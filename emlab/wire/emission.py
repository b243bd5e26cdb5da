"""The table of e-mission's routes: paths, methods and fields as its own server has them.

Who calls is in the body: the field `user` holds the owner's token. The server takes it out, so no struct here has it.
Fields that e-mission's clients send besides are tolerated.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from emlab import errors
from emlab.entries import StoreReport
from emlab.wire.table import MAX_ENTRIES, Key, Route

Time = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
Component = Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)]
Day = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Label = Annotated[str, msgspec.Meta(max_length=256)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
TimeKey = Literal["metadata.write_ts", "data.ts", "data.start_ts", "data.end_ts", "data.enter_ts", "data.exit_ts"]
LocalKey = Literal[
    "metadata.write_ts",  # e-mission's default, which has no components and so finds nothing
    "metadata.write_local_dt",
    "data.local_dt",
    "data.start_local_dt",
    "data.end_local_dt",
    "data.enter_local_dt",
    "data.exit_local_dt",
]
Frequency = Annotated[str, msgspec.Meta(pattern=r"^([DdWwMmYyAa]|ME|YE|DAILY|WEEKLY|MONTHLY|YEARLY)$")]
Metric = Literal["count", "distance", "duration", "median_speed"]
JsonObject = dict[str, object]


class ProfileCreated(msgspec.Struct, frozen=True):
    """The user's id, with dashes."""

    uuid: str


class UpdateProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that the profile is to have."""

    update_doc: JsonObject


class Updated(msgspec.Struct, frozen=True):
    """The profile has the fields."""

    update: bool


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """What a phone uploads."""

    phone_to_server: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ENTRIES)]


class PutOne(msgspec.Struct, frozen=True, kw_only=True):
    """One entry that a phone uploads."""

    the_entry: msgspec.Raw


class OnePut(msgspec.Struct, frozen=True):
    """The entry is kept."""

    putone: bool


class ToPhone(msgspec.Struct, frozen=True):
    """Documents for the phone: e-mission's server has none any more."""

    server_to_phone: list[JsonObject]


class LocalDate(msgspec.Struct, frozen=True, omit_defaults=True):
    """Components of a local time. Both ends of an interval name the same ones."""

    year: Component | None = None
    month: Component | None = None
    day: Component | None = None
    hour: Component | None = None
    minute: Component | None = None
    second: Component | None = None
    weekday: Component | None = None


class TimeSpan(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, both included; or each component of a local time, both included (20 to 9 o'clock goes over midnight)."""

    start_time: Time | None = None
    end_time: Time | None = None
    from_local_date: LocalDate | None = None
    to_local_date: LocalDate | None = None


class FindEntries(TimeSpan, frozen=True, kw_only=True):
    """Entries of these keys (null: of all). Of more than `max_entries`, `trunc_method` says which."""

    key_list: Annotated[list[Key], msgspec.Meta(max_length=200)] | None
    key_time: TimeKey = "metadata.write_ts"
    key_local_date: LocalKey = "metadata.write_ts"
    max_entries: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] | None = None
    trunc_method: Literal["first", "last", "sample"] | None = None


class PhoneData(msgspec.Struct, frozen=True):
    """Entries in wire form: of the time series, then computed ones, then those that are not yet formatted."""

    phone_data: list[msgspec.Raw]


class PipelineRange(msgspec.Struct, frozen=True):
    """From the first trip's start to the last one's end; null while there is none."""

    start_ts: float | None
    end_ts: float | None


class PipelineComplete(msgspec.Struct, frozen=True):
    """Until when the pipeline has processed all; null while it never ran."""

    complete_ts: float | None


class Timeline(msgspec.Struct, frozen=True):
    """A GeoJSON FeatureCollection for each trip that started on that day."""

    timeline: list[JsonObject]


class DayMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Days for which an aggregate over many users could be kept."""

    start_time: Day
    end_time: Day


class _Metrics(msgspec.Struct, frozen=True, kw_only=True):
    freq: Frequency
    metric: Metric | None = None
    metric_list: Annotated[list[Metric], msgspec.Meta(max_length=4)] | None = None
    is_return_aggregate: bool | None = None


class TimeMetrics(_Metrics, frozen=True, kw_only=True):
    """Sections by mode and span of UTC time. With `metric` instead of `metric_list`, one list level is dropped."""

    start_time: Time
    end_time: Time


class LocalMetrics(_Metrics, frozen=True, kw_only=True):
    """Sections by mode and span of the day, month or year where they began."""

    start_time: LocalDate
    end_time: LocalDate


class Metrics(msgspec.Struct, frozen=True, omit_defaults=True):
    """For each metric, a list of {ts, local_dt, fmt_time, nUsers, MODE: value}."""

    user_metrics: list[object]
    aggregate_metrics: list[object] | None = None


class Heatmap(TimeSpan, frozen=True, kw_only=True):
    """Which points of trips: of these sensed modes (null: all), in this region (null: anywhere)."""

    modes: Annotated[list[str], msgspec.Meta(max_length=20)] | None
    sel_region: JsonObject | None


class Points(msgspec.Struct, frozen=True):
    """[longitude, latitude] of each point."""

    lnglat: list[list[float]]


class GetLabels(msgspec.Struct, frozen=True, kw_only=True):
    """Which kinds of own labels, such as mode and purpose."""

    keys: Annotated[list[Name], msgspec.Meta(max_length=20)]


class OneLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label of one kind."""

    key: Name
    label: Label


class InsertLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label that is to be offered."""

    inserted_label: OneLabel


class DeleteLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A label that is to be offered no more."""

    deleted_label: OneLabel


class Relabelled(msgspec.Struct, frozen=True, kw_only=True):
    """The user changed a trip's label."""

    key: Name
    old_label: Label
    new_label: Label
    is_new_label_must_added: bool


class UpdateLabel(msgspec.Struct, frozen=True, kw_only=True):
    """A trip's label was changed: the new one counts one use more, the old one less."""

    updated_label: Relabelled


class Labels(msgspec.Struct, frozen=True):
    """The labels of that kind, most used first."""

    label: list[str]


_OWNER = (errors.NotPermitted, errors.StoreError)
_READ = (*_OWNER, errors.BadQuery)
_WRITE = (*_READ, errors.DiskFull)


def _post(
    name: str,
    path: str,
    request: type[msgspec.Struct] | None,
    response: type,
    raises: tuple[type[errors.EmlabError], ...],
    summary: str,
) -> Route:
    return Route(name, "POST", path, "user", request, response, raises, summary)


_TIMESTAMP, _LOCAL = "/result/metrics/timestamp", "/result/metrics/local_date"
EMISSION_ROUTES: tuple[Route, ...] = (
    _post("profile_create", "/profile/create", None, ProfileCreated, _WRITE, "Make the profile, if there is none"),
    _post("profile_get", "/profile/get", None, JsonObject, _WRITE, "The profile"),
    _post("profile_update", "/profile/update", UpdateProfile, Updated, _WRITE, "Set fields of the profile"),
    _post("usercache_put", "/usercache/put", Put, StoreReport, (*_WRITE, errors.BadEntry), "Keep what a phone uploads"),
    _post("usercache_putone", "/usercache/putone", PutOne, OnePut, (*_WRITE, errors.BadEntry), "Keep one entry"),
    _post("usercache_get", "/usercache/get", None, ToPhone, _OWNER, "Documents for the phone"),
    _post("find_entries", "/datastreams/find_entries/{time_type}", FindEntries, PhoneData, _READ, "Entries by time"),
    _post("pipeline_range", "/pipeline/get_range_ts", None, PipelineRange, _OWNER, "From when to when trips are"),
    _post("pipeline_complete", "/pipeline/get_complete_ts", None, PipelineComplete, _OWNER, "What is processed"),
    _post("timeline", "/timeline/getTrips/{day}", None, Timeline, _READ, "The trips of a day as GeoJSON"),
    _post("day_metrics", "/result/metrics/yyyy_mm_dd", DayMetrics, JsonObject, _READ, "None: aggregates need an ask"),
    _post("time_metrics", _TIMESTAMP, TimeMetrics, Metrics, _READ, "Travel by mode and UTC time"),
    _post("local_metrics", _LOCAL, LocalMetrics, Metrics, _READ, "Travel by mode and local date"),
    _post("heatmap", "/result/heatmap/pop.route/{time_type}", Heatmap, Points, _READ, "Where trips went"),
    _post("labels_get", "/customlabel/get", GetLabels, dict[str, list[str]], _READ, "Own labels"),
    _post("labels_insert", "/customlabel/insert", InsertLabel, Labels, _WRITE, "Offer a label"),
    _post("labels_update", "/customlabel/update", UpdateLabel, Labels, _WRITE, "Count the uses of labels"),
    _post("labels_delete", "/customlabel/delete", DeleteLabel, Labels, _WRITE, "Offer a label no more"),
)
