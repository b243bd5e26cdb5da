"""A name that several clouds bear, one after another: nothing that is done to one of them reaches the next."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import emlab as em
from emlab.clock import SYSTEM_CLOCK, ManualClock
from emlab.errors import CloudGone, ConfigError, NotPermitted, StoreError, UnknownUser
from emlab.key import SigningKey, token_hash
from emlab.lease import NamedLeases
from emlab.remote import ControllerClient
from emlab.service import Service
from emlab.tokens import Tokens
from emlab.wire.transport import MemoryTransport

TIMES = 40


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", home=tmp_path, idle=None, default_policy=em.Policy.open()) as lab:
        yield lab


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns a thousand times as often as they do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 1000)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("signing", "forgetting"), [(1, 2), (2, 1), (2, 2)])
def test_whoever_signs_up_and_forgets_at_once_leaves_no_cloud_that_nobody_knows(
    lab: em.Lab, hasty: None, signing: int, forgetting: int
) -> None:
    controller, said, over = lab.controller, Counter[str](), threading.Event()

    def attempt(act: Callable[[str], object]) -> None:
        try:
            act("ann")
            said["done"] += 1
        except (ConfigError, UnknownUser, CloudGone) as exc:
            said[exc.kind] += 1
        except BaseException as exc:
            said[f"unexpected {exc!r}"] += 1

    def sign() -> None:
        for _ in range(TIMES):
            attempt(controller.signup)

    def forget() -> None:
        while not over.is_set():
            attempt(controller.forget)

    signers = [threading.Thread(target=sign) for _ in range(signing)]
    others = [threading.Thread(target=forget) for _ in range(forgetting)]
    for thread in (*signers, *others):
        thread.start()
    for thread in signers:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    controller.sweep()
    assert not [kind for kind in said if kind.startswith("unexpected")], said
    rows = lab.registry.clouds()
    known = {row.cloud for row in rows}
    assert {handle.cloud for handle in controller.engine.find(lab.name)} == known
    assert set(controller._lives.by_cloud) == known
    assert {path.name for path in (lab.path / "clouds").glob("*")} == known
    assert [row.intent for row in rows] == [""] * len(rows)
    assert len(controller.tokens.of("owner")) == len(rows)
    for row in rows:
        controller.forget(row.user)
    assert controller.engine.find(lab.name) == []


def test_a_sign_up_whose_cloud_is_forgotten_meanwhile_fails(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    born, engine = lab.registry.born, lab.controller.engine

    def away(*_: object) -> None:
        raise em.EngineError("the engine is away")

    def forgotten_first(cloud: str, public: str) -> bool:
        with monkeypatch.context() as gone:
            gone.setattr(engine, "remove", away)
            with pytest.raises(em.EngineError):
                lab.controller.forget("ann")
            return born(cloud, public)

    with monkeypatch.context() as there:
        there.setattr(lab.registry, "born", forgotten_first)
        with pytest.raises(CloudGone, match="forgotten while it came to be"):
            lab.controller.signup("ann")
    assert lab.registry.clouds() == []
    assert engine.find(lab.name) == []
    assert lab.controller.signup("ann").state is em.CloudState.RUNNING


def test_a_token_that_comes_too_late_opens_no_cloud_of_the_next_one(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, issue = Service(lab.controller, lab.registry), lab.controller.tokens.issue
    lab.controller.signup("ann")

    def late(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        lab.controller.forget("ann")
        lab.controller.signup("ann")
        return issue(*arguments, **named)

    monkeypatch.setattr(lab.controller.tokens, "issue", late)
    with pytest.raises(UnknownUser, match="any more"):
        service.issue("owner", "ann")
    assert [token.revoked_ts is None for token in lab.controller.tokens.of("owner", "ann")] == [True, False]


def test_a_lease_is_that_of_one_cloud(lab: em.Lab) -> None:
    service = Service(lab.controller, lab.registry)
    lab.controller.signup("ann")
    name, _ = service.leases.keep("ann", 3600)
    lab.controller.forget("ann")
    lab.controller.signup("ann")
    with pytest.raises(ConfigError, match="no lease"):
        service.leases.keep("ann", 60, name)
    with pytest.raises(ConfigError, match="no lease"):
        service.leases.end("ann", name)
    again = Service(lab.controller, lab.registry)  # as after a restart
    assert again.leases.users() == set()
    lab.controller.pause("ann")
    assert service.leases.users() == set()


def test_an_extended_lease_holds_as_long_as_it_says_also_when_the_clock_was_set_back(lab: em.Lab) -> None:
    controller, clock = lab.controller, ManualClock(SYSTEM_CLOCK.now() + 10 * 86_400)
    controller.signup("ann")
    leases = NamedLeases(controller.life, controller.life_of, lab.registry, clock=clock)
    name, _ = leases.keep("ann", 3600)
    clock._now -= 10 * 86_400
    _, until_ts = leases.keep("ann", 60, name)
    assert until_ts == pytest.approx(clock.now() + 86_400)
    assert max(controller.life("ann").use().leases) == pytest.approx(until_ts, abs=10)


def test_a_provider_keeps_its_token_if_it_gets_no_new_one(lab: em.Lab) -> None:
    admission, tokens = lab.controller.admission, lab.controller.tokens
    public = SigningKey().public
    first = admission.register("city", public)
    with pytest.raises(ConfigError, match="lasts"):
        admission.register("city", public, ttl_s=1e12)
    assert tokens.who(first).subject == "city"
    second = admission.register("city", public)
    assert [tokens.who(second).id] == [token.id for token in tokens.of("provider")]


def test_of_two_who_register_one_provider_at_once_the_last_has_the_token_that_holds(lab: em.Lab, hasty: None) -> None:
    admission, tokens, public = lab.controller.admission, lab.controller.tokens, SigningKey().public
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: admission.register("city", public), range(80)))
    assert sum(token_hash(text) in tokens.hashes("provider", "city") for text in texts) == 1


def test_an_invitation_is_used_up_by_a_cloud_that_was_forgotten(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(lab.controller, lab.registry, signup="invitation")
    text = service.issue("invitation", "note").token
    client = ControllerClient("http://localhost", text, transport=MemoryTransport(service.server()))
    run = lab.registry.run

    def failing(sql: str, *values: object, **named: Any) -> Any:
        if sql.startswith("DELETE FROM in_use WHERE id = ?") and "RETURNING" not in sql:
            raise StoreError("the disk fails")
        return run(sql, *values, **named)

    with monkeypatch.context() as patch:
        patch.setattr(lab.registry, "run", failing)
        client.signup("ann")
    lab.controller.forget("ann")
    with pytest.raises(NotPermitted):
        Tokens(lab.registry).who(text)
