"""Admission: who may ask, and the way of an ask to one cloud and back. Reads no data and opens no answer."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from emlab import ask as asking
from emlab import provision as provisioning
from emlab.ask import Answer, Ask, AskRequest, Envelope, Failure, Outcome, Refusal
from emlab.clock import Clock
from emlab.errors import BadReply, CloudGone, EmlabError, NotPermitted
from emlab.key import SigningKey
from emlab.lifecycle import Lifecycle
from emlab.policy import Pinned, admits
from emlab.record import Recorder
from emlab.registry import LEAVING, CloudRow, Registry
from emlab.tokens import Tokens

log = logging.getLogger(__name__)


class Admission:
    """Admits providers to the clouds of one lab. Thread-safe.

    Args:
        life: of the cloud with this id; raises CloudGone. engine: its name, for the record.
        signing: of the controller, which each cloud knows.
    """

    def __init__(
        self,
        registry: Registry,
        tokens: Tokens,
        life: Callable[[str], Lifecycle],
        *,
        engine: str,
        signing: SigningKey,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._life = life
        self._engine = engine
        self._signing = signing
        self._recorder = recorder
        self._clock = clock
        self._registering = threading.Lock()

    def register(self, name: str, public: str, *, ttl_s: float | None = None) -> str:
        """The provider of this name and key may ask; returns its token, its only one. Raises ConfigError."""
        with self._registering:  # who comes last has the token that holds
            self._registry.add_provider(name, public)
            text, token = self._tokens.issue("provider", name, ttl_s=ttl_s)
            self._tokens.drop("provider", name, but=token.id)  # only now: who gets no new one keeps the one there is
            return text

    def roster(self, token: str, provider: str) -> list[str]:
        """What this provider knows the clouds by whose owners permit it to ask. Wakes nobody. Raises NotPermitted."""
        self._check(token, provider)
        return self._permitting(provider)

    def roster_of(self, name: str) -> list[str]:
        """The same for the provider of this name, whose token was looked at already."""
        return self._permitting(self._registry.key_of(name))

    def directory(self, provider: str) -> dict[str, str]:
        """The public key of each cloud, by what the provider with this key knows it by. Raises NotPermitted."""
        if self._registry.provider(provider) is None:
            raise NotPermitted("the provider is not registered")
        return self._registry.public_keys(provider)

    def _permitting(self, provider: str) -> list[str]:
        born = [row for row in self._registry.clouds() if row.public]
        return [self._registry.alias(row.cloud, provider) for row in born if admits(self._permitted(row), provider)]

    def _permitted(self, row: CloudRow) -> Pinned:
        """Which providers may ask, as the cloud said last; nobody, if it never said so on this host."""
        try:
            said = provisioning.published(self._life(row.cloud).spec.run_dir)
        except CloudGone:  # forgotten meanwhile
            return ()
        return () if said is None else said.providers

    def _check(self, token: str, public: str) -> str:
        """The provider's name. Raises NotPermitted."""
        name = self._registry.provider(public)
        if name is None:
            raise NotPermitted("the provider is not registered")
        if self._tokens.who(token, "provider").subject != name:
            raise NotPermitted(f"this is not a token of the provider {name}")
        return name

    def put(self, ask: Ask, signature: bytes, alias: str, *, token: str, timeout_s: float) -> Outcome:
        """What one cloud says to an ask; it is woken for it. A refusal or a failure is a value, not an exception.

        Args:
            alias: what the provider knows the cloud by, from `roster`.
        Raises: NotPermitted (the provider's token is wrong).
        """
        return self.carry(ask, signature, alias, provider=self._check(token, ask.provider), timeout_s=timeout_s)

    def carry(self, ask: Ask, signature: bytes, alias: str, *, provider: str, timeout_s: float) -> Outcome:
        """The same for the provider of this name, whose token was looked at already."""
        if (self._registry.provider(ask.provider), ask.provider_name) != (provider, provider):
            raise NotPermitted("the ask bears the name or the key of another provider")
        row = self._registry.by_alias(alias, ask.provider)
        if row is None or row.intent in LEAVING:
            return Failure(cloud=alias, kind="CloudGone")
        try:
            with self._recorder.span("answer", user=row.user, engine=self._engine):
                envelope = self._carry(ask, signature, row, alias, timeout_s)
        except asking.REFUSALS as exc:
            self._registry.take_back(row.cloud, ask.loss)
            return Refusal(cloud=alias, kind=exc.kind)
        except EmlabError as exc:
            return Failure(cloud=alias, kind=exc.kind)
        except Exception as exc:
            # one broken cloud must not cost all others their answers; what it was is recorded with the span
            log.exception("the cloud of %s was not asked", row.user)
            return Failure(cloud=alias, kind=type(exc).__name__)
        return Answer(cloud=alias, envelope=envelope)

    def user_of(self, ask: Ask, alias: str) -> str:
        """Whose cloud the ask's provider knows by that alias; "" if nobody's."""
        row = self._registry.by_alias(alias, ask.provider)
        return "" if row is None else row.user

    def _carry(self, ask: Ask, signature: bytes, row: CloudRow, alias: str, timeout_s: float) -> Envelope:
        start = self._clock.now()
        with self._life(row.cloud).using(timeout_s=timeout_s) as client:
            now = self._clock.now()
            if not self._registry.grant(row.cloud, ask.loss):
                raise CloudGone(f"the cloud of {row.user} is being forgotten")
            expires_ts = min(now + asking.MAX_CAPABILITY_S / 2, ask.expires_ts)
            capability, mark = asking.grant(ask, row.cloud, alias, self._signing, expires_ts=expires_ts)
            request = AskRequest(
                ask=ask.encode(), signature=signature, capability=capability, capability_signature=mark
            )
            left_s = max(timeout_s - (now - start), 2 * ask.slot_s)
            envelope = client.call("ask", Envelope, request, timeout_s=left_s)
            try:
                asking.authenticate(envelope, ask, alias, row.public)
            except NotPermitted as exc:
                raise BadReply(f"the answer of {row.user} is not its own: {exc}") from exc
            self._registry.seen(row.cloud, envelope.stub.ledger_seq)
            return envelope
