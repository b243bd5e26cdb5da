"""Aggregation: from opened answers to a release. Pure, but for the noise, which is handed in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape

import msgspec

from emlab import privacy
from emlab.ask import Ask, Failure, Refusal
from emlab.errors import TooFewUsers

Noise = Callable[[float], int]


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """The noisy aggregate that leaves; the exact total is not in it.

    Attributes:
        value: sum over the people who answered, plus noise, in `unit`; may be negative.
        epsilon: privacy loss of each person asked. noise_scale: of the discrete Laplace noise, in `unit`.
        trust: who saw the clear answers.
        asked, answered, refused, failed: numbers of clouds; participation is public, so these carry no noise.
        reasons: how many refusals and failures there were of each kind.
        query, ask_id, min_users: what was asked.
    """

    value: int
    unit: str
    epsilon: float
    noise_scale: float
    trust: str
    asked: int
    answered: int
    refused: int
    failed: int
    reasons: dict[str, int]
    query: str
    ask_id: str
    min_users: int

    def interval(self, alpha: float = 0.05) -> tuple[int, int]:
        """The narrowest interval around the value that misses the exact sum with probability alpha at most.

        It is the sum over the people who answered; those who refused or failed are not in it.
        Raises BadQuery: alpha is not within [1e-12, 1).
        """
        if self.noise_scale == 0:
            return self.value, self.value
        half = privacy.half_width(alpha, self.noise_scale)
        return self.value - half, self.value + half

    def __str__(self) -> str:
        low, high = self.interval(0.05)
        return (
            f"{self.query}: {self.value} {self.unit} (95 % within {low}..{high}; epsilon {self.epsilon:g}; "
            f"asked {self.asked}, answered {self.answered}, refused {self.refused}, failed {self.failed}; "
            f"trust: {self.trust})"
        )

    def _repr_html_(self) -> str:
        low, high = self.interval(0.05)
        rows = {
            self.query: f"<b>{self.value}</b> {self.unit}",
            "95 % interval": f"{low} … {high} {self.unit}",
            "epsilon, noise scale": f"{self.epsilon:g}, {self.noise_scale:.3g} {self.unit}",
            "clouds": f"asked {self.asked}, answered {self.answered}, refused {self.refused}, failed {self.failed}",
            "reasons": ", ".join(f"{kind} {n}" for kind, n in sorted(self.reasons.items())) or "none",
            "trust": self.trust,
        }
        cells = "".join(
            f"<tr><th>{escape(k)}</th><td>{v if v[:3] == '<b>' else escape(v)}</td></tr>" for k, v in rows.items()
        )
        return f"<table>{cells}</table>"


_ADVICE = {
    "PolicyRefused": "an owner permits a provider with cloud.permit(provider)",
    "Locked": "an owner opens a closed vault with cloud.unlock(key)",
}


def _too_few(ask: Ask, answered: int, others: Sequence[Refusal | Failure]) -> str:
    """What is said of a group that is too small: how many, why the others did not answer, and what to do."""
    reasons = Counter(other.kind for other in others)
    listed = ", ".join(f"{kind} {count}" for kind, count in reasons.most_common())
    advice = [_ADVICE[kind] for kind in reasons if kind in _ADVICE]
    asked = answered + len(others)
    return "; ".join(
        [f"{answered} of {asked} clouds answered, the ask demands {ask.min_users} ({listed or 'all did'})", *advice]
    )


def release(
    ask: Ask, values: Sequence[int], others: Sequence[Refusal | Failure], *, noise: Noise | None, trust: str
) -> Release:
    """The release of these opened answers.

    Args:
        values: one clamped integer for each cloud that answered. others: the clouds that did not.
        noise: draws discrete Laplace noise of a scale; None adds none (simulations only).
    Raises TooFewUsers: fewer answered than the ask demands; nothing is released.
    """
    if len(values) < ask.min_users:
        raise TooFewUsers(_too_few(ask, len(values), others))
    scale = 0.0 if noise is None else privacy.noise_scale(ask.query.sensitivity, ask.epsilon_micro)
    refused = sum(isinstance(other, Refusal) for other in others)
    return Release(
        value=sum(values) + (0 if noise is None else noise(scale)),
        unit=ask.query.unit,
        epsilon=ask.epsilon_micro / privacy.MICRO,
        noise_scale=scale,
        trust=trust,
        asked=len(values) + len(others),
        answered=len(values),
        refused=refused,
        failed=len(others) - refused,
        reasons=dict(Counter(other.kind for other in others)),
        query=type(ask.query).__name__,
        ask_id=ask.id,
        min_users=ask.min_users,
    )
