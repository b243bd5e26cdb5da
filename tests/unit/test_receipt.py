"""Receipts: what a good one shows, and that whatever is wrong with one is told by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from emlab import ask as asking
from emlab import receipt as receipts
from emlab.aggregate import Release, release
from emlab.ask import Ask, Envelope, Failure, Refusal
from emlab.errors import BadEntry, ConfigError, EmlabError, NotPermitted
from emlab.key import SigningKey
from emlab.loss import Loss
from emlab.queries.sum_distance import SumDistance
from emlab.receipt import Countersigned, Receipt
from emlab.verifying import verify
from tests.unit.asks import NOW, World

CLOUDS = {f"{number:032x}": SigningKey() for number in range(1, 4)}
DIRECTORY = {alias: key.public for alias, key in CLOUDS.items()}
WORLD, SIGNING = World(), SigningKey()
OTHERS: list[Refusal | Failure] = [
    Refusal(cloud="a" * 32, kind="PolicyRefused"),
    Failure(cloud="b" * 32, kind="Unreachable"),
]
ASK = WORLD.ask(SumDistance(0, 1, 1000), min_users=2)
Change = Callable[[Receipt], Receipt]


def envelopes(ask: Ask) -> list[Envelope]:
    return [asking.enclose(ask, [7], alias, key, seq=3, version=1, ts=NOW) for alias, key in CLOUDS.items()]


def made(ask: Ask = ASK) -> tuple[Release, Receipt]:
    bare = release(ask, [(7,)] * len(CLOUDS), OTHERS, trust="test")
    signed = receipts.make(ask, bare, envelopes(ask), OTHERS, SIGNING, NOW + 1)
    return replace(bare, receipt=signed), signed


RELEASE, RECEIPT = made()


def signed_anew(receipt: Receipt, key: SigningKey = SIGNING) -> Receipt:
    """What a lying aggregator makes of it."""
    bare = replace(receipt, aggregator=key.public)
    return replace(bare, signature=key.sign(bare.signed()))


def wrong(receipt: Receipt, of: Release | None = RELEASE, **known: Any) -> set[str]:
    return {check.says for check in receipt.verify(of, **known).checks if not check.holds}


def test_a_good_receipt_holds_in_each_respect() -> None:
    verdict = RECEIPT.verify(RELEASE, aggregators=[SIGNING.public], clouds=DIRECTORY)
    assert verdict
    assert verdict.demand() is verdict
    assert len(verdict.checks) == 12
    assert "all holds" in str(verdict)


def test_it_holds_neither_contributions_nor_what_was_sealed_nor_the_keys_by_which_clouds_are_known_to_others() -> None:
    text = msgspec.json.encode(RECEIPT).decode()
    parsed = json.loads(text)
    assert set(parsed["answers"][0]) == {"stub", "signature", "countersignature"}
    assert not any(public in text for public in DIRECTORY.values())
    assert not {"sealed", "value", "values", "total"} & (set(parsed) | set(parsed["answers"][0]["stub"]))


def test_a_release_keeps_its_receipt_in_a_file(tmp_path: Path) -> None:
    path = RELEASE.save(tmp_path / "release.json")
    assert Release.load(path) == RELEASE
    assert Receipt.load(path) == RECEIPT
    (tmp_path / "receipt.json").write_bytes(msgspec.json.encode(RECEIPT))
    assert Receipt.load(tmp_path / "receipt.json").verify()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"release_digest": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_neither_is_told_from_one(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(BadEntry, match=r"x\.json"):
        Receipt.load(path)


@pytest.mark.parametrize("of", [RELEASE, RECEIPT])
def test_what_nobody_signed_is_no_part_of_a_file(of: Release | Receipt, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    whole: dict[str, Any] = json.loads(msgspec.json.encode(of))
    parts = [whole["query"], whole["loss"], *whole["noise"]] if isinstance(of, Release) else whole["answers"]
    for place in (whole, *parts):
        place["exact_total"] = 21
        file.write_text(json.dumps(whole))
        with pytest.raises(BadEntry, match="unknown field `exact_total`"):
            verify([file])
        del place["exact_total"]
    file.write_text(json.dumps(whole, indent=2))
    assert verify([file])[file]


def test_what_only_looks_like_a_file_is_named() -> None:
    with pytest.raises(ConfigError, match="mem cannot be read"):
        verify([Path("/proc/self/mem")])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        Receipt.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        Release.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere"):
        RELEASE.save(tmp_path / "nowhere" / "x.json")


def first(receipt: Receipt, **stub: object) -> Receipt:
    """The receipt with something else in its first stub."""
    one = receipt.answers[0]
    changed = replace(one, stub=replace(one.stub, **stub))
    return replace(receipt, answers=(changed, *receipt.answers[1:]))


def foreign(receipt: Receipt) -> Receipt:
    """The receipt with a true answer to another ask."""
    other = made(WORLD.ask(SumDistance(0, 1, 1000)))[1]
    return replace(receipt, answers=(other.answers[0], *receipt.answers[1:]))


LIES: dict[str, tuple[Change, str]] = {
    "a cloud more": (lambda r: replace(r, answered=4, asked=6), "its counts agree with each other"),
    "a refusal hidden": (lambda r: replace(r, refused={}), "its counts agree with each other"),
    "a cloud less": (lambda r: replace(r, answers=r.answers[1:]), "its counts agree with each other"),
    "a cloud twice": (
        lambda r: replace(r, answers=(*r.answers[:2], r.answers[0])),
        "no cloud is in it twice",
    ),
    "a foreign stub": (foreign, "each of 3 clouds signed its answer to this ask"),
    "a stub's alias": (lambda r: first(r, cloud="9" * 32), "each of 3 clouds signed its answer to this ask"),
    "a stub's time": (lambda r: first(r, answered_ts=5), "each of 3 clouds signed its answer to this ask"),
    "a stub's policy": (lambda r: first(r, policy_version=9), "each of 3 clouds signed its answer to this ask"),
    "a stub's key": (
        lambda r: first(r, public=SigningKey().public),
        "each of 3 clouds signed its answer to this ask",
    ),
    "another loss": (
        lambda r: replace(r, ask=replace(ASK, loss=Loss(epsilon_micro=1)).encode()),
        "each of 3 clouds signed its answer to this ask",
    ),
    "a small group": (
        lambda r: replace(r, ask=replace(ASK, min_users=4).encode()),
        "the group is large enough",
    ),
    "another release": (lambda r: replace(r, release_digest="0" * 64), "the release is the one that was made"),
    "made too late": (
        lambda r: replace(r, made_ts=NOW + 9000),
        "it was made, and each cloud answered, before the ask expired",
    ),
    "made before the answers": (
        lambda r: replace(r, made_ts=NOW - 1000),
        "it was made, and each cloud answered, before the ask expired",
    ),
    "no ask": (lambda r: replace(r, ask=b"{}"), "it holds one ask, in canonical form"),
    "an ask with spaces": (lambda r: replace(r, ask=ASK.encode() + b" "), "it holds one ask, in canonical form"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_told_even_if_the_aggregator_signs_it(lie: str) -> None:
    change, says = LIES[lie]
    found = wrong(signed_anew(change(RECEIPT)))
    assert says in found
    assert "the aggregator signed it" not in found


@pytest.mark.parametrize("lie", LIES)
def test_a_change_that_the_aggregator_did_not_sign_is_told(lie: str) -> None:
    assert "the aggregator signed it" in wrong(LIES[lie][0](RECEIPT))


def test_another_aggregator_s_receipt_is_not_that_of_one_that_is_trusted() -> None:
    other = SigningKey()
    receipt = signed_anew(RECEIPT, other)
    assert wrong(receipt) == set()
    assert wrong(receipt, aggregators=[SIGNING.public]) == {"the aggregator is one that you trust"}


def test_clouds_that_an_aggregator_made_up_are_told_by_whoever_knows_the_lab() -> None:
    alias, key = "c" * 32, SigningKey()
    envelope = asking.enclose(ASK, [7], alias, key, seq=1, version=1, ts=NOW)
    invented = Countersigned(
        stub=envelope.stub, signature=envelope.signature, countersignature=envelope.countersignature
    )
    receipt = signed_anew(replace(RECEIPT, answers=(*RECEIPT.answers[1:], invented)))
    assert wrong(receipt) == set()
    each = "each cloud is one of the lab, and signed with its own key"
    assert wrong(receipt, clouds=DIRECTORY) == {each}
    assert wrong(receipt, clouds={**DIRECTORY, alias: SigningKey().public}) == {each}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("values", (1,)),
        ("trust", "everybody"),
        ("answered", 4),
        ("min_users", 1),
        ("reasons", {}),
        ("ask_id", "0" * 32),
    ],
)
def test_a_release_that_was_changed_is_not_the_one_of_its_receipt(field: str, value: object) -> None:
    assert "the release is the one that was made" in wrong(RECEIPT, replace(RELEASE, **{field: value}))


def test_what_is_wrong_is_raised_in_words() -> None:
    with pytest.raises(NotPermitted, match="the number of answers is 3, and 5 was told"):
        signed_anew(replace(RECEIPT, answered=5)).verify().demand()


RAW = msgspec.json.encode(RELEASE)


@given(st.integers(0, len(RAW) - 1), st.integers(1, 255))
def test_whichever_byte_of_a_file_is_changed_it_is_told_or_changes_nothing(at: int, by: int) -> None:
    changed = bytearray(RAW)
    changed[at] ^= by
    try:
        receipt, raw = receipts.of_bytes(bytes(changed), "x")
        found = None if raw is None else Release.of(raw, "x")
    except BadEntry:
        return
    if (found, receipt) != (RELEASE, RECEIPT):
        assert not receipt.verify(found, aggregators=[SIGNING.public])


LEAVES: st.SearchStrategy[object] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just([]) | st.just({})
)


@given(st.data())
def test_a_receipt_with_anything_anywhere_raises_nothing_of_its_own(data: st.DataObject) -> None:
    """Hostile files: one field of the JSON, at any depth, becomes something else."""
    parsed = copy.deepcopy(json.loads(RAW))
    where: Any = parsed
    while True:
        name = data.draw(st.sampled_from(sorted(where) if isinstance(where, dict) else range(len(where))))
        inner = where[name]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        where = inner
    where[name] = data.draw(LEAVES)
    try:
        receipt, raw = receipts.of_bytes(json.dumps(parsed).encode(), "x")
        receipt.verify(None if raw is None else Release.of(raw, "x"))
    except EmlabError:
        pass
