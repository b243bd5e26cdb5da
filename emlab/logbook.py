"""The logbook: what a custodian writes into its cloud's log, and how it catches up after a crash.

An answer is in the log before it is kept in the ledger and leaves, so that none leaves untold; a link may tell of an
answer that a crash kept from leaving. Whatever the ledger or the policy knows and the log does not, is added at start.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import msgspec

from emlab.ask import Ask, Envelope
from emlab.chain import Chain, Head, head
from emlab.clock import Clock
from emlab.key import SigningKey
from emlab.ledger import Ledger, Row
from emlab.loss import Loss
from emlab.policy import Policy
from emlab.wire.log import DeleteRequest, Links, LinksRequest

_DELETING = "deleting"  # under which the ledger keeps what is being deleted
Facts = dict[str, str | int]
Delete = Callable[[float, float], Mapping[str, int]]  # removes what tells of a period; how many, by collection


class _Deleting(msgspec.Struct, frozen=True):
    """A deletion that was begun."""

    id: str
    start_ts: float
    end_ts: float


class Logbook:
    """Writes the log of one cloud. Thread-safe.

    Args:
        cloud: its id. key: signs heads. ledger: keeps what is being deleted, and is caught up with.
    """

    def __init__(self, chain: Chain, ledger: Ledger, cloud: str, key: SigningKey, clock: Clock) -> None:
        self._chain = chain
        self._ledger = ledger
        self._cloud = cloud
        self._key = key
        self._clock = clock

    def start(self, policy: Policy, generation: int, delete: Delete) -> None:
        """The log tells of all that the ledger and the policy know, and of this start; a deletion begun is ended."""
        rows = {f"ask:{row.id}": row for row in self._ledger.rows()}
        for once in self._chain.untold(list(rows)):
            self._write("debited", _of_row(rows[once]), once=once)
        refunds = {f"refunded:{row.id}": row for row in rows.values() if row.refunded}
        for once in self._chain.untold(list(refunds)):
            self._write("refunded", _of_row(refunds[once]), once=once)
        self.policy(policy)
        self._write("started", {"generation": generation})
        self.end_deletion(delete)

    def policy(self, policy: Policy) -> None:
        """That this holds from now on is told, once."""
        facts: Facts = {"version": policy.version, "name": policy.name, "policy": policy.digest}
        self._write("policy", facts, once=f"policy:{policy.version}:{policy.digest}")

    def answered(self, ask: Ask, envelope: Envelope) -> None:
        """That this answer leaves is told."""
        stub = envelope.stub
        facts = _of_ask(ask) | {
            "ask_digest": stub.ask_digest,
            "model": ask.model,
            "ledger_seq": stub.ledger_seq,
            "policy_version": stub.policy_version,
            "stub": stub.digest(),
        }
        link = self._write("answered", facts, once=f"ask:{ask.id}")
        if link.get("stub") != facts["stub"]:  # a crash came before the first one was kept: this is another one
            self._write("answered", facts, once=f"ask:{ask.id}:{facts['stub']}")

    def refused(self, ask: Ask, kind: str) -> None:
        """That this ask was refused is told, once for each kind however often it comes."""
        self._write("refused", _of_ask(ask) | {"why": kind}, once=f"refused:{ask.id}:{kind}")

    def refunded(self, ask: Ask) -> None:
        """That this ask was paid back, because it could not be answered, is told."""
        facts = _of_ask(ask) | {"ledger_seq": self._ledger.balance().seq}
        link = self._write("refunded", facts, once=f"refunded:{ask.id}")
        if link.get("ledger_seq") != facts["ledger_seq"]:  # it was debited anew since the first time
            self._write("refunded", facts, once=f"refunded:{ask.id}:{facts['ledger_seq']}")

    def tell(self, kind: str, facts: Facts) -> None:
        """Something else is told."""
        self._write(kind, facts)

    def begin_deletion(self, request: DeleteRequest) -> None:
        """The period will be deleted, even if the cloud dies now."""
        period = _Deleting(id=secrets.token_hex(16), start_ts=request.start_ts, end_ts=request.end_ts)
        self._ledger.keep(_DELETING, msgspec.json.encode(period))

    def end_deletion(self, delete: Delete) -> None:
        """What was to be deleted is, and that is told. Does nothing if nothing was to be."""
        kept = self._ledger.kept(_DELETING)
        if not kept:
            return
        period = msgspec.json.decode(kept, type=_Deleting)
        number = sum(delete(period.start_ts, period.end_ts).values())
        # not of which period: the log is for ever, and shall not keep what the owner wants to be gone
        self._write("deleted", {"documents": number}, once=f"deleted:{period.id}")
        self._ledger.keep(_DELETING, b"")

    def head(self) -> Head:
        """The head of the log, signed."""
        return head(self._chain.newest(), self._cloud, self._key, self._clock.now())

    def page(self, request: LinksRequest) -> Links:
        """A page of the log."""
        links = self._chain.page(request.after, request.limit)
        return Links(links=links, head=self.head())

    def _write(self, kind: str, facts: Facts, *, once: str | None = None) -> dict[str, str | int]:
        return self._chain.append(kind, facts, self._clock.now(), once=once).facts


def _cost(loss: Loss) -> Facts:
    return {"rho_nano": loss.rho_nano} if loss.rho_nano else {"epsilon_micro": loss.epsilon_micro}


def _of_ask(ask: Ask) -> Facts:
    about: Facts = {"ask": ask.id, "provider": ask.provider_name, "provider_key": ask.provider}
    return about | {"query": type(ask.query).__name__, "purpose": ask.purpose} | _cost(ask.loss)


def _of_row(row: Row) -> Facts:
    about: Facts = {"ask": row.id, "provider": row.provider, "query": row.query, "purpose": row.purpose}
    return about | _cost(row.loss) | {"answered": int(row.answered)}
