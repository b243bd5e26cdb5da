"""Heads of requests and of answers on their way through the gateway: what is refused, and what is passed on."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import msgspec

from emlab.apps.http import BoundedHead
from emlab.errors import BadQuery, EmlabError, NotPermitted, UnknownUser
from emlab.wire.emission import EMISSION_ROUTES
from emlab.wire.serve import bearer
from emlab.wire.table import BY_NAME, MAX_BODY_BYTES

if TYPE_CHECKING:
    from starlette.types import Scope

CONTINUE = b"100-continue"
NO_CLOUD = "there is no such cloud; the paths of one begin with /CLOUD/, which is its id, 32 hex digits"
Headers = Sequence[tuple[bytes, bytes]]  # with names in lower case
_OF_CLOUD = re.compile(rb"/([0-9a-f]{32})(?:/|\Z)")
_SEGMENT = rb"(?!\.\.?(?:/|\Z))[\w.~!$&'()*+,;=:@-]+"
_PATH = re.compile(rb"/([0-9a-f]{32})(/(?:" + _SEGMENT + rb"/)*(?:" + _SEGMENT + rb")?)?")
_QUERY = re.compile(rb"[!-~]*")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OF_EMISSION = frozenset(route.path.partition("{")[0] for route in EMISSION_ROUTES)
_ONCE = frozenset(b"authorization content-length expect transfer-encoding upgrade".split())
# what two neighbours say to each other, what is written anew, and what others claim about the client
_NEIGHBOURS = frozenset(
    b"connection content-length expect forwarded host keep-alive proxy-authenticate proxy-authorization "
    b"proxy-connection te trailer transfer-encoding upgrade x-real-ip".split()
)
_NOT_BACK = _NEIGHBOURS - {b"content-length"} | {b"date", b"server"}  # the gateway's server has its own
_EMPTY = (204, 304)  # an answer without a body, whatever length its head names


class Turned(Exception):
    """Something is refused with another status than its error's own."""

    def __init__(self, error: EmlabError, status: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


class Asked(msgspec.Struct, frozen=True):
    """What the head of a request says.

    Attributes:
        target: path within the cloud, and query. headers: those to be passed on. size: of the body, in bytes.
        token: of the header `Authorization: Bearer TOKEN`; None without it.
    """

    method: str
    path: str
    target: str
    headers: Headers
    size: int
    token: str | None

    @property
    def by_user(self) -> bool:
        """Whether the caller is known by the field `user` of the body, as with e-mission's clients."""
        return self.token is None and self.method == "POST" and _is_of_emission(self.path)


def cloud_of(scope: Scope) -> str | None:
    """The id of a cloud at the beginning of the path; None if the request is for the controller itself."""
    found = _OF_CLOUD.match(scope.get("raw_path") or b"")
    return None if found is None else found[1].decode()


def where(scope: Scope) -> tuple[str, str]:
    """The cloud and the path in it that a request is for. Raises UnknownUser, BadQuery."""
    raw = scope["raw_path"]
    if _OF_CLOUD.match(raw) is None:
        raise UnknownUser(NO_CLOUD)
    found = _PATH.fullmatch(raw)
    if found is None or _QUERY.fullmatch(scope["query_string"]) is None:
        raise BadQuery("a path here consists of letters, digits and some signs, without percent, dot or empty segments")
    return found[1].decode(), (found[2] or b"/").decode()


def read(scope: Scope, path: str) -> Asked:
    """The head of a request for that path, if it can be passed on. Raises BadQuery, Turned."""
    if scope["method"] not in _METHODS:
        raise Turned(BadQuery("no such method here"), 405)
    if path == BY_NAME["ask"].path:
        raise Turned(NotPermitted("an ask with a capability goes to the controller, not to a cloud"), 403)
    special: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in special:
            raise BadQuery(f"the header {name.decode()} stands there twice")
        if name in _ONCE:
            special[name] = value
    _check_framing(special, scope["headers"])
    return Asked(
        method=scope["method"],
        path=path,
        target=f"{path}?{query.decode()}" if (query := scope["query_string"]) else path,
        headers=_passed_on(scope["headers"]),
        size=_size(special.get(b"content-length", b"0")),
        token=bearer({"authorization": special.get(b"authorization", b"").decode("latin-1")}),
    )


def _check_framing(special: Mapping[bytes, bytes], headers: Headers) -> None:
    """Nothing in the head makes it uncertain where the request ends. Raises BadQuery, Turned."""
    if b"transfer-encoding" in special:  # chunks end in headers without bound
        raise Turned(BadQuery("a request says the length of its body"), 411)
    if b"upgrade" in special or any(name == b"connection" and b"upgrade" in value.lower() for name, value in headers):
        raise BadQuery("there is no other protocol here than HTTP/1.1")
    if special.get(b"expect", CONTINUE).lower() != CONTINUE:
        raise Turned(BadQuery("nothing but 100-continue can be expected"), 417)


def _size(length: bytes) -> int:
    if not length.isdigit() or len(length) > 20:
        raise BadQuery("the length of the body is not a number")
    if int(length) > MAX_BODY_BYTES:
        raise Turned(BadQuery(f"a request has at most {MAX_BODY_BYTES} bytes"), 413)
    return int(length)


def _passed_on(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers for the cloud, which has a name of its own."""
    named = _named(headers)
    return [pair for pair in headers if pair[0] not in named and not pair[0].startswith(b"x-forwarded-")]


def passed_back(headers: Headers, status: int) -> list[tuple[bytes, bytes]]:
    """The headers for the client."""
    named = _named(headers, _NOT_BACK | {b"content-length"} if status in _EMPTY else _NOT_BACK)
    return [pair for pair in headers if pair[0] not in named]


def _named(headers: Headers, named: frozenset[bytes] = _NEIGHBOURS) -> frozenset[bytes]:
    """The headers that are not passed, and those that the sender means for its neighbour."""
    for name, value in headers:
        if name == b"connection":
            named |= {one.strip().lower() for one in value.split(b",")}
    return named


@functools.lru_cache(maxsize=256)
def _is_of_emission(path: str) -> bool:
    return path in _OF_EMISSION or path[: path.rfind("/") + 1] in _OF_EMISSION


class TimedHead(BoundedHead):
    """HTTP whose heads arrive within HEAD_S, or are answered 408. A new connection, too, says something by then."""

    HEAD_S: ClassVar[float] = 10.0
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The time runs."""
        super().connection_made(transport)
        self._hurry()

    def data_received(self, data: bytes) -> None:
        """The time runs from the first byte of a head, and even from one before that."""
        if self._late is None and (self.cycle is None or self.cycle.response_complete):
            self._hurry()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is there in time."""
        self._calm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits any more."""
        self._calm()
        super().connection_lost(exc)

    def _hurry(self) -> None:
        late = BadQuery("the head of the request came too slowly")
        self._late = self.loop.call_later(self.HEAD_S, self.turn_away, late, 408)

    def _calm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
