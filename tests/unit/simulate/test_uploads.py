"""When phones send, and that nothing is lost on the way."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from emlab.simulate import Simulator, Upload
from emlab.simulate.uploads import SCHEDULES

ZONE = ZoneInfo("America/Los_Angeles")


def written(upload: Upload) -> list[float]:
    return [cast("dict[str, Any]", entry["metadata"])["write_ts"] for entry in upload.entries]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("share", [0, 1])
def test_every_entry_is_sent_once_in_order_and_after_it_was_written(schedule: str, share: int) -> None:
    person = Simulator(2, 9, 5, upload=schedule, ios_share=share).person(1)
    uploads = list(person.uploads())
    assert [entry for upload in uploads for entry in upload.entries] == list(person.raw_entries())
    for upload in uploads:
        assert upload.entries
        assert upload.upload_ts >= max(written(upload))
    assert all(a.upload_ts < b.upload_ts for a, b in itertools.pairwise(uploads))
    # Nothing waits that was written before an upload.
    assert all(min(written(b)) > a.upload_ts for a, b in itertools.pairwise(uploads))


def test_an_hourly_phone_sends_in_its_own_minute_and_mostly_within_the_hour() -> None:
    minutes = set()
    for person in Simulator(8, 5, 5, upload="hourly"):
        uploads = list(person.uploads())
        # Of each hour the same minute, or the one after it; apart modulo an hour by no more than 60 s.
        own = np.array([upload.upload_ts % 3600 for upload in uploads])
        spread = (own - own[0] + 1800) % 3600 - 1800
        assert np.abs(spread).max() <= 61
        minutes.add(int(own[0] // 60))
        waits = np.array([upload.upload_ts - written(upload)[0] for upload in uploads])
        assert (waits <= 3_661).mean() > 0.75
        assert waits.max() < 6 * 3600
    assert len(minutes) > 4


def test_a_nightly_phone_sends_once_a_night_at_most() -> None:
    for person in Simulator(4, 14, 5, upload="nightly"):
        at = [datetime.fromtimestamp(upload.upload_ts, ZONE) for upload in person.uploads()]
        assert all(2 <= moment.hour < 5 for moment in at)
        assert len({moment.date() for moment in at}) == len(at)
        assert 10 <= len(at) <= 15


def test_a_phone_that_sends_after_trips_sends_minutes_after_most_of_them() -> None:
    soon = total = 0
    for person in Simulator(6, 7, 5, upload="trips"):
        sent = np.array([upload.upload_ts for upload in person.uploads()])
        for trip in person.trips:
            after_s = sent[sent > trip.end_ts].min() - trip.end_ts
            soon, total = soon + (after_s < 1_200), total + 1
    assert 0.8 < soon / total < 1


def test_a_schedule_changes_when_phones_send_and_not_what() -> None:
    sent = {
        name: [entry for upload in Simulator(1, 3, 5, upload=name).person(0).uploads() for entry in upload.entries]
        for name in SCHEDULES
    }
    assert sent["hourly"] == sent["trips"] == sent["nightly"]
    counts = {name: len(list(Simulator(1, 3, 5, upload=name).person(0).uploads())) for name in SCHEDULES}
    assert counts["hourly"] > counts["trips"] > counts["nightly"]
