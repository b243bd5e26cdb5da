from __future__ import annotations

import msgspec
import pytest

from emlab import ask as asking
from emlab.ask import Ask, AskRequest
from emlab.errors import BadQuery, NotPermitted
from emlab.key import SealingKey, SigningKey, seal
from emlab.query import CountUsers, SumDistance
from tests.unit.asks import CLOUD, NOW, World

replace = msgspec.structs.replace


@pytest.fixture
def world() -> World:
    return World()


def admit(world: World, request: AskRequest, now: float = NOW, cloud: str = CLOUD) -> Ask:
    return asking.admit(request, cloud=cloud, controller=world.controller.public, now=now)


def test_a_rightly_signed_ask_is_admitted(world: World) -> None:
    ask = world.ask()
    assert admit(world, world.request(ask)) == ask


def test_a_capability_for_another_cloud_is_refused(world: World) -> None:
    with pytest.raises(NotPermitted, match="another cloud"):
        admit(world, world.request(world.ask(), cloud="f" * 32))


def test_a_capability_for_another_ask_is_refused(world: World) -> None:
    mine, other = world.request(world.ask()), world.request(world.ask(epsilon_micro=1))
    with pytest.raises(NotPermitted, match="another ask"):
        admit(world, replace(mine, ask=other.ask, signature=other.signature))


@pytest.mark.parametrize("now", [NOW + 31, NOW - 61])
def test_a_capability_that_expired_or_lasts_too_long_is_refused(world: World, now: float) -> None:
    with pytest.raises(NotPermitted, match="capability has expired"):
        admit(world, world.request(world.ask(lasts_s=3000)), now=now)


def test_an_ask_that_expired_is_refused(world: World) -> None:
    with pytest.raises(NotPermitted, match="ask has expired"):
        admit(world, world.request(world.ask(lasts_s=-1)))


def test_only_the_controller_s_own_signature_counts(world: World) -> None:
    forged = World(provider=world.provider, aggregator=world.aggregator)
    with pytest.raises(NotPermitted, match="capability"):
        admit(world, forged.request(forged.ask()))


def test_only_the_provider_s_own_signature_counts(world: World) -> None:
    ask = world.ask()
    request = replace(world.request(ask), signature=asking.sign(ask, SigningKey()))
    with pytest.raises(NotPermitted, match="signature of the ask"):
        admit(world, request)


def test_an_ask_in_another_than_canonical_form_is_refused(world: World) -> None:
    ask = world.ask()
    spaced = ask.encode().replace(b",", b", ", 1)
    request = replace(world.request(ask), ask=spaced, signature=world.provider.sign(b"emlab/ask\0" + spaced))
    with pytest.raises(BadQuery, match="canonical"):
        admit(world, request)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon_micro", 0),
        ("epsilon_micro", -5),
        ("epsilon_micro", 10**9),
        ("min_users", 0),
        ("id", "short"),
        ("provider", "zz"),
        ("purpose", "x" * 201),
        ("provider_name", "a b"),
    ],
)
def test_fields_out_of_bounds_are_refused_by_name(world: World, field: str, value: object) -> None:
    ask = replace(world.ask(), **{field: value})
    with pytest.raises(BadQuery, match=field):
        admit(world, _unchecked(world, ask))


def _unchecked(world: World, ask: Ask) -> AskRequest:
    """A request whose capability is in order, so that only the ask's own field is wrong."""
    good = world.request(world.ask())
    return replace(good, ask=ask.encode(), signature=asking.sign(ask, world.provider))


@pytest.mark.parametrize("value", [0, 1, 17, 999_999_999])
def test_a_sealed_answer_opens_for_its_aggregator_only(world: World, value: int) -> None:
    ask = world.ask(SumDistance(0, 1, 10_000_000))
    envelope = asking.enclose(ask, value, CLOUD, world.cloud, 3)
    expected = min(value, 10_000_000)
    assert asking.disclose(envelope, ask, world.aggregator, CLOUD, world.cloud.public) == expected
    with pytest.raises(NotPermitted):
        asking.disclose(envelope, ask, SealingKey(), CLOUD, world.cloud.public)


def test_the_length_of_an_envelope_tells_nothing_of_the_value(world: World) -> None:
    ask = world.ask(SumDistance(0, 1, 10_000_000))
    assert len({len(asking.enclose(ask, v, CLOUD, world.cloud, 1).sealed) for v in (0, 255, 10_000_000)}) == 1


def test_an_altered_replayed_or_foreign_answer_is_refused(world: World) -> None:
    ask, other = world.ask(), world.ask()
    envelope = asking.enclose(ask, 1, CLOUD, world.cloud, 1)
    flipped = replace(envelope, sealed=bytes([envelope.sealed[0] ^ 1]) + envelope.sealed[1:])
    for wrong, of, cloud, public in (
        (flipped, ask, CLOUD, world.cloud.public),
        (replace(envelope, ledger_seq=2), ask, CLOUD, world.cloud.public),
        (envelope, other, CLOUD, world.cloud.public),
        (envelope, ask, "f" * 32, world.cloud.public),
        (envelope, ask, CLOUD, SigningKey().public),
    ):
        with pytest.raises(NotPermitted):
            asking.disclose(wrong, of, world.aggregator, cloud, public)


def test_an_answer_outside_the_clamp_is_refused(world: World) -> None:
    counting = world.ask(CountUsers(None, 0, 1))
    digest = asking.digest(counting.encode())
    bound = asking._bound(CLOUD, digest, 1)
    sealed = seal(counting.aggregator, (7).to_bytes(8, "big"), bound)
    envelope = asking.Envelope(
        cloud=CLOUD, ask_digest=digest, ledger_seq=1, sealed=sealed, signature=world.cloud.sign(bound + sealed)
    )
    with pytest.raises(NotPermitted, match="outside"):
        asking.disclose(envelope, counting, world.aggregator, CLOUD, world.cloud.public)
