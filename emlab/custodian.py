"""The custodian: in normal operation the only code that reads a person's clear data.

It answers its owner, and asks that its owner's policy and budget allow. One method for each route of
`wire.table`; no sockets, no processes: those are in `apps.custodian`.
"""

from __future__ import annotations

import hmac
import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

import msgspec

from emlab import ask as asking
from emlab.ask import Ask, AskRequest, Envelope
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.entries import StoreReport
from emlab.errors import BadQuery, InUse, NotPermitted, Refused, StoreError, VaultError
from emlab.intake.report import IntakeReport
from emlab.key import SigningKey, check_kind, token_hash
from emlab.ledger import Ledger, Note, Row, merged
from emlab.policy import Pinned, Policy
from emlab.provision import Provision
from emlab.store import Store
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
from emlab.wire.table import FindRequest, Found, Health, LedgerReport, RunPipeline, StoreRequest

log = logging.getLogger(__name__)
COMPUTING = 0.7  # of a slot; the rest is for the ledger
_STRIPES = 64
_ADOPTED = "adopted"  # under which the ledger keeps the rows of other clouds' ledgers


class Custodian:
    """One person's data behind that person's rules. Thread-safe.

    Args:
        digest: runs the pipeline on the store; None runs it in this process.
        publish: tells whoever wakes the cloud which providers may ask.
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
        publish: Callable[[Pinned], None] = lambda providers: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._provision = provision
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]
        self._digest = digest or self._digest_here
        self._digesting, self._adopting = _Turns(), threading.Lock()
        if ledger.balance().seq < provision.ledger_seq:
            raise VaultError("the ledger in this vault is older than the one that the controller remembers")
        ledger.carry(provision.spent_micro)
        self._key = self._load_key()
        self._publish = publish
        publish(self.policy().providers)

    def _load_key(self) -> SigningKey:
        raw = self._ledger.kept("key")
        key = SigningKey(raw)
        if raw is None:
            self._ledger.keep("key", key.raw())
        return key

    def authorize_owner(self, token: str) -> None:
        """Returns for a token of the owner. Raises NotPermitted."""
        check_kind(token, "owner")
        found, now = token_hash(token), self._clock.now()
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
            return self._digest(request)

    def _digest_here(self, request: RunPipeline) -> IntakeReport:
        from emlab import pipeline

        return pipeline.digest(self._store, request.lines, clock=self._clock)

    def policy(self) -> Policy:
        """What the owner permits: set by the owner, or else as provisioned."""
        kept = self._ledger.kept("policy")
        return self._provision.policy if kept is None else msgspec.json.decode(kept, type=Policy)

    def set_policy(self, policy: Policy) -> Policy:
        """The owner permits this from now on. What was spent stays spent."""
        self._ledger.keep("policy", msgspec.json.encode(policy))
        self._publish(policy.providers)
        log.info("policy of cloud %s set to %s", self._provision.cloud[:12], policy.name)
        return policy

    def ledger(self) -> LedgerReport:
        """What has been asked and spent."""
        balance = self._ledger.balance()
        remaining = max(0, self.policy().total_epsilon_micro - balance.spent_micro)
        rows = merged(self._ledger.rows(), self._adopted())
        return LedgerReport(spent_micro=balance.spent_micro, remaining_micro=remaining, seq=balance.seq, rows=rows)

    def archive(self) -> ArchiveHead:
        """What the cloud holds besides documents."""
        ledger = self.ledger()
        return ArchiveHead(
            format=FORMAT,
            cloud=self._provision.cloud,
            generation=self._provision.generation,
            exported_ts=self._clock.now(),
            policy=self.policy(),
            spent_micro=ledger.spent_micro,
            rows=ledger.rows,
            documents=self._store.collections(),
        )

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
        """What was spent elsewhere counts here, never twice; the policy follows if it is given."""
        with self._adopting:
            rows = merged(self._adopted(), request.rows)
            if len(rows) > MAX_ROWS:
                raise BadQuery(f"a cloud keeps at most {MAX_ROWS} rows of other clouds' ledgers")
            self._ledger.carry(request.spent_micro)
            self._ledger.keep(_ADOPTED, msgspec.json.encode(rows))
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
        with self._padded(ask.query.slot_s), self._stripes[int(ask.id, 16) % _STRIPES]:
            return self._answer(ask, asking.alias(request))

    def _answer(self, ask: Ask, alias: str) -> Envelope:
        query_name = type(ask.query).__name__
        note = Note(provider=ask.provider_name, query=query_name, purpose=ask.purpose, ts=self._clock.now())
        try:
            policy = self.policy()
            policy.check(ask)
            self._check_region(ask)
            digest = asking.digest(ask.encode())
            given = self._ledger.reserve(ask.id, digest, ask.epsilon_micro, policy.total_epsilon_micro, note)
        except Refused as exc:
            self._ledger.refuse(ask.id, exc.kind, note)
            raise
        if given is not None:
            return msgspec.json.decode(given, type=Envelope)
        value = self._compute(ask)
        seq = self._ledger.balance().seq
        envelope = asking.enclose(ask, value, alias, self._key, seq)
        self._ledger.commit(ask.id, msgspec.json.encode(envelope))
        return envelope

    def _check_region(self, ask: Ask) -> None:
        region = getattr(ask.query, "region", None)
        if region is not None:
            self._store.check_region(region.geojson())

    def _compute(self, ask: Ask) -> int:
        """The query's value, or 0 if its slot is too short for this much data."""
        until = self._clock.monotonic() + ask.query.slot_s * COMPUTING
        try:
            with self._store.within(ask.query.slot_s * COMPUTING):
                return ask.query.contribution(_Hurried(self._store, until, self._clock))
        except (StoreError, TimeoutError):
            if self._clock.monotonic() < until:  # it is the store that broke, not the time that ran out
                raise
            return 0

    @contextmanager
    def _padded(self, slot_s: float) -> Iterator[None]:
        start = self._clock.monotonic()
        try:
            yield
        finally:
            spent = self._clock.monotonic() - start
            self._clock.wait(max(1, math.ceil(spent / slot_s)) * slot_s - spent)


class _Turns:
    """One at a time, and one that waits for its turn. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = self._waiting = False

    @contextmanager
    def turn(self, refusal: str) -> Iterator[None]:
        """Nobody else has a turn. Raises InUse, with this message, if somebody waits already."""
        with self._changed:
            if self._waiting:
                raise InUse(refusal)
            self._waiting = True
            try:
                self._changed.wait_for(lambda: not self._running)
            finally:
                self._waiting = False
            self._running = True
        try:
            yield
        finally:
            with self._changed:
                self._running = False
                self._changed.notify()


class _Hurried:
    """A store's reading that ends with TimeoutError when its time has passed."""

    def __init__(self, store: Store, until: float, clock: Clock) -> None:
        self._store = store
        self._until = until
        self._clock = clock

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        return self._store.exists(key, start_ts=start_ts, end_ts=end_ts, region=region)

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterable[tuple[float, float, float]]:
        for fix in self._store.track(key, start_ts=start_ts, end_ts=end_ts):
            if self._clock.monotonic() >= self._until:
                raise TimeoutError
            yield fix
