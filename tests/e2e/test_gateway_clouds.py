"""The gateway to real clouds: clients that know nothing of pausing are answered, and nothing stays in use."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import emlab as em
from emlab.apps.gateway import Limits
from emlab.apps.http import MAX_CONNECTIONS
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.errors import InUse
from tests.e2e.clouds import entry, gone, kill, pid_of
from tests.gateways import PATIENCE_S, Answer, Client, gateway, head, rest, status

REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
MANY = 40


@pytest.fixture
def lab(engine_name: str, home: Path) -> Iterator[em.Lab]:
    with em.Lab(engine_name, default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


def upload(client: Client, cloud: em.UserCloud, *numbers: int) -> Answer:
    """What an e-mission phone sends: no header of ours, the token in the body."""
    body = {"user": cloud.token, "phone_to_server": [entry(number) for number in numbers]}
    return client.send("POST", client.path(cloud.user, "/usercache/put"), body=body)


def spans(lab: em.Lab, name: str) -> int:
    return sum(event.span == name for event in lab.recorder.since(0)[0])


def at_once(n: int, ask: Callable[[int], Answer]) -> list[int]:
    with ThreadPoolExecutor(n) as pool:
        return [answer.status for answer in pool.map(ask, range(n))]


@REAL
def test_a_phone_uploads_to_a_paused_cloud(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    with gateway(lab) as client:
        for first in (0, 10):
            ann.pause()
            answer = upload(client, ann, *range(first, first + 10))
            assert answer.status == 200, answer
            assert client.unleased()
        found = client.send(
            "POST",
            client.path("ann", "/usercache/get"),
            body={"user": ann.token},
        )
        assert (found.status, json.loads(found.body)) == (200, {"server_to_phone": []})
    ann.intake()
    assert ann.counts()["background/location"] == 20


@REAL
def test_requests_at_once_to_a_paused_cloud_cause_one_wake(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    ann.pause()
    with gateway(lab) as client:
        before = spans(lab, "wake")
        assert at_once(MANY, lambda _: client.get(ann, "/ledger")) == [200] * MANY
        assert spans(lab, "wake") == before + 1


@REAL
def test_requests_to_many_paused_clouds_at_once_are_all_answered(lab: em.Lab) -> None:
    clouds = [lab.controller.signup(f"user{n}") for n in range(6)]
    with gateway(lab) as client:
        for _ in range(3):
            lab.controller.each("pause")
            answers = at_once(4 * len(clouds), lambda n: client.get(clouds[n % len(clouds)], "/entries/counts"))
            assert set(answers) == {200}
            assert client.unleased()


@REAL
def test_a_locked_cloud_is_refused_until_its_owner_unlocks_it(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    with gateway(lab) as client:
        assert client.get(ann, "/policy").status == 200
        ann.lock()
        for found in (client.get(ann, "/policy"), upload(client, ann, 1)):
            assert (found.status, found.kind) == (409, "Locked")
        assert ann.state is em.CloudState.STOPPED
        assert ann.key is not None
        ann.unlock(ann.key)
        assert client.get(ann, "/policy").status == 200
        assert upload(client, ann, 1).status == 200


@REAL
def test_a_cloud_that_was_killed_is_started_by_the_next_request(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    with gateway(lab) as client:
        assert upload(client, ann, 1).status == 200
        for path in ("/policy", "/entries/counts"):
            pid = pid_of(lab, ann, "custodian")
            kill(pid)
            assert gone(pid)
            assert client.get(ann, path).status == 200


@REAL
def test_a_cloud_that_was_killed_while_it_was_paused_is_started_by_the_next_request(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    with gateway(lab) as client:
        assert client.get(ann, "/policy").status == 200
        ann.pause()
        kill(pid_of(lab, ann, "custodian"))
        assert upload(client, ann, 1, 2).status == 200
    ann.intake()
    assert ann.counts()["background/location"] == 2


@REAL
def test_a_database_that_was_killed_in_its_sleep_is_missed_only_until_its_cloud_has_ended(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    with gateway(lab) as client:
        assert client.get(ann, "/entries/counts").status == 200
        for _ in range(4):
            custodian, mongod = (pid_of(lab, ann, program) for program in ("custodian", "mongod"))
            ann.pause()
            kill(mongod)
            first = client.get(ann, "/entries/counts")
            assert first.status == 200 or first.kind in ("StoreError", "Unreachable")
            assert gone(custodian)
            assert client.get(ann, "/entries/counts").status == 200


@REAL
def test_a_cloud_that_was_frozen_behind_our_back_wakes(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    life = lab.controller.life("ann")
    with gateway(lab, limits=Limits(suspect_s=0.2)) as client:
        assert client.get(ann, "/policy").status == 200
        lab.controller.engine.pause(life.handle)
        assert life.runs
        assert client.get(ann, "/policy").status == 200


@REAL
def test_a_cloud_that_is_stopped_in_the_midst_is_called_bad_or_answers(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    with gateway(lab) as client, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.get, ann, "/entries/counts") for _ in range(400)]
        for _ in range(3):
            lab.controller.life("ann").end()
        codes = {one.result(PATIENCE_S * 3).status for one in asked}
        assert 200 in codes
        assert codes <= {200, 502, 503}
        assert client.get(ann, "/policy").status == 200


@REAL
def test_a_cloud_is_not_paused_or_locked_while_it_answers(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    life = lab.controller.life("ann")
    with gateway(lab) as client, ThreadPoolExecutor(1) as pool, client.connect() as line:
        size = 100_000
        head = (
            f"POST {client.path('ann', '/entries/store')} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {ann.token}\r\n"
        )
        line.sendall(f"{head}Content-Length: {size}\r\n\r\n".encode() + b" " * 10)
        assert wait_until(lambda: life.use().leases != (), PATIENCE_S)
        for stop in (ann.pause, ann.lock):
            with pytest.raises(InUse):
                stop()
        assert pool.submit(client.get, ann, "/policy").result(PATIENCE_S).status == 200
        line.sendall(b" " * (size - 10))
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
        assert client.unleased()
        ann.pause()
        assert ann.state is em.CloudState.PAUSED


@REAL
def test_more_requests_at_once_than_a_sleeping_cloud_takes_are_all_answered(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    ann.pause()
    with gateway(lab) as client, contextlib.ExitStack() as stack:
        lines = [stack.enter_context(client.connect()) for _ in range(2 * MAX_CONNECTIONS - 20)]
        for line in lines:
            line.sendall(head(client, ann, "Connection: close", method="GET"))
        assert Counter(status(rest(line)) for line in lines) == {200: len(lines)}


def falls_asleep(cloud: em.UserCloud) -> bool:
    cloud.pause()
    return cloud.state is em.CloudState.PAUSED


@REAL
def test_pauses_between_requests_harm_none(lab: em.Lab) -> None:
    """A rule may pause whenever it likes: whoever asks gets an answer."""
    ann = lab.controller.signup("ann")
    with gateway(lab) as client, ThreadPoolExecutor(4) as pool:
        for first in range(0, 100, 4):
            asked = [pool.submit(upload, client, ann, number) for number in range(first, first + 4)]
            while not all(one.done() for one in asked):
                with contextlib.suppress(InUse):
                    ann.pause()
                SYSTEM_CLOCK.wait(0.002)  # a lock is not fair: who takes it again at once keeps it from others
            assert {one.result().status for one in asked} == {200}
            assert client.unleased()
            assert wait_until(partial(falls_asleep, ann), PATIENCE_S)  # one of their wakes may still be under way
    ann.intake()
    assert ann.counts()["background/location"] == 100


@REAL
def test_a_forgotten_cloud_is_not_found(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    with gateway(lab) as client:
        path = client.path("ann", "/policy")
        assert client.send("GET", path, token=ann.token).status == 200
        lab.controller.forget("ann")
        assert client.send("GET", path, token=ann.token).status == 404
