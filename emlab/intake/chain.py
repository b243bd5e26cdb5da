"""Trips and the places between them, one after the other without a hole: first as sensed, then cleaned. Imports numpy.

The method is e-mission's. Between two places lies a trip, or, where tracking began anew or nobody can have travelled,
untracked time. What was no trip is left out of the cleaned chain, and the places at its ends become one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from emlab.intake import legs as legging
from emlab.intake.cleaning import Anchor
from emlab.intake.dwell import Stretch, restarts
from emlab.intake.legs import Journey
from emlab.intake.outcome import Stay
from emlab.intake.sphere import distance_m
from emlab.intake.tracks import Fixes, Motions, Transitions

TIME_SOURCE, DISTANCE_SOURCE = "DwellSegmentationTimeFilter", "DwellSegmentationDistFilter"
ELSEWHERE_M = {TIME_SOURCE: 2_500.0, DISTANCE_SOURCE: 1_200.0}  # farther from the last place, one has travelled
TRAVELLING_MPS = 3_000 / 3_600  # slower than that, unseen: tracking was off
UNTRACKED_AFTER_S = 5.0
SHORTEST_TRIP_M = 100.0
SQUISHED_S, SQUISHED_M = 30.0, 100.0  # a trip from a place that is two places in one starts so much earlier
Position = tuple[float, float]


def oid(key: str, *parts: object) -> str:
    """The id of an entry that is made of these: the same in every run, 24 hex digits."""
    return hashlib.blake2b("\0".join([key, *map(repr, parts)]).encode(), digest_size=12).hexdigest()


@dataclass(slots=True)
class Place:
    """Where somebody stayed.

    Attributes:
        enter_ts: None for the first one. ending, untracked: the id of what ended here, and whether it was untracked.
        exit_ts, exit_zone, starting: None for the last one. leaving_untracked: whether untracked time starts here.
        raw_places: in a cleaned place, the ids of the raw ones.
    """

    id: str
    source: str
    lon: float
    lat: float
    altitude: float
    zone: str
    enter_ts: float | None = None
    ending: str | None = None
    untracked: bool = False
    raw_places: list[str] = field(default_factory=list)
    exit_ts: float | None = None
    exit_zone: str | None = None
    starting: str | None = None
    leaving_untracked: bool = False

    @property
    def at(self) -> Position:
        """Longitude and latitude in degrees."""
        return self.lon, self.lat

    @property
    def stay_s(self) -> float | None:
        """Seconds from entering to leaving, None if one of them is unknown."""
        return None if self.enter_ts is None or self.exit_ts is None else self.exit_ts - self.enter_ts

    @classmethod
    def of(cls, stay: Stay) -> Place:
        """The place that a checkpoint remembers."""
        return cls(
            stay.id,
            stay.source,
            stay.lon,
            stay.lat,
            stay.altitude,
            stay.zone,
            stay.enter_ts,
            stay.ending,
            stay.untracked,
            list(stay.raw_places),
        )


@dataclass(slots=True)
class Span:
    """A trip or untracked time, as sensed.

    Attributes:
        points: of the trip; none if untracked. settled: whether later points cannot change where it ends.
        start_id: of the point at which a trip starts.
    """

    id: str
    untracked: bool
    source: str
    start_ts: float
    start_zone: str
    start: Position
    end_ts: float
    end_zone: str
    end: Position
    start_place: Place
    end_place: Place
    points: Fixes | None
    settled: bool
    start_id: str = ""

    @property
    def distance_m(self) -> float:
        """From end to end, in metres."""
        return distance_m(*self.start, *self.end)


@dataclass(slots=True)
class Trip:
    """A trip or untracked time, cleaned: what `Span` says, its ends corrected, with its sections."""

    id: str
    raw: Span
    start_ts: float
    start_zone: str
    start: Position
    end_ts: float
    end_zone: str
    end: Position
    distance_m: float
    duration_s: float
    journey: Journey
    start_place: Place
    end_place: Place


@dataclass(slots=True)
class Chain:
    """All raw places and what lies between them, and the cleaned ones."""

    raw_places: list[Place]
    spans: list[Span]
    journeys: dict[str, Journey]
    places: list[Place]
    trips: list[Trip]


def chained(
    stretches: list[Stretch],
    fixes: Fixes,
    motions: Motions,
    transitions: Transitions,
    first: tuple[Place, Place] | None,
) -> Chain:
    """The chain of trips that begins with `first`, a raw and a cleaned place, or from nothing."""
    raw_places, spans = _spans(stretches, fixes, transitions, first[0] if first else None)
    journeys = {
        span.id: _journey(span, motions, transitions)
        for span in spans
        if span.points is not None and not span.untracked
    }
    places, trips = _cleaned(spans, journeys, first[1] if first else None)
    return Chain(raw_places, spans, journeys, places, trips)


def _spans(
    stretches: list[Stretch], fixes: Fixes, transitions: Transitions, place: Place | None
) -> tuple[list[Place], list[Span]]:
    places = [] if place is None else [place]
    spans: list[Span] = []
    anew = restarts(transitions)
    for stretch in stretches:
        source = DISTANCE_SOURCE if stretch.by_distance else TIME_SOURCE
        if place is None:
            place = _first_place(fixes, stretch.start, source)
            places.append(place)
        if _is_untracked(place, fixes, stretch.start, source, anew):
            spans.append(_untracked(place, fixes, stretch.start, source))
            place = spans[-1].end_place
            places.append(place)
        spans.append(_trip(place, fixes, stretch, source))
        place = spans[-1].end_place
        places.append(place)
    return places, spans


def _first_place(fixes: Fixes, index: int, source: str) -> Place:
    start = oid("segmentation/raw_trip", fixes.id[index], float(fixes.ts[index]))
    return Place(oid("segmentation/raw_place", "first", start), source, *_location(fixes, index))


def _location(fixes: Fixes, index: int) -> tuple[float, float, float, str]:
    return float(fixes.lon[index]), float(fixes.lat[index]), float(fixes.altitude[index]), str(fixes.zone[index])


def _is_untracked(
    place: Place, fixes: Fixes, index: int, source: str, anew: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> bool:
    """Whether the way from the last place to a trip's first point was not tracked, rather than unnoticed."""
    if place.enter_ts is None:
        return False
    ts = float(fixes.ts[index])
    if ((anew >= place.enter_ts) & (anew <= ts)).any():
        return True
    away_m = distance_m(*place.at, float(fixes.lon[index]), float(fixes.lat[index]))
    return away_m >= ELSEWHERE_M[source] and away_m <= TRAVELLING_MPS * (ts - place.enter_ts)


def _untracked(place: Place, fixes: Fixes, index: int, source: str) -> Span:
    """Untracked time from just after the last place was entered, to the point where tracking begins again."""
    assert place.enter_ts is not None
    name = oid("segmentation/raw_untracked", place.id)
    lon, lat, altitude, zone = _location(fixes, index)
    ts = float(fixes.ts[index])
    start_ts = min(place.enter_ts + UNTRACKED_AFTER_S, ts)
    _leave(place, start_ts, place.zone, name, untracked=True)
    end_place = Place(
        oid("segmentation/raw_place", name), source, lon, lat, altitude, zone, enter_ts=ts, ending=name, untracked=True
    )
    return Span(
        name, True, source, start_ts, place.zone, place.at, ts, zone, (lon, lat), place, end_place, None, settled=True
    )


def _trip(place: Place, fixes: Fixes, stretch: Stretch, source: str) -> Span:
    start, end = stretch.start, stretch.end
    name = oid("segmentation/raw_trip", fixes.id[start], float(fixes.ts[start]))
    start_ts, end_ts = float(fixes.ts[start]), float(fixes.ts[end])
    lon, lat, _, zone = _location(fixes, start)
    _leave(place, start_ts, zone, name, untracked=False)
    end_place = Place(oid("segmentation/raw_place", name), source, *_location(fixes, end), enter_ts=end_ts, ending=name)
    lo, hi = np.searchsorted(fixes.ts, start_ts), np.searchsorted(fixes.ts, end_ts, side="right")
    return Span(
        name,
        False,
        source,
        start_ts,
        zone,
        (lon, lat),
        end_ts,
        end_place.zone,
        end_place.at,
        place,
        end_place,
        fixes.take(slice(int(lo), int(hi))),
        settled=stretch.settled,
        start_id=str(fixes.id[start]),
    )


def _leave(place: Place, ts: float, zone: str, starting: str, *, untracked: bool) -> None:
    place.exit_ts, place.exit_zone, place.starting, place.leaving_untracked = ts, zone, starting, untracked


def _journey(span: Span, motions: Motions, transitions: Transitions) -> Journey:
    assert span.points is not None
    start, end = span.start_place, span.end_place
    return legging.journey(
        span.points,
        motions,
        transitions,
        by_distance=span.source == DISTANCE_SOURCE,
        start=_anchor(start, span.points),
        end=_anchor(end, span.points),
    )


def _anchor(place: Place, points: Fixes) -> Anchor:
    altitude = place.altitude if place.enter_ts is not None else 0.0
    return Anchor(place.lon, place.lat, altitude, place.zone, place.enter_ts, place.stay_s or 0.0)


def _cleaned(spans: list[Span], journeys: dict[str, Journey], place: Place | None) -> tuple[list[Place], list[Trip]]:
    """The chain without what was no trip."""
    real = [_real(span, journeys.get(span.id)) for span in spans]
    places = [] if place is None else [place]
    trips: list[Trip] = []
    for index, (span, trip) in enumerate(zip(spans, real, strict=True)):
        if place is None:
            place = _cleaned_place(span.start_place)
            places.append(place)
        if trip is None or (span.untracked and _is_spurious(trip, real[index + 1 :])):
            place.raw_places.append(span.start_place.id)
            continue
        _start(trip, place)
        place = _cleaned_place(span.end_place)
        place.ending, place.untracked = trip.id, span.untracked
        trip.end_place = place
        places.append(place)
        trips.append(trip)
    return places, trips


def _real(span: Span, journey: Journey | None) -> Trip | None:
    """The cleaned trip, whose places are not yet linked; None if it was none."""
    if span.untracked:
        name = oid("analysis/cleaned_untracked", span.id)
        ends = (span.start_ts, span.start_zone, span.start, span.end_ts, span.end_zone, span.end)
        length_m, duration_s = span.distance_m, span.end_ts - span.start_ts
        return Trip(name, span, *ends, length_m, duration_s, Journey(), span.start_place, span.end_place)
    if journey is None or not journey.legs or journey.distance_m < SHORTEST_TRIP_M:
        return None
    first, last = journey.ends
    ends = (first.start_ts, first.start_zone, first.start, last.end_ts, last.end_zone, last.end)
    name = oid("analysis/cleaned_trip", span.id)
    duration_s = last.end_ts - first.start_ts
    return Trip(name, span, *ends, journey.distance_m, duration_s, journey, span.start_place, span.end_place)


def _is_spurious(untracked: Trip, later: list[Trip | None]) -> bool:
    """Whether the next thing that is real begins where untracked time did, so that nobody was away."""
    following = next((trip for trip in later if trip is not None), None)
    return following is None or distance_m(*untracked.start, *following.start) <= SQUISHED_M


def _cleaned_place(raw: Place) -> Place:
    name = oid("analysis/cleaned_place", raw.id)
    place = Place(name, raw.source, raw.lon, raw.lat, raw.altitude, raw.zone, raw.enter_ts)
    place.raw_places.append(raw.id)
    return place


def _start(trip: Trip, place: Place) -> None:
    """The trip starts at the place, and a little earlier if the place is not quite where it was seen to start."""
    raw = trip.raw.start_place
    away_m = distance_m(*trip.start, *place.at)
    if place.at != raw.at and away_m <= SQUISHED_M:
        trip.start_ts, trip.start = max(trip.start_ts - SQUISHED_S, 0.0), place.at
        trip.distance_m += away_m
        trip.duration_s += SQUISHED_S
        trip.journey.prepend(trip.start_ts, place.at, place.altitude, away_m, SQUISHED_S)
    trip.start_place = place
    place.raw_places.append(raw.id)
    _leave(place, trip.start_ts, trip.start_zone, trip.id, untracked=trip.raw.untracked)
