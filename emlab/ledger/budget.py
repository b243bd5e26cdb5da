"""The ledger's one document of sums: what it holds, and the conditions and changes of a debit. Pure.

Imports nothing of emlab but loss and ledger.base.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import msgspec

from emlab.ledger.base import MAX_PROVIDERS
from emlab.loss import NOTHING, Loss, Spent, Terms

Document = dict[str, object]


class Window(msgspec.Struct, frozen=True):
    """The sums of one period."""

    renew_s: float
    number: int
    spent: Spent = NOTHING
    by: dict[str, Spent] = {}


class Carried(msgspec.Struct, frozen=True):
    """What came from other clouds, all of it, and when the last of it did."""

    spent: Spent = NOTHING
    at: float = 0.0


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The budget document; read in part, the rest has its defaults."""

    spent: Spent = NOTHING
    by: dict[str, Spent] = {}
    carried: Carried = Carried()
    window: Window | None = None
    seq: int = 0
    writes: int = 0
    latest: float = 0.0
    open: dict[str, bool] = {}
    refunded: dict[str, bool] = {}

    def at(self, ts: float) -> float:
        """When something counts that happens at this time."""
        return max(self.latest, ts)

    def lacks(self, terms: Terms, at: float) -> bool:
        """Whether the sums of the period of that time are not in it."""
        wanted = terms.period(at)
        return wanted is not None and not (
            self.window is not None and (self.window.renew_s, self.window.number) == (terms.renew_s, wanted)
        )


def sums(budget: Budget, terms: Terms) -> tuple[Spent, Spent, Spent]:
    """Spent ever, in the present period, and in it by the terms' provider."""
    here = budget if terms.renew_s is None or budget.window is None else budget.window
    return budget.spent, here.spent, here.by.get(terms.provider, NOTHING)


def conditions(loss: Loss, terms: Terms, at: float) -> Iterator[Document]:
    """Of the budget document, under which the ask may be debited; its cost is within the quota."""
    cost = terms.cost(loss) or 0
    currency = "micro" if terms.accounting == "pure" else "nano"
    here = ""
    if terms.renew_s is not None:
        here = "window."
        yield {"window.renew_s": terms.renew_s, "window.number": terms.period(at)}
    yield {f"{here}spent.{currency}": {"$lte": terms.limit - cost}}
    if terms.quota is not None:
        mine = f"{here}by.{terms.provider}.{currency}"
        yield {"$or": [{mine: {"$lte": terms.quota - cost}}, {mine: {"$exists": False}}]}
    if terms.accounting == "pure":
        yield {"spent.gaussians": 0}
    few: Document = {"$expr": {"$lt": [{"$size": {"$objectToArray": "$by"}}, MAX_PROVIDERS]}}
    yield {"$or": [{f"by.{terms.provider}": {"$exists": True}}, few]}


def increments(amount: Spent | Document, provider: str, *, in_window: bool) -> Document:
    """Of each sum that a debit counts in."""
    amounts = cast(Document, msgspec.to_builtins(amount))
    names = [f"{here}{sum_}" for here in ("", *(["window."] * in_window)) for sum_ in ("spent", f"by.{provider}")]
    return {f"{sum_}.{name}": n for sum_ in names for name, n in amounts.items()}


def negative(spent: Spent) -> Document:
    """The increments that undo it."""
    return {name: -n for name, n in msgspec.to_builtins(spent).items()}


def same_window(window: Window | None) -> Document:
    """That the document still has the sums of this period, or of none."""
    if window is None:
        return {"window": None}
    return {"window.renew_s": window.renew_s, "window.number": window.number}
