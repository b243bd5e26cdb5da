"""Whatever the controller refuses over the network leaves one row in the audit log, with an address or a name."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import emlab as em
from emlab.apps import http
from emlab.apps.controller import MAX_STREAMS_EACH
from emlab.clock import wait_until
from emlab.wire.table import MAX_BODY_BYTES, MAX_HEADER_BYTES
from tests.gateways import PATIENCE_S, Client, gateway, head, status

NOBODY = "nobody 127.0.0.1"
WRONG = "emo_" + "A" * 43
Row = tuple[str, str, str, str]  # actor, action, user, outcome


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", home=tmp_path, default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


@pytest.fixture
def ann(lab: em.Lab) -> em.UserCloud:
    return lab.controller.signup("ann")


@pytest.fixture
def admin(lab: em.Lab) -> str:
    return lab.controller.tokens.issue("admin", "root")[0]


@pytest.fixture
def client(lab: em.Lab) -> Iterator[Client]:
    with gateway(lab, hurried=True, whole=True) as client:
        yield client


def since(client: Client, seq: int) -> dict[Row, int]:
    return {(row.actor, row.action, row.user, row.outcome): row.n for row in client.audit.rows(after=seq)}


def last(client: Client) -> int:
    return max((row.seq for row in client.audit.rows()), default=0)


def request(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *lines, "", ""]).encode("latin-1")


Making = Callable[[Client, em.UserCloud, str], bytes]
REFUSED: dict[str, tuple[Making, int, Row]] = {
    "no route": (lambda c, a, t: request("GET", "/x"), 404, (NOBODY, "request", "", "BadQuery")),
    "no route, with a token": (
        lambda c, a, t: request("GET", "/x", f"Authorization: Bearer {a.token}"),
        404,
        ("owner ann", "request", "", "BadQuery"),
    ),
    "an encoded slash": (lambda c, a, t: request("GET", "/events%2Fstream"), 404, (NOBODY, "request", "", "BadQuery")),
    "an encoded letter": (
        lambda c, a, t: request("GET", "/%63louds", f"Authorization: Bearer {t}"),
        404,
        ("admin root", "request", "", "BadQuery"),
    ),
    "no method": (lambda c, a, t: request("PUT", "/clouds"), 405, (NOBODY, "request", "", "BadQuery")),
    "a method of others": (lambda c, a, t: request("PROPFIND", "/clouds"), 405, (NOBODY, "request", "", "BadQuery")),
    "a path that is none": (lambda c, a, t: request("OPTIONS", "*"), 404, (NOBODY, "request", "", "BadQuery")),
    "a method that nobody has": (lambda c, a, t: request("TRACE", "/clouds"), 405, (NOBODY, "request", "", "BadQuery")),
    "no token": (lambda c, a, t: request("GET", "/clouds"), 401, (NOBODY, "clouds", "", "NoToken")),
    "a wrong token": (
        lambda c, a, t: request("GET", "/clouds", f"Authorization: Bearer {WRONG}"),
        403,
        (NOBODY, "clouds", "", "NotPermitted"),
    ),
    "a body without length": (
        lambda c, a, t: request("POST", "/signup", "Transfer-Encoding: chunked"),
        411,
        (NOBODY, "signup", "", "BadQuery"),
    ),
    "a body too large": (
        lambda c, a, t: request(
            "POST", "/signup", f"Content-Length: {MAX_BODY_BYTES + 1}", f"Authorization: Bearer {t}"
        ),
        400,
        ("admin root", "signup", "", "BadQuery"),
    ),
    "a malformed body": (
        lambda c, a, t: request("POST", "/signup", "Content-Length: 1", f"Authorization: Bearer {t}") + b"x",
        400,
        ("admin root", "signup", "", "BadQuery"),
    ),
    "a user whom nobody knows": (
        lambda c, a, t: (
            request("POST", "/cloud/status", "Content-Length: 14", f"Authorization: Bearer {t}") + b'{"user":"bob"}'
        ),
        404,
        ("admin root", "status", "", "UnknownUser"),
    ),
    "a token in the place of a name": (
        lambda c, a, t: (
            request("POST", "/cloud/pause", "Content-Length: 58", f"Authorization: Bearer {t}")
            + b'{"user":"%s"}' % WRONG.encode()
        ),
        404,
        ("admin root", "pause", "", "UnknownUser"),
    ),
    "a cloud that is not there": (
        lambda c, a, t: request("GET", f"/{'0' * 32}/policy"),
        404,
        (NOBODY, "use", "", "UnknownUser"),
    ),
    "a length of many digits": (
        lambda c, a, t: request("POST", "/leases", f"Content-Length: {'0' * 5000}3", f"Authorization: Bearer {t}"),
        400,
        ("admin root", "lease", "", "BadQuery"),
    ),
    "what is for admins": (
        lambda c, a, t: request("GET", "/metrics", f"Authorization: Bearer {a.token}"),
        403,
        ("owner ann", "metrics", "", "NotPermitted"),
    ),
    "a route for somebody else's cloud": (
        lambda c, a, t: (
            request("POST", "/cloud/pause", "Content-Length: 14", f"Authorization: Bearer {a.token}")
            + b'{"user":"bob"}'
        ),
        403,
        ("owner ann", "pause", "", "NotPermitted"),
    ),
    "a path that only begins as a cloud's": (
        lambda c, a, t: request("GET", f"{c.path('ann', '')}zzz"),
        404,
        (NOBODY, "request", "", "BadQuery"),
    ),
    "somebody else's cloud": (
        lambda c, a, t: request("GET", c.path("ann", "/policy"), f"Authorization: Bearer {t}"),
        403,
        ("admin root", "use", "ann", "NotPermitted"),
    ),
    "a path with dots": (
        lambda c, a, t: request("GET", c.path("ann", "/../x")),
        400,
        (NOBODY, "use", "ann", "BadQuery"),
    ),
    "a head with two lengths": (
        lambda c, a, t: head(c, a, "Content-Length: 1", "Content-Length: 1"),
        400,
        (NOBODY, "request", "", "BadQuery"),
    ),
    "a head too long": (
        lambda c, a, t: request("GET", "/clouds", "X: " + "y" * MAX_HEADER_BYTES),
        431,
        (NOBODY, "request", "", "BadQuery"),
    ),
    "a head too long that has no end": (
        lambda c, a, t: b"GET / HTTP/1.1\r\nX: " + b"y" * (20 * MAX_HEADER_BYTES),
        431,
        (NOBODY, "request", "", "BadQuery"),
    ),
    "another protocol": (
        lambda c, a, t: request("GET", "/health", "Connection: Upgrade", "Upgrade: websocket"),
        400,
        (NOBODY, "request", "", "BadQuery"),
    ),
    "no HTTP": (lambda c, a, t: b"\x16\x03\x01\x00\r\n\r\n", 400, (NOBODY, "request", "", "BadQuery")),
    "a head that does not come": (lambda c, a, t: b"GET / HT", 408, (NOBODY, "request", "", "BadQuery")),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_one_row(client: Client, ann: em.UserCloud, admin: str, what: str) -> None:
    make, code, row = REFUSED[what]
    before = last(client)
    reply = client.raw(make(client, ann, admin))
    assert status(reply) == code
    assert b"application/problem+json\r\n" in reply
    assert since(client, before) == {row: 1}


def test_a_body_that_comes_too_slowly_leaves_a_row(client: Client, admin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_S", 0.1)
    before = last(client)
    slow = request("POST", "/signup", "Content-Length: 100", f"Authorization: Bearer {admin}") + b"{"
    assert status(client.raw(slow)) == 408
    assert since(client, before) == {("admin root", "signup", "", "BadQuery"): 1}


def test_a_use_that_fails_leaves_one_row_too_whichever_way_the_token_came(client: Client, ann: em.UserCloud) -> None:
    ann.lock()
    user: dict[str, object] = {"user": ann.token, "key_list": [], "start_time": 0, "end_time": 1}
    for path, token, body in (("/policy", ann.token, None), ("/datastreams/find_entries/timestamp", None, user)):
        before = last(client)
        method = "GET" if body is None else "POST"
        assert client.send(method, client.path("ann", path), token=token, body=body).status == 409
        assert since(client, before) == {("owner ann", "use", "ann", "Locked"): 1}


def test_who_comes_too_often_leaves_a_row(client: Client) -> None:
    before = last(client)
    codes = [client.send("GET", "/clouds", token=WRONG).status for _ in range(70)]
    assert codes[-1] == 429
    assert sum(since(client, before).values()) == 70


def test_too_many_streams_and_connections_leave_rows(lab: em.Lab, admin: str) -> None:
    most = 4 * MAX_STREAMS_EACH
    asked = request("GET", "/events/stream", f"Authorization: Bearer {admin}")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(gateway(lab, whole=True, most=most))  # whose heads need not come soon
        before = last(client)
        for _ in range(MAX_STREAMS_EACH):
            line = stack.enter_context(client.connect())
            line.sendall(asked)
            assert status(line.recv(1 << 16)) == 200
        assert status(client.raw(asked)) == 429
        assert since(client, before) == {("admin root", "stream", "", "TooMany"): 1}
        for _ in range(most - MAX_STREAMS_EACH):
            stack.enter_context(client.connect())
        before = last(client)
        full = b""

        def is_full() -> bool:
            nonlocal full
            full = client.raw(asked)
            return status(full) == 503

        assert wait_until(is_full, PATIENCE_S)
        assert b"retry-after: 2\r\n" in full
        assert b"ask again soon" in full
        assert since(client, before)[(NOBODY, "request", "", "Unreachable")] == 1
        where = ("127.0.0.1", client.port)
        with socket.create_connection(where, PATIENCE_S, source_address=("127.0.0.2", 0)) as elsewhere:
            elsewhere.sendall(request("GET", "/health"))
            assert status(elsewhere.recv(1 << 16)) == 200


def test_who_goes_before_the_body_is_there_used_the_cloud_and_was_not_refused(
    client: Client, ann: em.UserCloud
) -> None:
    before = last(client)
    with client.connect() as line:
        line.sendall(head(client, ann, "Content-Length: 10"))
        line.shutdown(socket.SHUT_WR)
        line.settimeout(PATIENCE_S)
        line.recv(1 << 16)
    assert wait_until(lambda: since(client, before) == {("owner ann", "use", "ann", "ok"): 1}, PATIENCE_S)
