"""What answers e-mission's routes: a method for each, named as in `wire.emission`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import cast

import msgspec

from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.emission import labels, metrics, profile
from emlab.emission.span import local_dates, where
from emlab.emission.timeline import Travel, data_of, oid, trip_feature
from emlab.emission.truncation import places
from emlab.emission.uploads import last_times
from emlab.entries import JsonObject, StoreReport
from emlab.entries.codes import Motion
from emlab.errors import BadEntry, BadQuery
from emlab.store import Store
from emlab.store.emission import EmissionStore
from emlab.wire import emission as wire

COMPOSITE, CONFIRMED = "analysis/composite_trip", "analysis/confirmed_trip"
SECTION, STOP, INFERRED = "analysis/cleaned_section", "analysis/cleaned_stop", "analysis/inferred_section"
POINT, INCIDENT = "analysis/recreated_location", "manual/incident"
# Who owns a cloud may put results of any form into it: these have what is read of them.
LASTS: JsonObject = {f"data.{name}": {"$type": "number"} for name in ("start_ts", "end_ts")}
LIES: JsonObject = {"data.loc.type": "Point"}
MAX_REPLY_BYTES = 128 << 20
MANY = 10_000  # entries after which it is worth to ask how large all are
MAX_TRIPS, MAX_POINTS, MAX_SECTIONS = 1_000, 100_000, 100_000


class Emission:
    """One person's cloud as e-mission's clients know a server. Thread-safe.

    Args:
        store: where uploaded entries go. documents: the rest of the same person's data.
    """

    def __init__(self, store: Store, documents: EmissionStore, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._store = store
        self._documents = documents
        self._clock = clock
        self._profile_lock = threading.RLock()  # there must never be two profiles, nor a lost change of one

    # profile

    def profile_create(self) -> wire.ProfileCreated:
        """There is a profile."""
        with self._profile_lock:
            self._documents.create_profile(profile.FRESH, self._clock.now())
        return wire.ProfileCreated(str(self._documents.user_id))

    def profile_get(self) -> JsonObject:
        """The profile, with what is known of trips once the pipeline ran."""
        found = {**self._profile(), **self._travelled()}
        self._note("profile_get")
        return found

    def profile_update(self, request: wire.UpdateProfile) -> wire.Updated:
        """The profile has these fields."""
        with self._profile_lock:
            profile.check_update(self._profile(), request.update_doc)
            if request.update_doc:
                self._documents.set_profile(request.update_doc)
        self._note("profile_update")
        return wire.Updated(update=True)

    def _profile(self) -> JsonObject:
        found = self._documents.profile()
        if found is None:
            self.profile_create()
            found = self._documents.profile()
        return found or {}

    def _travelled(self) -> JsonObject:
        if not self._documents.has_run():
            return {}
        labelled = {"data.user_input": {"$exists": True, "$nin": [None, {}]}}
        return {
            "pipeline_range": msgspec.to_builtins(self._range()),
            "total_trips": self._documents.count(CONFIRMED),
            "labeled_trips": self._documents.count(CONFIRMED, labelled),
        }

    def _note(self, route: str, **more: float) -> None:
        self._documents.note({**profile.calls_noted(route, self._clock.now()), **more})

    # uploads

    def usercache_put(self, request: wire.Put) -> StoreReport | None:
        """Good entries are kept. Nothing is said if all are good, as at e-mission's server.

        Raises BadEntry if there are entries, and none of them is good: a phone must not think that they arrived.
        """
        report = self._keep(request.phone_to_server, "usercache_put")
        return report if report.rejected else None

    def usercache_putone(self, request: wire.PutOne) -> wire.OnePut:
        """The entry is kept. Raises BadEntry."""
        self._keep([request.the_entry], "usercache_putone")
        return wire.OnePut(putone=True)

    def usercache_get(self) -> wire.ToPhone:
        """Nothing, as at e-mission's server."""
        self._note("usercache_get")
        return wire.ToPhone([])

    def _keep(self, entries: Sequence[msgspec.Raw], route: str) -> StoreReport:
        self._profile()
        report = self._store.put(entries, partial=True)
        if entries and report.rejected_total == len(entries):
            raise BadEntry(report.examples[0].message, report.examples[0].position)
        self._note(route, **last_times(entries))
        return report

    # entries

    def find_entries(self, request: wire.FindEntries, _time_type: str) -> wire.PhoneData:
        """Entries by time. The path's last word does not matter, as at e-mission's server: the fields decide."""
        query, order = where(request, key_time=request.key_time, key_local_date=request.key_local_date)
        most, keys = request.max_entries, request.key_list
        pick = functools.partial(places, max_entries=most, method=request.trunc_method) if most else None
        found = self._documents.find(keys, query, order=order, pick=pick)
        encoded = _encoded(found, size=None if most else lambda: self._documents.size(keys, query))
        self._note("find_entries")
        return wire.PhoneData(encoded)

    # pipeline

    def pipeline_range(self) -> wire.PipelineRange:
        """From the first trip's start to the last one's end, untracked time included."""
        found = self._range()
        self._note("pipeline_range")
        return found

    def pipeline_complete(self) -> wire.PipelineComplete:
        """Until when the pipeline has processed all."""
        found = wire.PipelineComplete(self._documents.complete_ts())
        self._note("pipeline_complete")
        return found

    def _range(self) -> wire.PipelineRange:
        return wire.PipelineRange(*self._documents.bounds(COMPOSITE))

    def timeline(self, day: str) -> wire.Timeline:
        """The confirmed trips that started on that day of their own zone."""
        date = _date(day)
        query = local_dates("data.start_local_dt", date, date)
        trips = self._documents.results([CONFIRMED], {**query, **LASTS}, order="data.start_ts", limit=MAX_TRIPS)
        travel = self._travel(trips)
        self._note("timeline")
        return wire.Timeline([trip_feature(trip, travel) for trip in trips])

    def _travel(self, trips: Sequence[JsonObject]) -> Travel:
        """All that these trips refer to."""
        data = [data_of(trip) for trip in trips]
        places = {oid(one.get(name)) for one in data for name in ("start_place", "end_place")}
        times = [cast(float, one[name]) for one in data for name in ("start_ts", "end_ts")]
        within = {"$gte": min(times, default=0.0), "$lte": max(times, default=0.0)}
        parts = self._documents.results(
            [SECTION, INFERRED], {**LASTS, "data.start_ts": within}, order="data.start_ts", limit=MAX_POINTS
        )
        stops = self._documents.results([STOP], {"data.enter_ts": within}, order="data.enter_ts", limit=MAX_POINTS)
        points = self._documents.results(
            [POINT], {**LIES, "data.ts": within}, order="data.ts", limit=MAX_POINTS, fields=("data.ts", "data.loc")
        )
        return Travel(
            places=self._documents.by_ids(sorted(places)),
            stops=_by(stops, "trip_id"),
            sections=_by([one for one in parts if _key(one) == SECTION], "trip_id"),
            inferred={key: found[0] for key, found in _by(parts, "cleaned_section").items()},
            points=points,
            incidents=list(self._documents.find([INCIDENT], {"data.ts": within}, order="data.ts")),
        )

    # metrics

    def day_metrics(self, request: wire.DayMetrics) -> JsonObject:
        """Nothing: aggregates over people are asked through an aggregator."""
        for day in (request.start_time, request.end_time):
            _date(day)
        self._note("day_metrics")
        return {}

    def time_metrics(self, request: wire.TimeMetrics) -> wire.Metrics:
        """Sections by mode and span of UTC time."""
        within: JsonObject = {"data.start_ts": {"$gte": request.start_time, "$lte": request.end_time}}
        return self._metrics(request, within, metrics.by_time)

    def local_metrics(self, request: wire.LocalMetrics) -> wire.Metrics:
        """Sections by mode and local day, month or year."""
        within = local_dates("data.start_local_dt", request.start_time, request.end_time)
        return self._metrics(request, within, metrics.by_local_date)

    def _metrics(
        self,
        request: wire.TimeMetrics | wire.LocalMetrics,
        query: JsonObject,
        group: Callable[[Sequence[metrics.Section], str], metrics.Spanned],
    ) -> wire.Metrics:
        names, single = metrics.asked(request)
        fields = tuple(f"data.{name}" for name in metrics.FIELDS)
        found = self._documents.results([INFERRED], query, order="data.start_ts", limit=MAX_SECTIONS + 1, fields=fields)
        if len(found) > MAX_SECTIONS:
            raise BadQuery(f"there are more than {MAX_SECTIONS} sections: ask for a shorter time")
        spanned = group([one for one in map(metrics.section_of, found) if one is not None], request.freq)
        result: list[object] = [metrics.summary(spanned, name) for name in names]
        result = cast("list[object]", result[0]) if single else result
        self._note("metrics")
        return wire.Metrics(result, None if request.is_return_aggregate is False else result)

    def heatmap(self, request: wire.Heatmap, time_type: str) -> wire.Points:
        """The points of trips in a time, of sensed modes and in a region."""
        if time_type not in ("timestamp", "local_date"):
            raise BadQuery("a heat map is of a timestamp or a local_date")
        query, order = where(request, key_time="data.ts", key_local_date="data.local_dt")
        query |= LIES
        if request.modes is not None:
            query["data.mode"] = {"$in": [_motion(mode) for mode in request.modes]}
        if request.sel_region is not None:
            region = request.sel_region.get("geometry")
            self._store.check_region(region if isinstance(region, dict) else {})
            query["data.loc"] = {"$geoWithin": {"$geometry": region}}
        found = self._documents.results([POINT], query, order=order, limit=MAX_POINTS, fields=("data.loc",))
        self._note("heatmap")
        return wire.Points([cast("dict[str, list[float]]", data_of(one)["loc"])["coordinates"] for one in found])

    # own labels

    def labels_get(self, request: wire.GetLabels) -> dict[str, list[str]]:
        """Own labels of some kinds."""
        found = self._profile()
        self._note("labels_get")
        return {key: labels.listed(_uses(found, key)) for key in request.keys}

    def labels_insert(self, request: wire.InsertLabel) -> wire.Labels:
        """The label is on offer."""
        asked = request.inserted_label
        return self._relabel(asked.key, lambda uses: labels.inserted(uses, asked.label, self._clock.now()))

    def labels_update(self, request: wire.UpdateLabel) -> wire.Labels:
        """Uses are counted."""
        asked = request.updated_label
        add = asked.is_new_label_must_added
        return self._relabel(
            asked.key,
            lambda uses: labels.changed(uses, asked.old_label, asked.new_label, self._clock.now(), add=add),
        )

    def labels_delete(self, request: wire.DeleteLabel) -> wire.Labels:
        """The label is on offer no more."""
        asked = request.deleted_label
        return self._relabel(asked.key, lambda uses: labels.deleted(uses, asked.label))

    def _relabel(self, key: str, change: Callable[[labels.Uses], labels.Uses]) -> wire.Labels:
        with self._profile_lock:
            found = self._profile()
            uses = _uses(found, key)
            changed = change(uses)
            if changed != uses:
                profile.check_size({**found, key: dict(changed)})
                self._documents.set_profile({key: dict(changed)})
        self._note("labels")
        return wire.Labels(labels.listed(changed))


def _encoded(found: Iterable[JsonObject], *, size: Callable[[], int] | None) -> list[msgspec.Raw]:
    """Entries as JSON, one after the other, so that their mappings need no memory. Raises BadQuery if too much.

    Args:
        size: the bytes of them all, as they are kept; None if most are not to be answered. Asked when there are many.
    """
    encoder = msgspec.json.Encoder()
    encoded: list[msgspec.Raw] = []
    so_far = 0
    for entry in found:
        one = encoder.encode(entry)
        so_far += len(one)
        encoded.append(msgspec.Raw(one))
        if so_far > MAX_REPLY_BYTES or (size is not None and len(encoded) == MANY and size() > MAX_REPLY_BYTES):
            raise BadQuery(f"that is more than {MAX_REPLY_BYTES} bytes: ask for a shorter time, or with max_entries")
    return encoded


def _by(entries: Iterable[JsonObject], name: str) -> dict[str, list[JsonObject]]:
    """Entries by the id that a field of their data has."""
    groups: dict[str, list[JsonObject]] = {}
    for entry in entries:
        if key := oid(data_of(entry).get(name)):
            groups.setdefault(key, []).append(entry)
    return groups


def _key(entry: JsonObject) -> object:
    return cast(JsonObject, entry["metadata"])["key"]


def _date(day: str) -> wire.LocalDate:
    try:
        found = date.fromisoformat(day)
    except ValueError:
        found = None
    if found is None or found.isoformat() != day:  # Python reads 20150827 and 2015-W35-4 too
        raise BadQuery("a day is written YYYY-MM-DD")
    return wire.LocalDate(year=found.year, month=found.month, day=found.day)


def _motion(name: str) -> int:
    try:
        return Motion[name]
    except KeyError:
        raise BadQuery(f"a mode is one of {', '.join(Motion.__members__)}") from None


def _uses(found: JsonObject, key: str) -> labels.Uses:
    """The labels of a kind. Raises BadQuery if the profile has something else there."""
    uses = found.get(key, {})
    if (
        key in profile.RESERVED
        or not isinstance(uses, dict)
        or not all(isinstance(use, dict) and "isActive" in use for use in uses.values())
    ):
        raise BadQuery(f"{key} is no kind of label")
    return cast(labels.Uses, uses)
