"""A policy in words, for its owner: what it permits, and whether it permits an ask and why not. Pure.

Nothing of it reaches a provider, who learns only that it was refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import msgspec

from emlab.ask import Ask
from emlab.loss import Accounting, Left, Terms
from emlab.privacy import MICRO

if TYPE_CHECKING:
    from emlab.policy import Policy

NANO = 10**9
SHOWN_KEYS = 5


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an ask is permitted, each reason why not, and what it would cost. For the owner alone.

    Attributes:
        cost: in millionths of epsilon or, with accounting "zcdp", in billionths of rho; None if the ask has no cost in
            that currency. limit, quota: what is left now for all providers together, and of this one's quota (None: it
            has none), in the same currency.
    """

    permitted: bool
    reasons: tuple[str, ...]
    accounting: Accounting
    cost: int | None
    limit: int
    quota: int | None

    @property
    def leaves(self) -> int | None:
        """What would be left for all providers together after it; None if it is not permitted."""
        return self.limit - self.cost if self.permitted and self.cost is not None else None

    def lines(self) -> list[tuple[str, str]]:
        """What it says, by field."""
        said = [("Permitted", "yes" if self.permitted else "no")]
        said += [("Because", reason) for reason in self.reasons]
        said += [("Cost", "none in this accounting" if self.cost is None else amount(self.accounting, self.cost))]
        said += [("Left now", amount(self.accounting, self.limit))]
        if self.quota is not None:
            said += [("Left now of the provider's quota", amount(self.accounting, self.quota))]
        if self.leaves is not None:
            said += [("Left afterwards", amount(self.accounting, self.leaves))]
        return said

    def __str__(self) -> str:
        return "\n".join(f"{field}: {text}." for field, text in self.lines())

    def _repr_html_(self) -> str:
        return table("The ask is permitted" if self.permitted else "The ask is refused", self.lines())


def of(policy: Policy, ask: Ask, left: Left | None) -> Explanation:
    """What the policy says to the ask, with so much left; with None, as if nothing had been spent."""
    terms = policy.terms(ask.provider, 0.0)
    left = Left(limit=terms.limit, quota=terms.quota) if left is None else left
    cost = terms.cost(ask.loss)
    why = (*reasons(policy, ask), *_dear(terms, cost, left))
    return Explanation(
        permitted=not why, reasons=why, accounting=terms.accounting, cost=cost, limit=left.limit, quota=left.quota
    )


def _dear(terms: Terms, cost: int | None, left: Left) -> Iterable[str]:
    """Why the budget does not cover it."""
    if cost is None:
        yield "the budget is accounted for in epsilon, which Gaussian noise does not have"
        return
    if cost > left.limit:
        yield f"it costs {amount(terms.accounting, cost)}, and {amount(terms.accounting, left.limit)} is left"
    elif left.quota is not None and cost > left.quota:
        yield (
            f"it costs {amount(terms.accounting, cost)}, and {amount(terms.accounting, left.quota)} is left of the "
            "provider's quota"
        )


def reasons(policy: Policy, ask: Ask) -> tuple[str, ...]:
    """Why the policy does not permit the ask, each reason, the budget aside."""
    return (*_who(policy, ask), *_what(policy, ask), *_how_fine(policy, ask))


def _who(policy: Policy, ask: Ask) -> Iterable[str]:
    if policy.providers != "anyone" and ask.provider not in policy.providers:
        yield f"the owner has not permitted the provider {ask.provider_name}"
    central = ask.model == "central"
    if central and policy.aggregators != "anyone" and ask.aggregator not in policy.aggregators:
        yield "the owner has not permitted this aggregator"
    if ask.min_users < policy.min_users:
        yield f"the owner answers only in groups of {policy.min_users} or more, the ask says {ask.min_users}"


def _what(policy: Policy, ask: Ask) -> Iterable[str]:
    if policy.purposes != "any" and ask.purpose not in policy.purposes:
        yield f"its purpose {ask.purpose!r} is none of the owner's"
    tag = str(ask.query.__struct_config__.tag)
    if policy.queries != "any" and tag not in policy.queries:
        yield f"the owner does not permit the query {tag}"
    if ask.model not in policy.models:
        yield f"the owner does not permit the {ask.model} model"


def _how_fine(policy: Policy, ask: Ask) -> Iterable[str]:
    side_m, span_s = ask.query.side_m, ask.query.span_s
    if policy.min_side_m is not None and side_m is not None and not side_m >= policy.min_side_m:
        yield f"a place it asks about is {side_m:.4g} m wide, less than the owner's {policy.min_side_m:g} m"
    if policy.min_span_s is not None and not (span_s is not None and span_s >= policy.min_span_s):
        seconds = "an unknown time" if span_s is None else f"{span_s:.6g} s"
        yield f"it asks about {seconds}, and the owner permits no less than {policy.min_span_s:g} s"


def lines(policy: Policy) -> list[tuple[str, str]]:
    """What the policy permits, by field."""
    return [
        ("Who may ask", _named(policy.providers)),
        ("Through which aggregators", _named(policy.aggregators)),
        ("Where noise is added", " or ".join(_MODELS[model] for model in policy.models)),
        ("For which purposes", _listed(policy.purposes)),
        ("Which queries", _listed(policy.queries)),
        ("In groups of", f"{policy.min_users} or more people"),
        ("Budget", _budget(policy)),
        ("Quotas", _quotas(policy)),
        ("Places", _at_least("as wide as", policy.min_side_m, "m") + _hidden(policy)),
        ("Times", _at_least("as long as", policy.min_span_s, "s") + _hidden_hours(policy)),
        ("Data", "kept" if policy.retention_days is None else f"deleted after {policy.retention_days} days"),
        ("Vaults", _listed(policy.vaults)),
        ("Without use", _idle(policy)),
    ]


_MODELS = {"central": "at an aggregator, which sees what this cloud adds", "local": "in this cloud"}


def _named(pinned: Sequence[str]) -> str:
    if pinned == "anyone":
        return "anyone"
    some = ", ".join(f"{key[:12]}…" for key in pinned[:SHOWN_KEYS])
    return (some or "nobody") + (f" and {len(pinned) - SHOWN_KEYS} more" if len(pinned) > SHOWN_KEYS else "")


def _listed(words: Sequence[str]) -> str:
    return "any" if words == "any" else ", ".join(words) or "none"


def _budget(policy: Policy) -> str:
    renewed = "for ever" if policy.renew_s is None else f"anew every {policy.renew_s / 86400:.4g} days"
    law = "" if policy.accounting == "pure" else f", as (epsilon, {policy.delta:g})-differential privacy by zCDP"
    return f"epsilon {policy.total_epsilon:g} in all{law}, {renewed}"


def _quotas(policy: Policy) -> str:
    each = policy.quota_epsilon_micro
    said = ["each provider may spend all of it" if each is None else f"epsilon {each / MICRO:g} for each provider"]
    said += [f"{most / MICRO:g} for {key[:12]}…" for key, most in list(policy.quotas.items())[:SHOWN_KEYS]]
    said += [f"{len(policy.quotas) - SHOWN_KEYS} more"] if len(policy.quotas) > SHOWN_KEYS else []
    return ", ".join(said)


def _at_least(how: str, least: float | None, unit: str) -> str:
    return "any" if least is None else f"{how} {least:g} {unit} or more"


def _hidden(policy: Policy) -> str:
    number = len(policy.excluded_places)
    return f"; {number} {'place is' if number == 1 else 'places are'} hidden from every query" if number else ""


def _hidden_hours(policy: Policy) -> str:
    if not policy.excluded_hours:
        return ""
    hours = ", ".join(f"{one.start:02}:00 to {one.end:02}:00" for one in policy.excluded_hours)
    return f"; {hours} ({policy.zone}) hidden from every query"


def _idle(policy: Policy) -> str:
    said = []
    if policy.pause_after_s is not None:
        said.append(f"paused after {policy.pause_after_s:g} s")
    if policy.lock_after_s is not None:
        said.append(f"locked after {policy.lock_after_s:g} s")
    return ", ".join(said) or "as the lab does"


def amount(accounting: Accounting, units: int) -> str:
    """So much of a budget, for people to read."""
    return f"epsilon {units / MICRO:g}" if accounting == "pure" else f"rho {units / NANO:g}"


def table(title: str, said: Iterable[tuple[str, str]]) -> str:
    """Fields and texts as a small table for a notebook."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(field)}</th><td style='text-align:left'>{escape(text)}</td></tr>"
        for field, text in said
    )
    return f"<table><caption>{escape(title)}</caption>{rows}</table>"
