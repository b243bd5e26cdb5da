"""The gateway between real sockets: what it does when either side fails.

The clouds are sockets that the test serves; tests/e2e/test_gateway_clouds.py has real ones.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

import emlab as em
from emlab.apps.gateway import Limits
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.errors import CloudGone, DiskFull, EngineError, StoreError, VaultError
from emlab.state import Handle
from tests.gateways import PATIENCE_S, Recording, answering, gateway, head, rest, served, status, unread

SHORT = Limits(wake_s=0.5, suspect_s=0.05, answer_s=1.0, stall_s=1.0, body_s=0.5, under_way=8)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[em.Lab]:
    home = tmp_path_factory.mktemp("home")
    with em.Lab("memory", home=home, default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


def saying(*parts: bytes) -> Callable[[socket.socket], None]:
    def say(line: socket.socket) -> None:
        for part in parts:
            line.sendall(part)

    return say


_NAMES = itertools.count()


@pytest.fixture
def bob(lab: em.Lab) -> Iterator[em.UserCloud]:
    """A cloud that runs and whose socket each test serves itself."""
    cloud = lab.controller.signup(f"bob{next(_NAMES)}")
    lab.controller.wake(cloud.user)
    yield cloud
    lab.controller.forget(cloud.user)


# -- slow, broken and many clients -------------------------------------------------------------------------------


def test_a_large_body_that_does_not_come_ends_the_request_in_the_cloud(lab: em.Lab, bob: em.UserCloud) -> None:
    ended: list[bytes] = []
    with gateway(lab, limits=Limits(body_s=0.2, body_bytes_per_s=1e9)) as client:
        with answering(lab, bob.user, lambda line: ended.append(rest(line))):
            reply = client.raw(head(client, bob, "Content-Length: 100000") + b"x" * 1000)
        assert status(reply) == 408
        assert len(ended) == 1


def test_a_cloud_that_is_being_removed_or_locked_gets_nothing_though_it_still_runs(
    lab: em.Lab, bob: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = Recording()
    with gateway(lab, limits=SHORT) as client, served(lab, bob.user, came):
        life = client.life(bob.user)
        for what, code in (("closing", 409), ("_retired", 404)):
            with monkeypatch.context() as there:
                there.setattr(life, "runs", False)
                there.setattr(life, what, True)
                assert status(client.raw(head(client, bob, "Content-Length: 5") + b"entry")) == code
        assert came.asked == []
        assert status(client.raw(head(client, bob, "Content-Length: 5", "Connection: close") + b"entry")) == 200


def test_an_answer_counts_as_a_use_though_who_woke_the_cloud_has_not_said_so_yet(
    lab: em.Lab, bob: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, real = threading.Event(), lab.controller.engine.resume

    def resume(handle: Handle) -> None:
        real(handle)
        assert go_on.wait(PATIENCE_S)

    lab.controller.pause(bob.user)
    life = lab.controller.life(bob.user)
    before = life.use().last_use_ts
    with gateway(lab) as client, answering(lab, bob.user, saying(OK)):
        monkeypatch.setattr(lab.controller.engine, "resume", resume)
        assert client.get(bob, "/policy").status == 200
        assert wait_until(lambda: life.use().leases == (), PATIENCE_S)
        assert not life.runs
        assert life.use().last_use_ts > before
        go_on.set()
        assert wait_until(lambda: life.runs, PATIENCE_S)
    monkeypatch.undo()


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_body_that_is_cut_off_ends_the_request_in_the_cloud(lab: em.Lab, bob: em.UserCloud, size: int) -> None:
    ended: list[bytes] = []
    turns = [lambda line: ended.append(rest(line))] if size > 65536 else []
    with gateway(lab) as client, answering(lab, bob.user, *turns), client.connect() as line:
        line.sendall(head(client, bob, f"Content-Length: {size}") + b"x" * 900)
        assert wait_until(lambda: client.life(bob.user).use().leases != () or not turns, PATIENCE_S)
        line.shutdown(socket.SHUT_WR)
        line.close()
        assert client.unleased()
    assert len(ended) == len(turns)


def test_a_client_that_goes_while_it_waits_is_not_answered(lab: em.Lab, bob: em.UserCloud) -> None:
    ended: list[bytes] = []
    with (
        gateway(lab, limits=SHORT) as client,
        answering(lab, bob.user, lambda line: ended.append(rest(line))),
        client.connect() as line,
    ):
        line.sendall(head(client, bob, "Content-Length: 0"))
        assert wait_until(lambda: client.life(bob.user).use().leases != (), PATIENCE_S)
        line.close()
        assert client.unleased()
    assert ended == [b""]


def test_a_client_that_goes_during_a_long_answer_ends_it(lab: em.Lab, bob: em.UserCloud) -> None:
    ended = threading.Event()

    def stream(line: socket.socket) -> None:
        with contextlib.suppress(OSError):  # nobody wants more
            line.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not ended.is_set():
                line.sendall(b"100\r\n" + b"x" * 256 + b"\r\n")

    times = 12  # each part of the answer gives the next one more time, which once hid that the client had gone
    with gateway(lab, limits=Limits(suspect_s=0.05)) as client, answering(lab, bob.user, *times * [stream]):
        try:
            for _ in range(times):
                with client.connect() as line:
                    line.sendall(head(client, bob, method="GET"))
                    until = SYSTEM_CLOCK.monotonic() + 0.2
                    while SYSTEM_CLOCK.monotonic() < until:
                        assert line.recv(1 << 16)
                assert wait_until(lambda: client.life(bob.user).use().leases == (), PATIENCE_S / 4)
        finally:
            ended.set()


def test_a_client_that_goes_after_a_slow_body_is_noticed(lab: em.Lab, bob: em.UserCloud) -> None:
    patient = Limits(suspect_s=0.05, answer_s=PATIENCE_S * 4)
    ended: list[bytes] = []
    with (
        gateway(lab, limits=patient) as client,
        answering(lab, bob.user, lambda line: ended.append(rest(line))),
        client.connect() as line,
    ):
        line.sendall(head(client, bob, "Content-Length: 100000") + b"x" * 50_000)
        threading.Event().wait(4 * patient.suspect_s)
        line.sendall(b"x" * 50_000)
        assert wait_until(lambda: client.life(bob.user).use().leases != (), PATIENCE_S)
        line.close()
        assert client.unleased()


def test_a_body_may_take_longer_than_an_answer(lab: em.Lab, bob: em.UserCloud) -> None:
    short = Limits(suspect_s=0.05, answer_s=0.2, body_s=5.0)

    def answer(line: socket.socket) -> None:
        while not line.recv(1 << 16).endswith(b"!"):
            pass
        line.sendall(OK)

    with gateway(lab, limits=short) as client, answering(lab, bob.user, answer), client.connect() as line:
        line.sendall(head(client, bob, "Content-Length: 100000", "Connection: close") + b"x" * 50_000)
        threading.Event().wait(3 * short.answer_s)
        line.sendall(b"x" * 49_999 + b"!")
        assert status(rest(line)) == 200


def test_a_client_that_reads_nothing_is_let_go(lab: em.Lab, bob: em.UserCloud) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 1000

    def answer(line: socket.socket) -> None:
        line.sendall(endless)
        with contextlib.suppress(OSError):
            while True:
                line.sendall(b"x" * (1 << 16))

    limits = Limits(stall_s=0.2)
    with gateway(lab, limits=limits, hurried=True) as client, answering(lab, bob.user, answer):
        with client.connect() as line:
            line.sendall(head(client, bob, method="GET"))
            assert wait_until(lambda: _state(line) != ESTABLISHED, PATIENCE_S)
        assert client.unleased()


ESTABLISHED = 1  # linux/include/net/tcp_states.h


def _state(line: socket.socket) -> int:
    return line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def test_an_answer_before_the_whole_request_ends_the_connection(lab: em.Lab, bob: em.UserCloud) -> None:
    early = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"

    def answer(line: socket.socket) -> None:
        line.sendall(early)
        rest(line)

    with gateway(lab) as client, answering(lab, bob.user, answer), client.connect() as line:
        line.sendall(head(client, bob, "Content-Length: 200000") + b"x" * 100)
        reply = rest(line)
        assert status(reply) == 413
        assert b"connection: close" in reply


def test_too_many_requests_of_one_owner_at_once_are_refused_and_not_kept_waiting(
    lab: em.Lab, bob: em.UserCloud
) -> None:
    go_on = threading.Event()

    def slow(line: socket.socket) -> None:
        assert go_on.wait(PATIENCE_S)
        line.sendall(OK)

    with gateway(lab, limits=Limits(under_way=2)) as client, contextlib.ExitStack() as stack:
        stack.enter_context(answering(lab, bob.user, slow, slow))
        lines = [stack.enter_context(client.connect()) for _ in range(6)]
        for line in lines:
            line.sendall(head(client, bob, "Content-Length: 0", "Connection: close"))
        refused = [rest(line) for line in lines[2:]]
        assert [status(one) for one in refused] == [503] * 4
        assert all(b"retry-after: 2\r\n" in one for one in refused)
        eve = lab.controller.signup(f"eve{next(_NAMES)}")  # of whom there are not many
        with answering(lab, eve.user, saying(OK)):
            assert client.get(eve, "/policy").status == 200
        go_on.set()
        assert [status(rest(line)) for line in lines[:2]] == [200, 200]


# -- clouds that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "code"),
    [
        (lambda line: None, 502),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi"), 502),
        (saying(b"HTTP/1.1 200 O"), 502),
        (saying(b"nonsense\r\n\r\n"), 502),
        (saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), 502),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi"), 502),
        (saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 60_000 + b"\r\nY: " + b"y" * 60_000 + b"\r\n\r\n" + OK), 502),
        (saying(b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nhi"), 502),
        (saying(OK), 200),
        (saying(OK + b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), 200),
        (saying(OK + b"more"), 200),
        (saying(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"), 304),
        (saying(b"HTTP/1.1 100 Continue\r\n\r\n", OK), 200),
        (saying(b"HTTP/1.1 204 No Content\r\n\r\n"), 204),
        (saying(b"HTTP/1.1 302 Found\r\nLocation: http://there/\r\nContent-Length: 0\r\n\r\n"), 302),
        (saying(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"), 200),
        (saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), 200),
        (saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi"), 200),
    ],
)
def test_an_answer_is_passed_on_whole_or_called_bad(
    lab: em.Lab, bob: em.UserCloud, turn: Callable[[socket.socket], None], code: int
) -> None:
    with gateway(lab) as client, answering(lab, bob.user, turn):
        found = client.send("POST", client.path(bob.user, "/x"), token=bob.token, body=b"hello")
        assert found.status == code
        assert code != 200 or found.body in (b"hi", b"ok", b"until the end")


def test_an_answer_that_breaks_off_breaks_off_the_connection(lab: em.Lab, bob: em.UserCloud) -> None:
    begun = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000
    with gateway(lab) as client, answering(lab, bob.user, saying(begun)):
        reply = client.raw(head(client, bob, method="GET"))
        assert status(reply) == 200
        assert 0 < reply.count(b"x") < 1_000_000


def test_a_request_that_the_cloud_never_had_is_sent_again(lab: em.Lab, bob: em.UserCloud) -> None:
    with gateway(lab) as client, answering(lab, bob.user, unread, saying(OK)) as read:
        found = client.send("POST", client.path(bob.user, "/x"), token=bob.token, body=b"hello")
        assert (found.status, found.body) == (200, b"ok")
        assert read[0].endswith(b"\r\n\r\nhello")


def test_a_request_that_the_cloud_may_have_had_is_not_sent_again(lab: em.Lab, bob: em.UserCloud) -> None:
    with gateway(lab) as client, answering(lab, bob.user, lambda line: None) as read:
        assert client.send("POST", client.path(bob.user, "/x"), token=bob.token, body=b"hello").status == 502
        assert len(read) == 1


def test_a_cloud_without_a_socket_is_called_unreachable(lab: em.Lab, bob: em.UserCloud) -> None:
    with gateway(lab) as client:
        found = client.get(bob, "/policy")
        assert (found.status, found.kind, found.headers["retry-after"]) == (503, "Unreachable", "2")


def test_an_answer_that_does_not_come_is_not_waited_for(lab: em.Lab, bob: em.UserCloud) -> None:
    with gateway(lab, limits=SHORT) as client, answering(lab, bob.user, lambda line: assert_ended(line)):
        found = client.get(bob, "/policy")
        assert (found.status, found.kind) == (504, "Unreachable")


def assert_ended(line: socket.socket) -> None:
    assert rest(line) == b""


def test_an_answer_that_stalls_is_broken_off(lab: em.Lab, bob: em.UserCloud) -> None:
    def stall(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhello")
        assert_ended(line)

    with gateway(lab, limits=SHORT) as client, answering(lab, bob.user, stall):
        assert client.raw(head(client, bob, method="GET")).endswith(b"hello")


def test_a_cloud_that_does_not_wake_in_time_is_called_so_and_wakes_all_the_same(
    lab: em.Lab, bob: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    real = lab.controller.engine.resume

    def resume(handle: Handle) -> None:
        assert go_on.wait(PATIENCE_S)
        real(handle)

    monkeypatch.setattr(lab.controller.engine, "resume", resume)
    lab.controller.pause(bob.user)
    with gateway(lab, limits=SHORT) as client:
        found = client.get(bob, "/policy")
        assert (found.status, found.kind, found.headers["retry-after"]) == (503, "Unreachable", "2")
        go_on.set()
        assert wait_until(lambda: client.life(bob.user).runs, PATIENCE_S)
        with answering(lab, bob.user, saying(OK)):
            assert client.get(bob, "/policy").status == 200


@pytest.mark.parametrize("error", [EngineError, CloudGone, VaultError, StoreError, DiskFull])
def test_a_cloud_that_cannot_be_woken_is_called_unavailable_whatever_the_reason(
    lab: em.Lab, bob: em.UserCloud, monkeypatch: pytest.MonkeyPatch, error: type[em.EmlabError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("it does not work")

    lab.controller.pause(bob.user)
    with gateway(lab, limits=SHORT) as client, answering(lab, bob.user, assert_ended):
        with monkeypatch.context() as there:
            there.setattr(lab.controller.engine, "resume", fail)
            there.setattr(lab.controller.engine, "start", fail)
            found = client.get(bob, "/policy")
        assert (found.status, found.kind, found.headers["retry-after"]) == (503, error.__name__, "2")


def test_a_cloud_at_work_is_not_cut_off_while_its_engine_is_away(
    lab: em.Lab, bob: em.UserCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def away(*_: object) -> None:
        asked.set()
        raise EngineError("the engine is away")

    def work(line: socket.socket) -> None:
        assert asked.wait(PATIENCE_S)  # whether the cloud runs, after `suspect_s`
        threading.Event().wait(4 * SHORT.suspect_s)
        line.sendall(OK)

    with gateway(lab, limits=SHORT) as client, answering(lab, bob.user, work), monkeypatch.context() as there:
        there.setattr(lab.controller.engine, "state", away)
        assert client.life(bob.user).runs
        assert client.get(bob, "/policy").status == 200


@pytest.mark.parametrize(("error", "code"), [(OSError, 503), (AttributeError, 500)])
def test_a_wake_that_fails_with_a_fault_of_ours_is_not_waited_for(
    lab: em.Lab, bob: em.UserCloud, monkeypatch: pytest.MonkeyPatch, error: type[Exception], code: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("it does not work")

    lab.controller.pause(bob.user)
    with gateway(lab) as client, answering(lab, bob.user, assert_ended), monkeypatch.context() as there:
        there.setattr(client.life(bob.user), "rouse", fail)
        there.setattr(client.life(bob.user), "wake", fail)
        assert client.get(bob, "/policy").status == code


def test_connections_to_a_cloud_are_closed_soon_after_their_use(lab: em.Lab, bob: em.UserCloud) -> None:
    def answer_once(line: socket.socket) -> None:
        line.sendall(OK)
        assert_ended(line)

    with gateway(lab) as client, answering(lab, bob.user, answer_once):
        assert client.get(bob, "/policy").status == 200
