"""What is made of repeated asks: shares and their intervals, tables, exact answers, phases. Rows are made up here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

import emlab as em
from emlab.errors import BadQuery, ConfigError
from emlab.key import SealingKey, SigningKey
from emlab.measure import accuracy, budget_decay, models, opt_out, phase_times
from emlab.measure.asking import MORE, Question, spent
from emlab.measure.crowd import positions, town, was_there
from emlab.measure.samples import DTYPES, as_events
from emlab.measure.shares import clopper_pearson
from emlab.record import Event

ROW: dict[str, object] = {
    "measure": "ae",
    "arm": "alpha 0.05",
    "engine": "memory",
    "round": 0,
    "value": 10.0,
    "unit": "users",
    "start_ts": 0.0,
    "ok": True,
    "error": "",
    "duration_s": 0.5,
    "model": "central",
    "lab": 1,
    "offset": 5.0,
    "alpha": 0.05,
    "epsilon": 0.5,
    "scale": 1.67,
    "low": 5.0,
    "high": 15.0,
    "exact": 10.0,
    "expected": 10.0,
    "people": 20,
    "asked": 20,
    "answered": 20,
    "refused": 0,
    "failed": 0,
    "reasons": "",
    "range_low": math.nan,
    "range_high": math.nan,
    "truth": "",
    "says": "",
    "verdict": "",
}
NOTHING: dict[str, object] = {
    "value": math.nan,
    "low": math.nan,
    "high": math.nan,
    "scale": math.nan,
    "ok": False,
    "error": "TooFewUsers: 0 of 20 clouds answered",
    "answered": 0,
    "refused": 20,
    "reasons": "BudgetExhausted 20",
}


def asks(values: Sequence[float], **others: object) -> pd.DataFrame:
    """One ask for each of these releases; NaN is one that released nothing."""
    rows = [
        ROW | {"round": number, "value": value, "low": value - 5, "high": value + 5} | others
        | (NOTHING if math.isnan(value) else {})
        for number, value in enumerate(values)
    ]  # fmt: skip
    dtypes = DTYPES | MORE
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


class TestShares:
    @given(st.integers(1, 300), st.data(), st.sampled_from([0.5, 0.95, 0.999]))
    def test_the_interval_is_that_of_the_beta_distribution(
        self, n: int, data: st.DataObject, confidence: float
    ) -> None:
        hits = data.draw(st.integers(0, n))
        low, high = clopper_pearson(hits, n, confidence)
        miss = (1 - confidence) / 2
        assert low == pytest.approx(beta.ppf(miss, hits, n - hits + 1) if hits else 0.0, abs=1e-9)
        assert high == pytest.approx(beta.ppf(1 - miss, hits + 1, n - hits) if hits < n else 1.0, abs=1e-9)

    @pytest.mark.parametrize(("hits", "n", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (1, 5, 1.0)])
    def test_what_is_no_share_is_refused(self, hits: int, n: int, confidence: float) -> None:
        with pytest.raises(ConfigError, match="have no interval"):
            clopper_pearson(hits, n, confidence)


class TestExactAnswers:
    people = em.Simulator(7, 1, 3)

    @pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
    def test_a_town_holds_its_share_of_the_people_and_nobody_on_its_edge(self, share: float) -> None:
        box = town(self.people, share)
        there = [was_there(person, box) for person in self.people]
        out = sum(bool(positions(person)) for person in self.people)
        assert sum(there) == min(out, round(share * 7))
        wider = (box[0] - 1e-6, box[1] - 1e-6, box[2] + 1e-6, box[3] + 1e-6)
        assert [was_there(person, wider) for person in self.people] == there

    def test_no_share_has_no_town(self) -> None:
        with pytest.raises(ConfigError, match="cannot be found"):
            town(self.people, 0.0)

    def test_both_ends_of_a_time_count(self) -> None:
        person = self.people.person(0)
        times = [ts for ts, _, _ in positions(person)]
        assert was_there(person, None, times[0], times[0])
        assert not was_there(person, None, times[-1] + 0.001, 2e9)

    def test_the_first_trips_of_a_person_are_all_there_and_no_other(self) -> None:
        for index in range(3):
            person, entries = phase_times.first_trips(3, 1, index, 6)
            ends = [entry["data"]["ts"] for entry in entries if entry["metadata"]["key"] == "background/location"]
            assert person.trips[5].start_ts < max(ends) < person.trips[6].start_ts
            assert min(ends) <= person.trips[0].end_ts

    def test_more_trips_than_a_year_has_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="does not make 5000 trips"):
            phase_times.first_trips(1, 1, 0, 5000)


class TestQuestion:
    query = em.CountUsers(None, start_ts=0.0, end_ts=2e9)

    def test_it_costs_what_the_ask_will(self) -> None:
        assert Question("ae", self.query, 1, epsilon=0.25).cost_micro == 250_000
        by_offset = Question("ae", self.query, 1, offset=25.0, alpha=0.05)
        assert 0.11e6 < by_offset.cost_micro < 0.12e6

    def test_without_terms_it_has_no_cost(self) -> None:
        with pytest.raises(BadQuery, match="epsilon"):
            _ = Question("ae", self.query, 1).cost_micro


class TestAccuracy:
    def test_errors_beyond_the_offset_are_counted_and_those_at_it_are_not(self) -> None:
        (found,) = accuracy.table(asks([10, 15, 16, 5, 4, 10, 10, 10])).to_dict("records")
        assert (found["n"], found["beyond"], found["share"]) == (8, 2, 0.25)
        assert (found["low"], found["high"]) == clopper_pearson(2, 8)
        assert (found["partial"], found["nothing"], found["mean"]) == (0, 0, 0.0)
        assert bool(found["kept"]) is True
        p = math.exp(-1 / 1.67)
        assert found["law"] == pytest.approx(2 * p**6 / (1 + p))

    def test_a_promise_is_broken_only_if_the_whole_interval_is_above_it(self) -> None:
        (found,) = accuracy.table(asks([10.0] * 5 + [30.0] * 5)).to_dict("records")
        assert found["low"] > 0.05
        assert bool(found["kept"]) is False

    def test_releases_of_some_people_and_asks_without_one_are_told_apart(self) -> None:
        frame = asks([10.0, 40.0, math.nan])
        frame.loc[1, "answered"] = 19
        (found,) = accuracy.table(frame).to_dict("records")
        assert (found["n"], found["partial"], found["nothing"], found["beyond"]) == (1, 1, 1, 0)

    def test_without_any_release_nothing_is_known(self) -> None:
        (found,) = accuracy.table(asks([math.nan] * 3)).to_dict("records")
        assert (found["n"], found["nothing"], found["low"], found["high"]) == (0, 3, 0.0, 1.0)
        assert math.isnan(found["share"])

    def test_a_range_check_is_about_the_exact_number_and_costs_as_much(self) -> None:
        count, check = accuracy.questions(em.Simulator(5, 1, 1), 2.0, 0.05)
        assert isinstance(check.query, em.InRange)
        assert (check.query.low, check.query.high) == (1, 5)
        assert count.exact == check.exact == 3
        assert count.cost_micro == check.cost_micro


class TestOptOut:
    people = em.Simulator(8, 1, 2)

    def test_half_of_the_people_are_missing_and_those_who_were_there_first_if_it_says_so(self) -> None:
        box = town(self.people, 0.5)
        there = {person.index for person in self.people if was_there(person, box)}
        found = {arm: opt_out.absent(self.people, box, arm) for arm in opt_out.ARMS}
        assert [len(missing) for missing in found.values()] == [0, 4, 4, 4]
        assert found[opt_out.NO_PROVIDER] == found[opt_out.NO_AGGREGATOR]
        assert found[opt_out.THERE_FIRST] == there

    def test_the_bias_is_against_everybody_and_scaling_supposes_that_the_missing_are_alike(self) -> None:
        half = asks([5, 6, 4], arm=opt_out.NO_PROVIDER, expected=5.0, asked=10, answered=10)
        (found,) = opt_out.table(half).to_dict("records")
        assert (found["mean"], found["bias"], found["scaled_bias"]) == (5.0, -5.0, 0.0)
        assert (found["asked"], found["answered"], found["refused"]) == (10, 10, 0)
        assert found["standard_error"] == pytest.approx(1 / math.sqrt(3))

    def test_a_range_check_is_wrong_if_it_says_another_thing_than_everybody(self) -> None:
        frame = asks([10, 10, 10], truth="yes", range_low=5.0, range_high=15.0)
        frame["says"] = ["yes", "no", "no"]
        assert opt_out.table(frame)["wrong"].tolist() == [2]
        assert opt_out.table(asks([10, 10]))["wrong"].tolist() == [0]


class TestBudgetDecay:
    def test_a_budget_covers_as_many_asks_as_its_cost_goes_into_it(self) -> None:
        provider, aggregator = SigningKey(), SealingKey()
        policy = em.Policy.research([provider], [aggregator], total_epsilon=3.0)
        assert budget_decay.affords(policy, provider.public, 1_000_000) == 3
        assert budget_decay.affords(policy, provider.public, 1_000_001) == 2
        assert budget_decay.affords(policy, provider.public, 3_000_001) == 0

    def test_rows_are_runs_of_asks_in_which_the_same_took_part(self) -> None:
        frame = asks([20, 21, 9, math.nan], expected=20.0)
        frame["answered"], frame["refused"], frame["expected"] = [20, 20, 10, 0], [0, 0, 10, 20], [20, 20, 10, 1]
        found = budget_decay.table(frame)
        assert found[["from_ask", "to_ask", "asks", "nothing"]].to_numpy().tolist() == [
            [0, 1, 2, 0],
            [2, 2, 1, 0],
            [3, 3, 1, 1],
        ]
        assert found["as_expected"].tolist() == [2, 1, 0]
        assert found["within"].tolist() == [2, 1, 0]
        assert found["epsilon"].tolist() == [1.0, 1.5, 2.0]


class TestModels:
    def test_the_local_error_is_compared_with_the_central_one(self) -> None:
        frames = [asks([9, 11, 10, 10], model="central"), asks([6, 14, 10, 10, 18], model="local")]
        central, local = models.table(pd.concat(frames)).to_dict("records")
        assert (central["model"], central["ratio"]) == ("central", 1.0)
        assert central["rms"] == pytest.approx(math.sqrt(0.5))
        assert local["ratio"] == pytest.approx(math.sqrt(96 / 5) / math.sqrt(0.5))
        assert (local["outside"], local["n"], local["half_width"]) == (1, 5, 5.0)
        assert (local["low"], local["high"]) == clopper_pearson(1, 5)

    def test_a_release_in_which_a_cloud_is_missing_is_not_compared(self) -> None:
        frame = asks([10, 30], model="local", failed=1)
        frame["answered"] = [20, 19]
        (found,) = models.table(frame).to_dict("records")
        assert (found["n"], found["partial"], found["outside"], found["failed"]) == (1, 1, 0, 1.0)


def test_what_was_spent_is_said_of_each_lab_and_failed_asks_are_in_it() -> None:
    frame = pd.concat([asks([1, math.nan], lab=1), asks([1], lab=2)])
    assert spent(frame).to_numpy().tolist() == [["alpha 0.05", 1, 2, 1, 1.0], ["alpha 0.05", 2, 1, 0, 0.5]]


def test_asks_keep_the_time_that_they_took_when_they_become_events() -> None:
    events = as_events(asks([1, 2]))
    assert events["duration_s"].tolist() == [0.5, 0.5]
    assert set(events["span"]) == {"ae (alpha 0.05)"}


class TestPhases:
    def test_an_ask_is_cut_at_the_first_cloud_and_at_the_last_answer(self) -> None:
        events = [
            Event("wake", "a", "memory", 10.3, 0.2),
            Event("answer", "a", "memory", 10.25, 0.75),
            Event("answer", "b", "memory", 10.5, 1.0),
            Event("pause", "c", "memory", 9.0, 5.0),
        ]
        found = [
            (phase, event.user, round(event.duration_s, 9))
            for phase, event in phase_times.phases(events, 10.0, 12.0, error="", engine="memory")
        ]
        assert found == [
            ("roster", "", 0.25),
            ("wake", "a", 0.2),
            ("answer in the cloud", "a", 0.55),
            ("answer in the cloud", "b", 1.0),
            ("release", "", 0.5),
            ("the whole ask", "", 2.0),
        ]

    def test_a_refusal_and_an_ask_without_a_release_are_failures(self) -> None:
        events = [Event("answer", "a", "memory", 10.0, 0.5, ok=False, error="PolicyRefused: no")]
        found = {
            phase: (event.ok, event.error)
            for phase, event in phase_times.phases(events, 10.0, 12.0, error="TooFewUsers: 0", engine="memory")
        }
        assert found == {
            "roster": (True, ""),
            "answer in the cloud": (False, "PolicyRefused: no"),
            "release": (False, "TooFewUsers: 0"),
            "the whole ask": (False, "TooFewUsers: 0"),
        }
        nobody = dict(phase_times.phases([], 10.0, 12.0, error="TooFewUsers: 0", engine="memory"))
        assert [phase for phase, event in nobody.items() if not event.ok] == ["roster", "release", "the whole ask"]

    def test_a_failed_attempt_counts_as_one_that_never_ended(self) -> None:
        frame = times("wake", [0.1, 0.2, math.nan])
        (found,) = phase_times.table(frame).to_dict("records")
        assert (found["n"], found["failed"], found["p50_ms"], found["p95_ms"]) == (3, 1, 200.0, 200.0)
        assert found["max_ms"] == math.inf
        assert phase_times.table(pd.concat([times("release", [1.0]), times("store", [1.0])]))["phase"].tolist() == [
            "store",
            "release",
        ]


def times(phase: str, values: Sequence[float], *, users: int = 2, trips: int = 10) -> pd.DataFrame:
    """Samples of one phase; NaN is an attempt that failed."""
    rows = [
        (phase, "emlab", "memory", number, value, "s", 0.0, not math.isnan(value), "" if value >= 0 else "Locked: no")
        for number, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=list(DTYPES)).astype(DTYPES).assign(users=users, trips=trips)
