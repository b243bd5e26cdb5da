"""How bytes reach a custodian or a controller: over a unix socket, over TCP, or by a plain call within this process.

Imports http.client and requests only when such a transport is used, so that the custodian itself never loads a client.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from emlab.errors import BadReply, ConfigError, Unreachable

if TYPE_CHECKING:
    import http.client

    from typing_extensions import Buffer

Reply = tuple[int, bytes]
MAX_REPLY_BYTES = 1 << 30
_PART_BYTES = 1 << 20
_FINGERPRINT = re.compile("[0-9a-fA-F]{64}")
_POOL = 32  # connections of one HttpTransport


class App(Protocol):
    """The server side, whatever carries it: one request in, one reply out."""

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        """What `handle` answers whatever the body is; None if it is to be read. Does not block."""

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The HTTP status and the body. Never raises. Header names are lower case."""


class Transport(Protocol):
    """The client side. Thread-safe."""

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        """The HTTP status and the body. Raises Unreachable, also when `timeout_s` passed in all."""

    def close(self) -> None:
        """Connections are closed. Idempotent."""


class _Line(socket.socket):
    """A socket whose every call ends at one deadline: http.client makes many, for the head's lines as for the body."""

    deadline = 0.0

    def hurry(self) -> None:
        """The next call has the time that is left. Raises TimeoutError if none is."""
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.settimeout(left_s)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """All is sent before the deadline, or TimeoutError."""
        self.hurry()
        super().sendall(data, flags)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """How many bytes came, before the deadline, or TimeoutError."""
        self.hurry()
        return super().recv_into(buffer, nbytes, flags)


class UnixTransport:
    """HTTP over a unix socket, connections kept alive.

    Not httpx: that leaves the socket of a refused connection open, and bounds each read instead of the whole.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._idle: list[http.client.HTTPConnection] = []  # append and pop are atomic

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        """Send one request; see Transport."""
        import http.client

        deadline = time.monotonic() + timeout_s
        connection = None
        try:
            connection = self._take() or self._connect(deadline)
            cast(_Line, connection.sock).deadline = deadline
            reply = _exchange(connection, method, path, headers, body)
        except TimeoutError as exc:
            raise Unreachable(f"no answer from {self._socket.parent.name} within {timeout_s:g} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise Unreachable(f"cannot reach {self._socket.parent.name}: {exc}") from exc
        else:
            if connection.sock is not None:  # else the reply said that the connection ends with it
                self._idle.append(connection)
                connection = None
        finally:
            if connection is not None:
                connection.close()
        return reply

    def close(self) -> None:
        """Close all connections."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> http.client.HTTPConnection | None:
        """A connection that is open still: one that can be read while nothing was asked has been closed."""
        while self._idle:
            connection = self._idle.pop()
            readable = select.poll()  # where `select` itself refuses the files of a program that has many
            readable.register(connection.sock, select.POLLIN)
            if not readable.poll(0):
                return connection
            connection.close()
        return None

    def _connect(self, deadline: float) -> http.client.HTTPConnection:
        import http.client

        connection = http.client.HTTPConnection("cloud")
        connection.auto_open = 0
        line = _Line(socket.AF_UNIX, socket.SOCK_STREAM)
        line.deadline = deadline
        try:
            line.hurry()
            line.connect(str(self._socket))
        except BaseException:
            line.close()
            raise
        connection.sock = line
        return connection


def _exchange(
    connection: http.client.HTTPConnection, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> Reply:
    """One request and its whole reply. Raises TimeoutError at the line's deadline, OSError, HTTPException, BadReply."""
    with contextlib.suppress(BrokenPipeError):  # it refused before it had read all, and has said why
        connection.request(method, path, body=body, headers=dict(headers))
    response = connection.getresponse()
    return response.status, _bounded(iter(lambda: response.read(_PART_BYTES), b""))


class HttpTransport:
    """HTTP or HTTPS over TCP, connections kept alive. Redirects and proxies are not followed.

    Args:
        url: what paths are appended to. ca: file of the certificates to trust, instead of those that come with
            requests. fingerprint: SHA-256, in hex, of the one certificate to trust, whoever signed it for whom.
    Raises: ConfigError.
    """

    def __init__(self, url: str, *, ca: Path | None = None, fingerprint: str | None = None) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        class Pinned(HTTPAdapter):
            def init_poolmanager(self, *sizes: Any, **named: Any) -> None:
                super().init_poolmanager(*sizes, **named, assert_fingerprint=fingerprint)

        if fingerprint is not None and not (
            url.lower().startswith("https://") and _FINGERPRINT.fullmatch(str(fingerprint))
        ):
            raise ConfigError(
                "a fingerprint is the SHA-256 of a certificate, 64 hex digits, of what is at an https:// address"
            )
        self._url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = (ca is None or str(ca)) if fingerprint is None else False  # it is compared instead
        self._session.mount("http://", HTTPAdapter(pool_maxsize=_POOL))
        self._session.mount("https://", (HTTPAdapter if fingerprint is None else Pinned)(pool_maxsize=_POOL))

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        """Send one request; see Transport. `timeout_s` bounds each wait for a piece of the reply."""
        import requests

        try:
            with self._session.request(
                method,
                self._url + path,
                data=body,
                headers=dict(headers),
                timeout=timeout_s,
                stream=True,
                allow_redirects=False,
            ) as response:
                return response.status_code, _bounded(response.iter_content(_PART_BYTES))
        except requests.Timeout as exc:
            raise Unreachable(f"no answer from {self._url} within {timeout_s:g} s") from exc
        except OSError as exc:  # of requests, or a file of certificates that has gone
            hint = next((text for sign, text in _HINTS.items() if sign in str(exc)), None)
            raise Unreachable(
                f"cannot reach {self._url}: {hint or _of_plain(self._url) or type(exc).__name__}"
            ) from exc

    def close(self) -> None:
        """Close all connections."""
        self._session.close()


_HINTS = {  # what OpenSSL and urllib3 say
    " mismatch, certificate is not valid for": "its certificate is for other names: use one of these, or have it made"
    " for this one, too (`names` in the table [serve])",
    "CERTIFICATE_VERIFY_FAILED": "it shows a certificate that nobody here trusts: give its authority's (ca=, or --ca)",
    "Fingerprints did not match": "it shows another certificate than the one that is expected",
    "WRONG_VERSION_NUMBER": "it does not speak HTTPS: say http://",
    "Connection refused": "nobody listens there",
    "NameResolutionError": "there is no host of that name",
}


def _of_plain(url: str) -> str | None:
    return "it answers no plain HTTP: say https:// if it has a certificate" if url.startswith("http://") else None


def _bounded(parts: Iterable[bytes]) -> bytes:
    """All of a reply. Raises BadReply if it is too long."""
    kept: list[bytes] = []
    size = 0
    for part in parts:
        kept.append(part)
        size += len(part)
        if size > MAX_REPLY_BYTES:
            raise BadReply(f"a reply of more than {MAX_REPLY_BYTES} bytes")
    return b"".join(kept)


class MemoryTransport:
    """Calls the app of a cloud in this process."""

    def __init__(self, app: App) -> None:
        self._app = app

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        """Send one request; see Transport. The call itself is not bounded in time."""
        return self._app.handle(method, path, headers, body)

    def close(self) -> None:
        """Nothing is held."""
