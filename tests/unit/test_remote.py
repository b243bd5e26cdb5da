"""A controller elsewhere does what the one in this process does, and refuses it with the same errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

import emlab as em
from emlab.clock import SYSTEM_CLOCK
from emlab.controller import Controller
from emlab.remote import ControllerClient
from emlab.service import Service
from emlab.wire.transport import MemoryTransport

KEY = em.Key(bytes(range(32)))
PROCESS_ONLY = {"attach", "detach", "discard", "sweep", "life", "life_of"}
Either: TypeAlias = Controller | ControllerClient


def elsewhere(lab: em.Lab) -> ControllerClient:
    service = Service(lab.controller, lab.registry, follow=partial(setattr, lab, "idle"))
    admin = service.issue("admin", "root").token
    return ControllerClient("http://localhost", admin, transport=MemoryTransport(service.server()))


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Controller, ControllerClient]]:
    """A controller here and one elsewhere, each with the cloud of one user."""
    with ExitStack() as stack:
        labs = [
            stack.enter_context(em.Lab("memory", home=tmp_path / name, idle=None, default_policy=em.Policy.open()))
            for name in ("here", "there")
        ]
        client = stack.enter_context(elsewhere(labs[1]))
        for one in (labs[0].controller, client):
            one.signup("ann", key=KEY)
        yield labs[0].controller, client


def outcome(act: Callable[[Any], object], on: Either) -> str:
    try:
        return type(act(on)).__name__
    except em.EmlabError as exc:
        return f"{exc.kind} raised"


def idle(on: Either, rule: Any) -> None:
    on.idle = rule


def forget_twice(on: Either) -> None:
    for _ in range(2):
        on.forget("ann")


DO: dict[str, Callable[[Any], object]] = {
    "a second sign-up": lambda on: on.signup("ann"),
    "a bad name": lambda on: on.signup("../x"),
    "no name": lambda on: on.signup(None),
    "half a surrogate pair": lambda on: on.signup("a\ud800"),
    "no policy": lambda on: on.signup("bob", policy="open"),
    "no key": lambda on: on.signup("bob", key="k"),
    "a short passphrase": lambda on: on.signup("bob", key=em.Passphrase("a")),
    "a time of numpy's": lambda on: on.signup("bob", token_ttl_s=np.float64(500)),
    "a time that is text": lambda on: on.signup("bob", token_ttl_s="5"),
    "too long a time": lambda on: on.signup("bob", token_ttl_s=1e12),
    "nobody's cloud": lambda on: on.cloud("zed"),
    "nobody's state": lambda on: on.status("zed"),
    "the state": lambda on: on.status("ann"),
    "nobody's use": lambda on: on.stats("zed"),
    "nobody's log": lambda on: on.logs("zed"),
    "the log": lambda on: on.logs("ann"),
    "nobody's sleep": lambda on: on.pause("zed"),
    "sleep": lambda on: on.pause("ann"),
    "wake": lambda on: on.wake("ann"),
    "no lease": lambda on: on.lease("ann", math.nan),
    "ten years": lambda on: on.lease("ann", 3e8),
    "nobody's lease": lambda on: on.lease("zed", 5),
    "sleep under a lease": lambda on: (on.lease("ann", 50), on.pause("ann")),
    "what is not done together": lambda on: on.each("forget"),
    "with whom there is not": lambda on: on.each("pause", ["zed"]),
    "a wrong key": lambda on: on.rekey("ann", em.Key(bytes(32)), KEY),
    "a new key that is none": lambda on: on.rekey("ann", KEY, "new"),
    "an old key that is none": lambda on: on.rekey("ann", "old", KEY),
    "unlocking with no key": lambda on: (on.lock("ann"), on.unlock("ann", "x")),
    "unlocking with a wrong key": lambda on: (on.lock("ann"), on.unlock("ann", em.Key(bytes(32)))),
    "waking what is locked": lambda on: (on.lock("ann"), on.wake("ann")),
    "forgetting twice": forget_twice,
    "no provider's name": lambda on: on.register_provider("../x"),
    "a provider": lambda on: on.register_provider("planner"),
    "a rule that is none": lambda on: idle(on, "x"),
    "a rule with numpy's numbers": lambda on: idle(on, em.PauseAfter(np.float64(5))),
    "nobody's lock": lambda on: on.lock("zed"),
}


@pytest.mark.parametrize("act", DO.values(), ids=DO)
def test_it_does_or_refuses_the_same(both: tuple[Controller, ControllerClient], act: Callable[[Any], object]) -> None:
    here, there = (outcome(act, on) for on in both)
    assert here == there


def test_it_has_every_verb_of_the_one_here(both: tuple[Controller, ControllerClient]) -> None:
    here, there = ({name for name in dir(on) if not name.startswith("_")} for on in both)
    # parts of which elsewhere only what they do can be had
    inside = {"engine", "lab", "tokens", "admission", "on_sweep"}
    assert here - there <= PROCESS_ONLY | inside


def test_a_provider_that_was_registered_here_is_the_same_again(both: tuple[Controller, ControllerClient]) -> None:
    for on in both:
        first = on.register_provider("planner")
        assert on.register_provider("planner") is first
        assert on.register_provider("planner", key=first.key) is not first


def test_a_handle_is_of_the_cloud_that_there_is_now(both: tuple[Controller, ControllerClient]) -> None:
    _, there = both
    with there.using("ann") as first, there.using("ann") as same:
        assert same is first
    other = ControllerClient("http://localhost", there._token, transport=there._client._transport)
    other.forget("ann")
    now = there.cloud("ann", token=other.signup("ann", key=KEY).token)
    with there.using("ann") as second:
        assert second is not first
        assert there._clouds["ann"] == (now.id, second)


def test_an_owner_permits_the_lab_s_aggregator_from_elsewhere(both: tuple[Controller, ControllerClient]) -> None:
    _, there = both
    planner = there.register_provider("planner")
    policy = em.Policy.research([planner], [there.aggregator]).but(min_users=1)
    there.signup("bob", policy=policy)
    assert planner.ask(em.CountUsers(None, 0.0, SYSTEM_CLOCK.now()), epsilon=1.0, min_users=1).answered == 2


def test_a_cloud_says_where_it_is_reached_from_elsewhere(both: tuple[Controller, ControllerClient]) -> None:
    here, there = both
    assert there.cloud("ann").url == f"http://localhost/{there.status('ann').cloud}"
    with pytest.raises(em.ConfigError, match="emlab serve"):
        _ = here.cloud("ann").url


def test_who_signs_up_again_uses_the_new_cloud(both: tuple[Controller, ControllerClient]) -> None:
    for on in both:
        with on.using("ann"):
            pass
        if isinstance(on, ControllerClient):
            ControllerClient("http://localhost", on._token, transport=on._client._transport).forget("ann")
        else:
            on.forget("ann")
        now = on.signup("ann", key=KEY)
        with on.using("ann"):
            assert now.id == on.status("ann").cloud
        if isinstance(on, ControllerClient):
            assert on._clouds["ann"][0] == now.id


def test_the_end_of_a_lease_is_quiet_when_its_cloud_was_forgotten(both: tuple[Controller, ControllerClient]) -> None:
    for on in both:
        with on.lease("ann", 60.0) as lease:
            on.forget("ann")
        lease.release()


def test_a_wrong_token_is_not_kept(both: tuple[Controller, ControllerClient]) -> None:
    _, there = both
    owner = ControllerClient("http://localhost", there._tokens["ann"], transport=there._client._transport)
    with pytest.raises(em.NotPermitted):
        owner.cloud("ann", token="emo_" + "A" * 43)
    assert owner.status("ann").user == "ann"


def test_a_lease_is_extended_and_one_that_has_ended_is_not(both: tuple[Controller, ControllerClient]) -> None:
    for on in both:
        lease = on.lease("ann", 60.0)
        first = lease.until_ts
        lease.extend(30.0)
        assert lease.until_ts == first
        lease.extend(600.0)
        assert lease.until_ts > first + 500.0
        assert on.status("ann").leases == 1
        with pytest.raises(em.ConfigError):
            lease.extend(math.nan)
        lease.release()
        assert on.status("ann").leases == 0
        with pytest.raises(em.ConfigError, match="ended"):
            lease.extend(60.0)


@pytest.mark.parametrize(
    "url",
    [
        "https://[::1",
        "https://lab.example:99999",
        "https://lab.example:x",
        "lab.example",
        "https://la\nb",
        None,
        b"https://a",
        5,
    ],
)
def test_what_is_no_address_is_said_to_be_none(url: Any) -> None:
    with pytest.raises(em.ConfigError, match="is such as"):
        ControllerClient(url)


@pytest.mark.parametrize(
    "url", ["https://ann:hunter2@lab.example", "https://:hunter2@lab.example", "https://hunter2@[::1"]
)
def test_an_address_holds_no_password_and_the_refusal_shows_none(url: str) -> None:
    with pytest.raises(em.ConfigError, match="password") as refused:
        ControllerClient(url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_an_owner_s_client_has_the_own_cloud(both: tuple[Controller, ControllerClient]) -> None:
    _, there = both
    token = there._tokens["ann"]
    owner = ControllerClient("http://localhost", f"{token}\n", transport=there._client._transport)
    assert owner.cloud("ann").token == token
    assert [cloud.token for cloud in owner.clouds()] == [token]
    assert there.clouds()[0].token == token  # whom she signed up
    stranger = ControllerClient("http://localhost", there._token, transport=there._client._transport)
    assert stranger.clouds()[0].token is None  # an admin


@pytest.mark.parametrize("mode", ["open", "invitation"])
def test_whoever_signs_up_without_a_token_or_by_an_invitation_is_that_owner(tmp_path: Path, mode: Any) -> None:
    with em.Lab("memory", home=tmp_path, idle=None, default_policy=em.Policy.open()) as lab:
        service = Service(lab.controller, lab.registry, signup=mode)
        token = None if mode == "open" else service.issue("invitation", "note").token
        client = ControllerClient("http://localhost", token, transport=MemoryTransport(service.server()))
        client.signup("ann")
        assert client.me().subject == "ann"
        if mode == "open":
            client.signup("bob")
            assert client.me().subject == "ann"
            assert client.status("bob").user == "bob"


def test_a_lease_that_cannot_be_released_hides_no_other_failure(
    both: tuple[Controller, ControllerClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, there = both

    def away(*_: object, **__: object) -> None:
        raise em.Unreachable("away")

    lease = there.lease("ann", 60.0)

    def fail() -> None:
        with lease:
            monkeypatch.setattr(there, "_call", away)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.raises(em.Unreachable):
        lease.release()
    monkeypatch.undo()
    assert there.status("ann").leases == 1
    lease.release()
    assert there.status("ann").leases == 0


def test_what_a_controller_tells_is_a_table(both: tuple[Controller, ControllerClient]) -> None:
    _, there = both
    frame = there.audit().frame()
    assert list(frame["action"]) == ["signup"]
    assert str(frame["ts"].dtype).startswith("datetime64")
    assert "signup" in there.audit()._repr_html_()
    assert there.audit(after=99) == []
    assert len(there.audit(after=99).frame()) == 0
    assert set(there.tokens().frame()["kind"]) == {"admin", "owner"}


def test_a_certificate_to_trust_is_looked_at_at_once(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "other"):
        (tmp_path / "other").write_text("no certificate")
        with pytest.raises(em.ConfigError, match="no file with a certificate"):
            ControllerClient("https://lab.example", "t", ca=path)


def test_a_client_whose_cloud_was_forgotten_signs_up_again(tmp_path: Path) -> None:
    with em.Lab("memory", home=tmp_path, idle=None, default_policy=em.Policy.open()) as lab:
        service = Service(lab.controller, lab.registry, signup="open")
        client = ControllerClient("http://localhost", transport=MemoryTransport(service.server()))
        for number in range(3):
            token = client.signup("ann").token
            if number == 1:  # a second one of hers
                token = service.issue("owner", "ann").token
            with client.cloud("ann", token=token).lease(60.0):
                assert client.me().subject == "ann"
                client.forget("ann")
        client.signup("ann")
        bob = client.signup("bob")
        client.forget("bob")
        assert (bob.user, client.me().subject) == ("bob", "ann")


def test_a_lease_that_goes_on_is_not_said_to_have_ended(both: tuple[Controller, ControllerClient]) -> None:
    _, there = both
    owner = ControllerClient("http://localhost", there._tokens["ann"], transport=there._client._transport)
    lease = owner.lease("ann", 60.0)
    for token in there.tokens():
        if token.kind == "owner":
            there.revoke(token.id)
    with pytest.raises(em.NotPermitted):
        lease.release()
    with lease:  # whose end is no reason for the block to fail
        pass
    assert there.status("ann").leases == 1
