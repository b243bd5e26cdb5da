"""What goes into intake and what comes out: values. Imports msgspec; pandas only for type checkers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from emlab.entries import JsonObject
from emlab.intake.report import IntakeReport

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Observed:
    """What a phone noted, formatted: three frames in order of `ts`, and what its owner said.

    Attributes:
        locations: background/filtered_location: `_id` (24 hex digits), ts, write_ts (UTC seconds), latitude, longitude
            (degrees), altitude, accuracy (m), sensed_speed (m/s), heading (degrees) as float64, NaN where unknown;
            filter ("time" or "distance"), platform, time_zone as text.
        motions: background/motion_activity: `_id`, ts, write_ts, type (a `codes.Motion`), confidence (0 to 100).
        transitions: statemachine/transition: `_id`, ts, write_ts, curr_state, transition (codes; NaN for none).
        inputs: formatted manual/* entries in wire form.
    """

    locations: pd.DataFrame
    motions: pd.DataFrame
    transitions: pd.DataFrame
    inputs: list[JsonObject]


class Stay(msgspec.Struct, frozen=True):
    """A place from which the next trip starts, as the chain has to remember it.

    Attributes:
        id: of its entry, 24 hex digits.
        source: by which method it was found.
        lon, lat, altitude: degrees and metres.
        zone: IANA name.
        enter_ts: UTC seconds; None for the first place of all.
        ending: id of the trip or untracked time that ends here, None for the first place.
        untracked: whether that was untracked time.
        raw_places: ids of the raw places in it; a raw place has none.
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
    raw_places: tuple[str, ...] = ()


class Checkpoint(msgspec.Struct, frozen=True):
    """Where the next run begins: before the last trip that nothing can change but older data.

    Attributes:
        since_ts: the next run reads everything from here on, and makes all later results anew.
        resume_ts, resume_id: time and id of the point at which that trip starts.
        raw_place, cleaned_place: where it starts.
    """

    since_ts: float
    resume_ts: float
    resume_id: str
    raw_place: Stay
    cleaned_place: Stay


@dataclass(frozen=True)
class Outcome:
    """What intake made of what was observed.

    Attributes:
        documents: result entries in wire form, each with its `_id`, which is the same in every run.
        checkpoint: what the next run begins with; None for the beginning.
        report: what became of the entries.
        replaces_from_ts: results at or after this time that are not in `documents` are outdated; None means all.
    """

    documents: list[JsonObject]
    checkpoint: Checkpoint | None
    report: IntakeReport
    replaces_from_ts: float | None
