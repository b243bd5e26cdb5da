"""When a phone sends what it wrote: the schedule that wakes a cloud. May import choices and entry_form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from emlab.entries.codes import Transition
from emlab.simulate.choices import Choices
from emlab.simulate.entry_form import Entry, Observation

HOURLY, TRIPS, NIGHTLY = SCHEDULES = ("hourly", "trips", "nightly")
OFFLINE_SHARE = 0.07  # of the times at which a phone wants to send but has no network; chosen
HOUR_S = 3_600.0


@dataclass(frozen=True, slots=True)
class Upload:
    """What a phone sends at once: when (UTC seconds), and the entries in order of writing."""

    upload_ts: float
    entries: tuple[Entry, ...]


def batches(choices: Choices, observations: Iterable[Observation]) -> Iterator[tuple[float, list[Observation]]]:
    """The observations, which come in order of writing, cut where the phone sends what it has; and when that is.

    Schedules: "hourly", in a minute of each hour that is the phone's own, as e-mission's phones synchronise; "trips",
    some minutes after each trip's end, the rest at night; "nightly", between two and five. A phone without network
    waits for its next time; with nothing to send it does not call.
    """
    upload_ts, waiting = math.inf, list[Observation]()
    for seen in observations:
        if seen.write_ts > upload_ts:
            yield upload_ts, waiting
            upload_ts, waiting = math.inf, []
        upload_ts = min(upload_ts, _due(choices, seen.write_ts) if not waiting else math.inf, _hastened(choices, seen))
        waiting.append(seen)
    if waiting:
        yield upload_ts, waiting


def _due(choices: Choices, write_ts: float) -> float:
    """When something written at that time goes at the latest."""
    return _hourly(choices, write_ts) if choices.setting.upload == HOURLY else _nightly(choices, write_ts)


def _hastened(choices: Choices, seen: Observation) -> float:
    """When the end of a trip makes the phone send."""
    if choices.setting.upload != TRIPS or seen.step is not Transition.STOPPED_MOVING:
        return math.inf
    offline, late = _draws(choices, TRIPS, int(seen.write_ts))
    return round(seen.write_ts + 60 + 240 * late, 3) if offline >= OFFLINE_SHARE else math.inf


def _hourly(choices: Choices, write_ts: float) -> float:
    minute_s = HOUR_S * choices.stream("sync").one()
    hour = math.floor((write_ts - minute_s) / HOUR_S) + 1
    while True:
        offline, late = _draws(choices, HOURLY, hour)
        if offline >= OFFLINE_SHARE:
            return round(hour * HOUR_S + minute_s + 60 * late, 3)
        hour += 1


def _nightly(choices: Choices, write_ts: float) -> float:
    day = math.floor((write_ts - choices.setting.local_ts(0, 0)) / (24 * HOUR_S)) - 1
    while True:
        offline, late = _draws(choices, NIGHTLY, day)
        upload_ts = round(choices.setting.local_ts(day, 2 + 3 * late), 3)
        if upload_ts > write_ts and offline >= OFFLINE_SHARE:
            return upload_ts
        day += 1


def _draws(choices: Choices, word: str, number: int) -> tuple[float, float]:
    """Two numbers of the occasion with that number."""
    offline, late = choices.stream("upload", word, number).some(2)
    return offline, late
