"""A person's data without what the owner excludes or no longer keeps, for queries to read. Pure.

Hidden is each fix in an excluded place or hour; each trip that begins, ends or passes in one, with all of its
sections; and each section that does so by itself, or is of no trip. A query reads what it would read if the rest had
never been stored.
Within a metre of a place's border counts as in it. What is older than the owner keeps is hidden before it is deleted.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from emlab.policy import Hours, Policy
from emlab.polygon import Area, box_of, wider
from emlab.query import LOCATION, Move, Reading, Region, Section, Trip

Fix = tuple[float, float, float]
QUARTER_S = 900  # in all zones of today hours begin at a quarter of an hour of UTC
LONGEST_DAY_S = 25 * 3600
LONGEST_TRIP_S = 30 * 86400.0


class Source(Reading, Protocol):
    """What is read of a store for that."""

    def fixes(
        self,
        key: str,
        *,
        start_ts: float,
        end_ts: float,
        region: Mapping[str, object] | None,
        but: Sequence[Mapping[str, object]] = (),
    ) -> Iterable[Fix]:
        """The same as `track` of what is in the region, in any order; what lies in the others may be left out."""


def restricted(source: Source, policy: Policy, now: float) -> Reading:
    """What the policy lets queries read of it at this time (UTC seconds)."""
    reading: Reading = source
    if policy.excluded_places or policy.excluded_hours:
        reading = Restricted(source, Exclusion(policy.excluded_places, policy.excluded_hours, policy.zone))
    since_ts = policy.kept_since(now)
    return reading if since_ts == -math.inf else Recent(reading, since_ts)


class Exclusion:
    """Places and hours, looked up quickly.

    Args:
        zone: IANA name of the clock of the hours.
    """

    def __init__(self, places: Iterable[Region], hours: Sequence[Hours], zone: str) -> None:
        polygons = [polygon for place in places for polygon in place.polygons]
        self.places = [Region((polygon,)).geojson() for polygon in polygons]
        self.around = [Region.box(*wider(box_of(polygon))).geojson() for polygon in polygons]
        self._area = Area(polygons)
        self._hours = frozenset(hour for hour in range(24) if any(one.covers(hour) for one in hours))
        self._zone = zone
        self._known: dict[int, bool] = {}  # by quarter of an hour

    def has_place(self, lon: float, lat: float) -> bool:
        """Whether it is in one of the places."""
        return self._area.is_near(lon, lat)

    def has_time(self, ts: float) -> bool:
        """Whether it is in one of the hours; a time that is none is."""
        return bool(self._hours) and (not math.isfinite(ts) or self._quarter(int(ts // QUARTER_S)))

    def has_part(self, start_ts: float, end_ts: float) -> bool:
        """Whether one of the hours has a part of that time, both ends included."""
        if not self._hours:
            return False
        if not end_ts - start_ts < LONGEST_DAY_S:
            return True
        quarters = range(int(start_ts // QUARTER_S), int(max(start_ts, end_ts) // QUARTER_S) + 1)
        return any(map(self._quarter, quarters))

    def _quarter(self, number: int) -> bool:
        found = self._known.get(number)
        if found is None:
            found = self._known[number] = self._hour(number * QUARTER_S) in self._hours
        return found

    def _hour(self, ts: int) -> int:
        if self._zone == "UTC":
            return ts // 3600 % 24
        from datetime import datetime
        from zoneinfo import ZoneInfo

        return datetime.fromtimestamp(ts, ZoneInfo(self._zone)).hour


class Restricted:
    """A Reading that hides what an exclusion has.

    An entry that does not say where it was is hidden, whatever is excluded.
    """

    def __init__(self, source: Source, exclusion: Exclusion) -> None:
        self._source = source
        self._exclusion = exclusion

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is a visible fix of this key in the time range and region."""
        places = self._exclusion.places
        found = self._source.fixes(key, start_ts=start_ts, end_ts=end_ts, region=region, but=places)
        return any(map(self._shows, found))

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[Fix]:
        """The visible fixes by time."""
        return filter(self._shows, self._source.track(key, start_ts=start_ts, end_ts=end_ts))

    def trips(self, *, start_ts: float, end_ts: float) -> Iterator[Trip]:
        """The visible trips by their start."""
        trips = list(self._source.trips(start_ts=start_ts, end_ts=end_ts))
        passed = self._passed(trips)
        return (trip for trip in trips if not self._touches(trip, passed))

    def sections(self, *, start_ts: float, end_ts: float) -> Iterator[Section]:
        """The visible sections by their start."""
        sections = list(self._source.sections(start_ts=start_ts, end_ts=end_ts))
        trips = list(self._source.trips(start_ts=max(0.0, start_ts - LONGEST_TRIP_S), end_ts=end_ts))
        passed = self._passed([*trips, *sections])
        touch = [self._touches(trip, passed) for trip in trips]
        hidden = _Spans(trip for trip, touches in zip(trips, touch, strict=True) if touches)
        shown = _Spans(trip for trip, touches in zip(trips, touch, strict=True) if not touches)
        # one of no trip at all belonged to a trip that was deleted, and may have had to hide it
        seen = (one for one in sections if shown.meet(one) and not hidden.meet(one))
        return (one for one in seen if not self._touches(one, passed))

    def _shows(self, fix: Fix) -> bool:
        ts, lon, lat = fix
        return not (self._exclusion.has_time(ts) or self._exclusion.has_place(lon, lat))

    def _touches(self, move: Move, passed: Sequence[float]) -> bool:
        """Whether it begins, ends or passes in an excluded place or hour."""
        first = bisect.bisect_left(passed, move.start_ts)
        return (
            self._exclusion.has_part(move.start_ts, move.end_ts)
            or self._exclusion.has_place(*move.start)
            or self._exclusion.has_place(*move.end)
            or (first < len(passed) and passed[first] <= move.end_ts)
        )

    def _passed(self, moves: Sequence[Move]) -> list[float]:
        """When, during these, the person was in an excluded place, ascending."""
        if not moves:
            return []
        start_ts, end_ts = min(one.start_ts for one in moves), max(one.end_ts for one in moves)
        found = itertools.chain.from_iterable(
            self._source.fixes(LOCATION, start_ts=start_ts, end_ts=end_ts, region=around)
            for around in self._exclusion.around
        )
        return sorted({ts for ts, lon, lat in found if self._exclusion.has_place(lon, lat)})


class Recent:
    """A Reading that hides what happened or began at that moment or before."""

    def __init__(self, source: Reading, since_ts: float) -> None:
        self._source = source
        self._first_ts = math.nextafter(since_ts, math.inf)

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """Whether there is a later fix of this key in the time range and region."""
        return self._source.exists(key, start_ts=max(start_ts, self._first_ts), end_ts=end_ts, region=region)

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterable[Fix]:
        """The later fixes by time."""
        return self._source.track(key, start_ts=max(start_ts, self._first_ts), end_ts=end_ts)

    def trips(self, *, start_ts: float, end_ts: float) -> Iterable[Trip]:
        """The later trips by their start."""
        return self._source.trips(start_ts=max(start_ts, self._first_ts), end_ts=end_ts)

    def sections(self, *, start_ts: float, end_ts: float) -> Iterable[Section]:
        """The later sections by their start."""
        return self._source.sections(start_ts=max(start_ts, self._first_ts), end_ts=end_ts)


class _Spans:
    """Times of trips, looked up by those of sections."""

    def __init__(self, trips: Iterable[Trip]) -> None:
        spans = sorted((trip.start_ts, trip.end_ts) for trip in trips)
        self._starts = [start_ts for start_ts, _ in spans]
        self._last = list(itertools.accumulate((end_ts for _, end_ts in spans), max))

    def meet(self, section: Section) -> bool:
        """Whether the section begins in one of them, or goes on into one."""
        before = bisect.bisect_left(self._starts, max(section.end_ts, math.nextafter(section.start_ts, math.inf)))
        return before > 0 and self._last[before - 1] > section.start_ts
