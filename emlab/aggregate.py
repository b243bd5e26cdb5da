"""Aggregation: from opened answers to a release. Pure, but for the noise, which is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from emlab.ask import Ask, Failure, Model, Refusal
from emlab.errors import BadEntry, ConfigError, TooFewUsers
from emlab.loss import Loss
from emlab.noise import AnyNoise, NoNoise, half_widths, is_exact, noises, spread
from emlab.privacy import MICRO
from emlab.queries.known import AnyQuery
from emlab.query import Estimate
from emlab.receipt import Receipt, digest_of

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05


LOCAL = "nobody: each cloud added its own noise"  # whom an ask of the local model trusts


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The noisy aggregate that leaves; the exact total is not in it.

    Attributes:
        query: what was asked. values: its cells, summed over the people who answered, with noise; may be negative.
        noise: of each part of the query. model: who added it, see Ask. loss: of privacy, for each person asked.
        trust: who saw the clear answers.
        asked, answered, refused, failed: numbers of clouds; participation is public, so these carry no noise.
        reasons: how many refusals and failures there were of each kind.
        ask_id, min_users: of the ask.
        receipt: who answered, signed by the aggregator and each cloud; None if the aggregator gives none.
    """

    query: AnyQuery
    values: tuple[int, ...]
    noise: tuple[AnyNoise, ...]
    model: Model
    loss: Loss
    trust: str
    asked: int
    answered: int
    refused: int
    failed: int
    reasons: dict[str, int]
    ask_id: str
    min_users: int
    receipt: Receipt | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all but the receipt, in hex; the receipt names it."""
        return digest_of(msgspec.json.encode(msgspec.structs.replace(self, receipt=None), order="deterministic"))

    def save(self, path: Path | str) -> Path:
        """The release is in a file, its receipt with it, for `Release.load` and `emlab verify`. Raises ConfigError."""
        path = Path(path)
        try:
            path.write_bytes(msgspec.json.encode(self) + b"\n")
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{path} cannot be written: {exc}") from exc
        return path

    @classmethod
    def load(cls, path: Path | str) -> Release:
        """The release in a file of `save`; whether it is to be trusted is what its receipt's `verify` says.

        Raises: ConfigError: it cannot be read. BadEntry: it is no release.
        """
        try:
            return cls.of(Path(path).read_bytes(), str(path))
        except (OSError, ValueError) as exc:
            raise ConfigError(f"{path} cannot be read: {exc}") from exc

    @classmethod
    def of(cls, raw: bytes, name: str) -> Release:
        """The release in these bytes of a file. Raises BadEntry, naming it."""
        try:
            return msgspec.json.decode(raw, type=cls)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
            raise BadEntry(f"{name} is no release: {exc}") from exc

    @property
    def value(self) -> float:
        """The number that was asked for. Raises ConfigError: there are several, see `frame`."""
        return self._summary(ALPHA).value

    @property
    def is_number(self) -> bool:
        """Whether one number was asked for, such as a sum or a mean, and not several."""
        return self.query.summary(self.estimates()) is not None

    @property
    def unit(self) -> str:
        """Of the value."""
        return self.query.unit

    @property
    def kind(self) -> str:
        """What was asked, in a word."""
        return type(self.query).__name__

    @property
    def epsilon(self) -> float:
        """Privacy loss of each person, as pure epsilon; 0 with Gaussian noise, which has none."""
        return self.loss.epsilon_micro / MICRO

    @property
    def noise_scale(self) -> float:
        """Scale or sigma of the first part's noise, in its unit; 0 without noise."""
        return spread(self.noise[0])

    @property
    def draws(self) -> int:
        """How many noises are in the sum of each cell."""
        return self.answered if self.model == "local" else 1

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Around the value: it misses the exact one with probability alpha at most.

        It is about the people who answered; those who refused or failed are not in it.
        Raises: BadQuery (alpha is not within [1e-12, 1)), ConfigError (there are several values, see `frame`).
        """
        found = self._summary(alpha)
        return found.low, found.high

    def _summary(self, alpha: float) -> Estimate:
        found = self.query.summary(self.estimates(alpha))
        if found is None:
            raise ConfigError(f"a release of {self.kind} has {len(self.values)} numbers: see release.frame()")
        return found

    def estimates(self, alpha: float = ALPHA) -> list[Estimate]:
        """The cells with their intervals, which all hold together with probability 1 - alpha at least.

        Raises: BadQuery: alpha is not within [1e-12, 1).
        """
        of_parts = half_widths(self.query, self.noise, alpha, self.draws)
        halves = [half for part, half in zip(self.query.parts, of_parts, strict=True) for _ in part.labels]
        return [Estimate(v, v - half, v + half) for v, half in zip(self.values, halves, strict=True)]

    def frame(self, alpha: float = ALPHA) -> pd.DataFrame:
        """One row per cell: part, label, unit, value, low, high; the intervals all hold with probability 1 - alpha.

        Without noise there is one column more, `trust`, which says so.
        """
        import pandas as pd

        cells = [(part.name, label, part.unit) for part in self.query.parts for label in part.labels]
        rows = [(*cell, one.value, one.low, one.high) for cell, one in zip(cells, self.estimates(alpha), strict=True)]
        frame = pd.DataFrame(rows, columns=["part", "label", "unit", "value", "low", "high"])
        return frame.assign(trust=self.trust) if is_exact(self.noise) else frame

    def _said(self) -> str:
        """The value and its interval in words."""
        found = self.query.summary(self.estimates())
        if found is None:
            return f"{len(self.values)} numbers"
        return f"{found.value:g} {self.unit} (95 % within {found.low:g}..{found.high:g})"

    @property
    def cost(self) -> str:
        """The privacy loss of each person who was asked, in words."""
        return f"epsilon {self.epsilon:g}" if self.loss.epsilon_micro else f"rho {self.loss.rho_nano / 1e9:g}"

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self._said()}; {self.cost}; "
            f"asked {self.asked}, answered {self.answered}, refused {self.refused}, failed {self.failed}; "
            f"trust: {self.trust}"
        )

    def _repr_html_(self) -> str:
        scales = ", ".join(
            f"{spread(noise):.3g} {part.unit}" for part, noise in zip(self.query.parts, self.noise, strict=True)
        )
        rows = {
            self.kind: self._said(),
            "privacy loss, noise scale": f"{self.cost}, {scales}",
            "clouds": f"asked {self.asked}, answered {self.answered}, refused {self.refused}, failed {self.failed}",
            "reasons": ", ".join(f"{kind} {n}" for kind, n in sorted(self.reasons.items())) or "none",
            "trust": self.trust,
            "receipt": "none" if self.receipt is None else f"signed by {self.receipt.answered} clouds",
        }
        cells = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in rows.items())
        table = "" if len(self.values) == 1 else self.frame().to_html(index=False, border=0, max_rows=20)
        return f"<table>{cells}</table>{table}"


_ADVICE = {
    "PolicyRefused": "an owner permits a provider with cloud.permit(provider)",
    "Deadline": "clouds that were asked before the deadline may have spent it, and their late answers are dropped",
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
    ask: Ask,
    answers: Sequence[Sequence[int]],
    others: Sequence[Refusal | Failure],
    *,
    trust: str,
    exact: bool = False,
) -> Release:
    """The release of these opened answers.

    Args:
        answers: of each cloud that answered its cells, clamped; in the local model with its own noise.
        others: the clouds that did not. exact: add no noise (simulations only).
    Raises TooFewUsers: fewer answered than the ask demands; nothing is released.
    """
    if len(answers) < ask.min_users:
        raise TooFewUsers(_too_few(ask, len(answers), others))
    laws = noises(ask.query, ask.loss)
    sums = [sum(column) for column in zip(*answers, strict=True)]
    if ask.model == "central":
        laws = tuple(NoNoise() for _ in laws) if exact else laws
        sums = [total + draw for total, draw in zip(sums, drawn(ask, laws), strict=True)]
    refused = sum(isinstance(other, Refusal) for other in others)
    return Release(
        query=ask.query,
        values=tuple(sums),
        noise=laws,
        model=ask.model,
        loss=ask.loss,
        trust=trust,
        asked=len(answers) + len(others),
        answered=len(answers),
        refused=refused,
        failed=len(others) - refused,
        reasons=dict(Counter(other.kind for other in others)),
        ask_id=ask.id,
        min_users=ask.min_users,
    )


def drawn(ask: Ask, laws: Sequence[AnyNoise]) -> list[int]:
    """Fresh noise for each cell of an answer."""
    return [one for part, law in zip(ask.query.parts, laws, strict=True) for one in law.draws(len(part.labels))]
