"""The aggregator: the only party that sees clear contributions in the central model.

It opens the sealed answers of one ask, enforces the group size, adds the noise. It releases an ask once:
asked again, also after a restart, it gives the same release, because fresh noise on the same answers could be
averaged away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from emlab import ask as asking
from emlab import privacy
from emlab.aggregate import Noise, Release, release
from emlab.ask import Answer, Ask, Failure, Outcome, Refusal
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.errors import ConfigError, NotPermitted
from emlab.key import SealingKey

log = logging.getLogger(__name__)
SIMULATED = "simulated: the aggregator ran in the provider's process"
NOT_PRIVATE = "NOT PRIVATE: no noise was added"


class Directory(Protocol):
    """What an aggregator must be able to rely on, and no provider can influence."""

    def public_keys(self, provider: str) -> Mapping[str, str]:
        """The public key of each cloud, by what this provider (its public key) knows the cloud by."""

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gave when it was called for this name the first time, ever; it is kept before it is returned."""


class Aggregator:
    """Holds the key that answers are sealed to. Thread-safe.

    Args:
        key: its pair; a fresh one without it.
        exact: add no noise; every release then says NOT PRIVATE. For tests and simulations.
        directory: of the lab that it serves; a Lab gives its own.
    """

    def __init__(
        self,
        key: SealingKey | None = None,
        *,
        exact: bool = False,
        directory: Directory | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.directory = directory
        self._key = SealingKey() if key is None else key
        self._noise: Noise | None = None if exact else privacy.discrete_laplace
        self._trust = NOT_PRIVATE if exact else SIMULATED
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def public(self) -> str:
        """The public key to which answers are sealed, in hex."""
        return self._key.public

    def release(self, ask: Ask, outcomes: Sequence[Outcome]) -> Release:
        """The release of one ask.

        Args:
            outcomes: what each cloud said. An answer that does not open, was altered, comes twice or from a cloud
                that is not in the directory counts as failed.
        Raises: TooFewUsers; NotPermitted (the ask is for another aggregator or has expired); ConfigError.
        """
        if self.directory is None:
            raise ConfigError("this aggregator serves no lab yet: open one with Lab(..., aggregator=...)")
        if ask.aggregator != self.public:
            raise NotPermitted("the ask names another aggregator")
        if self._clock.now() >= ask.expires_ts:
            raise NotPermitted("the ask has expired; nothing more is released for it")
        keys = self.directory.public_keys(ask.provider)
        with self._lock:
            kept = self.directory.once(
                asking.digest(ask.encode()), lambda: msgspec.json.encode(self._release(ask, outcomes, keys))
            )
        return msgspec.json.decode(kept, type=Release)

    def _release(self, ask: Ask, outcomes: Sequence[Outcome], keys: Mapping[str, str]) -> Release:
        values: dict[str, int] = {}
        others: list[Refusal | Failure] = []
        for outcome in outcomes:
            if not isinstance(outcome, Answer):
                others.append(outcome)
                continue
            try:
                values[outcome.cloud] = self._open(ask, outcome, keys, twice=outcome.cloud in values)
            except NotPermitted as exc:
                log.warning("answer of cloud %s not counted: %s", outcome.cloud[:12], exc)
                others.append(Failure(cloud=outcome.cloud, kind=exc.kind))
        return release(ask, list(values.values()), others, noise=self._noise, trust=self._trust)

    def _open(self, ask: Ask, answer: Answer, keys: Mapping[str, str], *, twice: bool) -> int:
        if twice:
            raise NotPermitted("the cloud answered twice")
        if answer.cloud not in keys:
            raise NotPermitted("the lab has no such cloud")
        return asking.disclose(answer.envelope, ask, self._key, answer.cloud, keys[answer.cloud])
