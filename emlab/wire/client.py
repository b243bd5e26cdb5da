"""The client's end: a route's name and a request struct in, a response struct or the server's error out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from emlab.errors import BadReply, NotPermitted
from emlab.query import plain
from emlab.wire import problem
from emlab.wire.table import BY_NAME, Route
from emlab.wire.transport import Transport

R = TypeVar("R")
DEFAULT_TIMEOUT_S = 30.0


class CloudClient:
    """Calls one cloud's custodian over a transport. Thread-safe.

    Args:
        routes: by name; a controller's, to call that.
    """

    def __init__(self, transport: Transport, routes: Mapping[str, Route] = BY_NAME) -> None:
        self._transport = transport
        self._routes = routes

    def call(
        self,
        name: str,
        response: type[R],
        request: msgspec.Struct | None = None,
        *,
        token: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> R:
        """The response of the route of this name.

        Args:
            name, response: of the table of routes. token: the caller's, where the route wants it.
        Raises: what the route raises; Unreachable; BadReply.
        """
        route = self._routes[name]
        headers = {"content-type": "application/json"}
        if token is not None and not (token.isascii() and token.isprintable()):
            raise NotPermitted("the token is not one")  # and must not end up in a header's error text
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        body = b"" if request is None else msgspec.json.encode(request, enc_hook=plain)
        status, reply = self._transport.send(route.method, route.path, headers=headers, body=body, timeout_s=timeout_s)
        if status != 200:
            raise problem.decode(status, reply)
        try:
            return msgspec.json.decode(reply, type=response)
        except msgspec.DecodeError as exc:
            raise BadReply(f"the reply of {route.path} is malformed: {exc}") from exc

    def close(self) -> None:
        """Connections are closed. Idempotent."""
        self._transport.close()
