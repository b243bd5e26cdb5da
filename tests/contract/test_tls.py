"""Certificates that are made here, as OpenSSL judges them; given ones; and a server that shows one."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from emlab import tls
from emlab.apps import handshakes, http, listening
from emlab.apps.handshakes import TlsServer
from emlab.clock import wait_until
from emlab.errors import ConfigError
from emlab.serving import Settings
from emlab.tls import Certificate
from tests.gateways import PATIENCE_S, Recording, rest, status


def shake_hands(certificate: Certificate, ca: Path | None, name: str) -> str:
    """The common name that a careful client sees, or its error."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate.chain, certificate.key)
    client = ssl.create_default_context(cafile=ca)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as line:
            found: dict[str, Any] | None = line.getpeercert()
            assert found is not None
            (((_, name),),) = found["subject"]
            return str(name)
    except ssl.SSLError as exc:
        return f"{exc.reason}"
    finally:
        ours.close()
        thread.join()


def test_callers_who_trust_the_authority_trust_the_server_under_its_names_only(tmp_path: Path) -> None:
    made = tls.private(tmp_path / "tls", ["127.0.0.1", "lab.example"])
    assert shake_hands(made, made.ca, "127.0.0.1") == "127.0.0.1"
    assert shake_hands(made, made.ca, "lab.example") == "127.0.0.1"
    assert shake_hands(made, made.ca, "other.example") == "CERTIFICATE_VERIFY_FAILED"
    assert shake_hands(made, None, "127.0.0.1") == "CERTIFICATE_VERIFY_FAILED"


def test_programs_of_the_host_trust_a_server_that_listens_everywhere(tmp_path: Path) -> None:
    made = listening.certificate(tmp_path, Settings(host="0.0.0.0"))
    assert made is not None
    for name in ("localhost", "127.0.0.1", "::1"):
        assert shake_hands(made, made.ca, name) == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "elsewhere", "here"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]", "[::1]"),
        ("0.0.0.0", socket.gethostname(), "127.0.0.1"),
        ("::", socket.gethostname(), "[::1]"),
    ],
)
def test_a_server_that_listens_everywhere_is_called_by_a_name(host: str, elsewhere: str, here: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, chosen = listener.getsockname()[1], Settings(host=host)
        assert listening.url(chosen, listener) == f"https://{elsewhere}:{port}"
        assert listening.url(chosen, listener, here=True) == f"https://{here}:{port}"


def test_the_authority_stays_and_the_certificate_follows_its_names(tmp_path: Path) -> None:
    made = tls.private(tmp_path, ["a.example"])
    assert made.ca is not None
    before = made.ca.read_bytes(), made.chain.read_bytes()
    assert tls.private(tmp_path, ["a.example"]) == made
    assert (made.ca.read_bytes(), made.chain.read_bytes()) == before
    tls.private(tmp_path, ["a.example", "::1"])
    assert made.ca.read_bytes() == before[0]
    assert made.chain.read_bytes() != before[1]
    assert shake_hands(made, made.ca, "::1") == "a.example"


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "lab.example", "zürich.example"])
def test_a_server_is_called_by_a_name_or_an_address(host: str, tmp_path: Path) -> None:
    made = tls.private(tmp_path, [host])
    assert shake_hands(made, made.ca, host) == host.encode("idna").decode()


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    tls.private(tmp_path / "tls", ["a.example"])
    files = list((tmp_path / "tls").iterdir())
    assert {file.name for file in files} == {"ca.pem", "ca.key", "server.pem", "server.key"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x")]
)
@pytest.mark.parametrize("name", ["server.pem", "server.key"])
def test_a_server_s_own_certificate_or_key_that_is_damaged_is_made_anew(
    tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    before = tls.private(tmp_path, ["a.example"])
    assert before.ca is not None
    trusted = before.ca.read_bytes()
    damage(tmp_path / name)
    made = tls.private(tmp_path, ["a.example"])
    assert made.ca is not None
    assert made.ca.read_bytes() == trusted
    assert shake_hands(made, made.ca, "a.example") == "a.example"


def test_the_authority_s_key_is_needed_for_another_certificate_only(tmp_path: Path) -> None:
    made = tls.private(tmp_path / "lab", ["a.example"])
    (tmp_path / "lab" / "ca.key").rename(tmp_path / "safe")
    assert tls.private(tmp_path / "lab", ["a.example"]) == made
    with pytest.raises(ConfigError, match="a new certificate is needed, and the key"):
        tls.private(tmp_path / "lab", ["b.example"])
    other = tls.private(tmp_path / "other", ["a.example"])
    other.key.with_name("ca.key").rename(tmp_path / "lab" / "ca.key")
    with pytest.raises(ConfigError, match="not the key of the authority"):
        tls.private(tmp_path / "lab", ["b.example"])
    assert shake_hands(made, made.ca, "a.example") == "a.example"


def test_a_first_start_that_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    tls.private(tmp_path, ["a.example"])
    key = (tmp_path / "ca.key").read_bytes()
    for name in ("ca.pem", "server.pem", "server.key"):
        (tmp_path / name).unlink()
    made = tls.private(tmp_path, ["a.example"])
    assert made.ca is not None
    assert shake_hands(made, made.ca, "a.example") == "a.example"
    assert (tmp_path / "ca.key").read_bytes() == key


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_an_authority_that_callers_trust_is_never_replaced_without_a_word(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    made = tls.private(tmp_path, ["a.example"])
    assert made.ca is not None
    damage(made.ca)
    with pytest.raises(ConfigError, match="restore it; or remove"):
        tls.private(tmp_path, ["a.example"])


def test_names_are_those_of_hosts(tmp_path: Path) -> None:
    made = tls.private(tmp_path / "one", ["bücher.example"])
    assert shake_hands(made, made.ca, "xn--bcher-kva.example") == "xn--bcher-kva.example"
    for wrong in ("a..b", "x" * 64, ""):
        with pytest.raises(ConfigError, match="no name of a host"):
            tls.private(tmp_path / "two", [wrong])


def test_an_authority_that_has_expired_is_said_to_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr(tls, "AUTHORITY_DAYS", 0)
        with pytest.raises(ConfigError, match="expired"):
            tls.private(tmp_path, ["a.example"])


def test_a_certificate_of_another_authority_is_made_anew(tmp_path: Path) -> None:
    made, other = (tls.private(tmp_path / name, ["a.example"]) for name in ("one", "two"))
    for old, new in ((other.chain, made.chain), (other.key, made.key)):
        shutil.copy(old, new)
    assert shake_hands(tls.private(tmp_path / "one", ["a.example"]), made.ca, "a.example") == "a.example"


def test_a_given_certificate_that_has_expired_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as there:
        there.setattr(tls, "CERTIFICATE_DAYS", 0)
        old = tls.private(tmp_path, ["a.example"])
    with pytest.raises(ConfigError, match="has expired"):
        tls.given(old.chain, old.key)


def test_a_key_with_a_password_is_refused_and_nobody_asked_for_it(tmp_path: Path) -> None:
    made = tls.private(tmp_path, ["a.example"])
    key = load_pem_private_key(made.key.read_bytes(), None)
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError, match="no certificate with its key"):
        tls.given(made.chain, made.key)


def test_a_key_that_everybody_can_read_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = tls.private(tmp_path, ["a.example"])
    assert caplog.messages == []
    made.key.chmod(0o644)
    tls.given(made.chain, made.key)
    tls.private(tmp_path, ["a.example"])
    assert [str(made.key) in message for message in caplog.messages] == [True, True]


def test_a_given_certificate_comes_with_its_own_key(tmp_path: Path) -> None:
    one, two = (tls.private(tmp_path / name, ["a.example"]) for name in ("one", "two"))
    assert tls.given(one.chain, one.key) == Certificate(one.chain, one.key)
    for chain, key in ((one.chain, two.key), (one.chain, tmp_path / "none"), (one.key, one.key)):
        with pytest.raises(ConfigError, match="no certificate with its key"):
            tls.given(chain, key)


def open_files() -> list[str]:
    return [path.name for path in Path("/proc/self/fd").iterdir()]


@contextmanager
def serving(
    made: Certificate, *, limit_concurrency: int, app: ASGIApp | None = None
) -> Iterator[Callable[[str], socket.socket]]:
    """A server, and a function that connects to it from an address."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener, ExitStack() as stack:
        running = listening.server(app or http.asgi(Recording()), made, limit_concurrency=limit_concurrency)
        thread = threading.Thread(target=partial(running.run, sockets=[listener]))
        thread.start()
        stack.callback(thread.join)
        stack.callback(setattr, running, "should_exit", True)
        assert wait_until(lambda: running.started, PATIENCE_S)

        def connect(source: str) -> socket.socket:
            line = socket.create_connection(listener.getsockname(), PATIENCE_S, source_address=(source, 0))
            return stack.enter_context(line)

        yield connect


def test_silent_clients_keep_nobody_out_whether_they_have_shaken_hands_or_not(tmp_path: Path) -> None:
    most = 20
    made = tls.private(tmp_path, ["127.0.0.1"])
    trusting = ssl.create_default_context(cafile=made.ca)
    with serving(made, limit_concurrency=most) as connect, ExitStack() as stack:

        def shaken(source: str) -> ssl.SSLSocket:
            return stack.enter_context(trusting.wrap_socket(connect(source), server_hostname="127.0.0.1"))

        honest = shaken("127.0.0.2")
        for _ in range(5 * most):
            connect("127.0.0.1")
        lines = [shaken("127.0.0.1") for _ in range(5 * most)]
        assert {rest(line) for line in lines[: 3 * most]} == {b""}  # the oldest ones were ended
        for line in (honest, shaken("127.0.0.2")):
            line.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert status(rest(line)) == 200


def test_handshakes_are_few_and_do_not_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshakes, "SHAKE_S", 2.0)
    monkeypatch.setattr(handshakes, "SHAKING", 32)
    made = tls.private(tmp_path, ["127.0.0.1"])
    trusting = ssl.create_default_context(cafile=made.ca)
    turned_away = Counter[str]()

    class App:
        def __init__(self) -> None:
            self._app = http.asgi(Recording())

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)

        def turned_away(self, address: str, kind: str) -> None:
            turned_away[f"{address} {kind}"] += 1

    with serving(made, limit_concurrency=20, app=App()) as connect:
        files = len(open_files())
        silent = [connect("127.0.0.1") for _ in range(200)]
        with trusting.wrap_socket(connect("127.0.0.2"), server_hostname="127.0.0.1") as honest:
            honest.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert status(rest(honest)) == 200
        assert {rest(line) for line in silent[:100]} == {b""}  # the oldest ones were ended
        (said,) = turned_away.items()
        assert said[0] == "127.0.0.1 Unreachable"
        assert 200 - 32 <= said[1] <= 200
        last = silent[-1]
        last.settimeout(0.1)
        with pytest.raises(TimeoutError):
            last.recv(1)
        last.settimeout(PATIENCE_S)
        assert {rest(line) for line in silent} == {b""}
        for line in silent:
            line.close()
        assert wait_until(lambda: len(open_files()) < files + 10, PATIENCE_S)


def test_a_server_that_takes_no_connections_any_more_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(handshakes, "SHAKING", 0)
    monkeypatch.setattr(TlsServer, "_make_room", broken)
    made = tls.private(tmp_path, ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        running = pool.submit(listening.server(http.asgi(Recording()), made, limit_concurrency=9).run, [listener])
        with socket.create_connection(listener.getsockname(), PATIENCE_S), pytest.raises(ZeroDivisionError):
            running.result(PATIENCE_S)


def test_a_server_that_can_open_no_more_files_goes_on_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = tls.private(tmp_path, ["127.0.0.1"])
    trusting = ssl.create_default_context(cafile=made.ca)
    with serving(made, limit_concurrency=20) as connect:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as stack:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, open_files())) + 2, before[1]))
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
            last = None
            with suppress(OSError):
                while True:
                    last = stack.enter_context(Path(os.devnull).open())
            assert last is not None
            last.close()
            line = connect("127.0.0.1")
            assert wait_until(lambda: "Too many open files" in caplog.text, PATIENCE_S)
        with trusting.wrap_socket(line, server_hostname="127.0.0.1") as honest:
            honest.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert status(rest(honest)) == 200
