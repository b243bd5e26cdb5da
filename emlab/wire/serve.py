"""The server's end: finds the route, checks who asks, decodes, calls the actor's method, encodes. No sockets here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from emlab.errors import BadEntry, BadQuery, EmlabError, NotPermitted
from emlab.wire import openapi, problem
from emlab.wire.emission import EMISSION_ROUTES
from emlab.wire.table import ROUTES, Route
from emlab.wire.transport import Reply

log = logging.getLogger(__name__)
T = TypeVar("T")

_OPENAPI = ("GET", "/openapi.json")


class Actor(Protocol):
    """What the routes are called on: it has a method of each route's name."""

    def authorize_owner(self, token: str) -> None:
        """Returns for the owner's token. Raises NotPermitted."""


class _Caller(msgspec.Struct, frozen=True):
    """Who calls, in a body of e-mission's. Never shown."""

    user: str | UnsetType = UNSET


_CALLER = msgspec.json.Decoder(_Caller)


@dataclass(frozen=True, slots=True)
class _Service:
    """A route, what answers it, and how its body is read."""

    route: Route
    actor: object
    decoder: msgspec.json.Decoder[msgspec.Struct] | None


class Server:
    """An App (see transport) over an actor: never raises, answers problem documents.

    Args:
        actor: has a method for each of ROUTES.
        emission: has one for each of EMISSION_ROUTES; None if e-mission's clients are not served.
    """

    def __init__(self, actor: Actor, emission: object | None = None) -> None:
        self._actor = actor
        services = [_service(route, actor) for route in ROUTES]
        if emission is not None:
            services += [_service(route, emission) for route in EMISSION_ROUTES]
        self._exact: dict[tuple[str, str], _Service] = {}
        self._parametric: dict[tuple[str, str], _Service] = {}
        for one in services:
            if "{" in one.route.path:
                self._parametric[one.route.method, _head(one.route.path)] = one
            else:
                self._exact[one.route.method, one.route.path] = one

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        """What is answered whatever the body is: there is no such route, or not for this caller."""
        if (method, path) == _OPENAPI:
            return None
        found = self._find(method, path)
        if found is None:
            return self._no_route(path)
        try:
            self._authorize(found[0].route, headers)
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
            return self._answer(method, path, body)
        except EmlabError as exc:
            return problem.encode(exc)
        except Exception as exc:
            log.error("%s %s failed with %s", method, path, problem.anonymous(exc))
            return problem.encode(EmlabError(f"the custodian failed with {type(exc).__name__}"))

    def _find(self, method: str, path: str) -> tuple[_Service, list[str]] | None:
        """What serves it, and the path's parameter if it has one."""
        if (exact := self._exact.get((method, path))) is not None:
            return exact, []
        parametric = self._parametric.get((method, _head(path)))
        return None if parametric is None else (parametric, [path.rpartition("/")[2]])

    def _no_route(self, path: str) -> Reply:
        known = any(self._find(method, path) for method in ("GET", "POST", "PUT"))
        status, detail = (405, "no such method here") if known else (404, "no such route")
        return status, msgspec.json.encode(problem.Problem(kind="BadQuery", status=status, detail=detail))

    def _authorize(self, route: Route, headers: Mapping[str, str]) -> None:
        bearer = headers.get("authorization", "")
        if route.who == "owner":
            self._actor.authorize_owner(bearer.removeprefix("Bearer "))
        elif route.who == "capability" and bearer:
            raise NotPermitted(f"{route.path} is asked with a capability, not with a token")

    def _answer(self, method: str, path: str, body: bytes) -> Reply:
        found = self._find(method, path)
        assert found is not None, "refusal has looked"
        service, parameters = found
        if service.route.who == "user":
            caller = _decode(service.route, _CALLER, body)
            if caller.user is UNSET:
                return problem.encode(NotPermitted("the field `user` with the owner's token is missing"), status=401)
            self._actor.authorize_owner(caller.user)
        answer = getattr(service.actor, service.route.name)
        if service.decoder is not None:
            result = answer(_decode(service.route, service.decoder, body or b"{}"), *parameters)
        else:
            result = answer(*parameters)
        return 200, b"" if result is None else msgspec.json.encode(result)


def _service(route: Route, actor: object) -> _Service:
    decoder = None if route.request is None else msgspec.json.Decoder(route.request)
    return _Service(route, actor, decoder)


def _head(path: str) -> str:
    """The path without its last part."""
    return path.rpartition("/")[0]


def _decode(route: Route, decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as exc:
        # msgspec names the field and the type, never the value
        wrong = f"the request of {route.path} is malformed: {exc}"
        raise (BadEntry(wrong) if route.name == "store" else BadQuery(wrong)) from exc
    except (RecursionError, UnicodeDecodeError) as exc:
        why = "nested too deeply" if isinstance(exc, RecursionError) else "no UTF-8"
        raise BadQuery(f"the request of {route.path} is {why}") from None
