"""What idle rules would have done with given uses."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest

from emlab.errors import ConfigError
from emlab.idle import AtMost, Histogram, Never, PauseAfter
from emlab.measure.idling import idling

DAY_S = 86_400.0


def periodic(
    period_s: float, *, phase_s: float = 0.0, jitter: float = 0.02, days: int = 2, seed: int = 1
) -> list[float]:
    """Uses once a period, each within a share of it."""
    draw = random.Random(seed)
    return [phase_s + period_s * (k + draw.uniform(0, jitter)) for k in range(int(days * DAY_S / period_s))]


def poisson(mean_s: float, *, days: int = 2, seed: int = 1) -> list[float]:
    """Uses at random, a mean gap apart."""
    draw = random.Random(seed)
    times = accumulate(draw.expovariate(1 / mean_s) for _ in range(int(days * DAY_S / mean_s)))
    return list(times)


def test_uses_sleeps_and_wakes_are_counted_by_hand() -> None:
    frame = idling({"a": [0.0, 100.0, 110.0, 300.0], "b": [50.0]}, PauseAfter(30.0), sweep_s=10.0)
    assert list(frame.columns) == ["uses", "cold_wakes", "awake_s", "hours", "awake_s_per_hour"]
    assert frame.loc[["a"]].to_numpy()[0].tolist() == pytest.approx([3, 2, 30.0 + 40.0, 300 / 3600, 70.0 * 12])
    assert frame.loc[["b"], ["uses", "cold_wakes", "awake_s"]].to_numpy()[0].tolist() == [0, 0, 30.0]
    never = idling({"a": [0.0, 3600.0], "b": [0.0]}, Never())
    assert never["awake_s_per_hour"].tolist() == [3600.0, 3600.0]
    assert never["cold_wakes"].tolist() == [0, 0]
    turns = idling({"a": [0.0, 20.0, 40.0], "b": [10.0, 30.0]}, AtMost(1), sweep_s=5.0)
    assert turns["cold_wakes"].tolist() == [2, 1]


@pytest.mark.parametrize("period_s", [600.0, 3600.0])
def test_a_histogram_meets_periodic_uses_awake_in_the_time_in_which_a_fixed_one_meets_none(period_s: float) -> None:
    uses = {f"cloud-{k}": periodic(period_s, phase_s=37.0 * k, seed=k) for k in range(5)}
    learned = idling(uses, Histogram(60.0), sweep_s=20.0)
    awake_share = learned["awake_s"].sum() / (learned["hours"].sum() * 3600)
    fixed = idling(uses, PauseAfter(awake_share * period_s), sweep_s=20.0)
    assert fixed["awake_s"].sum() >= learned["awake_s"].sum()
    assert fixed["cold_wakes"].sum() == fixed["uses"].sum()
    assert learned["cold_wakes"].sum() <= 11 * len(uses)  # while it has seen too few gaps
    assert awake_share < 0.4


def test_a_histogram_is_not_worse_than_its_fixed_time_where_uses_come_at_random() -> None:
    uses = {f"cloud-{k}": poisson(600.0, seed=k) for k in range(10)}
    learned, fixed = (idling(uses, rule, sweep_s=20.0) for rule in (Histogram(60.0), PauseAfter(60.0)))
    assert learned["cold_wakes"].sum() <= 1.02 * fixed["cold_wakes"].sum()
    assert learned["awake_s"].sum() <= 1.02 * fixed["awake_s"].sum()


def test_a_replay_of_nothing_is_refused() -> None:
    for uses, sweep_s in (({}, 5.0), ({"a": []}, 5.0), ({"a": [0.0]}, 0.0), ({"a": [0.0]}, float("nan"))):
        with pytest.raises(ConfigError, match="needs a use"):
            idling(uses, Never(), sweep_s=sweep_s)
