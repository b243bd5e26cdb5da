"""What a provider plans and asks: prices from errors, drop-outs, waves, deadlines, and that it keeps nothing."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import emlab as em
from emlab import ask as asking
from emlab import planning
from emlab.aggregate import Release
from emlab.aggregator import Aggregator
from emlab.ask import MAX_SEQ, Answer, Ask, Envelope, Failure, Outcome, Refusal
from emlab.clock import ManualClock, wait_until
from emlab.fanout import Deadline, fan_out
from emlab.key import SigningKey
from emlab.loss import Loss
from emlab.noise import noises
from emlab.planning import Accuracy, DropOuts, alpha_of, loss_for
from emlab.provider import MAX_AT_ONCE, Provider
from emlab.query import Part, Query, cells
from emlab.wire.aggregation import ASK_BYTES, room
from emlab.wire.table import MAX_BODY_BYTES

EVER = em.CountUsers(None, 0.0, 2e9)


class Twofold(Query, frozen=True, tag="test-twofold"):
    """A grouped query with two parts of different units and shares."""

    @property
    def parts(self) -> tuple[Part, ...]:
        modes = Part(name="trips", unit="trips", cap=5, total=20, labels=("WALK", "BUS", "CAR"), share=3)
        return (Part.number("distance", "m", 50_000, share=1), modes)


class Lab:
    """Clouds that answer as they are told, an aggregator of their own, and who was asked when."""

    at_once = 64

    def __init__(self, n: int, act: Callable[[int], str] = lambda number: "answer") -> None:
        self.keys = {f"{number:032x}": SigningKey() for number in range(n)}
        self.aggregator = Aggregator(exact=True, directory=self)
        self.provider = Provider(self, "planner", key=SigningKey(), token="emp_", aggregator=self.aggregator)
        self.asked: list[str] = []
        self.inside = self.most = 0
        self.kept: dict[str, bytes] = {}
        self._act = act
        self._lock = threading.Lock()

    def roster(self, token: str, provider: str) -> Sequence[str]:
        return list(self.keys)

    def public_keys(self, provider: str) -> dict[str, str]:
        return {cloud: key.public for cloud, key in self.keys.items()}

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        return self.kept.setdefault(name, make())

    def put(self, ask: Ask, signature: bytes, alias: str, *, token: str, timeout_s: float) -> Outcome:
        with self._lock:
            self.asked.append(alias)
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            what = self._act(int(alias, 16))
        finally:
            with self._lock:
                self.inside -= 1
        if what == "answer":
            envelope = asking.enclose(ask, [1], alias, self.keys[alias], seq=1, version=1, ts=time.time())
            return Answer(cloud=alias, envelope=envelope)
        return Refusal(cloud=alias, kind=what) if what == "PolicyRefused" else Failure(cloud=alias, kind=what)


def ask(lab: Lab, **how: Any) -> Release:
    return lab.provider.ask(EVER, epsilon=1.0, min_users=1, progress=False, **how)


def test_the_way_to_one_cloud_that_breaks_costs_no_other_its_answer() -> None:
    def act(number: int) -> str:
        if number == 2:
            raise em.errors.Unreachable("the controller cannot be reached")
        return "answer"

    release = ask(Lab(5, act))
    assert (release.asked, release.answered, release.failed, release.reasons) == (5, 4, 1, {"Unreachable": 1})


class Away:
    """An aggregator that cannot be reached so many times; tells how often it was asked for a release."""

    def __init__(self, aggregator: Aggregator, times: int) -> None:
        self._aggregator = aggregator
        self._times = times
        self.asked = 0

    def release(self, *args: Any, **named: Any) -> Release:
        self.asked += 1
        if self.asked <= self._times:
            raise em.errors.Unreachable("the aggregator cannot be reached")
        return self._aggregator.release(*args, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._aggregator, name)


@pytest.mark.parametrize(("times", "asked"), [(0, 1), (7, 8), (99, 8)])
def test_an_aggregator_that_is_away_for_a_moment_is_asked_again_for_what_was_spent(times: int, asked: int) -> None:
    """0.25 s, 0.5 s ... 16 s: the eighth time is 31.75 s after the first, and the ninth would be a minute after it."""
    lab, clock = Lab(3), ManualClock(time.time())
    away = Away(lab.aggregator, times)
    lab.provider = Provider(lab, "planner", key=SigningKey(), token="emp_", aggregator=away, clock=clock)
    if times < asked:
        assert ask(lab).answered == 3
    else:
        with pytest.raises(em.errors.Unreachable, match="cannot be reached; the clouds that answered have spent"):
            ask(lab)
    assert (away.asked, len(lab.asked)) == (asked, 3)


def test_a_token_that_is_wrong_is_wrong_for_every_cloud() -> None:
    def act(number: int) -> str:
        raise em.errors.NotPermitted("this is not a token of the provider")

    with pytest.raises(em.errors.NotPermitted, match="not a token"):
        ask(Lab(3, act))


@pytest.mark.parametrize("purpose", ["two\nlines", "\ud800", b"bytes", None])
def test_a_purpose_is_a_line_of_text(purpose: Any) -> None:
    with pytest.raises(em.BadQuery, match="line of text"):
        ask(Lab(3), purpose=purpose)


@pytest.mark.parametrize("min_users", [1.0, True, 1j, "1", None])
def test_a_group_is_counted_in_whole_people(min_users: Any) -> None:
    with pytest.raises(em.BadQuery, match="min_users is an int"):
        Lab(3).provider.ask(EVER, epsilon=1.0, min_users=min_users, progress=False)


def test_answers_that_would_not_fit_into_a_request_are_not_asked_for() -> None:
    lab = Lab(3)
    lab.aggregator.room = lambda query: 2  # type: ignore[method-assign]
    with pytest.raises(em.BadQuery, match="answers of 2 to a query with so many cells; nothing was spent"):
        ask(lab)
    assert lab.asked == []


@pytest.mark.parametrize("columns", [1, 2, 100, 4096])
def test_as_many_answers_fit_into_a_request_as_are_said_to(columns: int) -> None:
    """Of the longest that there are; and little room is left."""
    query = em.Heatmap(8.0, 47.0, 9.0, 48.0, 1, columns, 0.0, 2e9, 1)
    made = Lab(1).provider._ask(query, Loss(epsilon_micro=1_000_000), "local", 10, "")
    cloud, key = "f" * 32, SigningKey()
    envelope = asking.enclose(made, [-1] * columns, cloud, key, seq=MAX_SEQ, version=MAX_SEQ, ts=MAX_SEQ)
    size = len(msgspec.json.encode(Answer(cloud=cloud, envelope=envelope))) + 1
    needed = room(query) * size + ASK_BYTES
    assert needed <= MAX_BODY_BYTES
    assert needed > 0.8 * MAX_BODY_BYTES


class TestPrices:
    def test_a_law_goes_with_an_error_and_with_nothing_else(self) -> None:
        with pytest.raises(em.BadQuery, match="law is said of an error or an offset"):
            Lab(3).provider.plan(EVER, law="gaussian", epsilon=1.0)
        with pytest.raises(em.BadQuery, match="law is said of an error or an offset"):
            Lab(3).provider.plan(EVER, law="laplace", rho=0.5)

    def test_noise_of_a_law_that_is_none_is_not_planned(self) -> None:
        law: Any = "cauchy"
        with pytest.raises(em.BadQuery, match="laplace or gaussian, not 'cauchy'"):
            Lab(3).provider.plan(EVER, error=5, confidence=0.95, law=law)

    @pytest.mark.parametrize("law", ["laplace", "gaussian"])
    @pytest.mark.parametrize("draws", [1, 40])
    @pytest.mark.parametrize("error", [9, 100])
    def test_the_loss_for_an_error_is_the_least_whose_noise_stays_within_it(
        self, law: planning.Law, draws: int, error: int
    ) -> None:
        loss = loss_for(EVER, Accuracy(error=error, alpha=0.05, law=law), draws)
        less = Loss(epsilon_micro=loss.epsilon_micro - 1) if law == "laplace" else Loss(rho_nano=loss.rho_nano - 1)
        assert noises(EVER, loss)[0].half_width(0.05, draws) <= error
        assert noises(EVER, less)[0].half_width(0.05, draws) > error

    @given(st.integers(1, 10**6), st.integers(1, 10**4), st.floats(1e-6, 0.5))
    def test_every_cell_together_stays_within_its_error(self, metres: int, trips: int, alpha: float) -> None:
        wish = Accuracy(error={"distance": metres, "trips": trips}, alpha=alpha)
        try:
            loss = loss_for(Twofold(), wish, 1)
        except em.BadQuery:  # no epsilon up to 100 is enough
            loss = Loss(epsilon_micro=100_000_000)
            wide = zip(noises(Twofold(), loss), (metres, trips), strict=True)
            assert any(law.half_width(alpha / cells(Twofold())) > error for law, error in wide)
            return
        for law, error in zip(noises(Twofold(), loss), (metres, trips), strict=True):
            assert law.half_width(alpha / cells(Twofold())) <= error

    def test_of_several_parts_each_error_is_said_by_name(self) -> None:
        for error in (5.0, {"distance": 5.0}, {"distance": 5.0, "trips": 1.0, "walks": 1.0}):
            with pytest.raises(em.BadQuery, match="distance, trips"):
                loss_for(Twofold(), Accuracy(error=error, alpha=0.05), 1)

    @pytest.mark.parametrize("confidence", [0, 1, -0.5, 1.5, float("nan"), float("inf"), True, "0.95", None])
    def test_a_confidence_that_is_none_is_refused(self, confidence: Any) -> None:
        with pytest.raises(em.BadQuery, match="confidence"):
            alpha_of(confidence)

    def test_a_confidence_has_the_risk_that_its_digits_say(self) -> None:
        assert [alpha_of(one) for one in (0.95, 0.9, 0.99, 0.5)] == [0.05, 0.1, 0.01, 0.5]

    @pytest.mark.parametrize("error", [-1, float("nan"), float("inf"), True, "3", 1e300])
    def test_an_error_that_is_none_is_refused(self, error: Any) -> None:
        with pytest.raises(em.BadQuery, match="error"):
            Lab(1).provider.plan(EVER, error=error, confidence=0.95)


class TestPlan:
    def test_it_says_what_an_accuracy_costs_and_asks_nobody(self) -> None:
        lab = Lab(40)
        plan = lab.provider.plan(EVER, error=10, confidence=0.95)
        assert (plan.eligible, plan.expected, plan.wakes_at_most, plan.enough) == (40, 40, 40, True)
        assert plan.half_width == {"users": 10}
        assert plan.drop_outs.share is None
        assert "not known" in plan.rows()["drop-outs"]
        assert (lab.asked, lab.kept) == ([], {})
        assert ask(lab).epsilon == 1.0
        release = lab.provider.ask(EVER, epsilon=plan.epsilon, min_users=1, progress=False)
        assert release.epsilon == plan.epsilon

    def test_in_the_local_model_it_counts_the_noise_of_all_who_could_answer(self) -> None:
        one = Lab(40).provider
        central, local = (one.plan(EVER, error=20, confidence=0.95, model=model) for model in ("central", "local"))
        assert local.epsilon > 3 * central.epsilon  # about the root of 40
        assert local.half_width["users"] <= 20
        loss = Loss(epsilon_micro=round(local.epsilon * 1e6))
        assert local.half_width == {"users": noises(EVER, loss)[0].half_width(0.05, 40)}
        assert noises(EVER, Loss(epsilon_micro=int(local.epsilon * 1e6)))[0].half_width(0.05, 40) <= 20

    def test_it_says_whom_the_ask_would_trust_as_the_release_will(self) -> None:
        lab = Lab(3)
        assert "NOT PRIVATE" in lab.provider.plan(EVER, epsilon=1.0)._repr_html_()
        for model in ("central", "local"):
            plan = lab.provider.plan(EVER, epsilon=1.0, model=model)
            assert plan.trust == ask(lab, model=model, timeout_s=60.0).trust

    def test_gaussian_noise_is_paid_in_rho(self) -> None:
        plan = Lab(10).provider.plan(EVER, error=10, confidence=0.95, law="gaussian")
        assert (plan.epsilon, plan.rho > 0) == (0.0, True)
        assert Lab(10).provider.plan(EVER, rho=plan.rho).half_width == plan.half_width

    def test_an_offset_in_the_local_model_holds_for_all_together(self) -> None:
        lab = Lab(12)
        release = lab.provider.ask(
            EVER, offset=30, alpha=0.05, model="local", min_users=1, timeout_s=60.0, progress=False
        )
        low, high = release.interval(0.05)
        assert (high - low) / 2 <= 30

    def test_it_has_the_ask_for_owners_to_explain(self) -> None:
        two: Any = np.int64(2)
        plan = Lab(3).provider.plan(EVER, epsilon=0.5, min_users=two, purpose="buses")
        assert (plan.ask.loss, plan.ask.min_users, plan.ask.purpose) == (Loss(epsilon_micro=500_000), 2, "buses")
        said = em.Policy.open(purposes=["trains"]).explain(plan.ask)
        assert not said.permitted
        assert "buses" in str(said)

    def test_it_expects_as_many_to_drop_out_as_did_before(self) -> None:
        lab = Lab(10, lambda number: ["answer", "PolicyRefused", "Unreachable", "answer", "answer"][number % 5])
        ask(lab)
        plan = lab.provider.plan(EVER, epsilon=1.0, min_users=7)
        assert plan.drop_outs == DropOuts(asks=1, asked=10, missing=4)
        assert (plan.expected, plan.enough) == (6, False)
        assert "4 of the 10 clouds asked in 1 earlier asks" in str(plan)
        assert "too few for 7" in plan._repr_html_()

    @pytest.mark.parametrize(
        "how",
        [
            {"error": 3.0},
            {"confidence": 0.9},
            {"error": 3.0, "confidence": 0.9, "epsilon": 1.0},
            {"error": 3.0, "confidence": 0.9, "offset": 3.0, "alpha": 0.1},
            {"error": 3.0, "confidence": 0.9, "alpha": 0.1},
            {"epsilon": 1.0, "confidence": 0.9},
            {"epsilon": 0.0},
            {"epsilon": 5e-324},
            {"epsilon": 1e308},
            {"rho": float("inf")},
            {"epsilon": 1.0, "min_users": 0},
            {"epsilon": 1.0, "model": "nobody"},
        ],
    )
    def test_bad_arguments_are_refused(self, how: dict[str, Any]) -> None:
        with pytest.raises(em.BadQuery):
            Lab(1).provider.plan(EVER, **how)


class TestAsk:
    def test_clouds_are_asked_in_bounded_waves(self) -> None:
        together = threading.Barrier(5)

        def wait_for_others(number: int) -> str:
            together.wait(30)
            return "answer"

        lab = Lab(40, wait_for_others)
        assert ask(lab, at_once=5).value == 40
        assert lab.most == 5
        together = threading.Barrier(40)
        assert ask(lab).value == 40
        assert lab.most > 20

    def test_who_has_not_answered_by_the_deadline_is_not_waited_for(self) -> None:
        go = threading.Event()

        def act(number: int) -> str:
            if number in (1, 3):
                go.wait(30)
            return "answer"

        lab = Lab(6, act)
        began = time.monotonic()
        release = ask(lab, deadline_s=0.6)
        took = time.monotonic() - began
        assert (release.value, release.answered, release.failed) == (4, 4, 2)
        assert release.reasons == {"Deadline": 2}
        assert 0.6 <= took < 5
        assert lab.inside == 2
        go.set()
        assert wait_until(lambda: lab.inside == 0, 10)
        assert lab.provider.plan(EVER, epsilon=1.0).drop_outs == DropOuts(asks=1, asked=6, missing=2)

    def test_who_was_not_asked_by_the_deadline_never_is(self) -> None:
        go = threading.Event()
        lab = Lab(6, lambda number: "answer" if number == 0 or go.wait(30) else "")
        assert ask(lab, deadline_s=0.6, at_once=2).reasons == {"Deadline": 5}
        go.set()
        assert wait_until(lambda: lab.inside == 0, 10)
        assert len(lab.asked) == 3

    @pytest.mark.parametrize(
        "how",
        [
            {"deadline_s": 0.1},
            {"deadline_s": float("nan")},
            {"deadline_s": True},
            {"deadline_s": 1e9},
            {"at_once": 0},
            {"at_once": MAX_AT_ONCE + 1},
            {"at_once": True},
            {"at_once": 2.5},
            {"timeout_s": 0.1},
            {"purpose": "x" * 201},
        ],
    )
    def test_bad_arguments_are_refused_before_anybody_is_asked(self, how: dict[str, Any]) -> None:
        lab = Lab(3)
        with pytest.raises(em.BadQuery):
            ask(lab, **how)
        assert lab.asked == []

    def test_it_keeps_no_answer_and_no_contribution(self) -> None:
        lab = Lab(5)
        release = ask(lab)
        seen, ahead = set(), [lab.provider]
        del lab.provider._controller, lab.provider._aggregator  # the lab's own
        while ahead:
            one = ahead.pop()
            if id(one) not in seen and not isinstance(one, type | type(gc)) and not callable(one):
                seen.add(id(one))
                assert not isinstance(one, Envelope | Answer | Release)
                ahead += gc.get_referents(one)
        assert len(seen) > 3
        assert release.value == 5


class TestFanOut:
    def test_an_exception_of_the_work_goes_through_also_with_a_deadline(self) -> None:
        def work(number: int) -> int:
            if number == 2:
                raise TimeoutError("of the work, not of the deadline")
            return number

        for deadline in (None, Deadline[int, int](30.0, lambda number: -1)):
            with pytest.raises(TimeoutError, match="of the work"):
                fan_out(range(4), work, description="", progress=False, deadline=deadline)

    def test_in_time_nothing_is_missed(self) -> None:
        deadline = Deadline[int, int](30.0, lambda number: -1)
        assert fan_out(range(40), lambda n: n * n, description="", progress=False, deadline=deadline) == [
            n * n for n in range(40)
        ]
