"""The custodian: in normal operation the only code that reads a person's clear data.

It answers its owner, and asks that its owner's policy and budget allow. One method for each route of
`wire.table`; no sockets, no processes: those are in `apps.custodian`.
"""

from __future__ import annotations

import hmac
import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import msgspec

from emlab import ask as asking
from emlab import policy as policies
from emlab.ask import Ask, AskRequest, Envelope
from emlab.chain import Chain, Head, MemoryChain
from emlab.clock import SYSTEM_CLOCK, Clock, OnwardTime, padded
from emlab.entries import StoreReport
from emlab.errors import BadQuery, ConfigError, InUse, NotPermitted, PolicyRefused, Refused, StoreError, VaultError
from emlab.explanation import Explanation
from emlab.intake.report import IntakeReport
from emlab.key import SigningKey, check_kind, token_hash
from emlab.ledger import Ledger, Note, Row, merged
from emlab.logbook import Logbook
from emlab.loss import NOTHING, Spent
from emlab.noise import noises
from emlab.policy import Policy, Published
from emlab.provision import Provision
from emlab.query import cells, clamp
from emlab.restricted import restricted
from emlab.store import Store
from emlab.store.hurried import hurried
from emlab.store.period import check_period
from emlab.turns import Turns
from emlab.wire.archive import (
    FORMAT,
    MAX_ROWS,
    PAGE_BYTES,
    AdoptRequest,
    ArchiveHead,
    Page,
    PageRequest,
    RestoreRequest,
)
from emlab.wire.log import Deleted, DeleteRequest, Links, LinksRequest, Remaining, RemainingRequest
from emlab.wire.table import AmendRequest, FindRequest, Found, Health, LedgerReport, RunPipeline, StoreRequest

log = logging.getLogger(__name__)
COMPUTING = 0.7  # of a slot; the rest is for the ledger
EARLY_S = 0.02  # by which pymongo lets a query's time end before it is over, for the way back
_STRIPES = 64
_RETAINED = "retained"  # under which the ledger keeps up to when old data was deleted
_ADOPTED = "adopted"  # under which the ledger keeps the rows of other clouds' ledgers


class Custodian:
    """One person's data behind that person's rules. Thread-safe.

    Args:
        digest: runs the pipeline on the store; None runs it in this process.
        publish: tells whoever wakes the cloud which providers may ask, and how long it may idle.
        chain: keeps the cloud's log; None keeps it in this process.
        draw: gives the noise for the cells of an ask in the local model; None draws it in this process.
    Raises:
        VaultError: the ledger is older than the controller remembers (a vault that was set back).
    """

    def __init__(
        self,
        provision: Provision,
        store: Store,
        ledger: Ledger,
        *,
        digest: Callable[[RunPipeline], IntakeReport] | None = None,
        publish: Callable[[Published], None] = lambda published: None,
        draw: Callable[[Ask], Sequence[int]] | None = None,
        chain: Chain | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._provision = provision
        self._store = store
        self._ledger = ledger
        self._clock, self._onward = clock, OnwardTime(clock)
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._digest = digest or self._digest_here
        self._digesting, self._adopting = Turns(), threading.Lock()
        if ledger.balance().seq < provision.ledger_seq:
            raise VaultError("the ledger in this vault is older than the one that the controller remembers")
        ledger.carry(provision.spent, now=clock.now())
        self._key = self._load_key()
        self._publish = publish
        self._draw = draw or _draw_here
        self._log = Logbook(chain or MemoryChain(provision.cloud), ledger, provision.cloud, self._key, clock)
        self._setting = threading.Lock()
        policy = self._holding()
        self._log.start(policy, provision.generation, store.delete)
        self._retain(policy)
        publish(policy.published)

    def _load_key(self) -> SigningKey:
        raw = self._ledger.kept("key")
        key = SigningKey(raw)
        if raw is None:
            self._ledger.keep("key", key.raw())
        return key

    def authorize_owner(self, token: str) -> None:
        """Returns for a token of the owner. Raises NotPermitted."""
        check_kind(token, "owner")
        found, now = token_hash(token), self._onward.now()
        if not any(hmac.compare_digest(found, one.hash) and one.holds(now) for one in self._provision.owner_tokens):
            raise NotPermitted("wrong, expired or missing token of the owner")

    def health(self) -> Health:
        """The cloud's identity, read with the database."""
        return Health(
            cloud=self._provision.cloud,
            generation=self._provision.generation,
            public=self._key.public,
            ledger_seq=self._ledger.balance().seq,
        )

    def store(self, request: StoreRequest) -> StoreReport:
        """Entries are kept and journaled."""
        return self._store.put(request.entries, partial=request.partial)

    def find(self, request: FindRequest) -> Found:
        """Entries of one key, by time."""
        found = self._store.find(
            request.key,
            start_ts=request.start_ts,
            end_ts=request.end_ts,
            time_key=request.time_key,
            limit=request.limit + 1,
        )
        entries = [msgspec.Raw(msgspec.json.encode(entry)) for entry in found]  # small, where the mappings are not
        return Found(entries=entries[: request.limit], more=len(entries) > request.limit)

    def counts(self) -> dict[str, int]:
        """How many entries there are of each key."""
        return self._store.counts()

    def run_pipeline(self, request: RunPipeline) -> IntakeReport:
        """All raw entries are reflected in trips, sections and places. One run after the other.

        Raises InUse at once if another run waits already: each one that waits takes a thread from the other routes.
        """
        with self._digesting.turn("a run of the pipeline waits already, which will see all that is stored by now"):
            self._retain(self._holding())
            return self._digest(request)

    def _digest_here(self, request: RunPipeline) -> IntakeReport:
        from emlab import pipeline

        return pipeline.digest(self._store, request.lines, clock=self._clock)

    def policy(self) -> Policy:
        """What the owner permits; nothing before the owner has said so. Raises ConfigError: another emlab wrote it."""
        kept = self._ledger.kept("policy")
        return self._provision.policy if kept is None else policies.read(kept)

    def set_policy(self, policy: Policy) -> Policy:
        """The owner permits this from now on. What was spent stays spent. Raises BadQuery: a place is none."""
        return self._set_policy(policy, None)

    def amend_policy(self, request: AmendRequest) -> Policy:
        """The same, if the policy still is of the version that it was made of. Raises BadQuery, InUse."""
        return self._set_policy(request.policy, request.version)

    def _set_policy(self, policy: Policy, before: int | None) -> Policy:
        for place in policy.excluded_places:
            try:
                self._store.check_region(place.geojson())
            except BadQuery:  # what it says shows where the place is
                raise BadQuery("an excluded place is not valid: its lines cross or touch") from None
        with self._setting:
            kept = self._ledger.kept("policy")
            version = self._provision.policy.version if kept is None else policies.version_of(kept)
            if before not in (None, version):
                raise InUse(f"the policy was changed meanwhile: it is version {version} now")
            policy = msgspec.structs.replace(policy, version=version + 1)
            self._ledger.keep("policy", msgspec.json.encode(policy))
            self._log.policy(policy)
            self._publish(policy.published)
        log.info("cloud %s has policy number %d", self._provision.cloud[:12], policy.version)
        return policy

    def _holding(self) -> Policy:
        """The policy that holds: a closed one if it cannot be read."""
        try:
            return self.policy()
        except ConfigError as exc:
            log.error("nobody may ask the cloud %s: %s", self._provision.cloud[:12], exc)
            return Policy.closed()

    def explain(self, ask: Ask) -> Explanation:
        """Whether the owner's policy and budget permit an ask, as one that is new, and each reason why not.

        Raises BadQuery: it could never be answered.
        """
        asking.check(ask)
        self._check_regions(ask)
        policy = self.policy()
        return policy.explain(ask, self._ledger.left(policy.terms(ask.provider, self._clock.now())))

    def retain(self) -> None:
        """Data older than the owner wants to keep is gone. Raises InUse: the pipeline runs, or a period is deleted."""
        with self._digesting.turn("the pipeline runs, or a period is deleted", waits=False):
            self._retain(self._holding())

    def _retain(self, policy: Policy) -> None:
        """The same, by this policy; looked at once a day (of UTC), since intake begins anew."""
        since_ts = policy.kept_since(self._clock.now())
        done = f"{since_ts:.0f}".encode()
        if since_ts > -math.inf and self._ledger.kept(_RETAINED) != done:
            self._log.tell("deleted", {"documents": sum(self._store.delete(None, since_ts).values())})
            self._ledger.keep(_RETAINED, done)

    def ledger(self) -> LedgerReport:
        """What has been asked and spent."""
        balance, policy = self._ledger.balance(), self.policy()
        return LedgerReport(
            spent=balance.spent,
            remaining=self._ledger.remaining(policy.terms("", self._clock.now())),
            accounting=policy.accounting,
            seq=balance.seq,
            rows=merged(self._ledger.rows(), self._adopted()),
            denials=list(self._ledger.denials()),
        )

    def archive(self) -> ArchiveHead:
        """What the cloud holds besides documents. The log tells that it was taken out."""
        self._log.tell("exported", {})
        ledger = self.ledger()
        return ArchiveHead(
            format=FORMAT,
            cloud=self._provision.cloud,
            generation=self._provision.generation,
            exported_ts=self._clock.now(),
            policy=self.policy(),
            spent=ledger.spent,
            rows=ledger.rows,
            documents=self._store.collections(),
            head=self._log.head(),
        )

    def remaining(self, request: RemainingRequest) -> Remaining:
        """What each of these providers may still spend."""
        policy, now = self.policy(), self._clock.now()
        return Remaining(by_provider={key: self._ledger.remaining(policy.terms(key, now)) for key in request.providers})

    def head(self) -> Head:
        """The head of the cloud's log, signed."""
        return self._log.head()

    def links(self, request: LinksRequest) -> Links:
        """A page of the cloud's log."""
        return self._log.page(request)

    def delete_period(self, request: DeleteRequest) -> Deleted:
        """Nothing that the cloud holds tells of the period, and intake has seen to what is around it.

        Once begun, it is ended at the next start if this program dies. Raises BadQuery, InUse as `run_pipeline`.
        """
        check_period(request.start_ts, request.end_ts)
        removed: dict[str, int] = {}

        def delete(start_ts: float, end_ts: float) -> Mapping[str, int]:
            removed.update(self._store.delete(start_ts, end_ts))
            return removed

        with self._digesting.turn("a run of the pipeline waits already; delete the period when that has ended"):
            self._log.begin_deletion(request)
            self._log.end_deletion(delete)
            return Deleted(removed=removed, intake=self._digest(RunPipeline()))

    def page(self, request: PageRequest) -> Page:
        """Documents of a collection, as many as a page holds."""
        documents: list[msgspec.Raw] = []
        size = 0
        for document in self._store.page(request.collection, after=request.after):
            encoded = msgspec.json.encode(document)
            documents.append(msgspec.Raw(encoded))
            size += len(encoded)
            if size >= PAGE_BYTES:
                return Page(documents=documents, after=cast("dict[str, str]", document["_id"])["$oid"])
        return Page(documents=documents, after=None)

    def restore(self, request: RestoreRequest) -> StoreReport:
        """Documents of another cloud of this owner are kept and journaled."""
        return self._store.restore(request.collection, request.documents, partial=request.partial)

    def adopt(self, request: AdoptRequest) -> LedgerReport:
        """What was spent elsewhere counts here, no debit twice; the policy follows if it is given.

        Spent is then at least what each of both clouds says, and what all debits of both are together.
        """
        with self._adopting, ExitStack() as stack:
            for stripe in self._stripes:  # nothing is debited between looking and carrying over
                stack.enter_context(stripe)
            rows = merged(self._adopted(), request.rows)
            if len(rows) > MAX_ROWS:
                raise BadQuery(f"a cloud keeps at most {MAX_ROWS} rows of other clouds' ledgers")
            told = sum((Spent.of(row.loss) for row in merged(self._ledger.rows(), rows) if not row.refunded), NOTHING)
            self._ledger.carry(request.spent.at_least(told), now=self._clock.now())
            self._ledger.keep(_ADOPTED, msgspec.json.encode(rows))
        self._log.tell("imported", {"debits": len(request.rows), "spent_micro": request.spent.micro})
        if request.policy is not None:
            self.set_policy(request.policy)
        return self.ledger()

    def _adopted(self) -> list[Row]:
        kept = self._ledger.kept(_ADOPTED)
        return [] if kept is None else msgspec.json.decode(kept, type=list[Row])

    def ask(self, request: AskRequest) -> Envelope:
        """The answer to an ask, sealed to its aggregator; the debit is journaled before data is read.

        The same ask always gets the same envelope. Takes the query's slot, whatever the data.
        Raises: BadQuery, NotPermitted, PolicyRefused, BudgetExhausted; nothing is spent then.
        """
        ask = asking.admit(
            request, cloud=self._provision.cloud, controller=self._provision.controller, now=self._clock.now()
        )
        # first, because nothing is spent if it fails, and how long it takes tells nothing of data that was not read yet
        noise = self._draw(ask) if ask.model == "local" else (0,) * cells(ask.query)
        # who waits for a stripe waits until the slot is over, and not until this answer is computed
        with self._stripes[int(ask.id, 16) % _STRIPES], padded(self._clock, ask.query.slot_s):
            return self._answer(ask, asking.alias(request), noise)

    def _answer(self, ask: Ask, alias: str, noise: Sequence[int]) -> Envelope:
        query_name = type(ask.query).__name__
        note = Note(provider=ask.provider_name, query=query_name, purpose=ask.purpose, ts=self._clock.now())
        policy = self._holding()
        with self._refusing(ask, note):
            policy.check(ask)
            self._check_regions(ask)
            digest = asking.digest(ask.encode())
            given = self._ledger.reserve(ask.id, digest, ask.loss, policy.terms(ask.provider, note.ts), note)
        if given is not None:
            return msgspec.json.decode(given, type=Envelope)
        seq = self._ledger.balance().seq  # before data is read: how many asks come meanwhile tells how much there is
        try:
            values = tuple(map(sum, zip(self._compute(ask, policy), noise, strict=True)))
        except StoreError:
            self._refund(ask)
            raise
        envelope = asking.enclose(ask, values, alias, self._key, seq=seq, version=policy.version, ts=note.ts)
        with self._setting, self._refusing(ask, note):  # another policy comes after this answer, or prevents it
            if self._holding() != policy:
                self._refund(ask)
                raise PolicyRefused("the owner changed the policy meanwhile")
            self._log.answered(ask, envelope)  # first, so that no answer leaves untold
            self._ledger.commit(ask.id, msgspec.json.encode(envelope))
        return envelope

    @contextmanager
    def _refusing(self, ask: Ask, note: Note) -> Iterator[None]:
        """A refusal is on record."""
        try:
            yield
        except (Refused, BadQuery) as exc:
            self._ledger.refuse(ask.id, exc.kind, note)
            self._log.refused(ask, exc.kind)
            raise

    def _refund(self, ask: Ask) -> None:
        """What the ask cost is given back: nothing of an answer has left the cloud, or will."""
        if self._ledger.refund(ask.id):
            self._log.refunded(ask)

    def _check_regions(self, ask: Ask) -> None:
        for region in ask.query.regions:
            self._store.check_region(region.geojson())

    def _compute(self, ask: Ask, policy: Policy) -> tuple[int, ...]:
        """The query's cells, clamped; zeros if its slot is too short for this much data, or the query fails on it."""
        until = self._clock.monotonic() + ask.query.slot_s * COMPUTING
        try:
            with self._store.within(ask.query.slot_s * COMPUTING):
                reading = restricted(hurried(self._store, until, self._clock), policy, self._clock.now())
                return clamp(ask.query, ask.query.contribution(reading))
        except (StoreError, TimeoutError):
            if self._clock.monotonic() < until - EARLY_S:  # it is the store that broke, not the time that ran out
                raise
        except Exception as exc:  # that a query stumbles over this person's data would tell of it
            log.error("a query %s failed with %s; zeros were answered", type(ask.query).__name__, type(exc).__name__)
        return (0,) * cells(ask.query)


def _draw_here(ask: Ask) -> list[int]:
    from emlab.aggregate import drawn

    return drawn(ask, noises(ask.query, ask.loss))
