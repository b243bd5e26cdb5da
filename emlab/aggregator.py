"""The aggregator: the only party that sees clear contributions in the central model.

It opens the sealed answers of one ask, enforces the group size, adds the noise. It releases an ask once:
asked again, also after a restart, it gives the same release, because fresh noise on the same answers could be
averaged away.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from emlab import ask as asking
from emlab import receipt
from emlab.aggregate import LOCAL, Release, release
from emlab.ask import Answer, Ask, Envelope, Failure, Model, Outcome, Refusal
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.errors import ConfigError, NotPermitted
from emlab.key import SealingKey, SigningKey
from emlab.query import Query

log = logging.getLogger(__name__)
SIMULATED = "simulated: the aggregator ran in the provider's process"
NOT_PRIVATE = "NOT PRIVATE: no noise was added"
TWICE, UNKNOWN, BAD = "AnsweredTwice", "UnknownCloud", "BadReply"  # kinds of failures that an aggregator finds
_STRIPES = 64


class Directory(Protocol):
    """What an aggregator must be able to rely on, and no provider can influence."""

    def public_keys(self, provider: str) -> Mapping[str, str]:
        """The public key of each cloud, by what this provider (its public key) knows the cloud by."""

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gave when it was called for this name the first time, ever; it is kept before it is returned."""


class Aggregator:
    """Holds the key that answers are sealed to. Thread-safe.

    Args:
        key: its pair; a fresh one without it. signing: the pair that signs receipts; a fresh one without it.
        exact: add no noise; every release then says NOT PRIVATE. For tests and simulations.
        directory: of the lab that it serves; a Lab gives its own.
        trust: what its releases say of who sees clear answers.
    """

    def __init__(
        self,
        key: SealingKey | None = None,
        *,
        signing: SigningKey | None = None,
        exact: bool = False,
        directory: Directory | None = None,
        trust: str = SIMULATED,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.directory = directory
        self.trust = trust
        self._key = SealingKey() if key is None else key
        self._signing = SigningKey() if signing is None else signing
        self._exact = exact
        self._clock = clock
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    @property
    def public(self) -> str:
        """The public key to which answers are sealed, in hex."""
        return self._key.public

    @property
    def signing_public(self) -> str:
        """The public key of its signatures of receipts, in hex."""
        return self._signing.public

    def trusts(self, model: Model) -> str:
        """What its releases of that model say of who sees clear answers."""
        return LOCAL if model == "local" else NOT_PRIVATE if self._exact else self.trust

    def room(self, query: Query) -> int:
        """How many clouds' answers to it one release can be made of: any number."""
        return sys.maxsize

    def release(self, ask: Ask, outcomes: Sequence[Outcome], *, signature: bytes) -> Release:
        """The release of one ask; what was released for it before is given again, whatever is handed in.

        Args:
            outcomes: what each cloud said. An answer that does not open, was altered, comes twice or from a cloud
                that is not in the directory counts as failed. Who refused or failed is the provider's word, of which
                the first for each cloud counts, and none for a cloud that answered.
            signature: of the ask, by its provider.
        Raises: TooFewUsers; BadQuery (also: an outcome is none); NotPermitted (the ask is for another aggregator, has
            expired or is not its provider's); ConfigError; Unreachable (the directory is away). Nothing is released
            then, and the ask may be brought again.
        """
        if self.directory is None:
            raise ConfigError("this aggregator serves no lab yet: open one with Lab(..., aggregator=...)")
        if ask.aggregator != self.public:
            raise NotPermitted("the ask names another aggregator")
        if self._clock.now() >= ask.expires_ts:
            raise NotPermitted("the ask has expired; nothing more is released for it")
        asking.authenticate_ask(ask, signature)
        asking.check(ask)
        _check(outcomes)
        digest, directory = asking.digest(ask.encode()), self.directory
        with self._stripes[int(digest, 16) % _STRIPES]:
            kept = directory.once(
                digest, lambda: msgspec.json.encode(self._release(ask, outcomes, directory.public_keys(ask.provider)))
            )
        return msgspec.json.decode(kept, type=Release)

    def _release(self, ask: Ask, outcomes: Sequence[Outcome], keys: Mapping[str, str]) -> Release:
        values: dict[str, tuple[int, ...]] = {}
        counted: list[Envelope] = []
        told: dict[str, Refusal | Failure] = {}
        others: list[Refusal | Failure] = []
        for outcome in outcomes:
            if not isinstance(outcome, Answer):
                told.setdefault(outcome.cloud, outcome)
            elif (fault := _fault(outcome, keys, values)) is not None:
                others.append(Failure(cloud=outcome.cloud, kind=fault))
            else:
                try:
                    values[outcome.cloud] = self._open(ask, outcome, keys[outcome.cloud])
                    counted.append(outcome.envelope)
                except NotPermitted as exc:
                    log.warning("answer of cloud %s not counted: %s", outcome.cloud[:12], exc)
                    others.append(Failure(cloud=outcome.cloud, kind=BAD))
        others += [one for cloud, one in told.items() if cloud not in values]
        exact = self._exact and ask.model == "central"
        made = release(ask, list(values.values()), others, trust=self.trusts(ask.model), exact=exact)
        signed = receipt.make(ask, made, counted, others, self._signing, self._clock.now())
        return msgspec.structs.replace(made, receipt=signed)

    def __repr__(self) -> str:
        return f"Aggregator(public={self.public[:12]}…{', NOT PRIVATE: adds no noise' if self._exact else ''})"

    def _open(self, ask: Ask, answer: Answer, public: str) -> tuple[int, ...]:
        return asking.disclose(answer.envelope, ask, self._key, answer.cloud, public)


def _check(outcomes: Sequence[Outcome]) -> None:
    """Returns if those that are no answers are what they should be: they would stand in a receipt. Raises BadQuery."""
    for outcome in outcomes:
        if not isinstance(outcome, Answer):
            asking.decode(msgspec.json.encode(outcome), type(outcome), "an outcome")


def _fault(answer: Answer, keys: Mapping[str, str], counted: Collection[str]) -> str | None:
    """Why an answer is not even opened; None if it is."""
    if answer.cloud in counted:
        return TWICE
    return None if answer.cloud in keys else UNKNOWN
