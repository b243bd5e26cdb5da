"""Asks, keys and requests for the tests of those who admit and answer them."""

from __future__ import annotations

from dataclasses import dataclass, field

from emlab import ask as asking
from emlab.ask import Ask, AskRequest, Model
from emlab.key import SealingKey, SigningKey
from emlab.loss import Loss
from emlab.queries.count_users import CountUsers
from emlab.query import Query

NOW = 1_700_000_000.0
CLOUD = "0123456789abcdef" * 2
ALIAS = "a11a5" + "0" * 27


@dataclass
class World:
    """One controller, provider, aggregator and cloud, with their keys."""

    controller: SigningKey = field(default_factory=SigningKey)
    provider: SigningKey = field(default_factory=SigningKey)
    cloud: SigningKey = field(default_factory=SigningKey)
    aggregator: SealingKey = field(default_factory=SealingKey)
    now: float = NOW

    def ask(
        self,
        query: Query = CountUsers(None, 0.0, 2e9),  # noqa: B008 (a frozen value)
        *,
        epsilon_micro: int = 100_000,
        rho_nano: int | None = None,
        model: Model = "central",
        min_users: int = 1,
        lasts_s: float = 60,
        ask_id: str | None = None,
    ) -> Ask:
        return Ask(
            id=ask_id or asking.new_id(),
            query=query,
            loss=Loss(epsilon_micro=epsilon_micro) if rho_nano is None else Loss(rho_nano=rho_nano),
            model=model,
            min_users=min_users,
            provider=self.provider.public,
            provider_name="planner",
            aggregator=self.aggregator.public,
            purpose="test",
            expires_ts=self.now + lasts_s,
        )

    def request(self, ask: Ask, *, cloud: str = CLOUD, lasts_s: float = 30) -> AskRequest:
        capability, mark = asking.grant(ask, cloud, ALIAS, self.controller, expires_ts=self.now + lasts_s)
        return AskRequest(
            ask=ask.encode(),
            signature=asking.sign(ask, self.provider),
            capability=capability,
            capability_signature=mark,
        )
