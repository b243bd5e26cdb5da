"""Requests that are sent before the last answer is there: answered in their order, and few of them at once."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httptools
import pytest

from emlab.apps.http import MOST_WAITING, server
from emlab.clock import wait_until
from emlab.wire.table import MAX_HEADER_BYTES
from emlab.wire.transport import Reply

PATIENCE_S = 10.0


class Counting:
    """Answers with the path, and keeps what it was asked. The path /slow waits until somebody says go."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = threading.Event()

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        return None

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.asked.append(path)
        if path == "/slow":
            assert self.go.wait(PATIENCE_S)
        return 200, path.encode() + body


class Answers:
    """All answers on a connection until the server ends it."""

    def __init__(self, line: socket.socket) -> None:
        self.found: list[tuple[int, bytes]] = []
        self.headers: dict[bytes, bytes] = {}
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)
        with contextlib.suppress(ConnectionResetError):  # instead of the end, where something was left unread
            while part := line.recv(1 << 16):
                self._parser.feed_data(part)

    def on_message_begin(self) -> None:
        self.headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name] = value

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.found.append((self._parser.get_status_code(), self._body))


@pytest.fixture
def app() -> Counting:
    return Counting()


@pytest.fixture
def line(app: Counting, tmp_path: Path) -> Iterator[socket.socket]:
    running = server(app, tmp_path / "s")
    thread = threading.Thread(target=running.run)
    thread.start()
    assert wait_until(lambda: running.started, PATIENCE_S)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(PATIENCE_S)
        line.connect(str(tmp_path / "s"))
        yield line
    app.go.set()
    running.should_exit = True
    thread.join()


def asking(path: str, *, body: bytes = b"", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: h\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_as_many_as_may_wait_are_answered_in_their_order(line: socket.socket) -> None:
    paths = [f"/{number}" for number in range(MOST_WAITING)]
    line.sendall(b"".join(asking(path, body=b"!") for path in paths) + asking("/last", more="Connection: close\r\n"))
    assert Answers(line).found == [(200, f"{path}!".encode()) for path in paths] + [(200, b"/last")]


def test_of_a_flood_those_that_may_wait_are_answered_and_the_rest_is_not_even_read(
    app: Counting, line: socket.socket
) -> None:
    line.sendall(asking("/slow"))
    assert wait_until(lambda: bool(app.asked), PATIENCE_S)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        line.sendall(asking("/") * 500)
        app.go.set()
        line.sendall(asking("/") * 5000)
    found = Answers(line)
    assert found.found[: 1 + MOST_WAITING] == [(200, b"/slow")] + [(200, b"/")] * MOST_WAITING
    assert [status for status, _ in found.found[1 + MOST_WAITING :]] == [429]
    assert found.headers[b"connection"] == b"close"
    assert int(found.headers[b"retry-after"]) > 0
    assert len(app.asked) == 1 + MOST_WAITING


def test_the_heads_of_those_that_wait_have_together_the_size_that_one_may_have(
    app: Counting, line: socket.socket
) -> None:
    long = f"Filler: {'x' * (MAX_HEADER_BYTES // 2)}\r\n"
    line.sendall(asking("/slow"))
    assert wait_until(lambda: bool(app.asked), PATIENCE_S)
    line.sendall(asking("/") + asking("/long", more=long) + asking("/never", more=long))
    app.go.set()
    assert [status for status, _ in Answers(line).found] == [200, 200, 200, 429]
    assert app.asked == ["/slow", "/", "/long"]


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_body_that_is_none_is_refused_in_its_turn(app: Counting, line: socket.socket, before: int) -> None:
    app.go.set()
    bad = b"POST /bad HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nabc"
    line.sendall(asking("/slow") * before + bad)
    *first, last = Answers(line).found
    assert first == [(200, b"/slow")] * before
    assert last[0] == 400
    assert app.asked == ["/slow"] * before


def test_what_was_asked_before_nonsense_is_answered_before_the_connection_ends(
    app: Counting, line: socket.socket
) -> None:
    line.sendall(asking("/slow") + asking("/next") + b"nonsense\r\n\r\n")
    assert wait_until(lambda: bool(app.asked), PATIENCE_S)
    line.sendall(asking("/never"))
    app.go.set()
    assert Answers(line).found == [(200, b"/slow"), (200, b"/next")]
    assert app.asked == ["/slow", "/next"]
