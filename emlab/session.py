"""What one caller may do with a controller elsewhere: one method for each route of `wire.control`, on record.

An owner's token acts on the own cloud and on no other; an admin's on every cloud, but opens none: for that it takes the
owner's key, which passes through and is never kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from emlab.aggregate import Release
from emlab.ask import Answer, Outcome
from emlab.audit import OK
from emlab.errors import ConfigError, NotPermitted
from emlab.idle import RULES, rule_of
from emlab.key import OwnerSecret
from emlab.record import Event
from emlab.state import CloudStats
from emlab.wire.aggregation import Releasing
from emlab.wire.control import (
    AggregatorReport,
    AuditRequest,
    AuditRow,
    CloudStatus,
    Code,
    DirectoryRequest,
    EventPage,
    EventRow,
    EventsRequest,
    IdleForm,
    Issued,
    LeaseEnd,
    LeaseReport,
    LeaseRequest,
    LogRequest,
    Me,
    Naming,
    ProviderRequest,
    Putting,
    Ready,
    Rekeying,
    Revocation,
    Signed,
    SignupRequest,
    Token,
    TokenRequest,
    Unlocking,
    Whose,
)

if TYPE_CHECKING:
    from emlab.service import Service

MAX_ASK_S = 600.0


@dataclass(slots=True)
class Noted:
    """What is put on record once it has succeeded. `about`: which one it was, in names that were checked."""

    about: str = ""


class Session:
    """What one caller may do. The entrance has checked that a token of this kind may call the route.

    Args:
        caller: whose token it is; None if none was needed. actor: who that is on record. action: the route's name.
    """

    def __init__(self, service: Service, caller: Token | None, actor: str, action: str) -> None:
        self._service = service
        self._controller = service.controller
        self._caller = caller
        self._action = action
        self.actor = actor

    @contextmanager
    def _noted(self, action: str, user: str = "") -> Iterator[Noted]:
        """What the block does is on record, whether it succeeds or not."""
        audit, noted = self._service.audit, Noted()
        try:
            yield noted
        except BaseException as exc:
            note = audit.count if self._caller is None else audit.note  # strangers are not waited for
            note(self.actor, action, user=self._service.known(user), outcome=type(exc).__name__)
            raise
        audit.note(self.actor, action, user=user, outcome=OK, about=noted.about)

    @property
    def own(self) -> str | None:
        """The name of the user whose cloud alone this caller may touch; None for an admin."""
        assert self._caller is not None, "the entrance lets nobody through without a token"
        return self._caller.subject if self._caller.kind == "owner" else None

    def _user(self, named: str | None) -> str:
        """Whose cloud is meant. Raises NotPermitted, ConfigError."""
        own = self.own
        if own is None:
            if named is None:
                raise ConfigError("name the user whose cloud is meant")
            return named
        if named not in (None, own):
            meant = self._service.known(named)
            self._service.audit.count(self.actor, self._action, user=meant, outcome=NotPermitted.__name__)
            raise NotPermitted("a token of an owner is for the own cloud only")
        return own

    def ready(self) -> Ready:
        """The controller answers."""
        return Ready(lab=self._controller.lab, version=version("emlab"))

    # -- people ------------------------------------------------------------------------------------------------

    def signup(self, request: SignupRequest) -> Signed:
        """The user has a cloud. An invitation is used up."""
        audit = self._service.audit
        audit.flush()  # what concerns somebody of that name before is of before
        with self._noted("signup", request.user):
            before = audit.last()
            secret = request.opening.secret()
            if not isinstance(secret, OwnerSecret):
                raise ConfigError("an owner opens a vault with a key or a passphrase")
            with self._invited(request.user):
                cloud = self._controller.signup(
                    request.user, policy=request.policy, key=secret, token_ttl_s=request.token_ttl_s
                )
            assert cloud.token is not None
            audit.begin(cloud.id, before)
            return Signed(cloud=cloud.status, token=cloud.token)

    @contextmanager
    def _invited(self, user: str) -> Iterator[None]:
        """An invitation is used up by the block, unless that fails. Raises NotPermitted: it was used up before."""
        if self._caller is None or self._caller.kind != "invitation":
            yield
            return
        with self._controller.tokens.used_up(self._caller.id, user):
            yield

    def me(self) -> Me:
        """Who the caller is."""
        assert self._caller is not None
        status = None if self.own is None else self._controller.status(self.own)
        return Me(kind=self._caller.kind, subject=self._caller.subject, cloud=status)

    def clouds(self) -> list[CloudStatus]:
        """How all clouds stand, or the own one."""
        if self.own is not None:
            return [self._controller.status(self.own)]
        # a sign-up or a forgetting that is under way shows no cloud yet, or none any more
        return [status for status in self._controller.clouds().statuses() if status.cloud]

    def status(self, request: Whose) -> CloudStatus:
        """How a cloud stands."""
        return self._controller.status(self._user(request.user))

    def stats(self, request: Whose) -> CloudStats:
        """What a cloud uses."""
        return self._controller.stats(self._user(request.user))

    def logs(self, request: LogRequest) -> str:
        """What a cloud printed."""
        user = self._user(request.user)
        printed = self._controller.logs(user, request.lines)
        self._service.audit.count(self.actor, "logs", user=user)
        return printed

    # -- pausing and waking ------------------------------------------------------------------------------------

    def pause(self, request: Whose) -> CloudStatus:
        """The cloud sleeps."""
        return self._turn("pause", request.user, self._controller.pause)

    def wake(self, request: Whose) -> CloudStatus:
        """The cloud runs."""
        return self._turn("wake", request.user, self._controller.wake)

    def lock(self, request: Whose) -> CloudStatus:
        """The cloud is stopped, its vault closed."""
        return self._turn("lock", request.user, self._controller.lock)

    def unlock(self, request: Unlocking) -> CloudStatus:
        """The vault is open, the cloud runs."""
        return self._turn("unlock", request.user, lambda user: self._controller.unlock(user, request.opening.secret()))

    def _turn(self, action: str, named: str | None, act: Callable[[str], None]) -> CloudStatus:
        user = self._user(named)
        with self._noted(action, user):
            act(user)
        return self._controller.status(user)

    def rekey(self, request: Rekeying) -> CloudStatus:
        """The vault opens by something else."""

        def rekey(user: str) -> None:
            new = request.new.secret()
            if not isinstance(new, OwnerSecret):
                raise ConfigError("an owner opens a vault with a key or a passphrase")
            self._controller.rekey(user, request.old.secret(), new)

        return self._turn("rekey", None, rekey)

    def recovery(self, request: Unlocking) -> Code:
        """A code that opens the vault, too."""
        user = self._user(None)
        with self._noted("recovery", user):
            return Code(self._controller.recovery(user, request.opening.secret()).reveal())

    def forget(self, request: Naming) -> Naming:
        """The cloud and its data are gone."""
        user = self._user(request.user)
        with self._noted("forget", user):
            self._controller.forget(user)
        return request

    def lease(self, request: LeaseRequest) -> LeaseReport:
        """The cloud stays awake."""
        user = self._user(request.user)
        with self._noted("lease", user):
            return LeaseReport(*self._service.leases.keep(user, request.ttl_s, request.id))

    def release_lease(self, request: LeaseEnd) -> LeaseReport:
        """The lease has ended."""
        user = self._user(request.user)
        with self._noted("release_lease", user):
            return LeaseReport(*self._service.leases.end(user, request.id))

    # -- record and tokens -------------------------------------------------------------------------------------

    def audit(self, request: AuditRequest) -> list[AuditRow]:
        """Who did what; of an owner what concerns the own cloud."""
        return self._service.audit.rows(user=self.own, after=request.after, limit=request.limit)

    def tokens(self) -> list[Token]:
        """Which tokens there are; of an owner the own ones."""
        tokens = self._controller.tokens
        return tokens.of() if self.own is None else tokens.of("owner", self.own)

    def issue(self, request: TokenRequest) -> Issued:
        """A further token; a cloud that runs is stopped, so that the next use starts it with the new list."""
        own = self.own
        kind, subject = request.kind, own if request.subject is None else request.subject
        with self._noted("issue", subject or "" if kind == "owner" else "") as noted:
            if own is not None and (kind, subject) != ("owner", own):
                raise NotPermitted("an owner makes further tokens for the own cloud only")
            if subject is None:
                raise ConfigError("name whom the token is for")
            if kind == "provider":
                raise ConfigError("a provider gets its token when it is registered")
            if kind == "invitation" and self._service.mode == "admin":
                raise ConfigError("an invitation would open nothing: here admins sign people up (`signup` in [serve])")
            if own is None and kind == "owner":
                if request.opening is None:
                    raise NotPermitted("a token of an owner takes what opens the owner's vault: with it data is read")
                self._controller.unlock(subject, request.opening.secret())
            issued = self._service.issue(kind, subject, ttl_s=request.ttl_s)
            noted.about = _name(issued.about)
            return issued

    def revoke(self, request: Revocation) -> Token:
        """That token opens nothing any more."""
        mine = {token.id: token for token in self.tokens()}
        about = mine.get(request.id)
        with self._noted("revoke", about.subject if about is not None and about.kind == "owner" else "") as noted:
            if about is None:
                raise ConfigError("there is no token with this id; `tokens` lists them")
            noted.about = _name(about)
            return self._service.revoke(about)

    def events(self, request: EventsRequest) -> EventPage:
        """What happened; of an owner what concerns the own cloud."""
        events, count = self._controller.recorder.since(request.after)
        shown = [EventRow(**asdict(event)) for event in events if self.sees(event)]
        return EventPage(events=shown, count=count, run=self._controller.recorder.run)

    def sees(self, event: Event) -> bool:
        """Whether that is for the caller: of an owner what concerns the cloud that there is now."""
        return self.own is None or (event.user == self.own and event.start_ts + event.duration_s >= self.since_ts)

    @cached_property
    def since_ts(self) -> float:
        """When the own cloud was made (UTC seconds)."""
        return self._service.audit.since(self.own or "")

    def idle(self) -> IdleForm:
        """The idle rule; of one that is not of `emlab.idle` only the name."""
        rule, name = self._controller.idle, type(self._controller.idle).__name__
        return IdleForm(name, asdict(rule) if RULES.get(name) is type(rule) else {})  # type: ignore[call-overload]

    def set_idle(self, request: IdleForm) -> IdleForm:
        """Another idle rule is in force."""
        with self._noted("set_idle") as noted:
            self._service.follow(rule_of(request.rule, request.parameters))
            noted.about = repr(self._controller.idle)
        return self.idle()

    # -- providers ---------------------------------------------------------------------------------------------

    def register_provider(self, request: ProviderRequest) -> Issued:
        """The provider may ask."""
        with self._noted("register_provider") as noted:
            text = self._controller.admission.register(request.name, request.public, ttl_s=request.token_ttl_s)
            issued = Issued(token=text, about=self._controller.tokens.who(text, "provider"))
            noted.about = _name(issued.about)
            return issued

    def aggregator(self) -> AggregatorReport:
        """The public key of the lab's aggregator."""
        aggregator = self._controller.aggregator
        return AggregatorReport(aggregator.public, aggregator.trusts("central"))

    def roster(self) -> list[str]:
        """The clouds that this provider can ask, by alias."""
        assert self._caller is not None
        return self._controller.admission.roster_of(self._caller.subject)

    def put(self, request: Putting) -> Outcome:
        """What one cloud says to an ask."""
        assert self._caller is not None
        admission, ask = self._controller.admission, request.ask
        timeout_s = min(request.timeout_s, MAX_ASK_S)
        outcome = admission.carry(
            ask, request.signature, request.alias, provider=self._caller.subject, timeout_s=timeout_s
        )
        kind = OK if isinstance(outcome, Answer) else outcome.kind
        self._service.audit.count(self.actor, "ask", user=admission.user_of(ask, request.alias), outcome=kind)
        return outcome

    def release(self, request: Releasing) -> Release:
        """The lab's aggregator releases an ask."""
        assert self._caller is not None
        if request.ask.provider_name != self._caller.subject:
            raise NotPermitted("the ask is of another provider")
        with self._noted("release"):
            return self._controller.aggregator.release(request.ask, request.outcomes, signature=request.signature)

    def directory(self, request: DirectoryRequest) -> dict[str, str]:
        """The public keys of clouds, by alias, for an aggregator."""
        found = self._controller.admission.directory(request.provider)
        self._service.audit.count(self.actor, "directory")
        return found


def _name(token: Token) -> str:
    """What a token is known by, without anything of itself."""
    return f"{token.kind} {token.subject} {token.id}"
