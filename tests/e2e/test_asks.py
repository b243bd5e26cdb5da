"""Who may do what, over the real socket of a real cloud: nothing that is refused is spent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import emlab as em
from emlab.ask import AskRequest, Envelope, disclose
from emlab.engines.base import SOCKET
from emlab.errors import EmlabError
from emlab.key import SigningKey
from emlab.wire import problem
from emlab.wire.client import CloudClient
from emlab.wire.table import Health
from emlab.wire.transport import UnixTransport
from tests.e2e.clouds import run_dir, world_of
from tests.unit.asks import ALIAS, World

pytestmark = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
replace = msgspec.structs.replace


class Scene:
    def __init__(self, lab: em.Lab) -> None:
        self.lab = lab
        self.ann = lab.controller.signup("ann")
        self.world = world_of(lab)
        self.transport = UnixTransport(run_dir(lab, self.ann) / SOCKET)
        self.client = CloudClient(self.transport)

    def refused(self, request: AskRequest) -> str:
        with pytest.raises(EmlabError) as caught:
            self.client.call("ask", Envelope, request)
        assert self.ann.ledger.spent_micro == 0
        return caught.value.kind


@pytest.fixture
def scene(engine_name: str, home: Path) -> Iterator[Scene]:
    with em.Lab(engine_name, default_policy=em.Policy.open(), idle=None) as lab:
        scene = Scene(lab)
        yield scene
        scene.client.close()


def test_a_signed_ask_is_answered_once_and_the_same_bytes_are_given_again(scene: Scene) -> None:
    ask = scene.world.ask()
    request = scene.world.request(ask, cloud=scene.ann.id)
    first = scene.client.call("ask", Envelope, request)
    scene.ann.pause()
    scene.ann.lock()
    assert scene.ann.key is not None
    scene.ann.unlock(scene.ann.key)
    assert scene.client.call("ask", Envelope, request) == first
    health = scene.client.call("health", Health)
    assert (scene.ann.ledger.spent_micro, health.ledger_seq) == (ask.loss.epsilon_micro, 1)
    assert disclose(first, ask, scene.world.aggregator, ALIAS, health.public) == (0,)


def test_asks_that_are_altered_expired_foreign_or_forged_are_refused(scene: Scene) -> None:
    world, cloud = scene.world, scene.ann.id
    good = world.request(world.ask(), cloud=cloud)
    other = world.request(world.ask(epsilon_micro=1), cloud=cloud)
    assert scene.refused(world.request(world.ask(), cloud="f" * 32)) == "NotPermitted"
    assert scene.refused(world.request(world.ask(), cloud=cloud, lasts_s=-1)) == "NotPermitted"
    assert scene.refused(world.request(world.ask(), cloud=cloud, lasts_s=90)) == "NotPermitted"
    assert scene.refused(world.request(world.ask(lasts_s=-1), cloud=cloud)) == "NotPermitted"
    assert scene.refused(replace(good, ask=other.ask)) == "NotPermitted"
    assert scene.refused(replace(good, ask=other.ask, signature=other.signature)) == "NotPermitted"
    assert scene.refused(replace(good, signature=SigningKey().sign(good.ask))) == "NotPermitted"
    assert scene.refused(World(now=world.now).request(world.ask(), cloud=cloud)) == "NotPermitted"
    assert scene.refused(replace(good, ask=b"{}")) == "BadQuery"
    assert scene.refused(replace(good, capability=b"not json")) == "BadQuery"


def test_an_id_that_was_used_for_another_ask_is_refused(scene: Scene) -> None:
    ask = scene.world.ask()
    scene.client.call("ask", Envelope, scene.world.request(ask, cloud=scene.ann.id))
    again = scene.world.ask(epsilon_micro=7, ask_id=ask.id)
    with pytest.raises(em.NotPermitted, match="another ask"):
        scene.client.call("ask", Envelope, scene.world.request(again, cloud=scene.ann.id))
    assert scene.ann.ledger.spent_micro == ask.loss.epsilon_micro


def test_a_region_that_crosses_itself_is_refused_before_anything_is_spent(scene: Scene) -> None:
    bow_tie = em.Region(((((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),),))
    ask = scene.world.ask(em.CountUsers(bow_tie, 0.0, 1.0))
    assert scene.refused(scene.world.request(ask, cloud=scene.ann.id)) == "BadQuery"


def test_a_provider_s_token_reads_nothing_and_an_owner_s_token_asks_nothing(scene: Scene) -> None:
    planner = scene.lab.controller.register_provider("planner")
    for path in ("/policy", "/ledger", "/entries/counts"):
        for token in (planner.token, "emo_guess", ""):
            headers = {"authorization": f"Bearer {token}"}
            status, body = scene.transport.send("GET", path, headers=headers, body=b"", timeout_s=5.0)
            assert (status, problem.decode(status, body).kind) == (403, "NotPermitted")
    body = msgspec.json.encode(scene.world.request(scene.world.ask(), cloud=scene.ann.id))
    headers = {"authorization": f"Bearer {scene.ann.token}"}
    status, reply = scene.transport.send("POST", "/ask", headers=headers, body=body, timeout_s=5.0)
    assert (status, problem.decode(status, reply).kind) == (403, "NotPermitted")
    assert scene.ann.ledger.seq == 0


def test_a_body_that_is_too_large_is_refused_and_the_cloud_lives_on(scene: Scene) -> None:
    body = b"[" + b"0," * (33 << 20) + b"0]"
    headers = {"authorization": f"Bearer {scene.ann.token}"}
    status, _ = scene.transport.send("POST", "/entries/store", headers=headers, body=body, timeout_s=60.0)
    assert status == 400
    assert scene.ann.counts() == {}
