"""Policies: what each preset and field permits, what is refused when it is said, and what outlives the wire."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

import emlab as em
from emlab import policy as policies
from emlab.ask import Ask
from emlab.errors import BadQuery, BudgetExhausted, ConfigError, PolicyRefused
from emlab.key import SealingKey, SigningKey
from emlab.ledger import MemoryLedger, Note
from emlab.policy import Hours, Policy
from emlab.queries.count_users import CountUsers
from emlab.queries.heatmap import Heatmap
from emlab.queries.sum_distance import SumDistance
from emlab.queries.trip_histogram import Over, TripHistogram
from emlab.query import Region
from emlab.wishes import Changes, around
from tests.unit.asks import NOW, World

PRESETS: dict[str, Callable[[], Policy]] = {
    "open": Policy.open,
    "research": Policy.research,
    "careful": Policy.careful,
    "closed": Policy.closed,
}
KM = Region.box(0.0, 0.0, 0.008993, 0.008993)  # 1000 m wide, at the equator
DAY_S = 86_400.0
replace = msgspec.structs.replace


def reserve(ledger: MemoryLedger, policy: Policy, ask: Ask, now: float = NOW) -> None:
    note = Note(provider="planner", query="count_users", purpose="test", ts=now)
    ledger.reserve(ask.id, "0" * 64, ask.loss, policy.terms(ask.provider, now), note)


def test_the_open_policy_allows_anyone() -> None:
    Policy.open().check(World().ask())


def test_the_research_policy_allows_nobody_until_the_owner_permits() -> None:
    world = World()
    ask = world.ask(min_users=10)
    with pytest.raises(PolicyRefused, match="provider planner"):
        Policy.research().check(ask)
    with pytest.raises(PolicyRefused, match="aggregator"):
        Policy.research(providers=[world.provider]).check(ask)
    Policy.research().permitting(providers=[world.provider], aggregators=[world.aggregator]).check(ask)


def test_the_closed_policy_allows_nobody_even_whom_it_permits() -> None:
    world = World()
    policy = Policy.closed().permitting(providers=[world.provider], aggregators=[world.aggregator])
    policy.check(world.ask(min_users=10))
    ledger = MemoryLedger()
    with pytest.raises(BudgetExhausted):
        reserve(ledger, policy, world.ask(min_users=10, epsilon_micro=1))


def test_pinned_keys_let_nobody_else_in() -> None:
    world = World()
    policy = Policy.research([SigningKey()], [SealingKey()])
    with pytest.raises(PolicyRefused):
        policy.check(world.ask(min_users=10))


def test_permitting_adds_to_those_before_and_leaves_anyone_alone() -> None:
    one, two = SigningKey(), SigningKey()
    policy = Policy.research([one]).permitting(providers=[two, one])
    assert policy.providers == (one.public, two.public)
    assert Policy.open().permitting(providers=[one]).providers == "anyone"


def test_forbidding_takes_away_and_nobody_can_be_left_out_of_anyone() -> None:
    one, two, box = SigningKey(), SigningKey(), SealingKey()
    policy = Policy.research([one, two], [box])
    assert policy.forbidding(providers=[one]).providers == (two.public,)
    assert policy.forbidding(providers=[two.public, one], aggregators=[box]).providers == ()
    assert policy.forbidding(aggregators=[box]).aggregators == ()
    assert Policy.open().forbidding() == Policy.open()
    with pytest.raises(BadQuery, match="say who is"):
        Policy.open().forbidding(providers=[one])


# -- each field at its boundary --------------------------------------------------------------------------------

BOUNDARIES: dict[str, tuple[Changes, Callable[[World], Ask], Callable[[World], Ask], str]] = {
    "min_users": ({"min_users": 5}, lambda w: w.ask(min_users=5), lambda w: w.ask(min_users=4), "groups of 5"),
    "purposes": (
        {"purposes": ["transport planning", "test"]},
        lambda w: w.ask(),
        lambda w: replace(w.ask(), purpose="Test"),
        "purpose 'Test'",
    ),
    "queries": (
        {"queries": [CountUsers]},
        lambda w: w.ask(),
        lambda w: w.ask(SumDistance(0.0, 1.0, 5)),
        "query sum_distance",
    ),
    "models": ({"models": ["central"]}, lambda w: w.ask(), lambda w: w.ask(model="local"), "local model"),
    "min_side_m": (
        {"min_side_m": 999.0},
        lambda w: w.ask(CountUsers(KM, 0.0, 1.0)),
        lambda w: w.ask(CountUsers(Region.box(0.0, 0.0, 0.00897, 0.00897), 0.0, 1.0)),
        "997.* m wide",
    ),
    "min_span_s": (
        {"min_span_s": DAY_S},
        lambda w: w.ask(CountUsers(None, 5.0, 5.0 + DAY_S)),
        lambda w: w.ask(CountUsers(None, 5.0, 4.5 + DAY_S)),
        "86399.5 s",
    ),
}


@pytest.mark.parametrize("field", BOUNDARIES)
def test_each_field_admits_and_refuses_at_its_boundary(field: str) -> None:
    changes, good, bad, reason = BOUNDARIES[field]
    world = World()
    policy = Policy.open(**changes)
    policy.check(good(world))
    assert policy.explain(good(world)).permitted
    with pytest.raises(PolicyRefused, match=reason):
        policy.check(bad(world))
    (why,) = policy.explain(bad(world)).reasons
    assert re.search(reason, why)
    Policy.open().check(bad(world))


def test_a_place_that_is_narrow_only_in_part_is_too_narrow() -> None:
    world, policy = World(), Policy.open(min_side_m=500.0)
    both = Region((*KM.polygons, *Region.box(1.0, 0.0, 1.0001, 1.0).polygons))
    policy.check(world.ask(CountUsers(KM, 0.0, 1.0)))
    with pytest.raises(PolicyRefused, match="m wide"):
        policy.check(world.ask(CountUsers(both, 0.0, 1.0)))


def test_cells_of_a_grid_are_places_too() -> None:
    world, policy = World(), Policy.open(min_side_m=500.0)

    def grid(rows: int) -> Ask:
        return world.ask(Heatmap(0.0, 0.0, 0.1, 0.1, rows, rows, 0.0, 1.0, 1))  # 11.1 km wide

    policy.check(grid(22))
    with pytest.raises(PolicyRefused, match="m wide"):
        policy.check(grid(23))


def test_hours_of_the_day_are_times_too() -> None:
    world, policy = World(), Policy.open(min_span_s=86_400.0)

    def over(kind: Over, days: int) -> Ask:
        return world.ask(TripHistogram(kind, 0.0, days * 86_400.0, 1))

    policy.check(over("mode", 1))
    policy.check(over("hour", 24))
    with pytest.raises(PolicyRefused, match="it asks about 82800 s"):
        policy.check(over("hour", 23))


def test_a_question_about_everywhere_is_not_too_narrow() -> None:
    Policy.open(min_side_m=1e6).check(World().ask(CountUsers(None, 0.0, 1.0)))


def test_the_local_model_needs_no_aggregator() -> None:
    world = World()
    policy = Policy.research([world.provider])
    policy.check(world.ask(model="local", min_users=10))
    with pytest.raises(PolicyRefused, match="aggregator"):
        policy.check(world.ask(min_users=10))


def test_a_policy_says_which_vaults_it_accepts() -> None:
    assert Policy.open().accepts_vault("plain")
    assert not Policy.careful().accepts_vault("plain")
    assert Policy.careful().accepts_vault("gocryptfs")


def test_hours_may_go_over_midnight() -> None:
    assert [hour for hour in range(24) if Hours(22, 3).covers(hour)] == [0, 1, 2, 22, 23]
    assert [hour for hour in range(24) if Hours(9, 11).covers(hour)] == [9, 10]
    assert all(Hours(0, 24).covers(hour) for hour in range(24))


def test_a_circle_has_all_that_is_within_its_radius() -> None:
    from shapely import Point
    from shapely.geometry import shape

    from emlab.geo import haversine_m

    for lat, radius_m in itertools.product((0.0, 52.0, -80.0), (1.0, 300.0, 50_000.0)):
        circle = shape(around(13.0, lat, radius_m).geojson())
        for lon, north in itertools.product((-1, -0.7, 0, 0.7, 1), repeat=2):
            deg = radius_m / 111_000
            point = (13.0 + lon * deg / math.cos(math.radians(lat)), lat + north * deg)
            if haversine_m(13.0, lat, *point) <= radius_m:
                assert circle.covers(Point(point))


# -- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), 101.0, 5e-324])
def test_a_budget_out_of_bounds_is_refused(epsilon: float) -> None:
    for wrong in ({"total_epsilon": epsilon}, {"quota_epsilon": epsilon}, {"quotas": {"a" * 64: epsilon}}):
        with pytest.raises(BadQuery):
            Policy.research(**wrong)


WRONG: list[dict[str, object]] = [
    {"min_users": 0},
    {"min_users": 1_000_001},
    {"min_users": True},
    {"renew_s": 3599.0},
    {"renew_s": float("nan")},
    {"accounting": "guess"},
    {"delta": 0.1},
    {"purposes": "planning"},
    {"purposes": [""]},
    {"purposes": ["x" * 201]},
    {"purposes": [f"p{n}" for n in range(33)]},
    {"queries": ["no_such_query"]},
    {"queries": [int]},
    {"queries": "count_users"},
    {"models": []},
    {"models": ["remote"]},
    {"min_side_m": 0.0},
    {"min_side_m": float("nan")},
    {"min_side_m": float("inf")},
    {"min_span_s": -1.0},
    {"excluded_places": [(13.0, 52.0)]},
    {"excluded_places": [(13.0, 52.0, float("nan"))]},
    {"excluded_places": [(13.0, 86.0, 10.0)]},
    {"excluded_places": [(13.0, 52.0, 0.5)]},
    {"excluded_places": [(13.0, 52.0, 10.0)] * 17},
    {"excluded_places": [Region.box(0.0, 0.0, 21.0, 1.0)]},
    {"excluded_places": [Region.box(0.0, 80.0, 1.0, 86.0)]},
    {"excluded_places": [{"type": "Point", "coordinates": [0, 0]}]},
    {"excluded_places": [(1.0, 1.0, 10.0)] * 3 + [Region((((*((n / 1e4, 0.0) for n in range(999)), (0.0, 0.0)),),))]},
    {"excluded_hours": [(5, 5)]},
    {"excluded_hours": [(-1, 5)]},
    {"excluded_hours": [(0, 25)]},
    {"excluded_hours": [(1.5, 3)]},
    {"excluded_hours": [(0, 1)] * 25},
    {"excluded_hours": ["night"]},
    {"zone": "Mars/Olympus"},
    {"zone": "../../etc/passwd"},
    {"zone": ""},
    {"retention_days": 0},
    {"retention_days": 1.5},
    {"vaults": ["a vault"]},
    {"vaults": "plain"},
    {"pause_after_s": 0.5},
    {"pause_after_s": 60.0, "lock_after_s": 30.0},
    {"name": "x" * 65},
    {"version": 5},
    {"providers": ["a" * 63]},
    {"providers": [f"{n:064x}" for n in range(1001)]},
    {"providers": "nobody"},
    {"quotas": {f"{n:064x}": 1.0 for n in range(1001)}},
    {"quotas": {"planner": 1.0}},
    {"quotas": [1.0]},
    {"total_epsilom": 1.0},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:40])
def test_what_is_out_of_bounds_is_refused_when_it_is_said(wrong: dict[str, object]) -> None:
    with pytest.raises(BadQuery):
        Policy.open(**wrong)  # type: ignore[arg-type]


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(BadQuery):
        Policy.research(providers=["not a key"])
    with pytest.raises(BadQuery):
        Policy.research(providers="a" * 64)


# -- the wire and other versions -------------------------------------------------------------------------------

FULL = Policy.careful(
    [SigningKey()],
    [SealingKey()],
    quotas={"a" * 64: 0.5},
    renew_s=DAY_S,
    accounting="zcdp",
    purposes=["planning"],
    queries=[CountUsers, "sum_distance"],
    models=["local"],
    excluded_places=[KM, (13.4, 52.5, 200.0)],
    excluded_hours=[(22, 6)],
    zone="Europe/Berlin",
)


@pytest.mark.parametrize("policy", [FULL, *(make() for make in PRESETS.values())], ids=lambda policy: str(policy.name))
def test_a_policy_survives_the_wire(policy: Policy) -> None:
    raw = msgspec.json.encode(policy)
    assert policies.read(raw) == msgspec.json.decode(raw, type=Policy) == policy
    assert len(raw) < policies.MAX_KEYS * 200


def test_a_policy_of_a_newer_emlab_is_refused_by_name() -> None:
    newer = msgspec.json.encode(msgspec.to_builtins(FULL) | {"schema": 2, "new_field": 1, "version": 7})
    with pytest.raises(ConfigError, match="schema 2 of a newer emlab, this one reads 1"):
        policies.read(newer)
    assert policies.version_of(newer) == 7
    with pytest.raises(msgspec.ValidationError, match="schema"):
        msgspec.json.decode(msgspec.json.encode({**msgspec.to_builtins(Policy.open()), "schema": 2}), type=Policy)
    with pytest.raises(ConfigError, match="new_field"):
        policies.read(msgspec.json.encode(msgspec.to_builtins(FULL) | {"new_field": 1}))
    with pytest.raises(ConfigError, match="not one of this emlab"):
        policies.read(b"\x00")
    assert policies.version_of(b"\x00") == 0


def test_a_policy_of_an_older_emlab_means_what_it_meant() -> None:
    older = b'{"providers":"anyone","aggregators":"anyone","total_epsilon_micro":100000000,"min_users":1,"name":"open"}'
    assert policies.read(older) == Policy.open()


def test_a_place_may_come_from_numpy_and_a_query_counts_once() -> None:
    place: Any = (np.float64(13.4), np.float32(52.5), np.int64(300))
    policy = Policy.open(excluded_places=[place], queries=[CountUsers, "count_users"])
    assert policy == Policy.open(excluded_places=[(13.4, 52.5, 300)], queries=[CountUsers])


def test_neither_a_repr_nor_an_error_shows_a_place() -> None:
    policy = Policy.open(excluded_places=[(13.1234, 52.5678, 200.0)])
    assert "13.1" not in repr(policy) + str(policy) + policy.explain() + policy._repr_html_()
    with pytest.raises(BadQuery) as caught:
        policy.but(excluded_places=[(13.1234, 52.5678, 1e9)])
    assert "13.1" not in str(caught.value)


def test_the_controller_reads_no_more_than_who_may_ask_and_how_long_a_cloud_idles() -> None:
    published = msgspec.json.decode(msgspec.json.encode(FULL.published))
    assert published == {"providers": list(FULL.providers), "pause_after_s": 300.0, "lock_after_s": 86400.0}


def test_policies_are_taken_from_the_package() -> None:
    assert em.Policy is Policy
