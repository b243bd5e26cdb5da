"""Tokens: who has which, until when, and that none is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from emlab.arguments import MAX_TTL_S
from emlab.clock import ManualClock
from emlab.errors import ConfigError, NotPermitted
from emlab.key import token_hash
from emlab.registry import CloudRow, Registry
from emlab.tokens import MAX_EACH, Tokens

NOW = 1_700_000_000.0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "lab")
    registry.open()
    yield registry
    registry.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def tokens(registry: Registry, clock: ManualClock) -> Tokens:
    return Tokens(registry, clock=clock)


def test_a_token_is_its_holder_s_after_a_restart_too_and_is_kept_nowhere(
    tokens: Tokens, registry: Registry, tmp_path: Path
) -> None:
    text, token = tokens.issue("owner", "ann")
    assert tokens.who(text) == tokens.who(text, "owner") == token == Tokens(registry).who(text)
    registry.close()
    for file in (tmp_path / "lab").iterdir():
        assert text.encode() not in file.read_bytes()
    assert text not in repr(tokens)
    assert text not in repr(token)


def test_what_has_expired_stays_so_when_the_clock_is_set_back(tokens: Tokens, clock: ManualClock) -> None:
    text, _ = tokens.issue("owner", "ann", ttl_s=10.0)
    lasting, _ = tokens.issue("owner", "ann")
    clock.advance(11.0)
    for now in (clock.now(), NOW):
        clock._now = now
        assert tokens.who(lasting).subject == "ann"
        with pytest.raises(NotPermitted, match="expired"):
            tokens.who(text)
    fresh, _ = tokens.issue("owner", "ann", ttl_s=10.0)
    assert tokens.who(fresh).subject == "ann"


@pytest.mark.parametrize("text", ["", "emo_", "emo_" + "A" * 43, "\u00e9", "emo_\x00", "x" * 100_000])
def test_what_was_never_issued_is_nobody_s(tokens: Tokens, text: str) -> None:
    tokens.issue("owner", "ann")
    with pytest.raises(NotPermitted):
        tokens.who(text, "owner")


def test_a_token_of_another_kind_is_told_so(tokens: Tokens) -> None:
    text, _ = tokens.issue("provider", "planner")
    with pytest.raises(NotPermitted, match="of kind provider, but one of kind owner"):
        tokens.who(text, "owner")


def test_a_token_expires_at_its_moment(tokens: Tokens, clock: ManualClock) -> None:
    text, token = tokens.issue("admin", "eve", ttl_s=60)
    assert token.expires_ts == NOW + 60
    clock.advance(59.9)
    assert tokens.who(text) == token
    clock.advance(0.1)
    with pytest.raises(NotPermitted, match="expired"):
        tokens.who(text)
    assert tokens.hashes("admin", "eve") == {}


def test_one_token_is_revoked_and_the_subject_s_other_ones_hold(tokens: Tokens, registry: Registry) -> None:
    (lost, first), (kept, second) = tokens.issue("owner", "ann"), tokens.issue("owner", "ann")
    assert tokens.hashes("owner", "ann") == {token_hash(lost): None, token_hash(kept): None}
    assert tokens.revoke(first.id) == tokens.revoke(first.id)
    for one in (tokens, Tokens(registry)):
        with pytest.raises(NotPermitted):
            one.who(lost)
        assert one.who(kept) == second
        assert [token.revoked_ts is None for token in one.of("owner", "ann")] == [False, True]
        assert one.hashes("owner", "ann") == {token_hash(kept): None}
    with pytest.raises(ConfigError, match="no token"):
        tokens.revoke("f" * 12)


def test_what_is_dropped_is_gone_and_others_stay(tokens: Tokens, registry: Registry) -> None:
    (gone, _), (stays, _), (too, _) = (
        tokens.issue("owner", "ann"),
        tokens.issue("owner", "bob"),
        tokens.issue("provider", "ann"),
    )
    tokens.drop("owner", "ann")
    for one in (tokens, Tokens(registry)):
        assert [token.subject for token in one.of("owner")] == ["bob"]
        with pytest.raises(NotPermitted):
            one.who(gone)
        one.who(stays)
        one.who(too)


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf"), MAX_TTL_S * 1.01, True])
def test_a_token_lasts_a_time_that_makes_sense(tokens: Tokens, ttl_s: float) -> None:
    with pytest.raises(ConfigError, match="a token lasts"):
        tokens.issue("owner", "ann", ttl_s=ttl_s)


def test_a_subject_has_so_many_tokens_and_old_ones_are_forgotten(tokens: Tokens, clock: ManualClock) -> None:
    for _ in range(MAX_EACH):
        tokens.issue("owner", "ann", ttl_s=60)
    with pytest.raises(ConfigError, match="revoke some"):
        tokens.issue("owner", "ann")
    tokens.issue("owner", "bob")
    clock.advance(60)
    for _ in range(MAX_EACH):
        clock.advance(1)
        tokens.issue("owner", "ann", ttl_s=1)
    clock.advance(1)
    _, last = tokens.issue("owner", "ann")
    kept = tokens.of("owner", "ann")
    assert (len(kept), kept[-1]) == (MAX_EACH + 1, last)
    assert len(tokens.of("owner", "bob")) == 1


class Failed(Exception):
    """What a token was used for did not come about."""


def test_a_token_that_is_used_up_is_good_again_if_that_fails(tokens: Tokens, registry: Registry) -> None:
    text, token = tokens.issue("invitation", "bob")

    def fail() -> None:
        with tokens.used_up(token.id, "bob"):
            with pytest.raises(NotPermitted, match="has been used"), tokens.used_up(token.id, "bob"):
                pass
            raise Failed

    with pytest.raises(Failed):
        fail()
    with tokens.used_up(token.id, "bob"):
        pass
    for one in (tokens, Tokens(registry)):
        with pytest.raises(NotPermitted):
            one.who(text)


def test_a_token_that_was_revoked_while_it_was_used_up_stays_revoked(tokens: Tokens, registry: Registry) -> None:
    text, token = tokens.issue("invitation", "bob")

    def fail() -> None:
        with tokens.used_up(token.id, "bob"):
            tokens.revoke(token.id)
            raise Failed

    with pytest.raises(Failed):
        fail()
    for one in (tokens, Tokens(registry)):
        with pytest.raises(NotPermitted):
            one.who(text)


@pytest.mark.parametrize("intent", ["signup", "", "forget"])
def test_an_invitation_is_good_again_if_the_process_dies_before_there_is_the_cloud(
    tokens: Tokens, registry: Registry, intent: str
) -> None:
    text, token = tokens.issue("invitation", "bob")
    dying = tokens.used_up(token.id, "bob")
    dying.__enter__()
    registry.add(CloudRow("bob", "b" * 32, 1, "marker", NOW, intent=intent))
    for _ in range(2):
        after = Tokens(registry, clock=ManualClock(NOW))
        if intent == "signup":
            assert after.who(text) == token
        else:
            with pytest.raises(NotPermitted):
                after.who(text)


def test_an_invitation_used_up_for_a_name_that_is_taken_is_good_again(tokens: Tokens, registry: Registry) -> None:
    registry.add(CloudRow("bob", "b" * 32, 1, "marker", NOW - 60.0))
    text, token = tokens.issue("invitation", "bob")
    dying = tokens.used_up(token.id, "bob")
    dying.__enter__()
    assert Tokens(registry, clock=ManualClock(NOW)).who(text) == token


def test_an_invitation_stays_used_up_when_its_cloud_is_forgotten(
    tokens: Tokens, registry: Registry, clock: ManualClock
) -> None:
    text, token = tokens.issue("invitation", "bob")
    _, later = tokens.issue("invitation", "bob")
    first, second = tokens.used_up(token.id, "bob"), tokens.used_up(later.id, "bob")
    first.__enter__()  # what ends it could not be written
    registry.add(CloudRow("bob", "b" * 32, 1, "marker", NOW))
    clock.advance(5.0)
    second.__enter__()  # by somebody who wants the name
    tokens.settle("bob", NOW)
    registry.drop("b" * 32)
    after = Tokens(registry, clock=ManualClock(NOW + 9.0))
    with pytest.raises(NotPermitted):
        after.who(text)
    assert [one.holds(NOW + 9.0) for one in after.of("invitation")] == [False, True]
