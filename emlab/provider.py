"""Providers: who asks one question of many clouds, and gets a release."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from numbers import Integral
from typing import Protocol

import msgspec

from emlab import ask as asking
from emlab import planning, privacy
from emlab.aggregate import Release
from emlab.ask import Answer, Ask, Failure, Model, Outcome
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.engines.base import START_TIMEOUT_S
from emlab.errors import BadQuery, EmlabError, NotPermitted, TooFewUsers, Unreachable
from emlab.fanout import Deadline, fan_out
from emlab.key import SigningKey
from emlab.loss import Loss
from emlab.planning import Accuracy, DropOuts, Error, Law, Plan, alpha_of
from emlab.query import Query

MAX_TIMEOUT_S = 600.0
STARTING_S = 2.5 * START_TIMEOUT_S  # a cloud that must be started, twice
MAX_DEADLINE_S = 3000.0
RELEASING_S = 60.0  # between the last answer and the release
AGAIN_S = 0.25  # until an aggregator that could not be reached is asked again; then twice as long, and so on
MAX_AT_ONCE = 256
LOCAL_AT_ONCE = 16  # each draws in a program of its own, which takes 0.15 s of a core
LATE = "Deadline"


class Asked(Protocol):
    """What a provider needs of a controller."""

    @property
    def at_once(self) -> int:
        """How many asks it carries side by side without others having to wait."""

    def roster(self, token: str, provider: str) -> Sequence[str]:
        """What the provider knows the clouds by whose owners permit it to ask."""

    def put(self, ask: Ask, signature: bytes, alias: str, *, token: str, timeout_s: float) -> Outcome:
        """What one cloud says to an ask."""


class Releasing(Protocol):
    """What a provider needs of an aggregator."""

    @property
    def public(self) -> str:
        """The public key to which answers are sealed, in hex."""

    def trusts(self, model: Model) -> str:
        """What its releases of that model say of who sees clear answers."""

    def room(self, query: Query) -> int:
        """How many clouds' answers to it one release can be made of."""

    def release(self, ask: Ask, outcomes: Sequence[Outcome], *, signature: bytes) -> Release:
        """The release of one ask, which its provider has signed."""


class Provider:
    """A registered provider: its name, its key pair and its token, which reads no cloud. Made by the controller."""

    def __init__(
        self,
        controller: Asked,
        name: str,
        *,
        key: SigningKey,
        token: str,
        aggregator: Releasing,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.name = name
        self.token = token
        self._controller = controller
        self._key = key
        self._aggregator = aggregator
        self._clock = clock
        self._lock = threading.Lock()
        self._drop_outs = DropOuts()

    @property
    def key(self) -> SigningKey:
        """Its pair; whoever has kept it may register again under this name in a kept lab."""
        return self._key

    @property
    def public(self) -> str:
        """The public key that policies pin, in hex."""
        return self._key.public

    def plan(
        self,
        query: Query,
        *,
        error: Error | None = None,
        confidence: float | None = None,
        epsilon: float | None = None,
        rho: float | None = None,
        offset: float | None = None,
        alpha: float | None = None,
        law: Law | None = None,
        model: Model = "central",
        min_users: int = 10,
        purpose: str = "",
    ) -> Plan:
        """What an ask would cost and give. Spends nothing, wakes nobody.

        Args:
            error, confidence: the loss is to be found with which the noise of every cell together stays within `error`
                (in the query's unit, or a mapping by part) with this probability at least; in the local model that of
                all clouds that could answer.
            epsilon, rho, offset, alpha: instead, as for `ask`; with epsilon or rho `alpha` is the risk of the interval.
            law: of the noise that `error` or `offset` is about: "laplace" (if nothing is said) costs epsilon,
                "gaussian" rho.
            model, min_users, purpose: as for `ask`.
        Raises: BadQuery.
        """
        if (error is None) != (confidence is None) or (error is not None and (offset is not None or alpha is not None)):
            raise BadQuery("say error and confidence together, or epsilon, or rho, or offset and alpha")
        if law is not None and error is None and offset is None:
            raise BadQuery("an epsilon is of laplace noise and a rho of gaussian: law is said of an error or an offset")
        alpha = alpha if confidence is None else alpha_of(confidence)
        wanted: Error | None = offset if error is None else error
        clouds = len(self._controller.roster(self.token, self.public))
        loss = _loss(query, epsilon, rho, wanted, alpha, law=law or "laplace", draws=_draws(model, clouds))
        ask = self._ask(query, loss, model, min_users, purpose)
        return planning.plan(
            ask,
            alpha=planning.ALPHA if alpha is None else alpha,
            eligible=clouds,
            drop_outs=self._drop_outs,
            trust=self._aggregator.trusts(model),
        )

    def ask(
        self,
        query: Query,
        *,
        epsilon: float | None = None,
        rho: float | None = None,
        offset: float | None = None,
        alpha: float | None = None,
        model: Model = "central",
        min_users: int = 10,
        purpose: str = "",
        timeout_s: float = 30.0,
        deadline_s: float | None = None,
        at_once: int | None = None,
        progress: bool = True,
    ) -> Release:
        """The noisy aggregate over all clouds of the lab; sleeping ones are woken. Refusals and failures are counted.

        Args:
            epsilon: privacy loss of each person, 1e-6 to 100, with Laplace noise; or else
            rho: zero-concentrated privacy loss, 1e-9 to 5000, with Gaussian noise; or else
            offset, alpha: the noise shall exceed `offset` (in the query's unit) with probability `alpha` at most, in
                the local model that of all clouds together.
            model: "central": the aggregator sees each contribution and adds noise once; "local": each cloud adds noise
                to its own, so that nobody need be trusted, and the error grows with the root of their number.
            min_users: release nothing of fewer answers; an owner's policy may demand more.
            purpose: for the owners' ledgers, at most 200 characters.
            timeout_s: for each cloud that answers, its waking included; two of the query's slots to 600. A cloud that
                must be started anew takes as long as that takes.
            deadline_s: for all of them together; two slots to 3000. Who has not answered by then counts as failed with
                `Deadline`, and is not waited for: what such a cloud has spent stays spent, its late answer is dropped.
            at_once: clouds that are asked side by side, 1 to 256; as many as the controller can take without it, of
                the local model 16, where each runs a program that draws.
        Raises: BadQuery, TooFewUsers (before anything is spent if there are too few clouds; afterwards if too few
            answered, and then the clouds that did have spent it); Unreachable (the aggregator, for a minute after the
            last answer).
        """
        _loss(query, epsilon, rho, offset, alpha)  # nobody is looked up for what makes no sense
        roster = self._controller.roster(self.token, self.public)
        loss = _loss(query, epsilon, rho, offset, alpha, draws=_draws(model, len(roster)))
        ask = self._ask(query, loss, model, min_users, purpose)
        _check_times(ask, timeout_s, deadline_s)
        wave = self._wave(model, at_once)
        self._check_group(query, len(roster), min_users)
        lasts_s = min((timeout_s + STARTING_S) * (1 + len(roster) // wave), deadline_s or math.inf)
        expires_ts = self._clock.now() + min(lasts_s + RELEASING_S, asking.MAX_ASK_S)
        ask = msgspec.structs.replace(ask, expires_ts=expires_ts)
        signature = asking.sign(ask, self._key)
        outcomes = self._put(ask, signature, roster, timeout_s, deadline_s, wave, progress=progress)
        return self._released(ask, outcomes, signature)

    def _released(self, ask: Ask, outcomes: Sequence[Outcome], signature: bytes) -> Release:
        """The release. An aggregator that cannot be reached is asked again: the clouds have spent, and it gives one."""
        until_ts = min(self._clock.now() + RELEASING_S, ask.expires_ts)
        pause_s = AGAIN_S
        while True:
            try:
                return self._aggregator.release(ask, outcomes, signature=signature)
            except Unreachable as exc:
                if self._clock.now() + pause_s >= until_ts:
                    raise Unreachable(f"{exc}; the clouds that answered have spent what the ask costs") from exc
            self._clock.wait(pause_s)
            pause_s *= 2

    def _check_group(self, query: Query, clouds: int, min_users: int) -> None:
        """Returns if so many could be enough, and are not too many. Raises TooFewUsers, BadQuery."""
        if clouds > (room := self._aggregator.room(query)):
            raise BadQuery(
                f"{clouds} clouds permit {self.name} to ask, and the aggregator takes the answers of {room} to a query "
                "with so many cells; nothing was spent; ask for fewer cells"
            )
        if clouds < min_users:
            raise TooFewUsers(
                f"the owners of {clouds} clouds permit {self.name} to ask, which demands {min_users} answers; "
                "nothing was spent; an owner permits a provider with cloud.permit(provider)"
            )

    def _put(
        self,
        ask: Ask,
        signature: bytes,
        roster: Sequence[str],
        timeout_s: float,
        deadline_s: float | None,
        wave: int,
        *,
        progress: bool,
    ) -> list[Outcome]:
        """What each cloud of the roster said in time."""

        def put(alias: str) -> Outcome:
            try:
                return self._controller.put(ask, signature, alias, token=self.token, timeout_s=timeout_s)
            except NotPermitted:  # the token or the ask is wrong, for every cloud
                raise
            except EmlabError as exc:  # the way to one cloud: the others have spent already
                return Failure(cloud=alias, kind=exc.kind)

        outcomes = fan_out(
            roster,
            put,
            description="asking clouds",
            progress=progress,
            at_once=wave,
            deadline=None if deadline_s is None else Deadline(deadline_s, _missed),
        )
        missing = sum(not isinstance(outcome, Answer) for outcome in outcomes)
        with self._lock:
            self._drop_outs = self._drop_outs.after(len(outcomes), missing)
        return outcomes

    def _wave(self, model: Model, at_once: int | None) -> int:
        """How many clouds are asked side by side. Raises BadQuery."""
        if at_once is None:
            return min(self._controller.at_once, LOCAL_AT_ONCE if model == "local" else MAX_AT_ONCE)
        if isinstance(at_once, bool) or not isinstance(at_once, int):
            raise BadQuery(f"at_once is a whole number, not {at_once!r}")
        _check_number("at_once", at_once, 1, MAX_AT_ONCE)
        return at_once

    def _ask(self, query: Query, loss: Loss, model: Model, min_users: int, purpose: str) -> Ask:
        """A new ask, which expires now. Raises BadQuery."""
        whole = isinstance(min_users, Integral) and not isinstance(min_users, bool)
        if not whole or not isinstance(purpose, str) or not purpose.isprintable():
            raise BadQuery(f"min_users is an int and purpose a line of text, not {min_users!r} and {purpose!r}")
        ask = Ask(
            id=asking.new_id(),
            query=query,
            loss=loss,
            model=model,
            min_users=int(min_users),
            provider=self.public,
            provider_name=self.name,
            aggregator=self._aggregator.public,
            purpose=purpose,
            expires_ts=self._clock.now(),
        )
        asking.check(ask)
        return asking.decode(ask.encode(), Ask, "the ask")  # the bounds of its fields, as every cloud checks them

    def __repr__(self) -> str:
        return f"Provider(name={self.name!r}, public={self.public[:12]}…)"


def _missed(alias: str) -> Outcome:
    return Failure(cloud=alias, kind=LATE)


def _draws(model: Model, clouds: int) -> int:
    """How many noises are in a sum over so many clouds."""
    return max(clouds, 1) if model == "local" else 1


def _check_times(ask: Ask, timeout_s: float, deadline_s: float | None) -> None:
    """Returns if no timeout can tell a cloud with much data from one with little. Raises BadQuery."""
    _check_number("timeout_s", timeout_s, 2 * ask.slot_s, MAX_TIMEOUT_S)
    if deadline_s is not None:
        _check_number("deadline_s", deadline_s, 2 * ask.slot_s, MAX_DEADLINE_S)


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadQuery(f"{name} is {low:g} to {high:g} for this query, not {value!r}")


def _loss(
    query: Query,
    epsilon: float | None,
    rho: float | None,
    offset: Error | None,
    alpha: float | None,
    *,
    law: Law = "laplace",
    draws: int = 1,
) -> Loss:
    """The privacy loss of an ask, given as epsilon, as rho, or as (offset, alpha). Raises BadQuery."""
    if not isinstance(query, Query):
        raise BadQuery(f"a query is one of emlab.queries, such as CountUsers, not {type(query).__name__}")
    for region in query.regions:
        region.check()
    if (epsilon is not None) + (rho is not None) + (offset is not None) != 1 or (offset is not None and alpha is None):
        raise BadQuery("say either epsilon, or rho, or offset and alpha")
    if epsilon is not None:
        return Loss(epsilon_micro=privacy.micro_epsilon(epsilon))
    if rho is not None:
        return Loss(rho_nano=privacy.nano_rho(rho))
    assert offset is not None
    assert alpha is not None
    return planning.loss_for(query, Accuracy(error=offset, alpha=alpha, law=law), draws)
