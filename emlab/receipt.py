"""The receipt of a release: who answered which ask under what, signed by the aggregator and by each cloud. Pure.

It holds no contribution, nothing sealed and no exact total: whoever has a release may have its receipt. What its checks
prove, and what they do not, is in RECEIPTS.md. Imports of emlab ask, errors, key and verdict.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from emlab import ask as asking
from emlab.ask import MAX_ASK_S, Ask, Envelope, Failure, Public, Refusal, Stub
from emlab.errors import BadEntry, BadQuery, ConfigError, NotPermitted
from emlab.key import SigningKey, verify
from emlab.verdict import Check, Verdict, checked, differing

FORMAT = 1
MAX_FILE_BYTES = 256 << 20  # about 300,000 clouds
CLOCKS_S = 60.0  # by which the clocks of clouds, aggregator and provider may differ
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Kinds = dict[Annotated[str, msgspec.Meta(max_length=100)], Annotated[int, msgspec.Meta(ge=1, le=2**53)]]
Signature = Annotated[bytes, msgspec.Meta(min_length=64, max_length=64)]


class Released(Protocol):
    """What a receipt is of."""

    @property
    def digest(self) -> str:
        """SHA-256 of the release without its receipt, in hex."""

    @property
    def ask_id(self) -> str: ...  # noqa: D102
    @property
    def trust(self) -> str: ...  # noqa: D102
    @property
    def asked(self) -> int: ...  # noqa: D102
    @property
    def answered(self) -> int: ...  # noqa: D102
    @property
    def refused(self) -> int: ...  # noqa: D102
    @property
    def failed(self) -> int: ...  # noqa: D102
    @property
    def reasons(self) -> dict[str, int]: ...  # noqa: D102
    @property
    def min_users(self) -> int: ...  # noqa: D102
    @property
    def query(self) -> object: ...  # noqa: D102
    @property
    def loss(self) -> object: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102


class Countersigned(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """That one cloud answered, in its own words; see `ask.Envelope` for the two signatures."""

    stub: Stub
    signature: Signature
    countersignature: Signature


class Receipt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an aggregator says of one release, with what each cloud says of its answer.

    Attributes:
        format: of receipts, 1.
        ask: its canonical bytes, which hold query, loss, model, group, provider, purpose and expiry.
        release_digest: of the release, see `Release.digest`.
        asked, answered: numbers of clouds. refused, failed: numbers of the others by kind.
        made_ts: when the release was made, UTC seconds by the aggregator's clock.
        aggregator: its Ed25519 key. signature: of all the rest.
        answers: of each cloud that was counted, by alias.
    """

    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)] = FORMAT
    ask: Annotated[bytes, msgspec.Meta(max_length=16 << 20)]
    release_digest: Public
    asked: Count
    answered: Count
    refused: Kinds
    failed: Kinds
    made_ts: float
    aggregator: Public
    answers: tuple[Countersigned, ...]
    signature: bytes = b""

    def signed(self) -> bytes:
        """The bytes that the aggregator's signature covers."""
        bare = msgspec.structs.replace(self, signature=b"")
        return b"emlab/receipt\0" + msgspec.json.encode(bare, order="deterministic")

    @property
    def ask_digest(self) -> str:
        """SHA-256 of the canonical ask, in hex."""
        return asking.digest(self.ask)

    @classmethod
    def load(cls, path: Path | str) -> Receipt:
        """The receipt in a file of `Release.save`, or of a receipt alone. Raises BadEntry, ConfigError."""
        receipt, _ = read(Path(path))
        return receipt

    def verify(
        self,
        release: Released | None = None,
        *,
        aggregators: Collection[str] | None = None,
        clouds: Mapping[str, str] | None = None,
    ) -> Verdict:
        """Each check in words, with its outcome; the verdict is true if all hold, and its `demand` raises otherwise.

        Args:
            release: whether it is the one that this is the receipt of.
            aggregators: the signing keys that are trusted, in hex. Without them a receipt proves only that whoever made
                it stands by it.
            clouds: the key of each cloud by its alias, if the lab gave them. Without them the keys of the clouds are
                what the aggregator vouches for.
        """
        trust = "" if release is None else f"; trust: {release.trust}"
        return Verdict(
            f"the receipt of {self.answered} answers to ask {self.ask_digest[:12]}{trust}",
            tuple(_checks(self, release, aggregators, clouds)),
        )

    def __repr__(self) -> str:
        return f"Receipt(ask={self.ask_digest[:12]}…, answered={self.answered}, aggregator={self.aggregator[:12]}…)"


def make(
    ask: Ask,
    release: Released,
    envelopes: Iterable[Envelope],
    others: Sequence[Refusal | Failure],
    key: SigningKey,
    now: float,
) -> Receipt:
    """The receipt of a release of these answers, signed by the aggregator.

    Args:
        envelopes: those that were counted, opened and authenticated. others: the outcomes that were not.
        now: UTC seconds.
    """
    shown = [
        Countersigned(stub=one.stub, signature=one.signature, countersignature=one.countersignature)
        for one in envelopes
    ]
    bare = Receipt(
        ask=ask.encode(),
        release_digest=release.digest,
        asked=len(shown) + len(others),
        answered=len(shown),
        refused=dict(Counter(other.kind for other in others if isinstance(other, Refusal))),
        failed=dict(Counter(other.kind for other in others if isinstance(other, Failure))),
        made_ts=now,
        aggregator=key.public,
        answers=tuple(sorted(shown, key=lambda one: one.stub.cloud)),
    )
    return msgspec.structs.replace(bare, signature=key.sign(bare.signed()))


# -- checks ----------------------------------------------------------------------------------------------------


def _checks(
    receipt: Receipt, release: Released | None, aggregators: Collection[str] | None, clouds: Mapping[str, str] | None
) -> Iterator[Check]:
    yield checked("the aggregator signed it", _invalid(receipt.aggregator, receipt.signature, receipt.signed()))
    if aggregators is not None:
        trusted = receipt.aggregator in aggregators
        yield Check("the aggregator is one that you trust", trusted, "" if trusted else f"it is {receipt.aggregator}")
    ask, why = _decoded(receipt.ask)
    yield Check("it holds one ask, in canonical form", ask is not None, why)
    yield _each_signed(receipt)
    if clouds is not None:
        yield _each_known(receipt, clouds)
    yield checked("no cloud is in it twice", _doubles(receipt.answers))
    yield _counts(receipt)
    if ask is not None:
        few = receipt.answered < ask.min_users
        yield Check("the group is large enough", not few, f"{receipt.answered} of {ask.min_users}" if few else "")
        yield checked("it was made, and each cloud answered, before the ask expired", _late(receipt, ask))
    if release is not None:
        yield from _of_release(receipt, release, ask)


def _invalid(public: str, signature: bytes, message: bytes) -> Iterator[str]:
    try:
        verify(public, signature, message, "it")
    except NotPermitted as exc:
        yield str(exc)


def _decoded(raw: bytes) -> tuple[Ask | None, str]:
    """The ask, or None and why there is none."""
    try:
        ask = asking.decode(raw, Ask, "the ask")
        if ask.encode() != raw:
            return None, "it is not in canonical form"
        asking.check(ask)
    except (BadQuery, RecursionError, UnicodeDecodeError) as exc:
        return None, str(exc) or type(exc).__name__
    return ask, ""


def _each_signed(receipt: Receipt) -> Check:
    def wrong() -> Iterator[str]:
        for one in receipt.answers:
            name = one.stub.cloud[:12]
            if one.stub.ask_digest != receipt.ask_digest:
                yield f"the answer of {name} is to another ask"
            elif any(_invalid(one.stub.public, one.countersignature, one.stub.signed())):
                yield f"the signature of {name} is not valid"

    return checked(f"each of {len(receipt.answers)} clouds signed its answer to this ask", wrong())


def _each_known(receipt: Receipt, clouds: Mapping[str, str]) -> Check:
    def wrong() -> Iterator[str]:
        for one in receipt.answers:
            public = clouds.get(one.stub.cloud)
            if public is None:
                yield f"there is no cloud {one.stub.cloud[:12]}"
            elif any(_invalid(public, one.signature, one.stub.signed())):
                yield f"{one.stub.cloud[:12]} did not sign it"

    return checked("each cloud is one of the lab, and signed with its own key", wrong())


def _doubles(answers: Sequence[Countersigned]) -> Iterator[str]:
    for what, values in (
        ("cloud", [one.stub.cloud for one in answers]),
        ("key", [one.stub.public for one in answers]),
        ("answer", [one.stub.sealed_digest for one in answers]),
        ("signature", [one.signature.hex() for one in answers]),
    ):
        yield from (f"the {what} {value[:12]} comes {n} times" for value, n in Counter(values).items() if n > 1)


def _counts(receipt: Receipt) -> Check:
    others = sum(receipt.refused.values()) + sum(receipt.failed.values())
    return differing(
        "its counts agree with each other",
        ("the number of answers", receipt.answered, len(receipt.answers)),
        ("the number of outcomes", receipt.asked, len(receipt.answers) + others),
    )


def _late(receipt: Receipt, ask: Ask) -> Iterator[str]:
    earliest = ask.expires_ts - MAX_ASK_S - CLOCKS_S
    if not earliest <= receipt.made_ts <= ask.expires_ts + CLOCKS_S:
        yield f"it was made {receipt.made_ts - ask.expires_ts:+.0f} s from the expiry"
    for one in receipt.answers:
        if not earliest <= one.stub.answered_ts <= min(ask.expires_ts, receipt.made_ts) + CLOCKS_S:
            yield f"{one.stub.cloud[:12]} answered {one.stub.answered_ts - ask.expires_ts:+.0f} s from the expiry"


def _of_release(receipt: Receipt, release: Released, ask: Ask | None) -> Iterator[Check]:
    yield differing("the release is the one that was made", ("its digest", receipt.release_digest, release.digest))
    kinds = Counter(receipt.refused) + Counter(receipt.failed)
    told: list[tuple[str, object, object]] = [
        ("asked", receipt.asked, release.asked),
        ("answered", receipt.answered, release.answered),
        ("refused", sum(receipt.refused.values()), release.refused),
        ("failed", sum(receipt.failed.values()), release.failed),
        ("reasons", dict(kinds), dict(release.reasons)),
    ]
    yield differing("the release counts as the receipt does", *told)
    if ask is not None:
        names = ("id", "query", "loss", "model", "min_users")
        pairs = [(n, getattr(ask, n), getattr(release, "ask_id" if n == "id" else n)) for n in names]
        yield differing("the release is of this ask", *pairs)


# -- files -----------------------------------------------------------------------------------------------------


class _Envelope(msgspec.Struct):
    """A release in a file, of which the receipt is wanted; or a receipt, which has none."""

    receipt: Receipt | None = None
    release_digest: str | None = None


def read(path: Path) -> tuple[Receipt, bytes | None]:
    """The receipt in a file, and the bytes of the file if they are a release's. Raises BadEntry, ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise BadEntry(f"{path.name} has more than {MAX_FILE_BYTES >> 20} MiB: it is no receipt")
    return of_bytes(raw, path.name)


def of_bytes(raw: bytes, name: str) -> tuple[Receipt, bytes | None]:
    """The receipt in these bytes, and the same bytes if they are a release's. Raises BadEntry, naming the file."""
    try:
        found = msgspec.json.decode(raw, type=_Envelope)
        if found.release_digest is not None:
            return msgspec.json.decode(raw, type=Receipt), None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise BadEntry(f"{name} is neither a receipt nor a release: {exc}") from exc
    if found.receipt is None:
        raise BadEntry(f"{name} has no receipt in it")
    return found.receipt, raw


def digest_of(encoded: bytes) -> str:
    """SHA-256 of a release in canonical form, in hex."""
    return hashlib.sha256(b"emlab/release\0" + encoded).hexdigest()
