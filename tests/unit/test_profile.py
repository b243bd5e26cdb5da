"""An ancestor's user profile becomes a policy that permits nothing that the profile did not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import BadQuery
from emlab.key import SealingKey, SigningKey
from emlab.policy import Policy
from emlab.profile import QUERIES
from emlab.queries.known import KNOWN

AGG1, AGG2, BOX = SigningKey(), SigningKey(), SealingKey()
PROFILE: dict[str, object] = {
    "aggs": ["agg1", "agg2"],
    "algs": {"ae": "hash1", "rc": "hash2", "sum": "hash3"},
    "agg_alg_map": {"agg1": ["ae", "rc"]},
    "default_algs": ["ae"],
    "privacy_budget": 3.0,
}
KEYS = {"agg1": AGG1, "agg2": AGG2}


def carried(changes: Mapping[str, object], keys: Mapping[str, SigningKey] = KEYS) -> tuple[Policy, str]:
    """The policy and what is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        policy = Policy.from_profile({**PROFILE, **changes}, providers=keys, aggregators=[BOX])
    return policy, " ".join(str(one.message) for one in caught)


def test_a_profile_becomes_a_policy_and_says_what_is_lost() -> None:
    policy, lost = carried({})
    assert policy.providers == (AGG1.public, AGG2.public)
    assert policy.aggregators == (BOX.public,)
    assert policy.total_epsilon == 3.0
    assert policy.queries == ("count_users",)
    assert "hashes" in lost
    assert "rc for 'agg1' alone" in lost


def test_one_provider_keeps_all_that_it_might_ask() -> None:
    policy, lost = carried({}, {"agg1": AGG1})
    assert policy.queries == ("count_users", "in_range")
    assert "nobody's key was given for 'agg2'" in lost


def test_all_queries_that_a_profile_can_become_exist() -> None:
    assert set(QUERIES.values()) <= {one.__struct_config__.tag for one in KNOWN}


@pytest.mark.parametrize(("budget", "micro", "word"), [(None, 100_000_000, "without bound"), (250, 100_000_000, "250")])
def test_a_budget_that_a_policy_cannot_have_becomes_the_largest_one(
    budget: float | None, micro: int, word: str
) -> None:
    policy, lost = carried({"privacy_budget": budget})
    assert policy.total_epsilon_micro == micro
    assert word in lost


def test_a_budget_is_rounded_down() -> None:
    assert carried({"privacy_budget": 1.9999999})[0].total_epsilon_micro == 1_999_999
    assert carried({"privacy_budget": 0})[0].total_epsilon_micro == 0


def test_a_profile_without_hashes_of_one_provider_loses_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empty = {"aggs": [], "algs": {}, "agg_alg_map": {}, "default_algs": [], "privacy_budget": 1}
        policy = Policy.from_profile(empty, providers={})
    assert (policy.providers, policy.queries) == ((), ())


WRONG: list[dict[str, object]] = [
    {"privacy_budget": -1},
    {"privacy_budget": float("nan")},
    {"privacy_budget": float("inf")},
    {"privacy_budget": True},
    {"privacy_budget": "3"},
    {"aggs": "agg1"},
    {"aggs": [1]},
    {"aggs": [""]},
    {"aggs": [f"a{n}" for n in range(1001)]},
    {"algs": ["ae"]},
    {"algs": None},
    {"agg_alg_map": []},
    {"agg_alg_map": {"agg1": "ae"}},
    {"default_algs": None},
    {"default_algs": ["x" * 201]},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: str(wrong)[:40])
def test_what_is_no_profile_is_refused(wrong: dict[str, object]) -> None:
    (field,) = wrong
    with pytest.raises(BadQuery, match=field):
        carried(wrong)


def test_a_field_that_is_missing_is_named() -> None:
    for field in PROFILE:
        with pytest.raises(BadQuery, match=f"lacks {field}"):
            Policy.from_profile({name: one for name, one in PROFILE.items() if name != field}, providers=KEYS)
    with pytest.raises(BadQuery, match="JSON object"):
        Policy.from_profile([], providers=KEYS)  # type: ignore[arg-type]


ALGS = st.lists(st.sampled_from(["ae", "rc", "sum", "other"]), unique=True)
NAMES = st.lists(st.sampled_from(["agg1", "agg2", "agg3"]), unique=True)


@given(
    aggs=NAMES,
    algs=st.dictionaries(st.sampled_from(["ae", "rc", "sum", "other"]), st.just("hash")),
    mapped=st.dictionaries(st.sampled_from(["agg1", "agg2", "agg3"]), ALGS),
    default=ALGS,
)
def test_nobody_may_ask_what_the_profile_did_not_permit(
    aggs: list[str], algs: dict[str, str], mapped: dict[str, list[str]], default: list[str]
) -> None:
    policy, _ = carried({"aggs": aggs, "algs": algs, "agg_alg_map": mapped, "default_algs": default})
    names = {key.public: name for name, key in KEYS.items()}
    for provider in policy.providers:
        name = names[provider]
        assert name in aggs
        for query in policy.queries:  # as the ancestor decided it
            assert any(alg in algs and alg in mapped.get(name, default) for alg, tag in QUERIES.items() if tag == query)
