"""The server's end of a unix socket: what it refuses before it has read it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import uvloop

from emlab.apps import http
from emlab.apps.bodies import MAX_READING_BYTES
from emlab.apps.http import MAX_CONNECTIONS, MOST_HEADERS, server
from emlab.apps.joining import Joined
from emlab.clock import wait_until
from emlab.errors import BudgetExhausted, NotPermitted
from emlab.wire import problem
from emlab.wire.problem import Problem
from emlab.wire.table import MAX_BODY_BYTES, MAX_HEADER_BYTES
from emlab.wire.transport import Reply, UnixTransport

PATIENCE_S = 10.0
BODY = b"x" * (8 << 20)
PLEASE = {"authorization": "please"}


class Guarded:
    """Answers with the length of the body, or with nothing, to whoever says a word."""

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        return None if headers.get("authorization") == "please" else problem.encode(NotPermitted("say please"))

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if path == "/spent":
            return problem.encode(BudgetExhausted("nothing is left"))
        return 200, b"" if path == "/nothing" else str(len(body)).encode()


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    running = server(Guarded(), tmp_path / "s")
    thread = threading.Thread(target=running.run)
    thread.start()
    assert wait_until(lambda: running.started, PATIENCE_S)
    yield tmp_path / "s"
    running.should_exit = True
    thread.join()


@pytest.fixture
def to(path: Path) -> Iterator[UnixTransport]:
    with contextlib.closing(UnixTransport(path)) as transport:
        yield transport


@pytest.fixture
def line(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(PATIENCE_S)
        line.connect(str(path))
        yield line


def send(to: UnixTransport, headers: Mapping[str, str], body: bytes = b"") -> Reply:
    return to.send("POST", "/", headers=headers, body=body, timeout_s=PATIENCE_S)


def answer(line: socket.socket) -> tuple[int, str]:
    """The status and the problem's text of a reply after which the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):  # instead of the end, where something was left unread
        while part := line.recv(1 << 16):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split()[1]), msgspec.json.decode(body, type=Problem).detail


def test_a_large_body_of_who_may_is_read_whole(to: UnixTransport) -> None:
    for _ in range(2):
        assert send(to, PLEASE, BODY) == (200, str(len(BODY)).encode())


def test_an_empty_answer_is_not_called_json(line: socket.socket) -> None:
    for path, kind in (("/nothing", b"text/html"), ("/", b"application/json")):
        line.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nAuthorization: please\r\nContent-Length: 0\r\n\r\n".encode())
        assert b"content-type: " + kind in line.recv(1 << 16)


class Watched:
    """A transport, and what is written to it."""

    def __init__(self, transport: asyncio.Transport, pieces: list[bytes]) -> None:
        self._transport = transport
        self._pieces = pieces

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._transport.write(data)


def test_the_head_and_a_small_body_of_an_answer_leave_in_one_piece(
    to: UnixTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[bytes] = []

    def joined(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> Joined:
        return Joined(cast(asyncio.Transport, Watched(transport, pieces)), loop)

    monkeypatch.setattr(http, "Joined", joined)
    assert send(to, PLEASE, b"hi") == (200, b"2")
    (piece,) = pieces
    assert piece.startswith(b"HTTP/1.1 200 OK\r\n")
    assert piece.endswith(b"\r\n\r\n2")


@pytest.mark.parametrize("host", ["", "elsewhere/nothing?"])
def test_the_head_s_host_is_no_part_of_the_path(line: socket.socket, host: str) -> None:
    line.sendall(f"POST / HTTP/1.1\r\nHost: {host}\r\nAuthorization: please\r\nContent-Length: 2\r\n\r\nhi".encode())
    assert line.recv(1 << 16).endswith(b"\r\n\r\n2")


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [("1.1", 0, 400), ("1.1", 2, 400), ("1.0", 0, 200), ("1.0", 1, 200), ("1.0", 2, 400)],
)
def test_a_request_names_its_host_once(line: socket.socket, version: str, hosts: int, status: int) -> None:
    named = "Host: h\r\n" * hosts
    line.sendall(f"POST / HTTP/{version}\r\n{named}Authorization: please\r\nContent-Length: 2\r\n\r\nhi".encode())
    assert line.recv(1 << 16).startswith(f"HTTP/1.1 {status} ".encode())


def test_who_may_not_is_told_so_before_the_body_is_read(to: UnixTransport, line: socket.socket) -> None:
    line.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n")
    assert answer(line) == (403, "say please")
    status, reply = send(to, {}, BODY)  # a client that sends on learns it too
    assert (type(problem.decode(status, reply)), status) == (NotPermitted, 403)


@pytest.mark.parametrize(
    ("length", "status", "text"),
    [
        (f"Content-Length: {MAX_BODY_BYTES + 1}", 400, f"at most {MAX_BODY_BYTES} bytes"),
        ("Transfer-Encoding: chunked", 411, "says the length"),
    ],
)
def test_a_body_without_a_bound_is_refused_unread(line: socket.socket, length: str, status: int, text: str) -> None:
    line.sendall(f"POST / HTTP/1.1\r\nHost: h\r\nAuthorization: please\r\n{length}\r\n\r\n".encode())
    found, said = answer(line)
    assert found == status
    assert text in said


def test_large_bodies_do_not_fill_the_memory_together(path: Path, to: UnixTransport) -> None:
    begin = f"POST / HTTP/1.1\r\nHost: h\r\nAuthorization: please\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_READING_BYTES // MAX_BODY_BYTES):
            slow = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            slow.connect(str(path))
            slow.sendall(begin + bytes(MAX_BODY_BYTES - 1))
        assert wait_until(lambda: send(to, PLEASE, BODY)[0] == 503, PATIENCE_S)
        assert send(to, PLEASE, b"small") == (200, b"5")
    assert wait_until(lambda: send(to, PLEASE, BODY) == (200, str(len(BODY)).encode()), PATIENCE_S)


def test_a_head_within_the_bound_is_taken(to: UnixTransport) -> None:
    assert send(to, {**PLEASE, "filler": "x" * (MAX_HEADER_BYTES - 400)}) == (200, b"0")


def test_a_whole_head_beyond_the_bound_is_refused(to: UnixTransport) -> None:
    for filler in (
        {"filler": "x" * MAX_HEADER_BYTES},
        {f"n{n}": "x" * 200 for n in range(90)},
        {f"n{n}": "" for n in range(MOST_HEADERS + 1)},
    ):
        status, reply = send(to, {**PLEASE, **filler})
        assert status == 431
        assert f"at most {MAX_HEADER_BYTES} bytes and {MOST_HEADERS} headers" in str(problem.decode(status, reply))


def test_nobody_is_told_to_ask_again_for_what_does_not_come_back(line: socket.socket) -> None:
    line.sendall(b"GET /spent HTTP/1.1\r\nHost: h\r\nAuthorization: please\r\nConnection: close\r\n\r\n")
    with line.makefile("rb") as reply:
        told = reply.read()
    assert told.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after" not in told.lower()


@pytest.mark.parametrize(
    "begun", [b"a:\r\n" * (MOST_HEADERS + 1), b"name: value of it\r\n" * 1500, b"/x" * MAX_HEADER_BYTES]
)
def test_a_head_that_is_too_long_before_its_end_is_not_kept(line: socket.socket, begun: bytes) -> None:
    line.sendall((b"GET " if begun.startswith(b"/") else b"GET / HTTP/1.1\r\nHost: h\r\n") + begun)
    assert answer(line)[0] == 431


@pytest.mark.parametrize("part", [b"x" * 4096, b"Name: value\r\n" * 300])
def test_a_head_that_does_not_end_is_cut_off(line: socket.socket, part: bytes) -> None:
    line.sendall(b"GET / HTTP/1.1\r\nName: ")
    with pytest.raises(BrokenPipeError):
        line.sendall(part * 5000)  # 20 MB
    assert answer(line)[0] == 431


def test_after_a_long_body_the_next_head_is_counted_from_its_start(line: socket.socket) -> None:
    one = b"POST / HTTP/1.1\r\nHost: h\r\nAuthorization: please\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50000
    line.sendall(one + one[:30])
    line.sendall(one[30:].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    with line.makefile("rb") as file:
        assert file.read().count(b"HTTP/1.1 200 OK") == 2


def test_a_program_with_many_open_files_asks_on_a_connection_that_was_kept(to: UnixTransport) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        assert [send(to, PLEASE)[0] for _ in range(3)] == [200] * 3


def test_connections_beyond_the_bound_are_turned_away(path: Path, to: UnixTransport) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)).connect(str(path))
        assert send(to, PLEASE)[0] == 503
    assert wait_until(lambda: send(to, PLEASE)[0] == 200, PATIENCE_S)


@pytest.mark.parametrize("slept_s", [0.0, 0.15, 0.4])
def test_who_wakes_a_cloud_does_not_wait_until_it_has_tidied_up(
    monkeypatch: pytest.MonkeyPatch, slept_s: float
) -> None:
    tidied: list[float] = []
    monkeypatch.setattr(http, "REST_S", 0.1)
    monkeypatch.setattr(http, "LATE_S", 0.01)
    monkeypatch.setattr(gc, "collect", lambda: tidied.append(time.monotonic()))

    async def live() -> None:
        http._Rest().put_off()
        time.sleep(slept_s)  # as if it were frozen
        woken = time.monotonic()
        while not tidied:
            await asyncio.sleep(0.01)
        assert tidied[0] - woken > 0.09

    uvloop.run(asyncio.wait_for(live(), 10.0))
