"""True trips, sections and stays as rows of tables. May import truth."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from emlab.simulate.truth import SENSED, TrueSection, TrueTrip

Row = dict[str, str | int | float]


def trip_rows(user: str, trips: Sequence[TrueTrip]) -> Iterator[Row]:
    """One row for each trip; `Simulator.truth` describes it."""
    for number, trip in enumerate(trips):
        yield {
            "user": user,
            "trip": number,
            "start_ts": trip.start_ts,
            "end_ts": trip.end_ts,
            "mode": SENSED[trip.mode].name,
            "distance_m": trip.distance_m,
            "start_place": trip.start.name,
            "end_place": trip.end.name,
            "start_lon": trip.start.lon,
            "start_lat": trip.start.lat,
            "end_lon": trip.end.lon,
            "end_lat": trip.end.lat,
            "true_mode": trip.mode.name,
            "purpose": trip.purpose,
            "sections": len(trip.sections),
        }


def section_rows(user: str, trips: Sequence[TrueTrip]) -> Iterator[Row]:
    """One row for each section; `Simulator.truth_sections` describes it."""
    for number, trip in enumerate(trips):
        for k, section in enumerate(trip.sections):
            yield {"user": user, "trip": number, "section": k, **_section(section)}


def _section(section: TrueSection) -> Row:
    return {
        "start_ts": section.start_ts,
        "end_ts": section.end_ts,
        "mode": SENSED[section.mode].name,
        "true_mode": section.mode.name,
        "distance_m": section.distance_m,
        "start_lon": section.path[0][0],
        "start_lat": section.path[0][1],
        "end_lon": section.path[-1][0],
        "end_lat": section.path[-1][1],
    }


def stay_rows(user: str, trips: Sequence[TrueTrip]) -> Iterator[Row]:
    """One row for each stay; `Simulator.truth_stays` describes it."""
    unknown = float("nan")
    for before, after in itertools.pairwise([None, *trips, None]):
        place = before.end if before else after.start if after else None
        if place is None:
            continue
        yield {
            "user": user,
            "place": place.name,
            "purpose": before.purpose if before else place.name,
            "enter_ts": before.end_ts if before else unknown,
            "exit_ts": after.start_ts if after else unknown,
            "lon": place.lon,
            "lat": place.lat,
        }
