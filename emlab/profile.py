"""The user profile of the ancestor of this laboratory, read for a policy. Pure.

There, a profile named those who may ask (`aggs`), the algorithms and the hashes of their programs (`algs`), which of
them each may run (`agg_alg_map`, and `default_algs` for the others), and a `privacy_budget`: a sum of epsilons, or null
for no bound. Source: e-mission-upc-aggregator, `/cloud/profile` and the checks of `/run/aggregate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from emlab.errors import BadQuery
from emlab.privacy import EPSILON_MAX, EPSILON_MICRO_MAX, MICRO

FIELDS = frozenset({"aggs", "algs", "agg_alg_map", "default_algs", "privacy_budget"})
QUERIES = {"sum": "count_users", "ae": "count_users", "rc": "in_range"}  # all three asked who was there at all
MAX_NAMES = 1000
MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Carried:
    """What of a profile becomes a policy.

    Attributes:
        names: those in `aggs` for whom a key was given. queries: tags that each of them might ask.
        total_epsilon_micro: the budget. lost: what has no place in a policy, in words.
    """

    names: tuple[str, ...]
    queries: tuple[str, ...]
    total_epsilon_micro: int
    lost: tuple[str, ...]


def read(profile: Mapping[str, object], keys: Mapping[str, object]) -> Carried:
    """What of it becomes a policy, which permits nothing that the profile did not. Raises BadQuery."""
    if not isinstance(profile, Mapping) or not isinstance(keys, Mapping):
        raise BadQuery("a profile is a JSON object, and providers are a mapping from the names in `aggs`")
    if missing := FIELDS - profile.keys():
        raise BadQuery(f"the profile lacks {', '.join(sorted(missing))}")
    lost = [f"{_short(name)} is no field of a profile" for name in sorted(map(str, profile.keys() - FIELDS))]
    aggs, algs = _names("aggs", profile["aggs"]), _hashes(profile["algs"])
    names = tuple(name for name in aggs if name in keys)
    lost += [f"nobody's key was given for {_short(name)}, who may not ask" for name in aggs if name not in keys]
    if algs:
        lost.append("the hashes of the algorithms: queries are part of each cloud's own program")
    allowed = _allowed(profile, names, algs)
    queries, more = _queries(allowed)
    budget, bounded = _budget(profile["privacy_budget"])
    return Carried(names, queries, budget, (*lost, *more, *bounded))


def _allowed(profile: Mapping[str, object], names: tuple[str, ...], algs: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """The algorithms that each of these might run, as the ancestor decided it."""
    mapped, default = profile["agg_alg_map"], frozenset(_names("default_algs", profile["default_algs"]))
    if not isinstance(mapped, Mapping):
        raise BadQuery("`agg_alg_map` is no object")
    lists = {str(name): frozenset(_names(f"agg_alg_map.{_short(name)}", mine)) for name, mine in mapped.items()}
    return {name: lists.get(name, default) & frozenset(algs) for name in names}


def _queries(allowed: Mapping[str, frozenset[str]]) -> tuple[tuple[str, ...], list[str]]:
    """The tags that all might ask, because a policy has one list for everybody; and what is lost by that."""
    if not allowed:
        return (), []
    common = frozenset.intersection(*allowed.values())
    lost = [f"{_short(name)} is no query here" for name in sorted(common - QUERIES.keys())]
    for name, mine in allowed.items():
        if only := sorted((mine - common) & QUERIES.keys()):
            lost.append(f"{', '.join(only)} for {_short(name)} alone: a policy permits queries to all providers alike")
    return tuple(dict.fromkeys(QUERIES[name] for name in sorted(common & QUERIES.keys()))), lost


def _budget(budget: object) -> tuple[int, list[str]]:
    """Micro-epsilon, rounded down; and what is lost by the bound on it."""
    if budget is None:
        return EPSILON_MICRO_MAX, [f"a budget without bound: it is epsilon {EPSILON_MAX:g}"]
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 <= budget < math.inf:
        raise BadQuery("`privacy_budget` is null or a number that is finite and not negative")
    if budget > EPSILON_MAX:
        return EPSILON_MICRO_MAX, [f"a budget of {budget:g}: it is epsilon {EPSILON_MAX:g}"]
    return math.floor(budget * MICRO), []


def _names(field: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > MAX_NAMES:
        raise BadQuery(f"`{field}` is no list of at most {MAX_NAMES} names")
    if not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME for name in value):
        raise BadQuery(f"`{field}` has what is no name of 1 to {MAX_NAME} characters")
    return tuple(dict.fromkeys(value))


def _hashes(value: object) -> tuple[str, ...]:
    if not isinstance(value, Mapping):
        raise BadQuery("`algs` is no object of names and hashes")
    return _names("algs", list(value))


def _short(name: object) -> str:
    return repr(str(name)[:40])
