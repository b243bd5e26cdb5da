"""Providers: who asks one question of many clouds, and gets a release."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Protocol

import msgspec

from emlab import ask as asking
from emlab import privacy
from emlab.aggregate import Release
from emlab.ask import Ask, Outcome
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.engines.base import START_TIMEOUT_S
from emlab.errors import BadQuery, TooFewUsers
from emlab.fanout import MAX_WORKERS, fan_out
from emlab.key import SigningKey
from emlab.query import Query

MAX_TIMEOUT_S = 600.0
STARTING_S = 2.5 * START_TIMEOUT_S  # a cloud that must be started, twice


class Asked(Protocol):
    """What a provider needs of a controller."""

    def roster(self, token: str, provider: str) -> Sequence[str]:
        """What the provider knows the clouds by whose owners permit it to ask."""

    def put(self, ask: Ask, signature: bytes, alias: str, *, token: str, timeout_s: float) -> Outcome:
        """What one cloud says to an ask."""


class Releasing(Protocol):
    """What a provider needs of an aggregator."""

    @property
    def public(self) -> str:
        """The public key to which answers are sealed, in hex."""

    def release(self, ask: Ask, outcomes: list[Outcome]) -> Release:
        """The release of one ask."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an ask would cost and give; nothing was spent.

    Attributes:
        epsilon: privacy loss of each person. noise_scale: of the discrete Laplace noise, in `unit`.
        half_width: the noise exceeds this with probability alpha at most, in `unit`.
        clouds: how many would be asked.
    """

    query: str
    unit: str
    epsilon: float
    noise_scale: float
    alpha: float
    half_width: int
    clouds: int
    min_users: int

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{name}</th><td>{escape(str(v))}</td></tr>" for name, v in msgspec.structs.asdict(self).items()
        )
        return f"<table>{rows}</table>"


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
        epsilon: float | None = None,
        offset: float | None = None,
        alpha: float | None = None,
        min_users: int = 10,
    ) -> Plan:
        """What `ask` with these arguments would cost and give. Spends nothing, wakes nobody. Raises BadQuery."""
        cost = _cost(query, epsilon, offset, alpha)
        scale = privacy.noise_scale(query.sensitivity, cost)
        risk = 0.05 if alpha is None else alpha
        return Plan(
            query=type(query).__name__,
            unit=query.unit,
            epsilon=cost / privacy.MICRO,
            noise_scale=scale,
            alpha=risk,
            half_width=privacy.half_width(risk, scale),
            clouds=len(self._controller.roster(self.token, self.public)),
            min_users=min_users,
        )

    def ask(
        self,
        query: Query,
        *,
        epsilon: float | None = None,
        offset: float | None = None,
        alpha: float | None = None,
        min_users: int = 10,
        purpose: str = "",
        timeout_s: float = 30.0,
        progress: bool = True,
    ) -> Release:
        """The noisy aggregate over all clouds of the lab; sleeping ones are woken. Refusals and failures are counted.

        Args:
            epsilon: privacy loss of each person, 1e-6 to 100; or else
            offset, alpha: the noise shall exceed `offset` (in the query's unit) with probability `alpha` at most.
            min_users: release nothing of fewer answers; an owner's policy may demand more.
            purpose: for the owners' ledgers, at most 200 characters.
            timeout_s: for each cloud that answers, its waking included; two of the query's slots to 600. A cloud that
                must be started anew takes as long as that takes.
        Raises: BadQuery, TooFewUsers (before anything is spent if there are too few clouds; afterwards if too few
            answered, and then the clouds that did have spent it).
        """
        cost = _cost(query, epsilon, offset, alpha)
        least_s = 2 * query.slot_s  # so that no timeout can tell a cloud with much data from one with little
        number = isinstance(timeout_s, (int, float)) and not isinstance(timeout_s, bool)
        if not number or not least_s <= timeout_s <= MAX_TIMEOUT_S:
            raise BadQuery(f"timeout_s is {least_s:g} to {MAX_TIMEOUT_S:g} for this query, not {timeout_s!r}")
        roster = self._controller.roster(self.token, self.public)
        ask = self._ask(query, cost, min_users, purpose, (timeout_s + STARTING_S) * (1 + len(roster) // MAX_WORKERS))
        if len(roster) < min_users:
            raise TooFewUsers(
                f"the owners of {len(roster)} clouds permit {self.name} to ask, which demands {min_users} answers; "
                "nothing was spent; an owner permits a provider with cloud.permit(provider)"
            )
        signature = asking.sign(ask, self._key)

        def put(alias: str) -> Outcome:
            return self._controller.put(ask, signature, alias, token=self.token, timeout_s=timeout_s)

        outcomes = fan_out(roster, put, description="asking clouds", progress=progress)
        return self._aggregator.release(ask, outcomes)

    def _ask(self, query: Query, cost_micro: int, min_users: int, purpose: str, lasts_s: float) -> Ask:
        ask = Ask(
            id=asking.new_id(),
            query=query,
            epsilon_micro=cost_micro,
            min_users=min_users,
            provider=self.public,
            provider_name=self.name,
            aggregator=self._aggregator.public,
            purpose=purpose,
            expires_ts=self._clock.now() + min(lasts_s, asking.MAX_ASK_S),
        )
        return asking.decode(ask.encode(), Ask, "the ask")  # the bounds of its fields, as every cloud checks them

    def __repr__(self) -> str:
        return f"Provider(name={self.name!r}, public={self.public[:12]}…)"


def _cost(query: Query, epsilon: float | None, offset: float | None, alpha: float | None) -> int:
    """Micro-epsilon of an ask, given as epsilon or as (offset, alpha)."""
    if not isinstance(query, Query):
        raise BadQuery(f"a query is a CountUsers or SumDistance, not {type(query).__name__}")
    region = getattr(query, "region", None)
    if region is not None:
        region.check()
    if epsilon is not None and offset is None:
        return privacy.micro_epsilon(epsilon)
    if epsilon is None and offset is not None and alpha is not None:
        return privacy.solve_epsilon(query.sensitivity, offset, alpha)
    raise BadQuery("say either epsilon, or offset and alpha")
