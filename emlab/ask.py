"""One question on its way: the ask, the capability that admits it to a cloud, and the sealed answer. Pure.

Who signs what: the provider signs the ask, the controller signs a capability for one cloud and that ask's digest,
the cloud signs the envelope with its answer. The answer is sealed to the aggregator that the ask names.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, TypeVar

import msgspec

from emlab.errors import BadQuery, BudgetExhausted, NotPermitted, PolicyRefused
from emlab.key import SealingKey, SigningKey, check_sealing, seal, verify
from emlab.privacy import EPSILON_MICRO_MAX
from emlab.query import Query, clamp

MAX_CAPABILITY_S = 60.0
MAX_ASK_S = 3600.0
MAX_MIN_USERS = 1_000_000
MAX_SEQ = 2**53
Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
Public = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
S = TypeVar("S")


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question of one provider; the same for every cloud.

    Attributes:
        id: 128 random bits in hex; the same id is never debited twice.
        query: what to compute.
        epsilon_micro: privacy loss for each person, in millionths.
        min_users: the aggregator releases nothing of fewer answers.
        provider, aggregator: public keys (Ed25519, X25519) in hex.
        provider_name, purpose: for the owner's ledger.
        expires_ts: UTC seconds; at most an hour ahead.
    """

    id: Id
    query: Query
    epsilon_micro: Annotated[int, msgspec.Meta(ge=1, le=EPSILON_MICRO_MAX)]
    min_users: Annotated[int, msgspec.Meta(ge=1, le=MAX_MIN_USERS)]
    provider: Public
    provider_name: Name
    aggregator: Public
    purpose: Annotated[str, msgspec.Meta(max_length=200)]
    expires_ts: float

    def encode(self) -> bytes:
        """The canonical bytes, which are signed and digested."""
        return msgspec.json.encode(self, order="deterministic")


def new_id() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


def digest(ask: bytes) -> str:
    """SHA-256 of the canonical bytes of an ask, in hex."""
    return hashlib.sha256(ask).hexdigest()


class Capability(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The controller's word that this provider may put this ask to this cloud until then (at most 60 s).

    `alias` is what the provider knows the cloud by, and what the cloud calls itself when it answers.
    """

    cloud: Id
    alias: Id
    ask_digest: str
    provider: Public
    aggregator: Public
    expires_ts: float


class AskRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What reaches a cloud: canonical ask and capability, each with its signature (base64 on the wire)."""

    ask: bytes
    signature: bytes
    capability: bytes
    capability_signature: bytes


def grant(ask: Ask, cloud: str, alias: str, controller: SigningKey, *, expires_ts: float) -> tuple[bytes, bytes]:
    """A capability for one cloud and the controller's signature of it."""
    capability = msgspec.json.encode(
        Capability(
            cloud=cloud,
            alias=alias,
            ask_digest=digest(ask.encode()),
            provider=ask.provider,
            aggregator=ask.aggregator,
            expires_ts=expires_ts,
        )
    )
    return capability, controller.sign(b"emlab/capability\0" + capability)


def sign(ask: Ask, provider: SigningKey) -> bytes:
    """The provider's signature of an ask."""
    return provider.sign(b"emlab/ask\0" + ask.encode())


def decode(raw: bytes, type_: type[S], what: str) -> S:
    """The struct in these bytes. Raises BadQuery, naming `what` and the field, never the bytes."""
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.DecodeError as exc:
        raise BadQuery(f"{what}: {exc}") from exc


def admit(request: AskRequest, *, cloud: str, controller: str, now: float) -> Ask:
    """The ask, if both signatures, the cloud, the digest and both expiries are right.

    Args:
        cloud: this cloud's id. controller: the controller's public key. now: UTC seconds.
    Raises: BadQuery (not an ask at all), NotPermitted (which of them is wrong).
    """
    capability = decode(request.capability, Capability, "the capability")
    verify(controller, request.capability_signature, b"emlab/capability\0" + request.capability, "the capability")
    ask = decode(request.ask, Ask, "the ask")
    if ask.encode() != request.ask:
        raise BadQuery("the ask is not in canonical form")
    verify(ask.provider, request.signature, b"emlab/ask\0" + request.ask, "the ask")
    if capability.cloud != cloud:
        raise NotPermitted("the capability is for another cloud")
    if capability.ask_digest != digest(request.ask):
        raise NotPermitted("the capability is for another ask")
    if (capability.provider, capability.aggregator) != (ask.provider, ask.aggregator):
        raise NotPermitted("the capability names another provider or aggregator")
    if not now < capability.expires_ts <= now + MAX_CAPABILITY_S:
        raise NotPermitted("the capability has expired or was made for too long")
    if not now < ask.expires_ts <= now + MAX_ASK_S:
        raise NotPermitted("the ask has expired or was made for too long")
    check_sealing(ask.aggregator)
    return ask


def alias(request: AskRequest) -> str:
    """What the provider knows the cloud by, in a request that was admitted."""
    return decode(request.capability, Capability, "the capability").alias


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cloud's answer, sealed to the aggregator and signed by the cloud.

    `ledger_seq` counts the cloud's debits: whoever remembers it notices a ledger that was set back.
    """

    cloud: Id
    ask_digest: str
    ledger_seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    sealed: bytes
    signature: bytes


def _bound(cloud: str, ask_digest: str, ledger_seq: int) -> bytes:
    return f"emlab/answer\0{cloud}\0{ask_digest}\0{ledger_seq}".encode()


def enclose(ask: Ask, value: int, cloud: str, key: SigningKey, ledger_seq: int) -> Envelope:
    """The clamped value of one cloud, sealed to the ask's aggregator."""
    ask_digest = digest(ask.encode())
    bound = _bound(cloud, ask_digest, ledger_seq)
    # 8 bytes whatever the value, so that the length of the envelope says nothing
    sealed = seal(ask.aggregator, clamp(ask.query, value).to_bytes(8, "big"), bound)
    return Envelope(
        cloud=cloud, ask_digest=ask_digest, ledger_seq=ledger_seq, sealed=sealed, signature=key.sign(bound + sealed)
    )


def authenticate(envelope: Envelope, ask: Ask, cloud: str, cloud_public: str) -> None:
    """Returns if the envelope is that cloud's to that ask. Raises NotPermitted."""
    if envelope.cloud != cloud:
        raise NotPermitted("the answer is of another cloud")
    if envelope.ask_digest != digest(ask.encode()):
        raise NotPermitted("the answer is for another ask")
    bound = _bound(envelope.cloud, envelope.ask_digest, envelope.ledger_seq)
    verify(cloud_public, envelope.signature, bound + envelope.sealed, "the answer")


def disclose(envelope: Envelope, ask: Ask, key: SealingKey, cloud: str, cloud_public: str) -> int:
    """The value in an envelope, for the aggregator only.

    Raises NotPermitted: it is of another cloud or ask, was altered, or lies outside the query's clamp.
    """
    authenticate(envelope, ask, cloud, cloud_public)
    clear = key.open(envelope.sealed, _bound(envelope.cloud, envelope.ask_digest, envelope.ledger_seq))
    value = int.from_bytes(clear, "big")
    if len(clear) != 8 or clamp(ask.query, value) != value:
        raise NotPermitted("the answer lies outside what one person may contribute")
    return value


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One cloud answered; what it said is sealed."""

    cloud: str
    envelope: Envelope


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One cloud said no: which error. Why is between it, its owner and the lab's recorder."""

    cloud: str
    kind: str


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One cloud could not be reached or broke: which error."""

    cloud: str
    kind: str


Outcome = Answer | Refusal | Failure
REFUSALS = (NotPermitted, PolicyRefused, BudgetExhausted)
