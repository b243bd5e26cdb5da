"""The server's end: finds the route, checks who asks, decodes, calls the actor's method, encodes. No sockets here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import msgspec

from emlab.errors import BadEntry, BadQuery, EmlabError, NotPermitted
from emlab.wire import openapi, problem
from emlab.wire.table import BY_PATH, ROUTES, Route
from emlab.wire.transport import Reply

log = logging.getLogger(__name__)

_OPENAPI = ("GET", "/openapi.json")


class Actor(Protocol):
    """What the routes are called on: it has a method of each route's name."""

    def authorize_owner(self, token: str) -> None:
        """Returns for the owner's token. Raises NotPermitted."""


class Server:
    """An App (see transport) over an actor: never raises, answers problem documents."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._decoders = {
            route.name: msgspec.json.Decoder(route.request) for route in ROUTES if route.request is not None
        }

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        """What is answered whatever the body is: there is no such route, or not for this caller."""
        if (method, path) == _OPENAPI:
            return None
        route = BY_PATH.get(f"{method} {path}")
        if route is None:
            return _no_route(method, path)
        try:
            self._authorize(route, headers)
        except EmlabError as exc:
            return problem.encode(exc)
        return None

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request in, status and JSON body out."""
        try:
            if (refused := self.refusal(method, path, headers)) is not None:
                return refused
            if (method, path) == _OPENAPI:
                return 200, msgspec.json.encode(openapi.document())
            return 200, msgspec.json.encode(self._call(BY_PATH[f"{method} {path}"], body))
        except EmlabError as exc:
            return problem.encode(exc)
        except Exception as exc:
            # the text of a foreign exception may hold an entry: only its class is logged and told
            where = exc.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            line = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else "?"
            log.error("%s %s failed with %s in %s", method, path, type(exc).__name__, line)
            return problem.encode(EmlabError(f"the custodian failed with {type(exc).__name__}"))

    def _authorize(self, route: Route, headers: Mapping[str, str]) -> None:
        bearer = headers.get("authorization", "")
        if route.who == "owner":
            self._actor.authorize_owner(bearer.removeprefix("Bearer "))
        elif route.who == "capability" and bearer:
            raise NotPermitted(f"{route.path} is asked with a capability, not with a token")

    def _call(self, route: Route, body: bytes) -> object:
        method = getattr(self._actor, route.name)
        if route.request is None:
            return method()
        try:
            request = self._decoders[route.name].decode(body)
        except msgspec.DecodeError as exc:
            # msgspec names the field and the type, never the value
            wrong = f"the request of {route.path} is malformed: {exc}"
            raise (BadEntry(wrong) if route.name == "store" else BadQuery(wrong)) from exc
        return method(request)


def _no_route(method: str, path: str) -> Reply:
    status = 405 if any(route.path == path for route in ROUTES) else 404
    detail = "no such method here" if status == 405 else "no such route"
    return status, msgspec.json.encode(problem.Problem(kind="BadQuery", status=status, detail=detail))
