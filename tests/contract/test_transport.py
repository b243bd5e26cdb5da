"""The client's end of a unix socket, against servers that are slow or answer too much."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emlab.errors import BadReply, ConfigError, EmlabError, Unreachable
from emlab.wire import problem, transport
from emlab.wire.transport import HttpTransport, UnixTransport

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
Serve = Callable[[list[bytes], float], UnixTransport]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server that answers with parts, each so many seconds after the one before; returns a transport to it."""
    done = threading.Event()
    with contextlib.ExitStack() as stack:

        def begin(parts: list[bytes], pause_s: float) -> UnixTransport:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            thread = threading.Thread(target=answer, args=(listener, parts, pause_s))
            thread.start()
            stack.callback(thread.join)
            stack.callback(done.set)
            return stack.enter_context(contextlib.closing(UnixTransport(tmp_path / "s")))

        def answer(listener: socket.socket, parts: list[bytes], pause_s: float) -> None:
            line, _ = listener.accept()
            with line, contextlib.suppress(OSError):
                line.recv(1 << 16)
                for part in parts:
                    line.sendall(part)
                    if done.wait(pause_s):
                        return

        yield begin


def get(to: UnixTransport, timeout_s: float = 5.0) -> tuple[int, bytes]:
    return to.send("GET", "/health", headers={}, body=b"", timeout_s=timeout_s)


def bytewise(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


@pytest.mark.parametrize(
    "parts", [[HEAD, *[b"x"] * 40], bytewise(HEAD + b"x" * 40), [b"HTTP/1.1 200 OK\r\n", *[b"A: b\r\n"] * 90]]
)
def test_a_server_that_drips_holds_a_call_no_longer_than_its_timeout(serve: Serve, parts: list[bytes]) -> None:
    to = serve(parts, 0.1)
    before = time.monotonic()
    with pytest.raises(Unreachable, match=r"within 0\.4 s"):
        get(to, timeout_s=0.4)
    assert time.monotonic() - before < 1


def test_a_server_that_drips_in_time_is_understood(serve: Serve) -> None:
    assert get(serve(bytewise(HEAD + b"x" * 40), 0.001)) == (200, b"x" * 40)


def test_a_reply_that_is_too_long_is_not_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_REPLY_BYTES", 39)
    with pytest.raises(BadReply, match="more than 39 bytes"):
        get(serve([HEAD, b"x" * 40], 0))


def test_an_error_without_a_class_of_its_own_comes_out_as_one() -> None:
    back = problem.decode(*problem.encode(EmlabError("the custodian failed with KeyError")))
    assert (type(back), str(back)) == (EmlabError, "the custodian failed with KeyError")


@pytest.mark.parametrize("fingerprint", ["", "x" * 64, "00" * 20, "00:" * 32])
def test_what_is_no_fingerprint_is_refused_before_anything_is_sent(fingerprint: str) -> None:
    with pytest.raises(ConfigError, match="64 hex digits"):
        HttpTransport("https://localhost:1", fingerprint=fingerprint)
    with pytest.raises(ConfigError, match="https"):
        HttpTransport("http://localhost:1", fingerprint="00" * 32)
