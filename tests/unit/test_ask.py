from __future__ import annotations

import hashlib
import struct

import msgspec
import pytest

from emlab import ask as asking
from emlab.ask import Ask, AskRequest
from emlab.errors import BadQuery, NotPermitted
from emlab.key import SealingKey, SigningKey, seal
from emlab.loss import Loss
from emlab.queries.count_users import CountUsers
from emlab.queries.sum_distance import SumDistance
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
        ("loss", Loss()),
        ("loss", Loss(epsilon_micro=-5)),
        ("loss", Loss(epsilon_micro=10**9)),
        ("loss", Loss(rho_nano=10**13)),
        ("loss", Loss(epsilon_micro=1, rho_nano=1)),
        ("model", "remote"),
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
    envelope = asking.enclose(ask, [value], CLOUD, world.cloud, seq=3, version=2, ts=1.7e9)
    expected = (min(value, 10_000_000),)
    assert asking.disclose(envelope, ask, world.aggregator, CLOUD, world.cloud.public) == expected
    with pytest.raises(NotPermitted):
        asking.disclose(envelope, ask, SealingKey(), CLOUD, world.cloud.public)


def test_the_length_of_an_envelope_tells_nothing_of_the_value(world: World) -> None:
    ask = world.ask(SumDistance(0, 1, 10_000_000))
    values = ([0], [255], [10_000_000])
    made = [asking.enclose(ask, value, CLOUD, world.cloud, seq=1, version=0, ts=1.7e9) for value in values]
    assert len({len(one.sealed) for one in made}) == 1


def test_an_altered_replayed_or_foreign_answer_is_refused(world: World) -> None:
    ask, other = world.ask(), world.ask()
    envelope = asking.enclose(ask, [1], CLOUD, world.cloud, seq=1, version=0, ts=1.7e9)
    flipped = replace(envelope, sealed=bytes([envelope.sealed[0] ^ 1]) + envelope.sealed[1:])
    for wrong, of, cloud, public in (
        (flipped, ask, CLOUD, world.cloud.public),
        (replace(envelope, stub=replace(envelope.stub, ledger_seq=2)), ask, CLOUD, world.cloud.public),
        (replace(envelope, stub=replace(envelope.stub, policy_version=2)), ask, CLOUD, world.cloud.public),
        (replace(envelope, countersignature=envelope.signature), ask, CLOUD, world.cloud.public),
        (envelope, other, CLOUD, world.cloud.public),
        (envelope, ask, "f" * 32, world.cloud.public),
        (envelope, ask, CLOUD, SigningKey().public),
    ):
        with pytest.raises(NotPermitted):
            asking.disclose(wrong, of, world.aggregator, cloud, public)


@pytest.mark.parametrize("values", [(7,), (-1,), (1, 1), ()])
def test_an_answer_outside_the_clamp_is_refused(world: World, values: tuple[int, ...]) -> None:
    ask = world.ask(CountUsers(None, 0, 1))
    with pytest.raises(NotPermitted, match=r"outside|more or fewer"):
        asking.disclose(_forged(world, ask, values), ask, world.aggregator, CLOUD, world.cloud.public)


@pytest.mark.parametrize("value", [-250, 0, 7, 250])  # epsilon 0.1: beyond 277 once in 10**12
def test_a_cloud_s_own_noise_may_leave_the_clamp_but_not_all_bounds(world: World, value: int) -> None:
    ask = world.ask(CountUsers(None, 0, 1), model="local")
    envelope = asking.enclose(ask, [value], CLOUD, world.cloud, seq=1, version=0, ts=1.7e9)
    assert asking.disclose(envelope, ask, world.aggregator, CLOUD, world.cloud.public) == (value,)
    for far in (-300, 300, 2**40, 2**62):
        with pytest.raises(NotPermitted, match="outside"):
            asking.disclose(_forged(world, ask, (far,)), ask, world.aggregator, CLOUD, world.cloud.public)


def _forged(world: World, ask: Ask, values: tuple[int, ...]) -> asking.Envelope:
    """What a cloud that follows no rule would send, with its right signature."""
    digest = asking.digest(ask.encode())
    sealed = seal(ask.aggregator, struct.pack(f">{len(values)}q", *values), f"emlab/sealed\0{CLOUD}\0{digest}".encode())
    shown = world.cloud.derive("alias/x")
    stub = asking.Stub(
        cloud=CLOUD,
        public=shown.public,
        ask_digest=digest,
        answered_ts=0,
        ledger_seq=1,
        policy_version=0,
        sealed_digest=hashlib.sha256(sealed).hexdigest(),
    )
    signed = stub.signed()
    return asking.Envelope(
        stub=stub, sealed=sealed, signature=world.cloud.sign(signed), countersignature=shown.sign(signed)
    )


def test_two_providers_see_two_keys_of_a_cloud_and_one_always_sees_the_same(world: World) -> None:
    first, again, other = (
        asking.enclose(world.ask(), [1], alias, world.cloud, seq=1, version=0, ts=1.7e9).stub.public
        for alias in (CLOUD, CLOUD, "e" * 32)
    )
    assert first == again
    assert len({first, other, world.cloud.public}) == 3
