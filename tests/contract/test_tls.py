"""Certificates that are made here, as OpenSSL judges them; given ones; and a server that shows one."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from emlab import tls
from emlab.apps import http, listening
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


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    tls.private(tmp_path / "tls", ["a.example"])
    files = list((tmp_path / "tls").iterdir())
    assert {file.name for file in files} == {"ca.pem", "ca.key", "server.pem", "server.key"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_given_certificate_comes_with_its_own_key(tmp_path: Path) -> None:
    one, two = (tls.private(tmp_path / name, ["a.example"]) for name in ("one", "two"))
    assert tls.given(one.chain, one.key) == Certificate(one.chain, one.key)
    for chain, key in ((one.chain, two.key), (one.chain, tmp_path / "none"), (one.key, one.key)):
        with pytest.raises(ConfigError, match="no certificate with its key"):
            tls.given(chain, key)


def test_silent_clients_keep_nobody_out_whether_they_have_shaken_hands_or_not(tmp_path: Path) -> None:
    most = 20
    made = tls.private(tmp_path, ["127.0.0.1"])
    trusting = ssl.create_default_context(cafile=made.ca)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        running = listening.server(http.asgi(Recording()), made, limit_concurrency=most)
        thread = threading.Thread(target=partial(running.run, sockets=[listener]))
        thread.start()
        stack.callback(thread.join)
        stack.callback(setattr, running, "should_exit", True)
        assert wait_until(lambda: running.started, PATIENCE_S)

        def connect(source: str) -> socket.socket:
            line = socket.create_connection(listener.getsockname(), PATIENCE_S, source_address=(source, 0))
            return stack.enter_context(line)

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
