"""What every ledger promises, and what it says. Imports nothing of emlab but errors and loss."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

import msgspec

from emlab.errors import BadQuery
from emlab.loss import MOST, Left, Loss, Spent, Terms

MAX_PROVIDERS = 4096  # that one cloud answers in its life: their sums stand in one document
MAX_DENIALS = 1000
CARRIED_MOST = Spent(micro=MOST // 2, nano=MOST // 2, gaussians=MOST // 2)  # leaves room for what is spent later
REUSED = "this ask id was used for another ask"
CROWDED = "so many providers asked this cloud that no further one can"
UNDEBITED = "there is no debit for this answer, or it was refunded or has another answer"
_ID = re.compile("[0-9a-f]{32}")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Who asked what, for the owner to read."""

    provider: str
    query: str
    purpose: str
    ts: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One debit as the owner sees it.

    Attributes:
        loss: what was debited. answered: False for a debit without an answer (a crash in between), which counts.
        refunded: it was given back, as nothing of the answer had left the cloud, and does not count.
    """

    id: str
    provider: str
    query: str
    purpose: str
    ts: float
    loss: Loss
    answered: bool
    refunded: bool = False

    @property
    def outcome(self) -> Literal["answered", "unanswered", "refunded"]:
        """What became of the ask."""
        return "refunded" if self.refunded else "answered" if self.answered else "unanswered"


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """One ask that was refused, which cost nothing. `kind` names the error."""

    id: str
    provider: str
    query: str
    purpose: str
    ts: float
    kind: str


def merged(*ledgers: Iterable[Row]) -> list[Row]:
    """The rows of several ledgers, oldest first, each ask once: the first that has it."""
    of_ask: dict[str, Row] = {}
    for row in itertools.chain(*ledgers):
        of_ask.setdefault(row.id, row)
    return sorted(of_ask.values(), key=lambda row: (row.ts, row.id))


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """What was spent, and how many debits there were, refunded ones included."""

    spent: Spent
    seq: int


def check(ask_id: str, terms: Terms) -> None:
    """Returns if both can be names in a document. Raises BadQuery."""
    if not _ID.fullmatch(ask_id):
        raise BadQuery(f"the id of an ask has 32 hex digits, not like {ask_id[:80]!r}")
    terms.check()


class Ledger(Protocol):
    """Blocks; acknowledged means journaled; threads may debit different asks at once, never the same one.

    Time only goes forward: an ask whose clock was set back counts in the newest period that the ledger has seen.
    Raises StoreError when the database cannot be reached, DiskFull (with path and free bytes) when it has no room.
    """

    def reserve(self, ask_id: str, digest: str, loss: Loss, terms: Terms, note: Note) -> bytes | None:
        """The ask is debited, exactly once; returns the answer if it was given before.

        One that was refunded is debited again. What is enforced, together and at once: the limit of all providers, and
        this one's quota.
        Raises: BudgetExhausted (nothing is debited; it says why, and no amount), NotPermitted (the id was used for
            another ask), BadQuery (the id or the provider's key is none).
        """

    def commit(self, ask_id: str, answer: bytes) -> None:
        """The answer is kept, so that the same ask always gets the same bytes.

        Raises StoreError: there is no debit for it, or it was refunded, or another answer is kept.
        """

    def refund(self, ask_id: str) -> bool:
        """The debit is undone, exactly once, if no answer to it is kept; False if one is, or there is no such debit.

        Only for whoever knows that nothing that was computed for this ask has left the cloud, or will.
        """

    def refuse(self, ask_id: str, kind: str, note: Note) -> None:
        """A refusal is on record (the oldest are forgotten beyond 1 MiB)."""

    def balance(self) -> Balance:
        """Spent and count now."""

    def left(self, terms: Terms) -> Left:
        """What is left of the limit and the quota of these terms now."""

    def remaining(self, terms: Terms) -> int:
        """The smaller of both: what their provider may still spend; for nobody, what all together may."""

    def rows(self) -> Sequence[Row]:
        """All debits, oldest first."""

    def denials(self) -> Sequence[Denial]:
        """The last 1000 refusals on record, oldest first."""

    def carry(self, spent: Spent, *, now: float) -> None:
        """The ledger says at least this much, of what was spent in other clouds; what is new of it counts now.

        Idempotent: carried once, it is not carried into later periods, unless more is: all that was ever carried counts
        in the period of the last.
        """

    def keep(self, name: str, value: bytes) -> None:
        """A small value of the custodian's own (its key, the policy) is kept under this name."""

    def kept(self, name: str) -> bytes | None:
        """That value, or None."""
