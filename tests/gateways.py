"""A gateway to the clouds of a lab, as `emlab serve` has one, and plain clients of it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection

import uvicorn
import uvloop

import emlab as em
from emlab.apps import http, recording
from emlab.apps.controller import Front
from emlab.apps.gateway import Gateway, Limits
from emlab.apps.head import TimedHead
from emlab.apps.http import server
from emlab.audit import Audit
from emlab.clock import wait_until
from emlab.engines.base import SOCKET
from emlab.lifecycle import Lifecycle
from emlab.service import Service
from emlab.waking import Waker
from emlab.wire.transport import Reply

MOST = 1024
PATIENCE_S = 20.0  # only a failing test waits for so long


class HurriedHead(TimedHead):
    """Its clients have half a second for a head, and a fifth of one to read something of an answer."""

    HEAD_S = 0.5
    UNREAD_S = 0.2


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """Of the error in it."""
        return str(json.loads(self.body)["kind"])


class Client:
    """Sends requests to the clouds of one gateway."""

    def __init__(self, lab: em.Lab, port: int, audit: Audit) -> None:
        self.lab = lab
        self.port = port
        self.audit = audit

    def life(self, user: str) -> Lifecycle:
        return self.lab.controller.life(user)

    def path(self, user: str, path: str) -> str:
        return f"/{self.life(user).spec.cloud}{path}"

    def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own."""
        sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request(method, path, body=raw, headers={**sent, **(headers or {})})
            reply = connection.getresponse()
            return Answer(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())

    def get(self, cloud: em.UserCloud, path: str) -> Answer:
        """The owner's request."""
        return self.send("GET", self.path(cloud.user, path), token=cloud.token)

    def connect(self) -> socket.socket:
        """A connection on which nothing was sent."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def raw(self, data: bytes) -> bytes:
        """What comes back for these bytes until the connection ends."""
        with self.connect() as line:
            line.sendall(data)
            return rest(line)

    def unleased(self) -> bool:
        """Whether no lease is left on any cloud, soon."""
        lives = [self.life(cloud.user) for cloud in self.lab.controller.clouds()]
        return wait_until(lambda: all(life.use().leases == () for life in lives), PATIENCE_S)


def head(client: Client, cloud: em.UserCloud, *lines: str, method: str = "POST", path: str = "/policy") -> bytes:
    """The head of the owner's request with these lines besides."""
    where = client.path(cloud.user, path)
    return "\r\n".join(
        [f"{method} {where} HTTP/1.1", "Host: here", f"Authorization: Bearer {cloud.token}", *lines, "", ""]
    ).encode("latin-1")


def rest(line: socket.socket) -> bytes:
    """All that still comes on a connection."""
    parts = []
    with contextlib.suppress(ConnectionResetError):  # instead of the end, where something was left unread
        while part := line.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def status(reply: bytes) -> int:
    """Of the first answer in these bytes."""
    return int(reply.split()[1])


Asked = tuple[str, str, Mapping[str, str], bytes]  # method, path, headers, body


class Recording:
    """A cloud that remembers what it was asked and answers it with the body."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        return None

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.asked.append((method, path, headers, body))
        return 200, body or b"nothing"


@contextmanager
def served(lab: em.Lab, user: str, app: Recording) -> Iterator[None]:
    running = server(app, lab.controller.life(user).spec.run_dir / SOCKET)
    thread = threading.Thread(target=running.run)
    thread.start()
    assert wait_until(lambda: running.started, PATIENCE_S)
    try:
        yield
    finally:
        running.should_exit = True
        thread.join()


@contextmanager
def answering(lab: em.Lab, user: str, *turns: Callable[[socket.socket], None]) -> Iterator[list[bytes]]:
    """A cloud's socket on which each connection in its turn is dealt with so; all that they read first."""
    path = lab.controller.life(user).spec.run_dir / SOCKET
    path.unlink(missing_ok=True)
    first: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for turn in turns:
                line, _ = listener.accept()
                with line:
                    line.settimeout(PATIENCE_S)
                    if turn is not unread:
                        first.append(line.recv(1 << 16))
                    turn(line)

        thread = threading.Thread(target=serve)
        thread.start()
        yield first
        thread.join()
    path.unlink()


def unread(line: socket.socket) -> None:
    """Ends when something has come, which stays unread."""
    line.recv(1, socket.MSG_PEEK)


@contextmanager
def gateway(
    lab: em.Lab, *, limits: Limits | None = None, hurried: bool = False, whole: bool = False, most: int = MOST
) -> Iterator[Client]:
    """A gateway to the lab's clouds on a port of its own; the whole controller's application with `whole`.

    Args:
        most: connections at once.
    """
    waker = Waker()
    service = Service(lab.controller, lab.registry)
    app = Gateway(service, waker, limits=limits)
    recorded = recording.Recording(Front(service, app) if whole else app, service)
    protocol = HurriedHead if hurried else TimedHead
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        running = uvicorn.Server(http.config(recorded, limit_concurrency=most, protocol=protocol))

        async def serve() -> None:
            await running.serve(sockets=[listener])
            await app.close()

        thread = threading.Thread(target=lambda: uvloop.run(serve()))
        thread.start()
        try:
            assert wait_until(lambda: running.started, PATIENCE_S)
            client = Client(lab, listener.getsockname()[1], service.audit)
            yield client
            assert client.unleased()
        finally:
            running.should_exit = True
            thread.join()
            waker.close()
