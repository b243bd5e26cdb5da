"""Orders, samples, ratios and their figure: what of measuring needs no cloud."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emlab.clock import ManualClock
from emlab.errors import CloudGone, ConfigError
from emlab.measure import TARGETS, Samples, as_events, compare, interleave, on_targets, ratio_of_medians
from emlab.record import summarize

SECONDS = st.floats(1e-4, 1e3)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def samples(ours: list[float], raw: list[float], measure: str = "pause", engine: str = "docker") -> pd.DataFrame:
    """A frame of these seconds by round; inf is an attempt that fails."""
    taken = Samples(engine, clock=ManualClock())
    for number, pair in enumerate(zip(ours, raw, strict=True)):
        for arm, value in zip(("emlab", "raw"), pair, strict=True):
            taken.take(measure, arm, number, lambda value=value: give(value), unit="s")  # type: ignore[misc]
    return taken.frame()


def give(value: float) -> float:
    if math.isinf(value):
        raise CloudGone("it went")
    return value


class TestInterleave:
    @given(n=st.integers(1, 200), seed=st.integers(0, 2**32))
    def test_every_round_has_both_arms_and_each_is_first_in_half_of_them(self, n: int, seed: int) -> None:
        plan = interleave(n, seed)
        assert len(plan) == n
        assert all(set(order) == {"emlab", "raw"} and len(order) == 2 for order in plan)
        first = Counter(order[0] for order in plan)
        assert abs(first["emlab"] - first["raw"]) == n % 2

    def test_a_seed_gives_its_plan_and_seeds_give_different_ones(self) -> None:
        assert interleave(30, 1) == interleave(30, 1)
        assert len({tuple(interleave(30, seed)) for seed in range(20)}) > 15

    def test_with_one_round_either_arm_may_be_first(self) -> None:
        assert {interleave(1, seed)[0][0] for seed in range(40)} == {"emlab", "raw"}  # wrong once in 2**39

    def test_no_rounds_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="1 round or more"):
            interleave(0, 1)


class TestRatio:
    @settings(deadline=None, max_examples=30)
    @given(values=st.lists(SECONDS, min_size=2, max_size=40), factor=st.floats(0.1, 10))
    def test_arms_in_a_fixed_ratio_have_that_ratio_and_no_width(self, values: list[float], factor: float) -> None:
        base = np.array(values)
        for end in ratio_of_medians(base * factor, base, rng()):
            assert end == pytest.approx(factor)

    @settings(deadline=None, max_examples=30)
    @given(pairs=st.lists(st.tuples(SECONDS, SECONDS), min_size=3, max_size=40))
    def test_the_interval_is_ordered_and_within_what_was_seen(self, pairs: list[tuple[float, float]]) -> None:
        ours, base = np.array(pairs).T
        _, low, high = ratio_of_medians(ours, base, rng())
        assert ours.min() / base.max() * (1 - 1e-9) <= low <= high <= ours.max() / base.min() * (1 + 1e-9)

    def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says(self) -> None:
        draw, covered, runs = np.random.default_rng(3), 0, 60
        for _ in range(runs):
            base, ours = draw.lognormal(0, 0.3, (2, 40))
            _, low, high = ratio_of_medians(1.2 * ours, base, draw)
            covered += low <= 1.2 <= high
        assert covered / runs > 0.88  # of 0.95; below with probability 1e-4, but the seed is fixed

    def test_more_rounds_make_it_narrower_and_the_same_seed_the_same(self) -> None:
        draw = np.random.default_rng(5)
        few, many = draw.lognormal(0, 0.3, (2, 20)), draw.lognormal(0, 0.3, (2, 2000))
        widths = []
        for ours, base in (few, many):
            _, low, high = ratio_of_medians(ours, base, rng())
            widths.append(high - low)
        assert widths[1] < widths[0] / 3
        assert ratio_of_medians(few[0], few[1], rng()) == ratio_of_medians(few[0], few[1], rng())

    def test_failures_pull_the_ratio_up_and_can_make_it_infinite(self) -> None:
        ours, base = np.array([1.0, 2.0, 3.0, math.inf, math.inf]), np.ones(5)
        ratio, _, high = ratio_of_medians(ours, base, rng())
        assert (ratio, high) == (3.0, math.inf)
        assert ratio_of_medians(np.full(5, math.inf), base, rng()) == (math.inf,) * 3
        assert all(math.isnan(end) for end in ratio_of_medians(np.full(5, math.inf), np.full(5, math.inf), rng()))

    def test_one_round_is_sure_of_nothing(self) -> None:
        ratio, low, high = ratio_of_medians(np.array([1.2]), np.array([1.0]), rng())
        assert ratio == pytest.approx(1.2)
        assert math.isnan(low)
        assert math.isnan(high)
        assert compare(samples([1.0], [1.0]))["met"].isna().all()


class TestTargets:
    def test_a_sentence_names_what_is_missed_and_what_is_undecided(self) -> None:
        table = compare(samples([2.0] * 9, [1.0] * 9))
        assert on_targets(table) == "0 of 1 targets are met. Missed: pause on docker."
        assert on_targets(compare(samples([1.0] * 9, [1.0] * 9))) == "1 of 1 targets are met."
        unsure = compare(samples([1.0], [1.0]))
        assert on_targets(unsure) == "0 of 1 targets are met. Undecided: pause on docker."
        assert on_targets(compare(samples([1.0] * 5, [1.0] * 5, engine="process"))) == ""


class TestCompare:
    def test_a_row_has_medians_failures_the_target_and_whether_it_is_met(self) -> None:
        row = compare(samples([1.1, 1.2, 1.1, math.inf, 1.0], [1.0, 1.0, 1.0, 1.0, math.inf])).iloc[0]
        assert (row["measure"], row["engine"], row["n"], row["failed"], row["raw_failed"]) == (
            "pause",
            "docker",
            5,
            1,
            1,
        )
        assert (row["emlab"], row["raw"], row["against"], row["target"]) == (1.1, 1.0, "raw", 1.25)
        assert row["ratio"] == pytest.approx(1.1)

    @pytest.mark.parametrize(("factor", "met"), [(1.2, True), (1.3, False)])
    def test_a_target_is_met_when_the_whole_interval_is_within_it(self, factor: float, met: bool) -> None:
        assert compare(samples([factor] * 9, [1.0] * 9))["met"].tolist() == [met]

    def test_an_interval_across_the_target_decides_nothing_and_neither_does_a_missing_target(self) -> None:
        across = samples([1.0, 1.2, 1.3, 1.4, 1.6], [1.0] * 5)
        assert compare(across)["met"].isna().all()
        free = compare(samples([1.0] * 5, [1.0] * 5, engine="process"))
        assert free["met"].isna().all()
        assert free["target"].isna().all()

    def test_a_measure_with_a_limit_is_compared_with_that_and_needs_no_raw_arm(self) -> None:
        taken = Samples("docker", clock=ManualClock())
        for number, value in enumerate((30.0, 45.0, 36.0)):
            taken.take("memory after start", "emlab", number, lambda value=value: value, unit="MiB")  # type: ignore[misc]
        row = compare(taken.frame()).iloc[0]
        assert (row["emlab"], row["against"], row["ratio"], row["target"]) == (36.0, "60 MiB", 0.6, 1.0)
        assert math.isnan(row["raw"])
        assert row["met"]

    def test_a_round_that_only_one_arm_took_counts_as_failed_in_the_other(self) -> None:
        frame = samples([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
        assert compare(frame[~((frame["arm"] == "emlab") & (frame["round"] < 2))])["emlab"].tolist() == [math.inf]

    def test_measures_and_engines_keep_apart_and_in_order(self) -> None:
        frames = [samples([2.0], [1.0], measure, engine) for measure in ("wake", "pause") for engine in ("b", "a")]
        table = compare(pd.concat(frames, ignore_index=True))
        assert list(zip(table["measure"], table["engine"], strict=True)) == [
            ("wake", "b"),
            ("wake", "a"),
            ("pause", "b"),
            ("pause", "a"),
        ]


class TestSamples:
    def test_only_the_action_is_timed(self) -> None:
        clock = ManualClock()
        taken = Samples("docker", clock=clock)
        taken.time("wake", "raw", 4, lambda: clock.advance(2.0), before=lambda: clock.advance(50.0))
        row = taken.frame().iloc[0]
        assert (row["arm"], row["round"], row["value"], row["unit"], row["ok"]) == ("raw", 4, 2.0, "s", True)

    def test_what_fails_is_a_sample_and_says_why(self) -> None:
        taken = Samples("docker", clock=ManualClock())
        taken.time("wake", "raw", 0, lambda: give(math.inf))
        taken.time("wake", "raw", 1, lambda: None, before=lambda: give(math.inf))
        frame = taken.frame()
        assert frame["error"].tolist() == ["CloudGone: it went"] * 2
        assert not frame["ok"].any()
        assert frame["value"].isna().all()

    def test_an_interrupt_goes_through(self) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Samples("").time("wake", "raw", 0, interrupt)

    def test_reports_of_events_can_show_them(self) -> None:
        events = as_events(samples([0.5, math.inf], [0.25, 0.25]))
        table = summarize(events).reset_index()
        assert table["span"].tolist() == ["pause (emlab)", "pause (raw)"]
        assert table[["n", "failed", "p50_ms"]].to_numpy().tolist() == [[2, 1, 500.0], [2, 0, 250.0]]


def test_every_target_is_possible() -> None:
    assert all(target.ratio > 0 and (target.limit is None or target.limit > 0) for target in TARGETS.values())
