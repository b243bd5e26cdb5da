"""The aggregator: the only party that sees clear contributions in the central model.

It opens the sealed answers of one ask, enforces the group size, adds the noise. It releases an ask once: asked
again, it gives the same release, because fresh noise on the same answers could be averaged away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from emlab import ask as asking
from emlab import privacy
from emlab.aggregate import Noise, Release, release
from emlab.ask import Answer, Ask, Failure, Outcome, Refusal
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.errors import NotPermitted
from emlab.key import SealingKey

log = logging.getLogger(__name__)
SIMULATED = "simulated: the aggregator ran in the provider's process"
NOT_PRIVATE = "NOT PRIVATE: no noise was added"


class Aggregator:
    """Holds the key that answers are sealed to. Thread-safe.

    Args:
        key: its pair; a fresh one without it.
        exact: add no noise; every release then says NOT PRIVATE. For tests and simulations.
    """

    def __init__(self, key: SealingKey | None = None, *, exact: bool = False, clock: Clock = SYSTEM_CLOCK) -> None:
        self._key = SealingKey() if key is None else key
        self._noise: Noise | None = None if exact else privacy.discrete_laplace
        self._trust = NOT_PRIVATE if exact else SIMULATED
        self._clock = clock
        self._lock = threading.Lock()
        self._released: dict[str, tuple[float, Release]] = {}

    @property
    def public(self) -> str:
        """The public key to which answers are sealed, in hex."""
        return self._key.public

    def release(self, ask: Ask, outcomes: Sequence[Outcome], roster: Mapping[str, str]) -> Release:
        """The release of one ask.

        Args:
            outcomes: what each cloud said. An answer that does not open, was altered, comes twice or from a cloud
                that is not in the roster counts as failed.
            roster: the public key of each cloud that was asked, as the controller knows it.
        Raises: TooFewUsers; NotPermitted (the ask is for another aggregator or has expired).
        """
        if ask.aggregator != self.public:
            raise NotPermitted("the ask names another aggregator")
        now = self._clock.now()
        if now >= ask.expires_ts:
            raise NotPermitted("the ask has expired; nothing more is released for it")
        digest = asking.digest(ask.encode())
        with self._lock:
            self._released = {d: kept for d, kept in self._released.items() if kept[0] > now}
            if digest not in self._released:
                self._released[digest] = (ask.expires_ts, self._release(ask, outcomes, roster))
            return self._released[digest][1]

    def _release(self, ask: Ask, outcomes: Sequence[Outcome], roster: Mapping[str, str]) -> Release:
        values: dict[str, int] = {}
        others: list[Refusal | Failure] = []
        for outcome in outcomes:
            if not isinstance(outcome, Answer):
                others.append(outcome)
                continue
            try:
                values[outcome.cloud] = self._open(ask, outcome, roster, twice=outcome.cloud in values)
            except NotPermitted as exc:
                log.warning("answer of cloud %s not counted: %s", outcome.cloud[:12], exc)
                others.append(Failure(cloud=outcome.cloud, kind=exc.kind, reason=str(exc)))
        return release(ask, list(values.values()), others, noise=self._noise, trust=self._trust)

    def _open(self, ask: Ask, answer: Answer, roster: Mapping[str, str], *, twice: bool) -> int:
        if twice:
            raise NotPermitted("the cloud answered twice")
        if answer.cloud not in roster:
            raise NotPermitted("the cloud is not among those that were asked")
        return asking.disclose(answer.envelope, ask, self._key, answer.cloud, roster[answer.cloud])
