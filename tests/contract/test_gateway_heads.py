"""What the gateway passes on between real sockets, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import emlab as em
from emlab.apps.gateway import Limits
from emlab.wire.table import MAX_BODY_BYTES, MAX_HEADER_BYTES
from tests.gateways import PATIENCE_S, Asked, Client, Recording, gateway, head, rest, served, status


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[em.Lab]:
    home = tmp_path_factory.mktemp("home")
    with em.Lab("memory", home=home, default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


@pytest.fixture(scope="module")
def recorded(lab: em.Lab) -> Iterator[tuple[Client, em.UserCloud, Recording]]:
    """For many tests: a gateway, and a cloud behind it that runs."""
    ann, app = lab.controller.signup("ann"), Recording()
    lab.controller.wake("ann")
    with served(lab, "ann", app), gateway(lab, limits=Limits(body_s=0.5), hurried=True) as client:
        yield client, ann, app


@pytest.fixture
def client(recorded: tuple[Client, em.UserCloud, Recording]) -> Client:
    return recorded[0]


@pytest.fixture
def ann(recorded: tuple[Client, em.UserCloud, Recording]) -> em.UserCloud:
    return recorded[1]


@pytest.fixture
def asked(recorded: tuple[Client, em.UserCloud, Recording]) -> list[Asked]:
    recorded[2].asked.clear()
    return recorded[2].asked


# -- what is passed on -------------------------------------------------------------------------------------------


def test_request_and_answer_pass_as_they_are(client: Client, ann: em.UserCloud, asked: list[Asked]) -> None:
    extra = {
        "Content-Type": "text/x",
        "X-Forwarded-For": "1.2.3.4",
        "Forwarded": "for=1",
        "X-Mine": "é".encode().decode("latin-1"),
        "X-Odd": "\xff\xfe",
    }
    found = client.send("PUT", client.path("ann", "/a/b?c=%2F..%00"), token=ann.token, body=b"\x00\xff", headers=extra)
    assert (found.status, found.body) == (200, b"\x00\xff")
    assert set(found.headers) == {"date", "content-length", "content-type"}
    [(method, path, headers, body)] = asked
    assert (method, path, body) == ("PUT", "/a/b", b"\x00\xff")
    assert headers == {
        "host": "cloud",
        "authorization": f"Bearer {ann.token}",
        "content-type": "text/x",
        "content-length": "2",
        "accept-encoding": "identity",
        "x-mine": extra["X-Mine"],
        "x-odd": extra["X-Odd"],
    }


@pytest.mark.parametrize("size", [0, 1, 64 << 10, (64 << 10) + 1, 5 << 20])
def test_bodies_of_every_size_pass_both_ways(client: Client, ann: em.UserCloud, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    for _ in range(2):
        found = client.send("POST", client.path("ann", "/p"), token=ann.token, body=body)
        assert (found.status, found.body == (body or b"nothing")) == (200, True)


def test_a_body_waits_for_continue(client: Client, ann: em.UserCloud) -> None:
    with client.connect() as line:
        line.sendall(head(client, ann, "Content-Length: 2", "Expect: 100-continue", "Connection: close"))
        assert line.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(b"hi")
        assert rest(line).endswith(b"\r\n\r\nhi")


def test_requests_in_one_connection_are_answered_in_turn(client: Client, ann: em.UserCloud) -> None:
    one, two = head(client, ann, "Content-Length: 3"), head(client, ann, "Content-Length: 3", "Connection: close")
    reply = client.raw(one + b"one" + two + b"two")
    assert reply.count(b"HTTP/1.1 200 OK") == 2
    assert reply.index(b"\r\n\r\none") < reply.index(b"\r\n\r\ntwo")


def test_each_request_of_a_connection_shows_who_asks(
    lab: em.Lab, client: Client, ann: em.UserCloud, asked: list[Asked]
) -> None:
    kim = lab.controller.signup("kim")
    good = head(client, ann, "Content-Length: 0", method="GET")
    nobody = f"GET {client.path('ann', '/policy')} HTTP/1.1\r\nHost: here\r\n\r\n".encode()
    elsewhere = good.replace(ann.id.encode(), kim.id.encode())
    for second, code in ((nobody, 401), (elsewhere, 403)):
        reply = client.raw(good + second + good)
        assert [status(b"HTTP/1.1" + one) for one in reply.split(b"HTTP/1.1")[1:]] == [200, code]
    assert len(asked) == 2
    kim.delete()


def test_the_token_of_an_e_mission_client_is_in_the_body(client: Client, ann: em.UserCloud, asked: list[Asked]) -> None:
    body: object = {"user": ann.token, "phone_to_server": []}
    for path in ("/usercache/put", "/datastreams/find_entries/timestamp", "/timeline/getTrips/2020-01-01"):
        assert client.send("POST", client.path("ann", path), body=body).status == 200
    assert [path for _, path, _, _ in asked] == [
        "/usercache/put",
        "/datastreams/find_entries/timestamp",
        "/timeline/getTrips/2020-01-01",
    ]
    asked.clear()
    for wrong, code in (({"user": "x"}, 403), ({}, 401), (b"", 400), (b"[" * 100_000, 400), (b'{"user": 1}', 400)):
        found = client.send("POST", client.path("ann", "/usercache/put"), body=wrong)
        assert (found.status, found.headers["connection"]) == (code, "close")
    assert client.send("POST", client.path("ann", "/elsewhere"), body=body).status == 401
    assert client.send("GET", client.path("ann", "/usercache/put"), body=body).status == 401
    assert asked == []


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (["Content-Length: 2", "Content-Length: 2"], 400),
        (["Content-Length: 2", "Content-Length: 3"], 400),
        (["Content-Length: 2, 2"], 400),
        (["Content-Length: +2"], 400),
        (["Content-Length: -2"], 400),
        (["Content-Length: 0x2"], 400),
        (["Content-Length: 99999999999999999999999999"], 400),
        ([f"Content-Length: {MAX_BODY_BYTES + 1}"], 413),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], 400),
        (["Transfer-Encoding: chunked", "Content-Length: 2"], 400),
        (["Transfer-Encoding: chunked"], 411),
        (["Transfer-Encoding: gzip, chunked"], 411),
        (["Transfer-Encoding: chunked, gzip"], 400),
        (["Transfer-Encoding: xchunked"], 400),
        (["Transfer-Encoding : chunked"], 400),
        (["Transfer-Encoding:\x0bchunked"], 400),
        (["Content-Length: 2", " Transfer-Encoding: chunked"], 400),
        (["X: a\nTransfer-Encoding: chunked"], 400),
        (["X: a\rb"], 400),
        (["X: a\0b"], 400),
        (["Authorization: Bearer x"], 400),
        (["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"], 400),
        (["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"], 400),
        (["Upgrade: h2c"], 400),
        (["Host: elsewhere"], 400),
        (["Expect: 200-ok", "Content-Length: 0"], 417),
        (["X: " + "x" * MAX_HEADER_BYTES], 431),
    ],
)
def test_a_head_that_is_not_plain_is_refused(
    client: Client, ann: em.UserCloud, asked: list[Asked], lines: list[str], code: int
) -> None:
    body = b"hi" if lines[0] == "Content-Length: 2" else b""
    chunked = any("Transfer-Encoding" in line for line in lines)
    reply = client.raw(head(client, ann, *lines) + (b"0\r\n\r\n" if chunked else body))
    assert status(reply) == code
    assert reply.count(b"HTTP/1.1 ") == 1
    assert asked == []


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("CONNECT {} HTTP/1.1", {400, 405}),
        ("CONNECT there:443 HTTP/1.1", {400, 404}),
        ("TRACE {} HTTP/1.1", {405}),
        ("NOTHING {} HTTP/1.1", {400}),
        ("GET {} HTTP/9.9", {400}),
        ("PRI * HTTP/2.0", {400, 404, 405}),
    ],
)
def test_a_request_line_that_is_not_plain_is_refused(
    client: Client, ann: em.UserCloud, asked: list[Asked], line: str, codes: set[int]
) -> None:
    text = line.format(client.path("ann", "/policy"))
    reply = client.raw(f"{text}\r\nHost: x\r\nAuthorization: Bearer {ann.token}\r\n\r\n".encode())
    assert status(reply) in codes
    assert asked == []


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "/.",
        "/../x",
        "/x/..",
        "/x/../y",
        "/x/./y",
        "/%2e%2e/x",
        "/x%2fy",
        "/x%2Fy",
        "/x%5cy",
        "/x\\y",
        "/x%00",
        "//x",
        "/x//y",
        "/x%",
        "/x%zz",
        "/é",
        "/x;/../y",
        "/%2568",
        "/x%0d%0aX:%20y",
    ],
)
def test_a_path_that_is_not_plain_is_refused(client: Client, ann: em.UserCloud, asked: list[Asked], path: str) -> None:
    reply = client.raw(head(client, ann, "Content-Length: 0", path=path))
    assert status(reply) == 400
    assert asked == []


def test_the_address_of_a_cloud_without_a_slash_is_that_with_it(
    client: Client, ann: em.UserCloud, asked: list[Asked]
) -> None:
    cloud = client.life("ann").spec.cloud
    bare, whole = (client.send("GET", path, token=ann.token) for path in (f"/{cloud}", f"/{cloud}/"))
    assert (bare.status, bare.body) == (whole.status, whole.body)
    assert [path for _, path, *_ in asked] == ["/", "/"]


@pytest.mark.parametrize("where", ["/{}0", "/{}0/x", "/{:.31}/x", "/{}x/y", "/x/{}/y", "//{}/x", "/%30{:.31}/x"])
def test_what_is_no_cloud_is_not_found(client: Client, ann: em.UserCloud, asked: list[Asked], where: str) -> None:
    cloud = client.life("ann").spec.cloud
    unknown = client.send("GET", f"/{cloud[::-1]}/policy", token=ann.token)
    upper = client.send("GET", f"/{cloud.upper()}/policy", token=ann.token)
    found = client.send("GET", where.format(cloud), token=ann.token)
    assert (found.status, found.kind, found.body) == (404, "UnknownUser", unknown.body)
    assert cloud.isdigit() or upper.body == unknown.body
    assert asked == []


def test_who_may_not_is_told_so_and_it_is_on_record(
    client: Client, ann: em.UserCloud, lab: em.Lab, asked: list[Asked]
) -> None:
    bob = lab.controller.signup("bob")
    path = client.path("ann", "/policy")
    for token, headers, code, kind in (
        (None, {}, 401, "NoToken"),
        (None, {"Authorization": "Basic eDp5"}, 401, "NoToken"),
        ("", {}, 403, "NotPermitted"),
        ("x" * 43, {}, 403, "NotPermitted"),
        (bob.token, {}, 403, "NotPermitted"),
    ):
        found = client.send("GET", path, token=token, headers=headers)
        assert (found.status, found.kind) == (code, kind)
        assert str(token or "Bearer") not in found.body.decode()
    found = client.send("POST", client.path("ann", "/ask"), token=ann.token, body={})
    assert (found.status, found.kind) == (403, "NotPermitted")
    assert asked == []
    assert client.get(ann, "/policy").status == 200
    assert {"NoToken", "NotPermitted", "ok"} <= {row.outcome for row in client.audit.rows(user="ann")}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.binary(max_size=60), query=st.none() | st.binary(max_size=20))
def test_any_path_is_refused_or_passed_on_unchanged(
    client: Client, ann: em.UserCloud, asked: list[Asked], path: bytes, query: bytes | None
) -> None:
    asked.clear()
    cloud = client.life("ann").spec.cloud.encode()
    target = b"/" + cloud + b"/" + path + (b"" if query is None else b"?" + query)
    assert ann.token is not None
    reply = client.raw(
        b"GET "
        + target
        + b" HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer "
        + ann.token.encode()
        + b"\r\nConnection: close\r\n\r\n"
    )
    if asked:
        [(_, found, _, _)] = asked
        assert status(reply) == 200
        assert (b"/" + path).startswith(found.encode())
        assert {".", ".."}.isdisjoint(found.split("/"))
        assert not set(found) & set("%\\\0")
    else:
        assert status(reply) in (400, 403, 404, 408)


# -- slow and many clients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nX: y\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(client: Client, begun: bytes) -> None:
    assert status(client.raw(begun)) == 408


def test_the_second_head_of_a_connection_comes_in_time_too(client: Client, ann: em.UserCloud) -> None:
    with client.connect() as line:
        line.sendall(head(client, ann, "Content-Length: 0"))
        assert status(line.recv(1 << 16)) == 200
        line.sendall(b"GET")
        assert status(rest(line)) == 408


@pytest.mark.parametrize("by_user", [True, False])
def test_a_body_that_does_not_come_is_not_waited_for(
    client: Client, ann: em.UserCloud, asked: list[Asked], by_user: bool
) -> None:
    head_of = f"POST {client.path('ann', '/usercache/put')} HTTP/1.1\r\nHost: h\r\n"
    token = "" if by_user else f"Authorization: Bearer {ann.token}\r\n"
    assert status(client.raw(f"{head_of}{token}Content-Length: 100\r\n\r\nxy".encode())) == 408
    assert asked == []


def test_who_only_says_that_much_will_come_takes_no_room_from_others(client: Client, ann: em.UserCloud) -> None:
    upload: dict[str, object] = {"user": ann.token, "phone_to_server": [], "padding": "x" * (2 << 20)}
    where = client.path("ann", "/usercache/put")
    begun = f"POST {where} HTTP/1.1\r\nHost: here\r\nContent-Length: {MAX_BODY_BYTES}\r\n\r\n{{".encode()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(client.connect()).sendall(begun)
        assert client.send("POST", where, body=upload).status == 200


def test_five_hundred_connections_at_once_are_all_answered(lab: em.Lab, ann: em.UserCloud) -> None:
    with gateway(lab) as client, contextlib.ExitStack() as stack:
        lines = [stack.enter_context(client.connect()) for _ in range(500)]
        asked = head(client, ann, "Content-Length: 0", "Connection: close", method="GET")
        for part in (asked[:-1], asked[-1:]):  # no head is whole before all have begun
            for line in lines:
                line.sendall(part)
        assert Counter(status(rest(line)) for line in lines) == {200: 500}


def test_whoever_withholds_small_bodies_keeps_nobody_else_out(lab: em.Lab, ann: em.UserCloud) -> None:
    with gateway(lab, limits=Limits(unknown=4)) as client, contextlib.ExitStack() as stack:
        where = client.path("ann", "/usercache/put")
        begun = f"POST {where} HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{{".encode()
        lines = [stack.enter_context(client.connect()) for _ in range(20)]
        for line in lines:
            line.sendall(begun)
        assert [status(rest(line)) for line in lines[4:]] == [503] * 16
        body = json.dumps({"user": ann.token, "phone_to_server": []}).encode()
        whole = f"POST {where} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        for source, expected in (("127.0.0.1", 503), ("127.0.0.2", 200)):
            to = ("127.0.0.1", client.port)
            honest = stack.enter_context(socket.create_connection(to, PATIENCE_S, source_address=(source, 0)))
            honest.sendall(whole.encode() + body)
            assert status(rest(honest)) == expected


def test_one_address_with_silent_connections_keeps_no_other_out(lab: em.Lab, ann: em.UserCloud) -> None:
    most = 20
    with gateway(lab, most=most) as client, contextlib.ExitStack() as stack:
        elsewhere = ("127.0.0.2", 0)
        where = ("127.0.0.1", client.port)
        honest = stack.enter_context(socket.create_connection(where, PATIENCE_S, source_address=elsewhere))
        lines = [stack.enter_context(client.connect()) for _ in range(5 * most)]
        for line in lines[: 3 * most]:  # the oldest ones were ended
            assert rest(line) == b""
        asked = head(client, ann, "Content-Length: 0", "Connection: close")
        honest.sendall(asked)
        assert status(rest(honest)) == 200
        with socket.create_connection(where, PATIENCE_S, source_address=elsewhere) as late:
            late.sendall(asked)
            assert status(rest(late)) == 200
        rows = {(row.actor, row.outcome): row.n for row in client.audit.rows()}
        assert rows["nobody 127.0.0.1", "Unreachable"] >= 3 * most
