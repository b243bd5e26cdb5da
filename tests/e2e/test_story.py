"""simulate -> store -> pause -> ask -> release: the same story on every engine, against a direct sum."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

import emlab as em
from emlab.aggregator import NOT_PRIVATE
from emlab.geo import path_length_m

EVER = (0.0, 2e9)


@pytest.fixture
def people() -> list[em.Person]:
    return list(em.Simulator(3, 1, seed=11))


@pytest.mark.needs("phone-days")
@pytest.mark.parametrize("day", ["shankari_2016-07-25", "iphone_2016-02-22"])
def test_a_real_day_is_stored_paused_and_asked(engine_name: str, home: Path, phone_days: Path, day: str) -> None:
    entries = json.loads(gzip.decompress((phone_days / f"{day}.json.gz").read_bytes()))
    with em.Lab(engine=engine_name, vault="plain", default_policy=em.Policy.open()) as lab:
        cloud = lab.controller.signup("alice")
        report = cloud.store(entries)
        assert (report.received, report.inserted, report.replaced) == (len(entries), len(entries), 0)
        again = cloud.store(entries)
        assert (again.inserted, again.replaced) == (0, len(entries))
        df = cloud.entries("background/location")
        wanted = sorted(e["data"]["ts"] for e in entries if e["metadata"]["key"] == "background/location")
        assert df["ts"].tolist() == wanted
        assert {"latitude", "longitude", "accuracy"} <= set(df.columns)
        assert isinstance(df.index, pd.DatetimeIndex)
        assert str(df.index.tz) == "UTC"
        assert df.index[0].timestamp() == pytest.approx(wanted[0], abs=1e-5)
        cloud.pause()
        assert cloud.state is em.CloudState.PAUSED
        planner = lab.controller.register_provider("planner")
        release = planner.ask(em.CountUsers(region=None, start_ts=0.0, end_ts=2e9), epsilon=1.0, min_users=1)
        assert (release.asked, release.answered, release.refused, release.failed) == (1, 1, 0, 0)
        assert release.epsilon == 1.0
        assert [cloud.state] == [em.CloudState.RUNNING]
        assert lab.recorder.frame()["ok"].all()


def test_with_the_exact_aggregator_a_release_is_the_direct_sum(
    engine_name: str, home: Path, people: list[em.Person]
) -> None:
    with em.Lab(engine_name, default_policy=em.Policy.open(), aggregator=em.Aggregator(exact=True)) as lab:
        for person in people:
            lab.controller.signup(person.name, key=person.key).store(person.entries())
        lab.controller.each("pause")
        planner = lab.controller.register_provider("planner")
        everybody = planner.ask(em.CountUsers(None, *EVER), epsilon=1.0, min_users=1)
        assert (everybody.value, everybody.trust) == (len(people), NOT_PRIVATE)
        start = people[0].trips[0].start
        box = em.Region.box(*_around(start.lon, start.lat))
        near = planner.ask(em.CountUsers(box, *EVER), epsilon=1.0, min_users=1)
        assert near.value == sum(_was_in(person, box) for person in people) >= 1
        cap_m = 20_000
        metres = planner.ask(em.SumDistance(*EVER, cap_m=cap_m), epsilon=1.0, min_users=1)
        assert metres.value == sum(min(round(_length_m(person)), cap_m) for person in people) > 0


def _around(lon: float, lat: float) -> tuple[float, float, float, float]:
    return lon - 0.004, lat - 0.003, lon + 0.004, lat + 0.003


def _filtered(person: em.Person) -> list[tuple[float, float]]:
    entries = json.loads(json.dumps(person.entries()))
    data = [e["data"] for e in entries if e["metadata"]["key"] == "background/filtered_location"]
    return [(d["longitude"], d["latitude"]) for d in data]


def _was_in(person: em.Person, box: em.Region) -> bool:
    ring = box.polygons[0][0]
    (west, south), (east, north) = ring[0], ring[2]
    return any(west <= lon <= east and south <= lat <= north for lon, lat in _filtered(person))


def _length_m(person: em.Person) -> float:
    return path_length_m(_filtered(person))


def test_a_policy_a_budget_and_a_group_are_kept_and_nothing_is_spent_by_a_refusal(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name) as lab:
        planner = lab.controller.register_provider("planner")
        clouds = [lab.controller.signup(name) for name in ("ann", "bob", "eve")]
        query = em.CountUsers(None, *EVER)
        with pytest.raises(em.TooFewUsers, match="nothing was spent"):
            planner.ask(query, epsilon=1.0)
        ann, bob, eve = clouds
        ann.policy = em.Policy.research([planner], [lab.aggregator], total_epsilon=1.5, min_users=1)
        bob.policy = em.Policy.research([planner], [lab.aggregator], total_epsilon=0.5, min_users=1)
        eve.policy = em.Policy.research([planner])  # and no aggregator
        release = planner.ask(query, epsilon=1.0, min_users=1)
        assert (release.answered, release.refused, release.failed) == (1, 2, 0)
        assert release.reasons == {"BudgetExhausted": 1, "PolicyRefused": 1}
        assert [cloud.ledger.spent_micro for cloud in clouds] == [1_000_000, 0, 0]
        assert ann.ledger.remaining_micro == 500_000
        assert [(row.provider, row.query, row.answered) for row in ann.ledger.rows] == [("planner", "CountUsers", True)]
        assert eve.permit(planner, aggregators=[lab.aggregator]).aggregators == (lab.aggregator.public,)


def test_accuracy_first_asks_promise_their_offset(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, default_policy=em.Policy.open()) as lab:
        lab.controller.signup("ann")
        planner = lab.controller.register_provider("planner")
        query = em.CountUsers(None, *EVER)
        plan = planner.plan(query, offset=10, alpha=0.05, min_users=1)
        assert plan.half_width["users"] <= 10
        release = planner.ask(query, offset=10, alpha=0.05, min_users=1)
        assert release.epsilon == plan.epsilon
        low, high = release.interval(0.05)
        assert high - low <= 20
