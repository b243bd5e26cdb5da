"""The controller for those who are not in its process: whom it lets in, and to what; see `session`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Literal

from emlab.arguments import check_name
from emlab.audit import INCOMING, USE, Audit, actor, knows, nobody
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.controller import Controller
from emlab.errors import ConfigError, NoToken, NotPermitted, UnknownUser
from emlab.idle import IdleRule
from emlab.key import TokenKind
from emlab.lease import NamedLeases
from emlab.lifecycle import Lifecycle
from emlab.registry import Registry
from emlab.session import Session
from emlab.wire.control import (
    CONTROL_BY_NAME,
    CONTROL_ROUTES,
    Issued,
    Token,
)
from emlab.wire.openapi import describe
from emlab.wire.serve import Entrance, Server, bearer
from emlab.wire.table import Route

OTHER = "request"  # for nothing that there is
SWEEP = "the service"  # who acts for the idle rule, and for what owners say of it
STREAM = replace(
    CONTROL_BY_NAME["events"],
    name="stream",
    method="GET",
    path="/events/stream",
    request=None,
    response=str,
    summary="What happens, as server-sent events",
    media="text/event-stream",
)
METRICS = replace(  # for who may see the idle rule
    CONTROL_BY_NAME["idle"],
    name="metrics",
    path="/metrics",
    response=str,
    summary="Figures for Prometheus",
    media="text/plain",
)
ALL_ROUTES = (*CONTROL_ROUTES, STREAM, METRICS)
ROUTE_NAMES: dict[tuple[str, str], str] = {(route.method, route.path): route.name for route in ALL_ROUTES}
SignupMode = Literal["open", "invitation", "admin"]


class Service:
    """What outsiders may do with a controller. Thread-safe.

    Args:
        controller: attached. registry: of the same lab.
        signup: who may sign up: anyone, who has an invitation, or whom an admin signs up.
        follow: puts another idle rule in force; without it the controller has it, and somebody else calls `sweep`.
    """

    def __init__(
        self,
        controller: Controller,
        registry: Registry,
        *,
        signup: SignupMode = "admin",
        follow: Callable[[IdleRule], None] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.controller = controller
        self.audit = Audit(registry, clock=clock)
        self.mode = signup
        self.follow = partial(setattr, controller, "idle") if follow is None else follow
        self.leases = NamedLeases(controller.life, controller.life_of, registry, clock=clock)
        controller.on_sweep = lambda action, user: self.audit.count(SWEEP, action, user=user)

    def server(self) -> Server:
        """An App that answers the routes."""
        entrance = Entrance(CONTROL_ROUTES, self.session)
        return Server([entrance], lambda: describe("emlab controller", ALL_ROUTES), whose="controller")

    def session(self, route: Route, headers: Mapping[str, str]) -> Session:
        """What serves a route for who sends these headers. Raises NotPermitted."""
        text = bearer(headers)
        if route.who == "anyone" or (route.who == "newcomer" and self.mode == "open"):
            return Session(self, None, actor(), route.name)
        shown = actor()
        try:
            if text is None:
                whose = ", of an admin or an invitation" if route.who == "newcomer" else ""
                raise NoToken(f"{route.path} needs the header `Authorization: Bearer TOKEN`{whose}")
            caller = self.controller.tokens.who(text)
            shown = knows(caller.kind, caller.subject)
            if caller.kind not in self._kinds(route):
                here = "; here admins sign people up" if route.who == "newcomer" and self.mode == "admin" else ""
                raise NotPermitted(f"{route.path} is not for a token of kind {caller.kind}{here}")
        except NotPermitted as exc:
            self.audit.count(shown, route.name, outcome=exc.kind)
            raise
        return Session(self, caller, shown, route.name)

    def _kinds(self, route: Route) -> tuple[str, ...]:
        if route.who == "newcomer":
            return ("admin",) if self.mode == "admin" else ("admin", "invitation")
        if route.who == "any token":
            return ("owner", "provider", "aggregator", "admin")
        return tuple(route.who.split(" or "))

    def life(self, cloud: str) -> Lifecycle | None:
        """The life of the cloud with this id; None if there is none. Does not block."""
        return self.controller.life_of(cloud)

    def admit(self, cloud: str, token: str | None) -> None:
        """Returns if that is a token of the cloud's owner. Raises NotPermitted. Does not block."""
        life = self.life(cloud)
        user = "" if life is None else life.spec.user
        if token is None:
            raise NoToken("a cloud is used with its owner's token")
        owner = self.controller.tokens.who(token)
        knows(owner.kind, owner.subject)
        if life is None or (owner.kind, owner.subject) != ("owner", user):
            raise NotPermitted("this is not a token of the cloud's owner")
        if (incoming := INCOMING.get()) is not None:
            incoming.user = user

    def used(self) -> None:
        """The cloud has the request that is being answered, which is put on record once. Does not block."""
        incoming = INCOMING.get()
        if incoming is not None and incoming.user is not None:
            self.audit.count(actor(), USE, user=incoming.user)
            incoming.user = None

    def known(self, user: str) -> str:
        """The name, if it is a user's; "" for anything else, which may be a secret in the wrong place."""
        try:
            return self.controller.life(user).spec.user
        except UnknownUser:
            return ""

    def refused(self, method: str, path: str, cloud: str | None, token: str | None, kind: str) -> None:
        """A request was refused for that, which is put on record. Does not block.

        Args:
            cloud: the id in a path through the gateway. token: of the head; None without one.
        """
        life = None if cloud is None else self.life(cloud)
        with suppress(NotPermitted):
            if token is not None:
                caller = self.controller.tokens.who(token)
                knows(caller.kind, caller.subject)
        if cloud is not None:
            self.audit.count(actor(), USE, user="" if life is None else life.spec.user, outcome=kind)
        else:
            self.audit.count(actor(), ROUTE_NAMES.get((method, path), OTHER), outcome=kind)

    def turned_away(self, address: str, kind: str) -> None:
        """What came from this address was refused before it was a request, which is put on record. Does not block."""
        self.audit.count(nobody(address), OTHER, outcome=kind)

    def issue(self, kind: TokenKind, subject: str, *, ttl_s: float | None = None, text: str | None = None) -> Issued:
        """A further token. An owner's cloud starts anew at its next use, and knows it then.

        Args:
            text: the token, if it was made already.
        Raises: UnknownUser, CloudGone, ConfigError.
        """
        check_name(kind, subject)
        life = self.controller.life(subject) if kind == "owner" else None
        if life is not None:
            life.check_stays()
        text, about = self.controller.tokens.issue(kind, subject, ttl_s=ttl_s, text=text)
        if life is not None:
            if self.controller.life_of(life.spec.cloud) is not life:  # forgotten meanwhile: the name may be another's
                with suppress(ConfigError):  # it went with the cloud
                    self.controller.tokens.revoke(about.id)
                raise UnknownUser(f"nobody called {subject!r} has a cloud any more")
            life.end()
        return Issued(token=text, about=about)

    def revoke(self, token: Token) -> Token:
        """The token opens nothing any more, whoever uses it just now. An owner's cloud starts anew at its next use."""
        revoked = self.controller.tokens.revoke(token.id)
        if token.kind == "owner":
            self.controller.life(token.subject).end()
        return revoked
