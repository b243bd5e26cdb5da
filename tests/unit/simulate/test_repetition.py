"""The same people everywhere and always: pinned bytes, other processors, other numbers of people and days; laziness."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from emlab.simulate import CITIES, Simulator

PRINT_DIGEST = """
from tests.unit.simulate.test_repetition import digest
print(digest())
"""
# A change of it means that every experiment's people change: bump VERSION in seeds and say so in the changelog.
PINNED = "bb289184d6c013f8eb570fa7b222ca7e2ccedf15da5aafff3af9cd350bf55a0f"
ARRAYS = ("ts", "write_ts", "lon", "lat", "true_lon", "true_lat", "accuracy_m", "altitude_m", "speed_mps")


def digest() -> str:
    """Of all that some people of each city saw and wrote."""
    sha = hashlib.sha256()
    for city in CITIES:
        for person in Simulator(3, 8, 42, city=city, ios_share=0.5):
            for track in person.tracks():
                sha.update(b"".join(getattr(track, name).astype("<f8").tobytes() for name in ARRAYS))
            sha.update(json.dumps([*person.raw_entries()]).encode())
            sha.update(json.dumps([upload.upload_ts for upload in person.uploads()]).encode())
            truth = [
                (*s.path, s.start_ts, s.end_ts, s.distance_m, int(s.mode)) for t in person.trips for s in t.sections
            ]
            sha.update(json.dumps(truth).encode())
    return sha.hexdigest()


def test_the_same_seed_gives_the_same_bytes_as_when_this_was_written() -> None:
    assert digest() == PINNED


def test_a_processor_without_wide_vectors_makes_the_same_bytes() -> None:
    wide = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    env = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(wide), "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PRINT_DIGEST], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == PINNED


@pytest.mark.parametrize(("few", "many"), [(1, 2), (3, 9), (7, 8), (8, 20), (14, 15)])
def test_days_do_not_change_when_more_follow_over_the_ends_of_weeks(few: int, many: int) -> None:
    for index in range(4):
        short, long = (Simulator(4, days, 9, ios_share=0.5).person(index) for days in (few, many))
        assert long.trips[: len(short.trips)] == short.trips
        written, more = list(short.raw_entries()), list(long.raw_entries())
        assert more[: len(written)] == written
        early, late = list(short.uploads()), list(long.uploads())
        # The last upload alone may have more in it.
        assert late[: len(early) - 1] == early[:-1]


def test_a_person_that_has_been_asked_for_tracks_has_the_same_trips_as_one_that_has_not() -> None:
    asked, fresh = (Simulator(1, 10, 9).person(0) for _ in range(2))
    list(asked.uploads())
    asked.track()
    assert asked.trips == fresh.trips


def test_a_year_is_made_week_by_week_in_constant_memory() -> None:
    def peak_bytes(days: int) -> int:
        person = Simulator(1, days, 4).person(0)
        tracemalloc.start()
        try:
            for _ in person.uploads():
                continue
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(7)  # what is loaded once
    assert peak_bytes(56) < 1.5 * peak_bytes(14)


def test_the_first_week_of_a_year_costs_no_more_than_a_week() -> None:
    person = Simulator(1, 366, 4).person(0)
    (first,) = itertools.islice(person.tracks(), 1)
    assert first.ts[-1] - first.ts[0] < 7 * 86_400
    assert "trips" not in vars(person)
