"""Connections from the gateway to clouds: raw bytes over their unix sockets, closed soon after they were used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from emlab.apps.head import Asked

KEEP_S = 2.0  # an unused connection; a custodian closes one after 5 s


class Upstream:
    """The connections to one cloud; a context for each request that uses them."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._users = 0
        self._used_at = 0.0
        self._ending: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Upstream:
        self._users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._users -= 1
        self._used_at = asyncio.get_running_loop().time()

    def unused(self) -> bool:
        """Whether nobody uses or used it for a while."""
        return self._users == 0 and asyncio.get_running_loop().time() - self._used_at >= KEEP_S

    async def send(self, asked: Asked, body: bytes | AsyncIterator[bytes]) -> aiohttp.ClientResponse:
        """The head of the cloud's answer. Raises aiohttp.ClientError, OSError."""
        if self._session is None:
            self._session = _session(self._socket)
        headers = asked.headers
        if not isinstance(body, bytes):  # else it would come in chunks, which no cloud takes
            headers = [*headers, ("Content-Length", str(asked.size))]
        return await self._session.request(
            asked.method, asked.url, headers=headers, data=body or None, allow_redirects=False
        )

    def renew(self) -> None:
        """Who alone uses it gets a new connection: a cloud that slept closes those that it knew when it wakes."""
        if self._users == 1:
            self.end()

    def end(self) -> None:
        """What is open is being closed."""
        if self._session is not None:
            task = asyncio.get_running_loop().create_task(self._session.close())
            self._session = None
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Nothing is open."""
        self.end()
        await asyncio.gather(*self._ending)


def _session(socket: str) -> aiohttp.ClientSession:
    """A client that passes bytes on as they are, and bounds no time."""
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(socket, keepalive_timeout=KEEP_S),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        auto_decompress=False,
    )
