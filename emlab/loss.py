"""Privacy loss in whole numbers: what an ask costs, what was spent, and how much an owner permits. Pure.

There are two currencies. Pure losses (epsilon) add up; zero-concentrated ones (rho) add up too, and cover Laplace noise
as well, more tightly the more there are of them. Gaussian noise has no epsilon of the first kind. Both sums are always
kept, so that an owner may change from one way of accounting to the other.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

import msgspec

from emlab import privacy
from emlab.errors import BadQuery

Accounting = Literal["pure", "zcdp"]
MOST = 2**62  # where sums stop growing: fewer than 64 bits, and more than any owner permits
Amount = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
_KEY = re.compile("[0-9a-f]{64}")


class Loss(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an ask may reveal of each person, in one of two currencies; the other one is 0.

    Attributes:
        epsilon_micro: pure differential privacy, in millionths: Laplace noise.
        rho_nano: zero-concentrated differential privacy, in billionths: Gaussian noise.
    """

    epsilon_micro: int = 0
    rho_nano: int = 0

    def check(self) -> None:
        """Returns if it is of one currency, and within bounds. Raises BadQuery."""
        if (self.epsilon_micro > 0) == (self.rho_nano > 0):
            raise BadQuery("a loss is either an epsilon or a rho")
        if not (0 <= self.epsilon_micro <= privacy.EPSILON_MICRO_MAX and 0 <= self.rho_nano <= privacy.RHO_NANO_MAX):
            raise BadQuery("a loss is an epsilon up to 100 or a rho up to 5000")

    @property
    def as_rho_nano(self) -> int:
        """The zero-concentrated loss: that of an epsilon is at most epsilon^2 / 2, rounded up.

        Source: Bun, Steinke, "Concentrated differential privacy" (2016), proposition 1.4.
        """
        squared = self.epsilon_micro * self.epsilon_micro  # in 1e-12
        return self.rho_nano or -(-squared // 2000)


class Spent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was spent in all. Sums stay within 0 and MOST.

    Attributes:
        micro: sum of the epsilons, in millionths. nano: sum of the rhos, in billionths, that of an epsilon included.
        gaussians: how many debits had Gaussian noise, and so no epsilon.
    """

    micro: Amount = 0
    nano: Amount = 0
    gaussians: Amount = 0

    @classmethod
    def of(cls, loss: Loss) -> Spent:
        """What one debit of that loss spends."""
        return cls(micro=loss.epsilon_micro, nano=loss.as_rho_nano, gaussians=int(loss.rho_nano > 0))

    def __add__(self, other: Spent | Loss) -> Spent:
        more = Spent.of(other) if isinstance(other, Loss) else other
        return _bounded(self.micro + more.micro, self.nano + more.nano, self.gaussians + more.gaussians)

    def __sub__(self, other: Spent | Loss) -> Spent:
        less = Spent.of(other) if isinstance(other, Loss) else other
        return _bounded(self.micro - less.micro, self.nano - less.nano, self.gaussians - less.gaussians)

    def at_least(self, other: Spent) -> Spent:
        """The larger of each."""
        return self + (other - self)


def _bounded(micro: int, nano: int, gaussians: int) -> Spent:
    micro, nano, gaussians = (max(0, min(amount, MOST)) for amount in (micro, nano, gaussians))
    return Spent(micro=micro, nano=nano, gaussians=gaussians)


NOTHING = Spent()


class Left(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a budget, and of a provider's quota (None: it has none), in the currency of the accounting."""

    limit: int
    quota: int | None = None

    @property
    def least(self) -> int:
        """What that provider may still spend."""
        return self.limit if self.quota is None else min(self.limit, self.quota)


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How much an owner permits of one ask, for the ledger to enforce.

    Attributes:
        accounting: the currency of the limits. limit: of all providers together. quota: of this one; None: no other.
        provider: its public key, 64 hex digits; "" is nobody, who has a limit and no quota, and cannot ask.
        renew_s: both begin anew whenever UTC seconds are a multiple of it; None: never. ts: when the ask came (UTC
            seconds).
    """

    accounting: Accounting
    limit: int
    quota: int | None
    provider: str
    renew_s: float | None
    ts: float

    def check(self) -> None:
        """Returns if the provider can be debited. Raises BadQuery."""
        if not _KEY.fullmatch(self.provider):
            raise BadQuery(f"a provider's key has 64 hex digits, not like {self.provider[:80]!r}")

    def period(self, ts: float) -> int | None:
        """Which period that time lies in; None if nothing ever begins anew."""
        return None if self.renew_s is None else int(ts // self.renew_s)

    def start_ts(self, ts: float) -> float:
        """When the period of that time began; minus infinity if nothing ever begins anew."""
        return -math.inf if self.renew_s is None else (ts // self.renew_s) * self.renew_s

    def cost(self, loss: Loss) -> int | None:
        """The loss in this currency; None if it has none in it."""
        if self.accounting == "pure":
            return loss.epsilon_micro or None
        return loss.as_rho_nano

    def amount(self, spent: Spent) -> int:
        """What was spent, in this currency."""
        return spent.micro if self.accounting == "pure" else spent.nano

    def left(self, total: Spent, everyone: Spent, mine: Spent) -> Left:
        """What may still be spent; nobody has a quota.

        Args:
            total: ever, by all providers. everyone: in this period. mine: in this period, by this provider.
        """
        if self.accounting == "pure" and total.gaussians:
            return Left(limit=0)
        limit = max(0, self.limit - self.amount(everyone))
        if self.quota is None or not self.provider:
            return Left(limit=limit)
        return Left(limit=limit, quota=max(0, self.quota - self.amount(mine)))

    def objection(self, loss: Loss, total: Spent, everyone: Spent, mine: Spent) -> str | None:
        """Why these terms do not cover a loss when that was spent (see `left`), without a number; None if they do."""
        cost = self.cost(loss)
        if cost is None:
            return "the owner accounts for epsilon, which Gaussian noise does not have: ask with an epsilon"
        left = self.left(total, everyone, mine)
        if cost <= left.least:
            return None
        if self.accounting == "pure" and total.gaussians:
            return (
                "an earlier answer had Gaussian noise, so that no epsilon bounds what was lost; "
                'until the owner accounts for it as "zcdp" nothing is answered'
            )
        if cost <= left.limit:
            return "what remains of this provider's quota does not cover this ask"
        return "what remains of the owner's privacy budget does not cover this ask"
