"""What became of entries that were handed over: values that cross the wire. Imports msgspec only."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

MAX_EXAMPLES = 20  # rejected entries that a report names one by one


class Rejected(msgspec.Struct, frozen=True):
    """One entry that was not accepted: where it stood, why (no value of it), and the sentence with the value."""

    position: int
    reason: str
    message: str


class StoreReport(msgspec.Struct, frozen=True):
    """What became of the entries handed over: received = inserted + replaced + all rejected.

    Attributes:
        received: how many were handed over.
        inserted: how many are new.
        replaced: how many took the place of an earlier one, also of one in the same call.
        rejected: how many were malformed, by reason.
        examples: the first malformed ones, at most 20, each with its position.
    """

    received: int
    inserted: int
    replaced: int
    rejected: dict[str, int] = {}
    examples: list[Rejected] = []

    @property
    def rejected_total(self) -> int:
        """How many entries were malformed."""
        return sum(self.rejected.values())

    def __str__(self) -> str:
        head = (
            f"{self.received} received: {self.inserted} inserted, {self.replaced} replaced, "
            f"{self.rejected_total} rejected"
        )
        return "\n".join([head, *(f"  {count} x {reason}" for reason, count in sorted(self.rejected.items()))])

    def _repr_html_(self) -> str:
        rows = [("received", self.received), ("inserted", self.inserted), ("replaced", self.replaced)]
        rows += [(f"rejected: {reason}", count) for reason, count in sorted(self.rejected.items())]
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{count}</td></tr>" for name, count in rows)
        return f"<table><caption>StoreReport</caption>{cells}</table>"


def count_reasons(rejected: Iterable[Rejected]) -> dict[str, int]:
    """How often each reason occurs."""
    return dict(Counter(one.reason for one in rejected))


def summed(reports: Sequence[StoreReport], rejected: Sequence[Rejected] = ()) -> StoreReport:
    """What became of all entries together, those included that were rejected before they were handed over."""
    counts = Counter(count_reasons(rejected))
    for one in reports:
        counts.update(one.rejected)
    return StoreReport(
        received=sum(one.received for one in reports) + len(rejected),
        inserted=sum(one.inserted for one in reports),
        replaced=sum(one.replaced for one in reports),
        rejected=dict(counts),
        examples=[*rejected, *(example for one in reports for example in one.examples)][:MAX_EXAMPLES],
    )
