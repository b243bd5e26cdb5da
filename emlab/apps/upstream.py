"""Connections from the gateway to clouds: HTTP/1.1 over their unix sockets, closed soon after they were used.

What a cloud answers is parsed as strictly as what a client asks: a cloud that sends more than an answer, or something
else, loses the connection. Nothing here bounds time; whoever asks does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools

from emlab.apps.head import Asked, Headers

KEEP_S = 2.0  # an unused connection; a custodian closes one after 5 s
MOST_AT_ONCE = 64  # requests to one cloud, which takes 256 connections in all
MAX_HEAD_BYTES = 64 << 10
MAX_WAITING_BYTES = 256 << 10  # of an answer that nobody takes; then the cloud has to wait


class NotConnected(OSError):
    """The cloud had nothing of the request: nobody listens at its socket."""


class Broken(OSError):
    """The connection ended before the answer did, or what came was no answer."""


class Upstream:
    """The connections to one cloud, in the loop that runs; a context for each request that uses them."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._idle: list[_Connection] = []
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._users = 0
        self._used_at = 0.0

    def __enter__(self) -> Upstream:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        self._used_at = self._loop.time()

    def unused(self) -> bool:
        """Whether nobody uses or used it for a while."""
        return self._users == 0 and self._loop.time() - self._used_at >= KEEP_S

    async def send(self, asked: Asked, body: bytes | AsyncIterator[bytes]) -> Answer:
        """The head of the cloud's answer, of which the rest follows. The caller ends it in any case.

        Waits while many others are under way: first come, first served.
        Raises: NotConnected, Broken, OSError, what `body` raises.
        """
        await self._places.acquire()
        try:
            answer = Answer(self, await self._connected(), asked.method)
        except BaseException:
            self.leave()
            raise
        try:
            await answer.begin(_head(asked), body)
        except BaseException:
            answer.end()
            raise
        return answer

    async def _connected(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fresh(self._loop.time()):
                return connection
            connection.close()
        try:
            _, connection = await self._loop.create_unix_connection(lambda: _Connection(self._loop), self._socket)
        except OSError as exc:
            raise NotConnected(*exc.args) from exc
        return connection

    def leave(self) -> None:
        """A request is through, and another one may come in its place."""
        self._places.release()

    def keep(self, connection: _Connection) -> None:
        """It may serve another request."""
        connection.used_at = self._loop.time()
        self._idle.append(connection)

    def renew(self) -> None:
        """Who comes next gets a new connection: a cloud that slept closes those that it knew when it wakes."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def _head(asked: Asked) -> bytes:
    lines = [f"{asked.method} {asked.target} HTTP/1.1\r\nhost: cloud\r\n".encode()]
    lines += [b"%b: %b\r\n" % pair for pair in asked.headers]
    if asked.size or asked.method not in ("GET", "HEAD", "OPTIONS"):
        lines.append(b"content-length: %d\r\n" % asked.size)
    return b"".join([*lines, b"\r\n"])


class Answer:
    """One request's answer, as it comes.

    Attributes:
        status, headers: there after `begin`. size: of the body, in bytes; None if it is known at its end only.
    """

    def __init__(self, upstream: Upstream, connection: _Connection, method: str) -> None:
        self._upstream = upstream
        self._connection = connection
        self._method = method
        self._writing: asyncio.Task[None] | None = None
        self.status = 0
        self.headers: Headers = ()
        self.size: int | None = None

    async def begin(self, head: bytes, body: bytes | AsyncIterator[bytes]) -> None:
        """The request is on its way, and the head of its answer is here. See `Upstream.send`."""
        connection = self._connection
        if isinstance(body, bytes):
            connection.ask(head + body, bodiless=self._method == "HEAD")
        else:
            connection.ask(head, bodiless=self._method == "HEAD")
            self._writing = asyncio.get_running_loop().create_task(self._write(body))
        await connection.until(lambda: connection.head_is_here)
        self.status, self.headers, self.size = connection.status, connection.headers, connection.size

    async def _write(self, body: AsyncIterator[bytes]) -> None:
        try:
            async for part in body:
                await self._connection.write(part)
        except Exception as exc:
            self._connection.fail(exc)

    async def read(self) -> bytes:
        """The whole body. Raises Broken."""
        connection = self._connection
        await connection.until(lambda: connection.is_whole)
        return connection.take()

    async def parts(self) -> AsyncIterator[bytes]:
        """The body, as it comes. Raises Broken."""
        connection = self._connection
        while not connection.is_whole or connection.waiting:
            await connection.until(lambda: bool(connection.waiting) or connection.is_whole)
            if part := connection.take():
                yield part

    def end(self) -> None:
        """Nothing more is sent or taken. The connection is kept for others if both sides are through with this one."""
        through = self._writing is None or self._writing.done()
        if self._writing is not None:
            self._writing.cancel()
        if through and self._connection.is_reusable:
            self._upstream.keep(self._connection)
        else:
            self._connection.close()
        self._upstream.leave()


class _Connection(asyncio.Protocol):
    """One connection to a cloud, on which one request after the other is answered."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.used_at = 0.0
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._asked = self._bodiless = self._is_kept = False
        self._head_bytes = self._bodiless_bytes = 0  # of headers; and since the last part of a body
        self._received: list[tuple[bytes, bytes]] = []
        self._parts: deque[bytes] = deque()
        self._fault: Exception | None = None
        self._changed: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self.waiting = 0
        self.head_is_here = self.is_whole = False
        self.status = 0
        self.size: int | None = None

    # -- what is asked -------------------------------------------------------------------------------------------------

    def ask(self, request: bytes, *, bodiless: bool) -> None:
        """The request is being sent. `bodiless`: its answer has only a head, whatever that says of a body."""
        self._parser = httptools.HttpResponseParser(self)
        self._asked, self._bodiless = True, bodiless
        self._received, self.status, self.size = [], 0, None
        self._head_bytes = self._bodiless_bytes = 0
        self.head_is_here = self.is_whole = False
        self._transport.write(request)

    async def write(self, part: bytes) -> None:
        """A part of the request's body is on its way, and there is room for the next."""
        await self._writable.wait()
        self._transport.write(part)

    # -- what comes ----------------------------------------------------------------------------------------------------

    @property
    def headers(self) -> Headers:
        """Of the answer."""
        return self._received

    async def until(self, holds: Callable[[], bool]) -> None:
        """Returns when that is so. Raises Broken, and what `fail` was told."""
        while not holds():
            if self._fault is not None:
                raise self._fault
            self._changed = self._loop.create_future()
            await self._changed

    def take(self) -> bytes:
        """What has come of the body since the last time."""
        found = b"".join(self._parts)
        self._parts.clear()
        if self.waiting > MAX_WAITING_BYTES:
            self._transport.resume_reading()
        self.waiting = 0
        return found

    @property
    def is_reusable(self) -> bool:
        """Whether the answer is here, all of it was taken, and the cloud keeps the connection."""
        whole = self.is_whole and not self._bodiless and not self.waiting
        return whole and self._fault is None and self._is_kept

    def is_fresh(self, now: float) -> bool:
        """Whether it can be used once more."""
        ended = self._fault is not None or self._transport.is_closing()
        return not ended and now - self.used_at < KEEP_S

    def fail(self, why: Exception) -> None:
        """Nothing more comes, for this reason."""
        if self._fault is None:
            self._fault = why
        self.close()
        self._tell()

    def close(self) -> None:
        """It is closed. Idempotent."""
        self._transport.abort()

    def _tell(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods and not the class
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """A part of an answer, or what nobody asked for."""
        if not self._asked or self.is_whole:
            return self.fail(Broken("the cloud sent something that nobody asked for"))
        self._bodiless_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(Broken("the cloud answered in another protocol"))
        except httptools.HttpParserError as exc:
            self.fail(Broken(f"the cloud answered with something that is not HTTP: {exc}"))
        if self._bodiless_bytes > MAX_HEAD_BYTES:
            self.fail(Broken(f"the cloud sent more than {MAX_HEAD_BYTES} bytes that are no body"))

    def eof_received(self) -> bool:
        """The cloud sends nothing more; that may be how it ends an answer. Closes the connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        if self._asked and not self.is_whole and exc is None and self._ends_with_the_connection():
            self.on_message_complete()
        self._writable.set()
        self.fail(exc or Broken("the cloud closed the connection"))

    def pause_writing(self) -> None:
        """The cloud takes no more at the moment."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable.set()

    # -- httptools -----------------------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer, or of its end."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.fail(Broken(f"the head of the cloud's answer has more than {MAX_HEAD_BYTES} bytes"))
        elif not self.head_is_here:
            self._received.append((name.lower(), value))

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self.is_whole:
            self.fail(Broken("the cloud answered twice"))

    def on_headers_complete(self) -> None:
        """The head is here; one of a status below 200 only says that another follows."""
        if self._is_over:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self._received = []
            return
        if self.status > 599:
            return self.fail(Broken(f"there is no status {self.status}"))
        length = [value for name, value in self._received if name == b"content-length"]
        self.size = int(length[0]) if length else None
        self.head_is_here, self.is_whole = True, self._bodiless
        self._is_kept = self._parser.should_keep_alive()
        self._tell()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._is_over:
            return
        self._bodiless_bytes = 0
        self._parts.append(data)
        self.waiting += len(data)
        if self.waiting > MAX_WAITING_BYTES:
            self._transport.pause_reading()
        self._tell()

    def on_message_complete(self) -> None:
        """The answer is here."""
        if self.head_is_here and not self._is_over:
            self.is_whole = True
            self._tell()

    @property
    def _is_over(self) -> bool:
        """Whether what is still parsed belongs to no answer: it is whole, or was found to be bad."""
        return self.is_whole or self._fault is not None

    def _ends_with_the_connection(self) -> bool:
        """Whether the answer has a body whose end only that of the connection tells."""
        chunked = any(name == b"transfer-encoding" for name, _ in self._received)
        return self.head_is_here and self.size is None and not chunked
