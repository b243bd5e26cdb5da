"""A server whose TLS handshakes are few, also from one address, and do not last: who is silent keeps nobody out."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable
from functools import partial

import uvicorn

from emlab.apps.http import Record, of_heaviest
from emlab.errors import Unreachable

log = logging.getLogger(__name__)
SHAKING = 1024  # at once, of at most SHAKE_S each
SHAKE_S = 10.0
FULL_S = 0.2  # until the next one is taken when no more files can be open


class TlsServer(uvicorn.Server):
    """uvicorn itself neither sees a connection before its handshake is through, nor says how long that may take."""

    _failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """It listens there."""
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()
        self._shaking: dict[asyncio.Task[None], str] = {}  # address of each, the oldest first
        self._most = min(SHAKING, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._accepting = [loop.create_task(self._accept(listener)) for listener in sockets or []]
        for task in self._accepting:
            task.add_done_callback(self._end)

    def _end(self, accepting: asyncio.Task[None]) -> None:
        """A server that takes no connections any more ends, and `run` raises why."""
        if not accepting.cancelled():
            self._failure, self.should_exit = accepting.exception(), True

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        super().run(sockets)
        if self._failure is not None:
            raise self._failure

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """It listens no more, and what is under way is ended; a handshake is not."""
        for task in (*self._accepting, *self._shaking):
            task.cancel()
        await super().shutdown(sockets=sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                line, (address, *_) = await loop.sock_accept(listener)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except ConnectionError:  # who came has gone
                continue
            except OSError as exc:  # such as too many open files
                log.warning("a connection cannot be taken: %s", exc.strerror)
                self._make_room()
                await asyncio.sleep(FULL_S)
                continue
            task = loop.create_task(self._shake(line))
            self._shaking[task] = address
            task.add_done_callback(lambda done: self._shaking.pop(done, None))
            if len(self._shaking) > self._most:
                self._make_room()

    async def _shake(self, line: socket.socket) -> None:
        """The connection is uvicorn's, unless who is there does not speak TLS, or not soon."""
        protocol: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        made = partial(protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(made, line, ssl=self.config.ssl, ssl_handshake_timeout=SHAKE_S)
        except OSError as exc:
            log.debug("a handshake failed: %s", type(exc).__name__)

    def _make_room(self) -> None:
        """Of the address with most of them, the oldest handshakes end."""
        for task in of_heaviest(self._shaking, max(1, self._most // 16)):
            address = self._shaking.pop(task)
            if task.cancel() and isinstance(self.config.app, Record):
                self.config.app.turned_away(address, Unreachable.__name__)
