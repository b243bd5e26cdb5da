"""The server's end: finds the route, checks who asks, decodes, calls the actor's method, encodes. No sockets here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from emlab.errors import BadEntry, BadQuery, EmlabError, NoToken, NotPermitted
from emlab.wire import openapi, problem
from emlab.wire.emission import EMISSION_ROUTES
from emlab.wire.table import BY_NAME, ROUTES, Route
from emlab.wire.transport import Reply

log = logging.getLogger(__name__)
T = TypeVar("T")

_OPENAPI = ("GET", "/openapi.json")
BEARER = "Bearer "


class Custodian(Protocol):
    """What a custodian's routes are called on: it has a method of each route's name."""

    def authorize_owner(self, token: str) -> None:
        """Returns for the owner's token. Raises NotPermitted."""


class _Caller(msgspec.Struct, frozen=True):
    """Who calls, in a body of e-mission's. Never shown."""

    user: str | UnsetType = UNSET


_CALLER = msgspec.json.Decoder(_Caller)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Some routes, and who is let through to what serves them.

    Attributes:
        admit: the object that has a method of the route's name, for a caller with these headers. Raises NotPermitted.
        admit_user: the same for a route whose caller is known by a token in the body.
    """

    routes: Sequence[Route]
    admit: Callable[[Route, Mapping[str, str]], object]
    admit_user: Callable[[str], object] | None = None


@dataclass(frozen=True, slots=True)
class _Service:
    """A route, the entrance to it, and how its body is read."""

    route: Route
    entrance: Entrance
    decoder: msgspec.json.Decoder[msgspec.Struct] | None


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of the header `Authorization: Bearer TOKEN`; None without one."""
    text = headers.get("authorization", "")
    return text.removeprefix(BEARER) if text.startswith(BEARER) else None


def user_token(path: str, body: bytes) -> str:
    """The token in the field `user` of a body of e-mission's. Raises NoToken, BadQuery."""
    caller = _decode(path, _CALLER, body)
    if caller.user is UNSET:
        raise NoToken("the field `user` with the owner's token is missing")
    return caller.user


def custodian_server(custodian: Custodian, emission: object | None = None) -> Server:
    """The server in a cloud.

    Args:
        custodian: has a method for each of ROUTES.
        emission: has one for each of EMISSION_ROUTES; None if e-mission's clients are not served.
    """

    def admit(route: Route, headers: Mapping[str, str]) -> object:
        if route.who == "owner":
            if (token := bearer(headers)) is None:
                raise NoToken(f"{route.path} needs the header `Authorization: Bearer TOKEN` of the owner")
            custodian.authorize_owner(token)
        elif route.who == "capability" and "authorization" in headers:
            raise NotPermitted(f"{route.path} is asked with a capability, not with a token")
        return custodian

    def admit_user(token: str) -> object:
        custodian.authorize_owner(token)
        return emission

    entrances = [Entrance(ROUTES, admit)]
    if emission is not None:
        entrances.append(Entrance(EMISSION_ROUTES, lambda route, headers: emission, admit_user))
    return Server(entrances, openapi.document, whose="custodian")


class Server:
    """An App (see transport) over the actors behind entrances: never raises, answers problem documents.

    Args:
        document: the OpenAPI document. whose: what failed, when something did.
    """

    def __init__(
        self, entrances: Iterable[Entrance], document: Callable[[], Mapping[str, object]], *, whose: str
    ) -> None:
        self._document = document
        self._described = b""  # as JSON, once somebody asked
        self._whose = whose
        self._exact: dict[tuple[str, str], _Service] = {}
        self._parametric: dict[tuple[str, str], _Service] = {}
        for one in (_service(route, entrance) for entrance in entrances for route in entrance.routes):
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
            found[0].entrance.admit(found[0].route, headers)
        except EmlabError as exc:
            return problem.encode(exc)
        return None

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request in, status and JSON body out."""
        try:
            if (refused := self.refusal(method, path, headers)) is not None:
                return refused
            if (method, path) == _OPENAPI:
                self._described = self._described or msgspec.json.encode(self._document())
                return 200, self._described
            return self._answer(method, path, headers, body)
        except EmlabError as exc:
            return problem.encode(exc)
        except Exception as exc:
            log.error("%s %s failed with %s", method, path, problem.anonymous(exc))
            return problem.encode(EmlabError(f"the {self._whose} failed with {type(exc).__name__}"))

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

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        found = self._find(method, path)
        assert found is not None, "refusal has looked"
        service, parameters = found
        actor = service.entrance.admit(service.route, headers)
        if service.entrance.admit_user is not None and service.route.who == "user":
            actor = service.entrance.admit_user(user_token(service.route.path, body))
        answer = getattr(actor, service.route.name)
        if service.decoder is not None:
            result = answer(_decode(service.route.path, service.decoder, body or b"{}"), *parameters)
        else:
            result = answer(*parameters)
        return 200, b"" if result is None else msgspec.json.encode(result)


def _service(route: Route, entrance: Entrance) -> _Service:
    decoder = None if route.request is None else msgspec.json.Decoder(route.request)
    return _Service(route, entrance, decoder)


def _head(path: str) -> str:
    """The path without its last part."""
    return path.rpartition("/")[0]


def _decode(path: str, decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as exc:
        # msgspec names the field and the type, never the value
        wrong = f"the request of {path} is malformed: {exc}"
        raise (BadEntry(wrong) if path == BY_NAME["store"].path else BadQuery(wrong)) from exc
    except (RecursionError, UnicodeDecodeError) as exc:
        why = "nested too deeply" if isinstance(exc, RecursionError) else "no UTF-8"
        raise BadQuery(f"the request of {path} is {why}") from None
