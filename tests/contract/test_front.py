"""The controller's whole application, without a socket: who is counted, and who is told to wait."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest
from starlette.requests import Request
from starlette.types import Message

import emlab as em
from emlab.apps.controller import MAX_STREAMS_EACH, SLICE, Front
from emlab.apps.gateway import Gateway
from emlab.apps.threads import THREADS
from emlab.clock import SYSTEM_CLOCK
from emlab.record import Event
from emlab.service import STREAM, Service
from emlab.waking import Waker
from emlab.wire.control import Opening, Unlocking

PATIENCE_S = 20.0
WRONG = "emo_" + "A" * 43


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with em.Lab("memory", home=tmp_path, default_policy=em.Policy.open(), idle=None) as lab:
        yield Service(lab.controller, lab.registry)


@pytest.fixture
def front(service: Service) -> Iterator[Front]:
    with closing(Waker()) as waker:
        yield Front(service, Gateway(service, waker))


class Asking:
    """One request, and the start of its answer."""

    def __init__(
        self,
        front: Front,
        path: str,
        token: str,
        *,
        address: str = "192.0.2.1",
        method: str = "GET",
        body: bytes = b"",
    ) -> None:
        self.start: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        self._body: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "client": (address, 1),
            "headers": [
                (b"authorization", f"Bearer {token}".encode()),
                (b"content-length", str(len(body)).encode()),
            ],
        }
        self._task = asyncio.get_running_loop().create_task(front(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._body:
            return self._body.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start.set_result(message)

    async def status(self) -> int:
        return int((await self.start)["status"])

    async def end(self) -> None:
        """The client is gone, and the application has noticed."""
        self._gone.set()
        await self._task


@asynccontextmanager
async def asking(front: Front, path: str, *tokens: str) -> AsyncIterator[list[int]]:
    """The statuses of so many requests at once, of which none ends before the block does."""
    async with asyncio.timeout(PATIENCE_S):
        asked = [Asking(front, path, token) for token in tokens]
        try:
            yield [await one.status() for one in asked]
        finally:
            for one in asked:
                await one.end()


def test_of_many_streams_at_once_only_so_many_of_one_token_begin(front: Front, service: Service) -> None:
    admin, other = service.issue("admin", "root").token, service.issue("admin", "eve").token
    path = "/events/stream"

    async def story() -> None:
        async with asking(front, path, *[admin] * 40, other) as found:
            assert Counter(found) == {200: MAX_STREAMS_EACH + 1, 429: 40 - MAX_STREAMS_EACH}
        assert front._streams.total() == 0
        async with asking(front, path, admin) as again:
            assert again == [200]

    asyncio.run(story())


def test_a_stream_whose_client_is_gone_before_it_begins_is_not_counted_any_more(front: Front, service: Service) -> None:
    admin = service.issue("admin", "root").token

    async def story() -> None:
        for _ in range(MAX_STREAMS_EACH + 1):
            one = Asking(front, "/events/stream", admin)
            one._gone.set()
            one._body.clear()
            await one.end()
        async with asking(front, "/events/stream", admin) as found:
            assert found == [200]

    asyncio.run(story())


def test_whoever_waits_in_many_requests_keeps_nobody_else_waiting(front: Front, service: Service) -> None:
    lab = service.controller
    tokens = {user: lab.signup(user).token or "" for user in ("ann", "bob")}
    life = lab.life("ann")
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with life._alone(None):
            held.set()
            assert free.wait(PATIENCE_S)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(PATIENCE_S)

    async def story() -> None:
        waiting = [Asking(front, "/cloud/wake", tokens["ann"], method="POST", body=b"{}") for _ in range(THREADS + 10)]
        for user in ("bob", "ann"):
            one = Asking(front, "/me", tokens[user])
            answered = await asyncio.wait([one.start], timeout=PATIENCE_S if user == "bob" else 0.2)
            assert len(answered[0]) == (user == "bob")
            waiting.append(one)
        free.set()
        async with asyncio.timeout(PATIENCE_S):
            assert {await one.status() for one in waiting} == {200}
        for one in waiting:
            await one.end()

    try:
        asyncio.run(story())
    finally:
        free.set()
        holder.join()


def test_who_is_refused_too_often_waits_and_others_behind_the_address_do_not(front: Front, service: Service) -> None:
    admin = service.issue("admin", "root").token

    async def story() -> None:
        refused: list[int] = []
        for _ in range(80):
            async with asking(front, "/me", WRONG) as found:
                refused += found
        assert refused[0] == 403
        assert refused[-1] == 429
        async with asking(front, "/me", admin) as valid, asking(front, "/events/stream", admin) as stream:
            assert valid == stream == [200]
        last = Asking(front, "/me", WRONG)
        headers = dict((await last.start)["headers"])
        assert int(headers[b"retry-after"]) >= 1
        assert headers[b"connection"] == b"close"
        await last.end()
        elsewhere = Asking(front, "/me", WRONG, address="192.0.2.2")
        assert await elsewhere.status() == 403
        await elsewhere.end()

    asyncio.run(story())


def test_a_stream_that_has_much_to_look_at_lets_others_go_first(front: Front, service: Service) -> None:
    ann = service.controller.signup("ann").token or ""
    for user in (*["bob"] * 100 * SLICE, "ann"):
        service.controller.recorder.add(Event("last", user, "memory", SYSTEM_CLOCK.now(), 0.1))
    session = service.session(STREAM, {"authorization": f"Bearer {ann}"})
    scope = {"type": "http", "client": ("192.0.2.1", 1), "headers": [(b"authorization", f"Bearer {ann}".encode())]}

    async def story() -> None:
        turns, lines = 0, front._lines(session, 0, Request(scope))
        assert (await anext(lines)).startswith(b":")

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(count())
        while b'"last"' not in await anext(lines):
            pass
        other.cancel()
        assert turns >= 100

    asyncio.run(story())


def test_who_tries_wrong_keys_waits_soon(front: Front, service: Service) -> None:
    ann = service.controller.signup("ann").token or ""
    body = msgspec.json.encode(Unlocking(Opening.of(em.Key.random())))

    async def story() -> None:
        found = Counter[int]()
        for _ in range(80):
            one = Asking(front, "/cloud/unlock", ann, method="POST", body=body)
            found[await one.status()] += 1
            await one.end()
        assert set(found) == {403, 429}

    asyncio.run(story())
