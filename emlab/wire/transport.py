"""How bytes reach a custodian: over a unix socket, or by a plain call within this process.

Imports httpx only when a unix transport is made, so that the custodian itself never loads a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from emlab.errors import Unreachable

if TYPE_CHECKING:
    import httpx

Reply = tuple[int, bytes]
MAX_REPLY_BYTES = 1 << 30


class App(Protocol):
    """The server side, whatever carries it: one request in, one reply out."""

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The HTTP status and the body. Never raises. Header names are lower case."""


class Transport(Protocol):
    """The client side. Thread-safe."""

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        """The HTTP status and the body. Raises Unreachable, also when `timeout_s` passed in all."""

    def close(self) -> None:
        """Connections are closed. Idempotent."""


class UnixTransport:
    """HTTP over a unix socket, connections kept alive."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client: httpx.Client | None = None

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        """Send one request; see Transport."""
        import httpx

        client = self._client
        if client is None:
            client = self._client = httpx.Client(
                transport=httpx.HTTPTransport(uds=str(self._socket)), base_url="http://cloud", trust_env=False
            )
        try:
            reply = client.request(method, path, headers=dict(headers), content=body, timeout=timeout_s)
        except httpx.TimeoutException as exc:
            raise Unreachable(f"no answer from {self._socket.parent.name} within {timeout_s:g} s") from exc
        except httpx.TransportError as exc:
            raise Unreachable(f"cannot reach {self._socket.parent.name}: {exc}") from exc
        return reply.status_code, reply.content

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()
            self._client = None


class MemoryTransport:
    """Calls the app of a cloud in this process."""

    def __init__(self, app: App) -> None:
        self._app = app

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        """Send one request; see Transport. The call itself is not bounded in time."""
        return self._app.handle(method, path, headers, body)

    def close(self) -> None:
        """Nothing is held."""
