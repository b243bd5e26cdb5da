"""ControllerClient: a controller that runs elsewhere, with the surface of the one in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from emlab.arguments import check_key, check_name, check_policy, check_ttl
from emlab.ask import Ask, Outcome
from emlab.clouds import Clouds
from emlab.errors import ConfigError, EmlabError, NotPermitted
from emlab.fanout import fan_out
from emlab.idle import RULES, IdleRule, rule_of
from emlab.key import Key, OwnerSecret, RecoveryCode, Secret, SigningKey, TokenKind, kind_of
from emlab.policy import Policy
from emlab.provider import Provider, Releasing
from emlab.record import Event, Recorder
from emlab.remote_aggregator import LabAggregator
from emlab.remote_lease import RemoteLease
from emlab.rows import Rows
from emlab.state import CloudStats
from emlab.usercloud import UserCloud
from emlab.wire.address import check_ca, check_url
from emlab.wire.client import DEFAULT_TIMEOUT_S, CloudClient
from emlab.wire.control import (
    CONTROL_BY_NAME,
    AuditRequest,
    AuditRow,
    CloudStatus,
    Code,
    EventPage,
    EventsRequest,
    IdleForm,
    Issued,
    LeaseReport,
    LogRequest,
    Me,
    Naming,
    Opening,
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
from emlab.wire.transport import HttpTransport, Transport

if TYPE_CHECKING:
    import pandas as pd
    from ipywidgets import Widget

R = TypeVar("R")
START_TIMEOUT_S = 180.0  # of what may start a cloud


class ControllerClient:
    """A controller elsewhere (`emlab serve`). Thread-safe. A context manager.

    Args:
        url: such as https://lab.example:4430. token: of an admin, an owner or a provider; what it may do is decided
            there. Without one only sign-up is left.
        ca: file with the certificate of the authority to trust, if that is none of those that come with requests.
        fingerprint: SHA-256, in hex, of the certificate that is shown there: it alone is trusted then.
        timeout_s: until a call fails that starts no cloud.
        transport: to the controller, instead of HTTP to that address.
    Raises: ConfigError.
    """

    at_once = 16  # asks: more of one caller's wait for their turn there

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | str | None = None,
        fingerprint: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: Transport | None = None,
    ) -> None:
        self.address = check_url(url)
        if token is not None and not isinstance(token, str):
            raise ConfigError(f"a token is text, such as what its file holds, not {type(token).__name__}")
        self.recorder = Recorder()
        self._token = None if token is None else token.strip()  # a file ends in a new line
        self._is_admin = self._token is not None and kind_of(self._token) == "admin"
        self._ca = None if ca is None else Path(ca)
        if self._ca is not None:
            check_ca(self._ca)
        self._fingerprint = fingerprint
        self._timeout_s = timeout_s
        self._client = CloudClient(transport or self._transport(self.address), CONTROL_BY_NAME)
        self._run = ""  # of the controller, when it was last asked for events
        self._tokens: dict[str, str] = {}  # of owners, by name: of those who signed up here
        self._clouds: dict[str, tuple[str, CloudClient]] = {}  # id and client by user
        self._providers: dict[str, Provider] = {}  # that were registered here
        self._lock = threading.Lock()

    def _transport(self, url: str) -> Transport:
        return HttpTransport(url, ca=self._ca, fingerprint=self._fingerprint)

    def close(self) -> None:
        """Connections are closed; the clouds stay as they are. Idempotent."""
        self._client.close()
        with self._lock:
            for _, client in self._clouds.values():
                client.close()
            self._clouds.clear()

    def __enter__(self) -> ControllerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(
        self,
        name: str,
        response: type[R],
        request: msgspec.Struct | None = None,
        *,
        user: str | None = None,
        token: str | None = None,
        timeout_s: float | None = None,
    ) -> R:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        if token is None:
            token = self._token
            # an admin acts as one, and is on record so
            if not (self._is_admin and "admin" in CONTROL_BY_NAME[name].who):
                token = self._tokens.get(user or "", token)
        return self._client.call(name, response, request, token=token, timeout_s=timeout_s)

    # -- people ------------------------------------------------------------------------------------------------

    def ready(self) -> Ready:
        """The controller answers."""
        return self._call("ready", Ready)

    def me(self) -> Me:
        """Whose token this client has; an owner's cloud."""
        return self._call("me", Me)

    def signup(
        self,
        user: str,
        *,
        policy: Policy | None = None,
        key: OwnerSecret | None = None,
        token_ttl_s: float | None = None,
    ) -> UserCloud:
        """See `Controller.signup`. The key is made here, and travels in the body of this request."""
        check_name("user", user)
        key = Key.random() if key is None else key
        check_key(key)
        if policy is not None:
            check_policy(policy)
        check_ttl(token_ttl_s)  # here: what is no number would travel as none at all
        request = SignupRequest(user=user, opening=Opening.of(key), policy=policy, token_ttl_s=token_ttl_s)
        with self.span("signup", user):
            signed = self._call("signup", Signed, request, timeout_s=START_TIMEOUT_S)
        self._tokens[user] = signed.token
        if self._token is None or kind_of(self._token) == "invitation":  # which is used up
            self._token = signed.token  # whoever sent it is this owner from now on
        self._drop(user)  # one of that name before
        return UserCloud(self, user, token=signed.token, key=key)

    def cloud(self, user: str, *, token: str | None = None) -> UserCloud:
        """A handle to the user's cloud; the owner's own routes need the owner's token. Raises UnknownUser."""
        token = None if token is None else token.strip()
        cloud = self._call("status", CloudStatus, Whose(user), user=user, token=token).cloud
        if token is not None:
            self._tokens[user] = token
        self._drop(user, but=cloud)  # another one may bear the name now
        return self._handle(user)

    def clouds(self) -> Clouds:
        """All clouds of the lab for an admin, the own one for an owner."""
        return Clouds([self._handle(status.user) for status in self._statuses()], self._statuses)

    def _handle(self, user: str) -> UserCloud:
        """The user's cloud; an owner, who was told of no other one, may use the own one."""
        is_owner = self._token is not None and kind_of(self._token) == "owner"
        return UserCloud(self, user, token=self._tokens.get(user, self._token if is_owner else None))

    def _statuses(self) -> list[CloudStatus]:
        return self._call("clouds", list[CloudStatus])

    def forget(self, user: str) -> None:
        """See `Controller.forget`."""
        is_own = self._is_own(user)
        self._call("forget", Naming, Naming(user), user=user, timeout_s=START_TIMEOUT_S)
        self._tokens.pop(user, None)
        if is_own:
            self._token = None  # it went with the cloud
        self._drop(user)

    def _is_own(self, user: str) -> bool:
        """Whether this client's token is that user's, or no one's any more."""
        if self._token is None or kind_of(self._token) != "owner":
            return False
        try:
            return self.me().subject == user
        except NotPermitted:
            return True

    def _drop(self, user: str, *, but: str = "") -> None:
        """No connection is kept to a cloud of that name, but to the one with that id."""
        with self._lock:
            if self._clouds.get(user, (but, None))[0] != but:
                self._clouds.pop(user)[1].close()

    def status(self, user: str) -> CloudStatus:
        """How the user's cloud stands."""
        return self._call("status", CloudStatus, Whose(user), user=user)

    def stats(self, user: str) -> CloudStats:
        """What the user's cloud uses."""
        return self._call("stats", CloudStats, Whose(user), user=user)

    def logs(self, user: str, lines: int = 50) -> str:
        """The last lines that the user's cloud printed."""
        return self._call("logs", str, LogRequest(lines=lines, user=user), user=user)

    def socket(self, user: str) -> Path:
        """There is none here. Raises ConfigError, which says where the cloud is."""
        raise ConfigError(f"the cloud of {user} is on another host; it answers at {self.url(user)}")

    def url(self, user: str) -> str:
        """Where the user's cloud answers HTTP, awake or not."""
        return f"{self.address}/{self.status(user).cloud}"

    def span(self, name: str, user: str) -> AbstractContextManager[None]:
        """What the block does for the user is recorded here under this name."""
        return self.recorder.span(name, user=user, engine="remote")

    @contextmanager
    def using(self, user: str) -> Iterator[CloudClient]:
        """A client of the user's cloud, which each request wakes."""
        with self._lock:
            known = self._clouds.get(user)
        if known is None:
            cloud = self.status(user).cloud
            known = cloud, CloudClient(self._transport(f"{self.address}/{cloud}"))
            with self._lock:
                known = self._clouds.setdefault(user, known)
        yield known[1]

    # -- pausing and waking ------------------------------------------------------------------------------------

    def pause(self, user: str) -> None:
        """See `Controller.pause`."""
        self._turn("pause", user)

    def wake(self, user: str) -> None:
        """See `Controller.wake`."""
        self._turn("wake", user)

    def lock(self, user: str) -> None:
        """See `Controller.lock`."""
        self._turn("lock", user)

    def _turn(self, name: str, user: str) -> None:
        with self.span(name, user):
            self._call(name, CloudStatus, Whose(user), user=user, timeout_s=START_TIMEOUT_S)

    def unlock(self, user: str, key: Secret) -> None:
        """See `Controller.unlock`. The key travels in the body of this request."""
        request = Unlocking(Opening.of(key), user)
        with self.span("unlock", user):
            self._call("unlock", CloudStatus, request, user=user, timeout_s=START_TIMEOUT_S)

    def rekey(self, user: str, old: Secret, new: OwnerSecret) -> None:
        """See `Controller.rekey`."""
        check_key(new)
        self._call("rekey", CloudStatus, Rekeying(Opening.of(old), Opening.of(new)), user=user)

    def recovery(self, user: str, key: Secret) -> RecoveryCode:
        """See `Controller.recovery`."""
        return RecoveryCode(self._call("recovery", Code, Unlocking(Opening.of(key)), user=user).code)

    def lease(self, user: str, ttl_s: float) -> RemoteLease:
        """The user's cloud is not paused for that long."""
        return RemoteLease(lambda name, asked: self._call(name, LeaseReport, asked, user=user), user, ttl_s)

    def each(self, what: str, users: list[str] | None = None) -> None:
        """See `Controller.each`."""
        if what not in ("pause", "wake", "lock"):
            raise ConfigError(f"clouds are paused, woken or locked together, not {what!r}")
        chosen = [cloud.user for cloud in self.clouds()] if users is None else users
        fan_out(chosen, getattr(self, what), description=what)

    @property
    def idle(self) -> IdleRule:
        """The idle rule in force; assign another one of `emlab.idle` to follow that. Admin only. Raises ConfigError."""
        form = self._call("idle", IdleForm)
        return rule_of(form.rule, form.parameters)

    @idle.setter
    def idle(self, rule: IdleRule) -> None:
        name = type(rule).__name__
        if RULES.get(name) is not type(rule):
            raise ConfigError(f"elsewhere a controller follows {', '.join(RULES)}, not {rule!r}")
        self._call("set_idle", IdleForm, IdleForm(name, asdict(rule)))  # type: ignore[call-overload]

    # -- record and tokens -------------------------------------------------------------------------------------

    def audit(self, *, after: int = 0) -> Rows[AuditRow]:
        """Who did what, of an owner as far as the own cloud is concerned; at most a thousand rows after that number."""
        return Rows(self._call("audit", list[AuditRow], AuditRequest(after=after)))

    def events(self, after: int = 0) -> tuple[list[Event], int]:
        """What happened there after the first `after` events, and how many there were in all.

        If the controller was started anew since the last time, all that happened since.
        """
        page = self._call("events", EventPage, EventsRequest(after))
        if after and self._run not in ("", page.run):
            page = self._call("events", EventPage, EventsRequest(0))
        self._run = page.run
        return [Event(**msgspec.structs.asdict(row)) for row in page.events], page.count

    def history(self) -> pd.DataFrame:
        """What happened there, as `Recorder.frame` gives it; of an owner what concerns the own cloud."""
        there = Recorder()
        for event in self.events()[0]:
            there.add(event)
        return there.frame()

    def tokens(self) -> Rows[Token]:
        """Which tokens there are; of an owner the own ones."""
        return Rows(self._call("tokens", list[Token]))

    def issue(
        self,
        kind: TokenKind = "owner",
        subject: str | None = None,
        *,
        ttl_s: float | None = None,
        key: Secret | None = None,
    ) -> Issued:
        """A further token, shown only now. Admin for an owner: with what opens the owner's vault.

        Raises: NotPermitted, WrongKey, ConfigError, UnknownUser.
        """
        check_ttl(ttl_s)
        opening = None if key is None else Opening.of(key)
        request = TokenRequest(kind=kind, subject=subject, ttl_s=ttl_s, opening=opening)
        return self._call("issue", Issued, request, timeout_s=START_TIMEOUT_S)

    def revoke(self, id_: str) -> Token:
        """That token opens nothing any more."""
        return self._call("revoke", Token, Revocation(id_))

    # -- providers ---------------------------------------------------------------------------------------------

    def register_provider(
        self, name: str, *, key: SigningKey | None = None, aggregator: Releasing | None = None
    ) -> Provider:
        """The provider of this name may ask; see `Controller.register_provider`. Admin only. Raises ConfigError."""
        check_name("provider", name)
        with self._lock:
            known = self._providers.get(name)
        if known is None or key is not None:
            key = SigningKey() if key is None else key
            token = self.admit_provider(name, key.public).token
        elif aggregator is not None:
            key, token = known.key, known.token
        else:
            return known
        made = self.provider(name, key=key, token=token, aggregator=aggregator)
        with self._lock:
            self._providers[name] = made
        return made

    def admit_provider(self, name: str, public: str, *, ttl_s: float | None = None) -> Issued:
        """The provider of this name and public key may ask; its new token, which is its only one. Admin only.

        Raises: ConfigError.
        """
        check_name("provider", name)
        check_ttl(ttl_s)
        request = ProviderRequest(name=name, public=public, token_ttl_s=ttl_s)
        return self._call("register_provider", Issued, request)

    def provider(
        self, name: str, *, key: SigningKey, token: str | None = None, aggregator: Releasing | None = None
    ) -> Provider:
        """A provider that was registered: with its key pair, and its token if that is not this client's.

        Args:
            aggregator: which adds the noise, such as an `AggregatorClient`; the lab's own without it.
        """
        token = self._token if token is None else token
        if token is None:
            raise ConfigError("a provider asks with its token")
        return Provider(self, name, key=key, token=token, aggregator=aggregator or LabAggregator(self._client, token))

    @property
    def aggregator(self) -> LabAggregator:
        """The lab's own aggregator, which an owner's policy may name: `Policy.research(aggregators=[it])`.

        Raises: ConfigError: this client has no token.
        """
        if self._token is None:
            raise ConfigError("the lab's aggregator is told to who has a token")
        return LabAggregator(self._client, self._token)

    def roster(self, token: str, provider: str) -> list[str]:
        """What a provider knows the clouds by that it can ask."""
        return self._client.call("roster", list[str], token=token)

    def put(self, ask: Ask, signature: bytes, alias: str, *, token: str, timeout_s: float) -> Outcome:
        """What one cloud says to an ask."""
        request = Putting(ask=ask, signature=signature, alias=alias, timeout_s=timeout_s)
        limit_s = timeout_s + START_TIMEOUT_S
        return self._client.call("put", Outcome, request, token=token, timeout_s=limit_s)  # type: ignore[arg-type]

    def panel(self) -> Widget:
        """A control panel: clouds and their states, pause, wake and lock, the idle rule, how long things took."""
        from emlab.panel import Elsewhere, panel

        return panel(Elsewhere(self))

    def __repr__(self) -> str:
        return f"ControllerClient({self.address!r})"

    def _repr_html_(self) -> str:
        try:
            return self.clouds()._repr_html_()
        except EmlabError as exc:  # such as a provider's, who may not see clouds
            return f"<pre>{escape(repr(self))}: {escape(str(exc))}</pre>"
