"""An App behind HTTP on a unix socket: Starlette and uvicorn, heads and bodies bounded, calls in worker threads."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import itertools
import logging
import math
import socket
import struct
import sys
import termios
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from emlab.apps import threads
from emlab.apps.bodies import BODY_BYTES_PER_S, BODY_S, UNKNOWN_S, Full, Pace, Read, Reading
from emlab.apps.joining import Joined
from emlab.apps.refusals import refusing, too_many, when_again
from emlab.errors import BadQuery, EmlabError, TooMany, Unreachable
from emlab.wire import problem
from emlab.wire.table import MAX_BODY_BYTES, MAX_HEADER_BYTES
from emlab.wire.transport import App, Reply

T = TypeVar("T")
GRACE_S = 5
MAX_CONNECTIONS = 256
MOST_HEADERS = 100  # of a request; each takes much more memory than its bytes
MOST_WAITING = 16  # requests on one connection behind the one that is being answered
REST_S, LATE_S = 1.0, 0.1
UNREAD_S = 30.0
CLOSE_S = 0.5
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")  # to all of which we know an answer
UNSENT_BYTES = 128 << 10
_NUMBERS = itertools.count()  # of connections, in their order


def server(app: App, path: Path) -> uvicorn.Server:
    """A server that is not yet running; `run()` blocks until `should_exit`, or SIGTERM."""
    path.unlink(missing_ok=True)
    return uvicorn.Server(config(asgi(app), limit_concurrency=MAX_CONNECTIONS, uds=str(path)))


def config(
    app: ASGIApp,
    *,
    limit_concurrency: int,
    protocol: type[BoundedHead] | None = None,
    lifespan: Literal["on", "off"] = "off",
    **listen: Any,
) -> uvicorn.Config:
    """How every server of ours speaks HTTP. The other arguments are uvicorn's, and say where it listens."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # strangers' nonsense is no warning
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=protocol or BoundedHead,
        ws="none",
        lifespan=lifespan,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limit_concurrency,
        timeout_graceful_shutdown=GRACE_S,
        **listen,
    )


@runtime_checkable
class Record(Protocol):
    """An app that keeps a record of what never became a request of it."""

    def turned_away(self, address: str, kind: str) -> None:
        """What came from there was refused with an error of that kind. Does not block."""


class BoundedHead(HttpToolsProtocol):
    """HTTP whose heads (request line and headers) have at most MAX_HEADER_BYTES, for clients that read their answers.

    The parser itself takes any length and any number of requests at once, and the server waits for ever.
    """

    UNREAD_S: ClassVar[float] = UNREAD_S
    _in_head = _dropped = False
    _ends = False  # with the answers that are under way; what still comes is not looked at
    _head_bytes = _told_bytes = _drained = 0  # of a head: in all but its first piece; in its line and its headers
    _unread: tuple[int, int, int] | None = None  # when it was looked at last: see `_look`
    _looking: asyncio.TimerHandle | None = None

    def __init__(self, config: uvicorn.Config, *rest: Any, **named: Any) -> None:
        super().__init__(config, *rest, **named)
        # uvicorn's own refusal of what is too many says neither what it is nor when to ask again
        self._most, self.limit_concurrency = self.limit_concurrency, None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """From now on it is looked at now and then."""
        super().connection_made(Joined(transport, self.loop))  # type: ignore[arg-type]
        self._number = next(_NUMBERS)
        if self._most is not None and len(self.connections) > 2 * self._most:
            self._make_room(self._most)
        line = transport.get_extra_info("socket")
        if line.family != socket.AF_UNIX:  # or who reads slowly seems not to read at all
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._looking = self.loop.call_later(self.UNREAD_S, self._look)

    def _make_room(self, most: int) -> None:
        """Of the address with most connections that ask nothing, the oldest ones end: nobody keeps others out.

        Several at once, since all are looked through to find them.
        """
        silent = [one for one in self.connections if isinstance(one, BoundedHead) and one.is_silent]
        oldest_first = sorted(silent, key=lambda one: one._number)
        for one in of_heaviest({one: _host(one) for one in oldest_first}, max(1, most // 16)):
            one._dropped = True
            one.transport.abort()
            one._record(Unreachable.__name__)

    @property
    def is_silent(self) -> bool:
        """Whether no request is under way here, all of the last answer was sent, and it may go on."""
        through = self.cycle is None or self.cycle.response_complete
        return through and not self._dropped and not self.transport.get_write_buffer_size()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        """The client has read most of what waited for it."""
        self._drained += 1
        super().resume_writing()

    def _look(self) -> None:
        """The connection of a client that has read nothing since the last time ends, whatever it is still to get."""
        waits = self.transport.is_closing() or self.flow.write_paused
        size = self.transport.get_write_buffer_size() if waits else 0
        # how much is unread does not tell: more of the answer takes the place of what was read
        unread = (self._drained, size, _in_kernel(self.transport)) if size else None
        if unread is not None and unread == self._unread:
            line = self.transport.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the kernel forgets it, too
            self.transport.abort()
            return
        self._unread = unread
        self._looking = self.loop.call_later(self.UNREAD_S, self._look)

    def on_message_begin(self) -> None:
        """A request begins. Raises Unreachable, which ends the parsing: there is to be none any more."""
        if self._ends:
            raise Unreachable("this connection ends")
        self._in_head, self._head_bytes, self._told_bytes = True, 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request line. Raises BadQuery, which ends the parsing."""
        super().on_url(url)
        self._told(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. Raises BadQuery, which ends the parsing."""
        super().on_header(name, value)
        self._told(len(name) + len(value) + 4)

    def _told(self, size: int) -> None:
        self._told_bytes += size
        if self._is_too_long:
            raise _too_long_head()

    @property
    def _is_too_long(self) -> bool:
        return self._told_bytes > MAX_HEADER_BYTES or len(self.headers) > MOST_HEADERS

    def on_headers_complete(self) -> None:
        """What the head alone tells may be refused; none leads to another protocol."""
        self._in_head = False
        refused, status = self._refused_head()
        if isinstance(refused, TooMany):
            self.app = too_many(refused, ends=True)
        elif refused is not None:
            self.app = refusing(problem.encode(refused, status=status))
        super().on_headers_complete()  # which may find that the request is none
        self.scope["path"] = self.scope["raw_path"].decode()  # as it was sent: an encoded slash is no slash
        if refused is not None:
            self._end(refused.kind)

    def _refused_head(self) -> tuple[EmlabError | None, int]:
        """What is wrong with the head that has just come, if anything, and with which status that is answered."""
        if self.parser.should_upgrade():
            return BadQuery("there is no other protocol here than HTTP/1.1"), 400
        if not self._names_host():
            return BadQuery("a request names its host, once"), 400
        if self._is_full():
            return Unreachable("there are too many connections at once: ask again soon"), 503
        if self.pipeline and (len(self.pipeline) >= MOST_WAITING or self._is_full_of_heads()):
            return TooMany("there are too many requests on this connection: read their answers"), 429
        return None, 200

    def _is_full_of_heads(self) -> bool:
        """Whether those of requests that wait, and the one that has just come, are larger than one may be."""
        scopes = [cycle.scope for cycle, _ in self.pipeline]
        waiting = sum(len(one["raw_path"]) + len(one["query_string"]) + _size_of(one["headers"]) for one in scopes)
        return self._told_bytes + waiting > MAX_HEADER_BYTES

    def data_received(self, data: bytes) -> None:
        """The connection ends when a head is too long, long before it is all there."""
        if self._ends:
            return
        began_before = self._in_head
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data) if began_before else 0
            if self._head_bytes > MAX_HEADER_BYTES:
                self.turn_away(_too_long_head(), 431)

    def _names_host(self) -> bool:
        """Whether the head says once for which host it is, as HTTP/1.0 need not."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        return hosts == 1 or (hosts == 0 and self.parser.get_http_version() == "1.0")

    def _is_full(self) -> bool:
        """Whether there are too many connections: many of this address, or very many."""
        there = max(len(self.connections), len(self.tasks))
        if self._most is None or there < self._most:
            return False
        mine = sum(_host(one) == _host(self) for one in self.connections)
        return len(self.tasks) >= 2 * self._most or mine > self._most // 2

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP, or a head without an end."""
        if self._in_head and self._is_too_long:
            self.turn_away(_too_long_head(), 431)
        else:
            self.turn_away(BadQuery("this is no HTTP request"), 400)

    def turn_away(self, error: EmlabError, status: int) -> None:
        """The error is the answer to what did not become a request, and the connection ends.

        Whole requests before it are answered first; then the connection ends with the last of these.
        """
        if self.transport.is_closing() or self._ends:
            return
        self._end(error.kind)
        last = self.cycle
        if last is not None and not last.response_complete:
            if not last.more_body:
                last.keep_alive = False
                return
            if self.pipeline:  # it is in the body of the last one that waits
                self.pipeline[0] = (last, refusing(problem.encode(error, status=status)))  # type: ignore[assignment]
                return
            last.disconnected = True  # for whoever still answers it
            last.message_event.set()
        if last is None or last.response_complete or not last.response_started:
            _, reply = problem.encode(error, status=status)
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nConnection: close\r\n"
            media = "Content-Type: application/problem+json\r\n"
            self.transport.write(f"{head}{media}Content-Length: {len(reply)}\r\n\r\n".encode() + reply)
        self.transport.close()

    def _end(self, kind: str) -> None:
        """The connection ends, with the answers that are under way, because of a refusal of that kind."""
        self._ends = True
        self._record(kind)
        self.loop.call_later(CLOSE_S, self._close_soon)

    def shutdown(self) -> None:
        """The server ends, and so does this connection, once what is under way was answered."""
        super().shutdown()
        self.loop.call_later(CLOSE_S, self._close_soon)

    def _close_soon(self) -> None:
        """Once it was closed here and all was sent it ends, whether or not the other side of TLS says so, too."""
        if self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self.transport.abort()
        if self in self.connections:
            self.loop.call_later(CLOSE_S, self._close_soon)

    def _record(self, kind: str) -> None:
        if isinstance(self.config.app, Record):
            self.config.app.turned_away(_host(self), kind)


def of_heaviest(addresses: Mapping[T, str], n: int) -> list[T]:
    """Of the address that most of these have, the first so many."""
    counted = Counter(addresses.values())
    heaviest = max(counted, key=counted.__getitem__, default="")
    return [one for one, address in addresses.items() if address == heaviest][:n]


def _host(line: Any) -> str:
    """The address of a connection's client; "" behind a socket, where none has one."""
    return str(line.client[0]) if line.client else ""


def _in_kernel(transport: asyncio.Transport) -> int:
    """How many bytes the kernel holds that the other side has not taken; 0 where it does not tell."""
    try:
        found = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:  # such as one that was closed meanwhile
        return 0
    return int.from_bytes(found, sys.byteorder)


def _size_of(headers: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in headers)


def _too_long_head() -> BadQuery:
    return BadQuery(f"the head of a request has at most {MAX_HEADER_BYTES} bytes and {MOST_HEADERS} headers")


def _no_request() -> Reply:
    return problem.encode(BadQuery("this is no HTTP request"), status=400)


def asgi(app: App, call: Callable[..., Awaitable[Reply]] = threads.call) -> Starlette:
    """The app on Starlette: every path goes to it. What can be refused without its body is, before that is read.

    Args:
        call: does that in a thread, for a request; such as `threads.Shares.call` where there are several callers.
    """

    rest, reading = _Rest(), Reading()

    async def handle(request: Request) -> Response:
        rest.put_off()
        headers = dict(request.headers)
        method, path = request.method, request.scope["path"]  # that of `url` depends on what the head calls the host
        size = _size(headers)
        refused = _unreadable(headers) or app.refusal(method, path, headers)
        if refused is not None:
            return refusing(refused)
        try:
            with reading.of(size, request.client.host if request.client else "") as read:
                body = await _whole(request, read)
                status, reply = await call(request, app.handle, method, path, headers, body)
        except TimeoutError:
            return refusing(problem.encode(BadQuery("the body of the request came too slowly"), status=408))
        except Full as exc:
            return refusing(problem.encode(exc.error, status=503))
        except ClientDisconnect:
            return refusing(problem.encode(BadQuery("the body of the request did not come")))  # which nobody reads
        media = ("application/json" if reply else "text/html") if status == 200 else "application/problem+json"
        return Response(reply, status, media_type=media, headers=when_again(status))

    async def odd(request: Request, exc: Exception) -> Response:
        """A method that HTTP does not have, or a path that is none."""
        del exc
        return refusing(app.refusal(request.method, request.scope["path"], request.headers) or _no_request())

    routes = [Route("/{path:path}", handle, methods=METHODS)]
    return Starlette(routes=routes, exception_handlers={HTTPException: odd})


async def _whole(request: Request, read: Read) -> bytes:
    """The body. Raises TimeoutError, Full, ClientDisconnect."""
    parts: list[bytes] = []
    whole_s = UNKNOWN_S if request.client else math.inf  # behind a socket, somebody else has let the sender in
    stream, pace = request.stream(), Pace(BODY_S, BODY_BYTES_PER_S, whole_s=whole_s)
    while True:
        async with asyncio.timeout_at(pace.until):
            part = await anext(stream, None)
        if part is None:
            return b"".join(parts)
        pace.earn(part)
        parts.append(read.keep(part))


class _Rest:
    """Once nobody has asked anything for a second, what requests left behind in the heap goes back to the kernel."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def put_off(self) -> None:
        """It begins a second from now."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._due = loop.time() + REST_S
        self._timer = loop.call_at(self._due, self._tidy)

    def _tidy(self) -> None:
        if asyncio.get_running_loop().time() > self._due + LATE_S:  # it slept: what woke it waits for an answer
            return self.put_off()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _size(headers: Mapping[str, str]) -> int:
    """How long the body is to be; more than any may have if that is no number that there could be."""
    said = headers.get("content-length", "0")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= 20 else MAX_BODY_BYTES + 1


def _unreadable(headers: Mapping[str, str]) -> Reply | None:
    """The refusal of a body that is too large or does not say its length (chunks end in headers without bound)."""
    if "transfer-encoding" in headers:
        return problem.encode(BadQuery("a request says the length of its body"), status=411)
    if _size(headers) > MAX_BODY_BYTES:
        return problem.encode(BadQuery(f"a request has at most {MAX_BODY_BYTES} bytes"))
    return None
