"""What an ask costs and gives, before anybody is asked: the loss that an accuracy needs, and a plan. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from html import escape
from typing import Literal, get_args

import msgspec

from emlab import noise, privacy
from emlab.ask import Ask, Model
from emlab.errors import BadQuery
from emlab.loss import Loss
from emlab.query import Query

ALPHA = 0.05
Law = Literal["laplace", "gaussian"]
Error = float | Mapping[str, float]


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """How good an answer shall be: all of its cells' noise stays within `error` with probability 1 - `alpha` at least.

    Attributes:
        error: in the query's unit; of a query with several parts, by the part's name.
        alpha: 1e-12 to below 1. law: of the noise.
    """

    error: Error
    alpha: float
    law: Law = "laplace"


def alpha_of(confidence: float) -> float:
    """The probability of a miss that goes with it, to the digits that were given. Raises BadQuery."""
    if isinstance(confidence, bool) or not isinstance(confidence, (int, float)) or not 0 < confidence < 1:
        raise BadQuery(f"confidence is above 0 and below 1, such as 0.95, not {confidence!r}")
    return float(1 - Decimal(repr(float(confidence))))  # 1 - 0.95 as floats is above 0.05


def loss_for(query: Query, wish: Accuracy, draws: int) -> Loss:
    """The least loss that is accurate enough.

    Args:
        draws: noises in the sum of a cell: 1 in the central model, the number of clouds in the local one.
    Raises BadQuery: an argument is out of its bounds, or no epsilon up to 100 (rho up to 5000) is enough.
    """
    if wish.law not in get_args(Law):
        raise BadQuery(f"the law of noise is laplace or gaussian, not {wish.law!r}")
    errors = _errors(query, wish.error)
    privacy.check_alpha(wish.alpha)

    def enough(amount: int) -> bool:
        laws = noise.noises(query, _loss(wish.law, amount))
        halves = noise.half_widths(query, laws, wish.alpha, draws)
        return all(half <= error for half, error in zip(halves, errors, strict=True))

    low = sum(part.share for part in query.parts)  # less cannot be split over them
    high = privacy.EPSILON_MICRO_MAX if wish.law == "laplace" else privacy.RHO_NANO_MAX
    if not enough(high):
        most = "epsilon up to 100" if wish.law == "laplace" else "rho up to 5000"
        raise BadQuery(
            f"no {most} keeps the error within {wish.error!r} with probability {1 - wish.alpha:g}; "
            "allow a larger error or less confidence"
        )
    while low < high:  # the noise only shrinks as the loss grows
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return _loss(wish.law, low)


def _loss(law: Law, amount: int) -> Loss:
    return Loss(epsilon_micro=amount) if law == "laplace" else Loss(rho_nano=amount)


def _errors(query: Query, error: Error) -> list[float]:
    """The largest error of each part. Raises BadQuery."""
    names = [part.name for part in query.parts]
    if not isinstance(error, Mapping):
        if len(names) != 1:
            raise BadQuery(
                f"{type(query).__name__} has several parts: say an error for each of {', '.join(names)}, or an epsilon"
            )
        error = {names[0]: error}
    if set(error) != set(names):
        raise BadQuery(f"an error is said for each of {', '.join(names)}, not for {', '.join(map(str, error))}")
    for name, one in error.items():
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one <= privacy.OFFSET_MAX:
            raise BadQuery(f"the error of {name} is 0 to {privacy.OFFSET_MAX:g}, not {one!r}")
    return [math.floor(error[name]) for name in names]


class DropOuts(msgspec.Struct, frozen=True, kw_only=True):
    """How many clouds did not answer this provider's asks so far, since it was made.

    Attributes:
        asks: how many. asked: clouds in all of them. missing: those that refused, failed or were late.
    """

    asks: int = 0
    asked: int = 0
    missing: int = 0

    def after(self, asked: int, missing: int) -> DropOuts:
        """With one more ask."""
        return DropOuts(asks=self.asks + 1, asked=self.asked + asked, missing=self.missing + missing)

    @property
    def share(self) -> float | None:
        """Of those asked; None if nobody was."""
        return self.missing / self.asked if self.asked else None

    def __str__(self) -> str:
        if self.share is None:
            return "not known: this provider has asked nobody yet, so all are expected to answer"
        return f"{self.missing} of the {self.asked} clouds asked in {self.asks} earlier asks of this provider"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an ask would cost and give; nothing was spent, nobody was woken.

    Attributes:
        epsilon, rho: privacy loss of each person, one of them 0.
        noise: scale or sigma of each draw, for each part of the query.
        alpha: the risk of what follows. half_width: of each part: with probability `alpha` at most, the noise of any
            cell exceeds that of its part, if as many clouds answer as expected.
        eligible: clouds whose owners permit the provider; they may still refuse this ask, and do not say why.
        drop_outs: on which the expectation rests. expected: how many will answer.
        wakes_at_most: clouds that the ask would wake; a provider is not told which of them sleep.
        slot_s: how long each of them takes to answer at most, once it is awake.
        min_users: what the ask demands; with fewer nothing is released, and what those spent is lost.
        trust: who would see clear answers, as the release will say; "NOT PRIVATE" of an aggregator without noise.
        ask: what would be sent, not signed yet; an owner's `policy.explain(plan.ask)` says what would become of it.
    """

    query: str
    unit: str
    model: Model
    epsilon: float
    rho: float
    noise: dict[str, float]
    alpha: float
    half_width: dict[str, int]
    eligible: int
    drop_outs: DropOuts
    expected: int
    wakes_at_most: int
    slot_s: float
    min_users: int
    trust: str
    ask: Ask

    @property
    def enough(self) -> bool:
        """Whether as many are expected to answer as the ask demands."""
        return self.expected >= self.min_users

    def rows(self) -> dict[str, str]:
        """The plan in words."""
        cost = f"epsilon {self.epsilon:g}" if self.epsilon else f"rho {self.rho:g}"
        widths = ", ".join(f"{name} ±{half}" for name, half in self.half_width.items())
        short = "" if self.enough else f"; too few for {self.min_users}, so nothing would be released"
        return {
            "query, model": f"{self.query} ({self.unit}), {self.model}",
            "privacy loss of each person": cost,
            "trust": self.trust,
            f"noise within, {1 - self.alpha:.6g} of the time": f"{widths}, if {self.expected} answer",
            "eligible": f"{self.eligible} clouds, whose owners permit this provider",
            "expected to answer": f"{self.expected}{short}",
            "drop-outs": str(self.drop_outs),
            "cost in wakes": f"{self.wakes_at_most} at most; each cloud answers within {self.slot_s:g} s when asked",
        }

    def __str__(self) -> str:
        return "\n".join(f"{name}: {said}" for name, said in self.rows().items())

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(said)}</td></tr>" for name, said in self.rows().items())
        return f"<table>{rows}</table>"


def plan(ask: Ask, *, alpha: float, eligible: int, drop_outs: DropOuts, trust: str) -> Plan:
    """The plan of this ask. Raises BadQuery."""
    query, loss = ask.query, ask.loss
    expected = math.floor(eligible * (1 - (drop_outs.share or 0.0)))
    names, laws = [part.name for part in query.parts], noise.noises(query, loss)
    halves = noise.half_widths(query, laws, alpha, max(expected, 1) if ask.model == "local" else 1)
    return Plan(
        query=type(query).__name__,
        unit=query.unit,
        model=ask.model,
        epsilon=loss.epsilon_micro / privacy.MICRO,
        rho=loss.rho_nano / 1e9,
        noise=dict(zip(names, map(noise.spread, laws), strict=True)),
        alpha=alpha,
        half_width=dict(zip(names, halves, strict=True)),
        eligible=eligible,
        drop_outs=drop_outs,
        expected=expected,
        wakes_at_most=eligible,
        slot_s=ask.slot_s,
        min_users=ask.min_users,
        trust=trust,
        ask=ask,
    )
