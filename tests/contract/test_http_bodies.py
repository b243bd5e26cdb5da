"""Bodies and answers over TCP: how long and how much is waited for, and who is let go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest
import uvicorn

import emlab as em
from emlab.apps import http
from emlab.apps.bodies import MAX_READING_EACH, SMALL_BODY_BYTES, Full, Pace, Reading
from emlab.apps.gateway import Limits
from emlab.clock import wait_until
from emlab.errors import EngineError
from emlab.wire import problem
from emlab.wire.transport import Reply
from tests.gateways import PATIENCE_S, HurriedHead, answering, gateway, head, rest, status

MB = 1 << 20


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[em.Lab]:
    home = tmp_path_factory.mktemp("home")
    with em.Lab("memory", home=home, default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


@pytest.fixture(scope="module")
def ann(lab: em.Lab) -> em.UserCloud:
    return lab.controller.signup("ann")


def left_s(pace: Pace) -> float:
    """Until the next part has to be there."""
    return pace.until - asyncio.get_running_loop().time()


# -- how long a body may take ------------------------------------------------------------------------------------


def test_who_sends_much_at_once_is_not_waited_for_ever_after() -> None:
    async def after(size: int) -> float:
        pace = Pace(10.0, 1000.0)
        pace.earn(bytes(size))
        return left_s(pace)

    assert asyncio.run(after(64 * MB)) <= 60.0
    assert asyncio.run(after(10)) > 9.0


def test_a_body_that_says_who_sends_it_has_a_time_for_all_of_it() -> None:
    async def after(whole_s: float) -> float:
        pace = Pace(10.0, 1000.0, whole_s=whole_s)
        before = left_s(pace)
        pace.earn(bytes(MB))
        return max(before, left_s(pace))

    assert asyncio.run(after(3.0)) <= 3.0


def test_who_sends_on_slowly_without_a_token_is_refused_in_the_end(lab: em.Lab, ann: em.UserCloud) -> None:
    limits = Limits(body_s=PATIENCE_S * 4, unknown_s=0.5)
    with gateway(lab, limits=limits) as client, client.connect() as line:
        where = client.path(ann.user, "/usercache/put")
        line.sendall(f"POST {where} HTTP/1.1\r\nHost: h\r\nContent-Length: {4 * MB}\r\n\r\n{{".encode() + b" " * MB)
        assert status(rest(line)) == 408


# -- how much of them is in memory -------------------------------------------------------------------------------


def test_one_address_does_not_take_the_room_of_the_others() -> None:
    reading = Reading()
    with reading.of(MAX_READING_EACH, "192.0.2.1") as read:
        read.keep(bytes(MAX_READING_EACH))
        with pytest.raises(Full), reading.of(2 * MB, "192.0.2.1"):
            pass
        with reading.of(SMALL_BODY_BYTES, "192.0.2.1") as small:
            small.keep(bytes(SMALL_BODY_BYTES))
        with reading.of(2 * MB, "192.0.2.2") as other:
            other.keep(bytes(2 * MB))
    with reading.of(MAX_READING_EACH, "192.0.2.1") as read:
        read.keep(bytes(2 * MB))
    assert not reading._bytes


# -- who is gone, and who is told to come again ------------------------------------------------------------------


class Failing:
    """Lets everybody in, and has no engine; but much to say."""

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        return None

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        return (200, bytes(16 * MB)) if path == "/much" else problem.encode(EngineError("the engine says no"))


@pytest.fixture
def connect() -> Iterator[Callable[[], socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(http.config(http.asgi(Failing()), limit_concurrency=10))
        thread = threading.Thread(target=partial(running.run, sockets=[listener]))
        thread.start()
        assert wait_until(lambda: running.started, PATIENCE_S)
        yield partial(socket.create_connection, listener.getsockname(), timeout=PATIENCE_S)
        running.should_exit = True
        thread.join()


def test_what_is_unavailable_may_be_asked_again(connect: Callable[[], socket.socket]) -> None:
    with connect() as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        reply = rest(line)
    assert status(reply) == 503
    assert b"retry-after: 2\r\n" in reply


def test_an_answer_that_is_still_being_sent_is_no_silence(connect: Callable[[], socket.socket]) -> None:
    with connect() as reader, contextlib.ExitStack() as stack:
        reader.sendall(b"GET /much HTTP/1.1\r\nHost: h\r\n\r\n")
        got = len(reader.recv(1))
        silent = [stack.enter_context(connect()) for _ in range(40)]
        assert rest(silent[0]) == b""  # one of those that had to go
        while got < 16 * MB:
            part = reader.recv(1 << 20)
            assert part, f"the answer ended after {got} bytes"
            got += len(part)


def test_a_client_that_goes_within_its_body_is_no_error_of_ours(
    connect: Callable[[], socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    with connect() as line:
        line.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nabc")
    with connect() as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert status(rest(line)) == 503
    assert caplog.records == []


# -- slow readers ------------------------------------------------------------------------------------------------


def test_a_client_that_reads_slowly_is_not_let_go(
    lab: em.Lab, ann: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HurriedHead, "UNREAD_S", 3.0)
    lab.controller.wake(ann.user)

    def answer(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                line.sendall(bytes(1 << 16))

    with gateway(lab, limits=Limits(stall_s=15.0), hurried=True) as client, answering(lab, ann.user, answer):
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            line.settimeout(PATIENCE_S)
            line.connect(("127.0.0.1", client.port))
            line.sendall(head(client, ann, method="GET"))
            with line.makefile("rb") as answered:
                for _ in range(100):  # 300 KB/s, where the server would keep up to 4 MB in its kernel
                    assert len(answered.read(30_000)) == 30_000
                    threading.Event().wait(0.1)
        assert client.unleased()
