"""One question on its way: the ask, the capability that admits it to a cloud, and the sealed answer. Pure.

Who signs what: the provider signs the ask, the controller signs a capability for one cloud and that ask's digest,
the cloud signs the envelope with its answer. The answer is sealed to the aggregator that the ask names.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

from emlab.errors import BadQuery, BudgetExhausted, NotPermitted, PolicyRefused
from emlab.key import SealingKey, SigningKey, check_sealing, seal, verify
from emlab.loss import Loss
from emlab.noise import noises
from emlab.privacy import ALPHA_MIN
from emlab.queries.known import AnyQuery
from emlab.query import MAX_CELLS, cells, clamp

MAX_CAPABILITY_S = 60.0
MAX_ASK_S = 3600.0
MAX_MIN_USERS = 1_000_000
MAX_SEQ = 2**53
DRAWING_S = 10.0  # at most, for noise in a cloud: its program takes 0.15 to 0.3 s of a core, and many may draw at once
Model = Literal["central", "local"]
Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
Public = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
Kind = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]  # the name of an error
S = TypeVar("S")


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One question of one provider; the same for every cloud.

    Attributes:
        id: 128 random bits in hex; the same id is never debited twice.
        query: what to compute.
        loss: privacy loss for each person.
        model: "central": the aggregator sees each person's contribution and adds noise once; "local": each cloud adds
            noise to its own, and nobody need be trusted.
        min_users: the aggregator releases nothing of fewer answers.
        provider, aggregator: public keys (Ed25519, X25519) in hex.
        provider_name, purpose: for the owner's ledger.
        expires_ts: UTC seconds; at most an hour ahead.
    """

    id: Id
    query: AnyQuery
    loss: Loss
    model: Model = "central"
    min_users: Annotated[int, msgspec.Meta(ge=1, le=MAX_MIN_USERS)]
    provider: Public
    provider_name: Name
    aggregator: Public
    purpose: Annotated[str, msgspec.Meta(max_length=200)]
    expires_ts: float

    @property
    def slot_s(self) -> float:
        """How long each cloud takes to answer at most, whatever its data.

        It takes the query's slot; in the local model it draws noise before that, which no data has a part in.
        """
        return self.query.slot_s + (DRAWING_S if self.model == "local" else 0.0)

    def encode(self) -> bytes:
        """The canonical bytes, which are signed and digested."""
        return msgspec.json.encode(self, order="deterministic")


def new_id() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


def digest(ask: bytes) -> str:
    """SHA-256 of the canonical bytes of an ask, in hex."""
    return hashlib.sha256(ask).hexdigest()


def check(ask: Ask) -> None:
    """Returns if the ask could be answered at all: its loss is one, and its cells are not too many. Raises BadQuery."""
    ask.loss.check()
    if cells(ask.query) > MAX_CELLS:
        raise BadQuery(f"an answer has at most {MAX_CELLS} cells, not {cells(ask.query)}")
    noises(ask.query, ask.loss)


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


def authenticate_ask(ask: Ask, signature: bytes) -> None:
    """Returns if the provider that the ask names has signed it. Raises NotPermitted."""
    verify(ask.provider, signature, b"emlab/ask\0" + ask.encode(), "the ask")


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
    check(ask)
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


class Stub(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That a cloud answered an ask: what it signs.

    Attributes:
        cloud: what the provider knows it by. public: its key for this provider, by which nobody else knows it.
        ask_digest: of the canonical ask, which has query, loss and group in it.
        answered_ts: whole UTC seconds, from before data was read, so that they say nothing of how much there is.
        ledger_seq: counts the cloud's debits: whoever remembers it notices a ledger that was set back.
        policy_version: of the policy under which it answered. sealed_digest: SHA-256 of what was sealed.
    """

    cloud: Id
    public: Public
    ask_digest: Public
    answered_ts: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    ledger_seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    policy_version: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    sealed_digest: Public

    def signed(self) -> bytes:
        """The bytes that the cloud's signature covers."""
        return b"emlab/answer\0" + msgspec.json.encode(self, order="deterministic")

    def digest(self) -> str:
        """SHA-256 of these, in hex: by which a cloud's log and a receipt know the answer."""
        return hashlib.sha256(self.signed()).hexdigest()


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A cloud's answer, sealed to the aggregator and signed by the cloud.

    `stub` says which cloud answered which ask, and under what. `signature` is that of the cloud's own key, which the
    aggregator has from the lab; `countersignature` that of the stub's key, with which anybody can check a receipt.
    """

    stub: Stub
    sealed: bytes
    signature: bytes
    countersignature: bytes


def enclose(
    ask: Ask, values: Sequence[int], cloud: str, key: SigningKey, *, seq: int, version: int, ts: float
) -> Envelope:
    """The cells of one cloud, sealed to the ask's aggregator: clamped, but for those of the local model.

    Args:
        cloud: its alias. seq: of its ledger. version: of its owner's policy.
        ts: when it began, before it read data (UTC seconds).
    """
    told = clamp(ask.query, values) if ask.model == "central" else values
    # 8 bytes whatever the value, so that the length of the envelope says nothing
    clear = struct.pack(f">{len(told)}q", *told)
    ask_digest = digest(ask.encode())
    sealed = seal(ask.aggregator, clear, f"emlab/sealed\0{cloud}\0{ask_digest}".encode())
    shown = key.derive(f"alias/{cloud}")
    stub = Stub(
        cloud=cloud,
        public=shown.public,
        ask_digest=ask_digest,
        answered_ts=int(ts),
        ledger_seq=seq,
        policy_version=version,
        sealed_digest=hashlib.sha256(sealed).hexdigest(),
    )
    signed = stub.signed()
    return Envelope(stub=stub, sealed=sealed, signature=key.sign(signed), countersignature=shown.sign(signed))


def authenticate(envelope: Envelope, ask: Ask, cloud: str, cloud_public: str) -> None:
    """Returns if the envelope is that cloud's to that ask. Raises NotPermitted."""
    stub = envelope.stub
    if stub.cloud != cloud:
        raise NotPermitted("the answer is of another cloud")
    if stub.ask_digest != digest(ask.encode()):
        raise NotPermitted("the answer is for another ask")
    if stub.sealed_digest != hashlib.sha256(envelope.sealed).hexdigest():
        raise NotPermitted("the answer was altered")
    verify(cloud_public, envelope.signature, stub.signed(), "the answer")
    verify(stub.public, envelope.countersignature, stub.signed(), "the answer under the key for this provider")


def disclose(envelope: Envelope, ask: Ask, key: SealingKey, cloud: str, cloud_public: str) -> tuple[int, ...]:
    """The cells in an envelope, for the aggregator only.

    Raises NotPermitted: it is of another cloud or ask, was altered, or lies outside the query's clamp.
    """
    authenticate(envelope, ask, cloud, cloud_public)
    clear = key.open(envelope.sealed, f"emlab/sealed\0{cloud}\0{envelope.stub.ask_digest}".encode())
    if len(clear) != 8 * cells(ask.query):
        raise NotPermitted("the answer has more or fewer numbers than the query asks for")
    values: tuple[int, ...] = struct.unpack(f">{len(clear) // 8}q", clear)
    within = clamp(ask.query, values) == values if ask.model == "central" else _is_noisy(ask, values)
    if not within:
        raise NotPermitted("the answer lies outside what one person may contribute")
    return values


def _is_noisy(ask: Ask, values: Sequence[int]) -> bool:
    """Whether they can be one person's cells with that person's noise, which goes beyond this once in 10**12 cells."""
    laws = zip(ask.query.parts, noises(ask.query, ask.loss), strict=True)
    most = [part.cap + law.half_width(ALPHA_MIN, 1) for part, law in laws for _ in part.labels]
    return all(abs(value) <= bound for value, bound in zip(values, most, strict=True))


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One cloud answered; what it said is sealed."""

    cloud: str
    envelope: Envelope


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One cloud said no: which error. Why is between it, its owner and the lab's recorder."""

    cloud: Id
    kind: Kind


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One cloud could not be reached or broke: which error."""

    cloud: Id
    kind: Kind


Outcome = Answer | Refusal | Failure
REFUSALS = (NotPermitted, PolicyRefused, BudgetExhausted)
