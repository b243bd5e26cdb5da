"""Entries that arrive late and out of order: whatever the order, the end is the same as of one run over everything."""

from __future__ import annotations

import math
import random

import hypothesis.strategies as st
import pandas as pd
from hypothesis import given

from emlab.intake import Checkpoint, Observed
from tests.unit.intake.test_run import keep, part
from tests.unit.intake.walks import START, Data, by_id, rides, run

Frames = list[pd.DataFrame]


def frames(seen: Observed) -> Frames:
    return [seen.locations, seen.motions, seen.transitions]


def of(each: Frames) -> Observed:
    locations, motions, transitions = each
    return Observed(locations, motions, transitions, [])


def together(one: Frames, other: Frames) -> Frames:
    pairs = zip(one, other, strict=True)
    return [pd.concat(pair).sort_values("ts", kind="stable", ignore_index=True) for pair in pairs]


def renew(store: dict[str, Data]) -> None:
    """What a job does after each run: a composite trip shows the place at its end as it is now."""
    for entry in store.values():
        place = entry["data"].get("end_confirmed_place")
        if place is not None and place["_id"]["$oid"] in store:
            entry["data"] = {**entry["data"], "end_confirmed_place": store[place["_id"]["$oid"]]}


def as_they_come(parts: list[Frames]) -> tuple[dict[str, Data], int]:
    """The results of a run after the arrival of each part, and how many of these runs had to begin anew."""
    store: dict[str, Data] = {}
    checkpoint: Checkpoint | None = None
    here, anew = [frame.iloc[:0] for frame in parts[0]], 0
    for each in parts:
        oldest = min((float(frame["ts"].min()) for frame in each if len(frame)), default=math.inf)
        if checkpoint is not None and oldest < max(checkpoint.since_ts, checkpoint.resume_ts):
            checkpoint, anew = None, anew + 1
        here = together(here, each)
        since = -math.inf if checkpoint is None else checkpoint.since_ts
        outcome = run(part(of(here), since, math.inf), checkpoint)
        keep(store, outcome)
        renew(store)
        checkpoint = outcome.checkpoint
    return store, anew


def parted(draw: random.Random, seen: Observed, count: int, late: float) -> list[Frames]:
    """Parts one after the other in time, but that some rows come with a later one."""
    first, last = float(seen.locations["ts"].iloc[0]), float(seen.locations["ts"].iloc[-1])
    cuts = sorted(draw.uniform(first, last) for _ in range(count - 1))
    parts: list[Frames] = [[] for _ in range(count)]
    for frame in frames(seen):
        usual = [sum(ts > cut for cut in cuts) for ts in frame["ts"]]
        when = [draw.randrange(number, count) if draw.random() < late else number for number in usual]
        for number, its in enumerate(parts):
            its.append(frame[[one == number for one in when]].reset_index(drop=True))
    return parts


@given(st.randoms(use_true_random=False), st.integers(2, 5), st.sampled_from([0.0, 0.003, 0.1]))
def test_in_whatever_order_it_comes_the_end_is_the_same(draw: random.Random, count: int, late: float) -> None:
    seen = rides(5)
    store, _ = as_they_come(parted(draw, seen, count, late))
    assert store == by_id(run(seen))


def test_what_is_older_than_the_checkpoint_makes_all_begin_anew() -> None:
    seen = rides(5)
    early, rest = part(seen, -math.inf, START + 100), part(seen, START + 100.001, math.inf)
    store, anew = as_they_come([frames(rest), frames(early)])
    assert anew == 1
    assert store == by_id(run(seen))


def test_the_trip_before_the_checkpoint_is_not_made_anew_but_the_place_at_its_end_is() -> None:
    seen = rides(6)
    whole = run(seen)
    assert whole.checkpoint is not None
    again = by_id(run(part(seen, whole.checkpoint.since_ts, math.inf), whole.checkpoint))
    assert not any(entry["data"].get("end_ts") == whole.checkpoint.since_ts for entry in again.values())
    place = next(entry for entry in again.values() if entry["metadata"]["key"] == "analysis/confirmed_place")
    assert place["data"]["enter_ts"] == whole.checkpoint.since_ts
