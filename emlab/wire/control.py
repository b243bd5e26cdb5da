"""The one table of the controller's routes, and what they carry. See `wire.table` for the custodian's."""

from __future__ import annotations

from typing import Annotated

import msgspec

from emlab import errors
from emlab.aggregate import Release
from emlab.arguments import MAX_LEASE_S, MAX_TTL_S
from emlab.ask import Ask, Name, Outcome, Public
from emlab.errors import ConfigError, WrongKey
from emlab.key import Key, Passphrase, RecoveryCode, Secret, TokenKind
from emlab.policy import Policy
from emlab.state import CloudStats
from emlab.wire.aggregation import Releasing
from emlab.wire.table import Route

MAX_ROWS = 1000
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
Ttl = Annotated[float, msgspec.Meta(gt=0, le=MAX_TTL_S)]  # of a token
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class CloudStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one cloud stands.

    Attributes:
        cloud: its id, 32 hex digits; the gateway reaches it at the path /CLOUD/. generation: 1 for the user's first.
        state: of `CloudState`; "unknown" if the engine could not be asked.
        vault_open: None if that is not known.
        idle_s: seconds since the last use ended. leases: how many are running.
    """

    user: str
    cloud: str
    generation: int
    state: str
    vault_open: bool | None
    idle_s: float
    leases: int


class Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What opens a vault: a key (64 hex digits), a passphrase or a recovery code; exactly one. Never shown."""

    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    passphrase: Annotated[str, msgspec.Meta(min_length=Passphrase.MIN, max_length=Passphrase.MAX)] | None = None
    code: Text | None = None

    @classmethod
    def of(cls, secret: Secret) -> Opening:
        """The secret, for a body. Raises WrongKey: it is none."""
        if isinstance(secret, Key):
            return cls(key=secret.raw().hex())
        if isinstance(secret, Passphrase):
            return cls(passphrase=secret.reveal())
        if isinstance(secret, RecoveryCode):
            return cls(code=secret.reveal())
        raise WrongKey(f"a vault is opened by an em.Key, em.Passphrase or em.RecoveryCode, not {type(secret).__name__}")

    def secret(self) -> Secret:
        """What it is. Raises ConfigError, MistypedCode."""
        given = [value for value in (self.key, self.passphrase, self.code) if value is not None]
        if len(given) != 1:
            raise ConfigError("what opens a vault is one of key, passphrase and code")
        if self.key is not None:
            return Key(bytes.fromhex(self.key))
        return RecoveryCode(given[0]) if self.passphrase is None else Passphrase(given[0])

    def __repr__(self) -> str:
        return "Opening(not shown)"


class Whose(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whose cloud: an owner's own without a name; an admin names the user."""

    user: Name | None = None


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The controller answers."""

    lab: str
    version: str


class SignupRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Somebody's wish for a cloud. The policy is the lab's default without one."""

    user: Name
    opening: Opening
    policy: Policy | None = None
    token_ttl_s: Ttl | None = None


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """The new cloud, and its owner's token, which is shown only now."""

    cloud: CloudStatus
    token: str

    def __repr__(self) -> str:
        return f"Signed(user={self.cloud.user!r})"


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """Who the caller is, and an owner's cloud: its address is the path /CLOUD/ here."""

    kind: TokenKind
    subject: str
    cloud: CloudStatus | None


class Unlocking(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What opens the vault."""

    opening: Opening
    user: Name | None = None


class Rekeying(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What opens the owner's vault now, and what shall."""

    old: Opening
    new: Opening


class Code(msgspec.Struct, frozen=True):
    """A recovery code."""

    code: str

    def __repr__(self) -> str:
        return "Code(not shown)"


class Naming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose cloud, named also by its owner: nobody forgets one by an empty request."""

    user: Name


class LogRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How many of the last lines that a cloud printed."""

    lines: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)] = 50
    user: Name | None = None


class LeaseRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The cloud shall not be paused for so long. With an id, that lease then ends so long from now, at least."""

    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=MAX_LEASE_S)]
    id: str | None = None
    user: Name | None = None


class LeaseReport(msgspec.Struct, frozen=True):
    """A lease: its name, and until when (UTC seconds)."""

    id: str
    until_ts: float


class LeaseEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which lease ends."""

    id: str
    user: Name | None = None


class AuditRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Rows of the audit log after one, oldest first."""

    after: Count = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_ROWS)] = MAX_ROWS


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the audit log.

    Attributes:
        seq: its number, from 1. ts: UTC seconds.
        actor: kind and name of who did it, or "nobody" and an address.
        action: a route's name, "use" of a cloud through the gateway, or "request" for nothing that there is.
        user: whose cloud; "" if nobody's.
        outcome: "ok", or the kind of the error. n: how often.
        about: which token, provider or rule that was.
    """

    seq: int
    ts: float
    actor: str
    action: str
    user: str
    outcome: str
    n: int = 1
    about: str = ""


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A further token. An owner gets one of the own kind and name, whatever is said.

    For an owner's token an admin gives what opens that owner's vault, too: with it alone the data can be read.
    """

    kind: TokenKind = "owner"
    subject: Name | None = None
    ttl_s: Ttl | None = None
    opening: Opening | None = None


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of a token.

    Attributes:
        id: names it, and opens nothing.
        kind: whose it is. subject: that user's, provider's or admin's name.
        created_ts, expires_ts, revoked_ts: UTC seconds.
    """

    id: str
    kind: TokenKind
    subject: str
    created_ts: float
    expires_ts: float | None = None
    revoked_ts: float | None = None

    def holds(self, now: float) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_ts is None and (self.expires_ts is None or now < self.expires_ts)


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A new token, which is shown only now."""

    token: str
    about: Token

    def __repr__(self) -> str:
        return f"Issued(about={self.about!r})"


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which token opens nothing any more."""

    id: str


class ProviderRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A provider with its public key."""

    name: Name
    public: Public
    token_ttl_s: Ttl | None = None


class AggregatorReport(msgspec.Struct, frozen=True):
    """The public key of the lab's aggregator, and what its releases of the central model say of who sees answers."""

    public: str
    trust: str


class Putting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A provider's ask to one cloud, which the provider knows by that alias."""

    ask: Ask
    signature: bytes
    alias: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    timeout_s: Seconds


class DirectoryRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whose aliases: the provider with that public key."""

    provider: Public


class IdleForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An idle rule: the name of its class in `emlab.idle`, and its parameters by name."""

    rule: Annotated[str, msgspec.Meta(max_length=64)]
    parameters: Annotated[dict[str, int | float | None], msgspec.Meta(max_length=16)] = {}


class EventsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What happened after so many events; 0 for all that are kept."""

    after: Count = 0


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """One event, as `record.Event` says it."""

    span: str
    user: str
    engine: str
    start_ts: float
    duration_s: float
    ok: bool
    error: str


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events, and how many there were in all so far, in that run of the controller: each begins to count anew."""

    events: list[EventRow]
    count: int
    run: str


_ANY = (errors.NotPermitted, errors.TooMany)
_CLOUD = (*_ANY, errors.BadQuery, errors.UnknownUser, errors.EngineError, errors.ConfigError)
_ASK = (*_ANY, errors.BadQuery, errors.ConfigError)
_VAULT = (*_CLOUD, errors.VaultError, errors.WrongKey, errors.InUse)
_SIGNUP = (*_VAULT, errors.StoreError)

CONTROL_ROUTES: tuple[Route, ...] = (
    Route("ready", "GET", "/health", "anyone", None, Ready, (errors.TooMany,), "Whether the controller answers"),
    Route("signup", "POST", "/signup", "newcomer", SignupRequest, Signed, _SIGNUP, "A cloud of one's own"),
    Route("me", "GET", "/me", "any token", None, Me, _CLOUD, "Who I am and where my cloud is"),
    Route("clouds", "GET", "/clouds", "owner or admin", None, list[CloudStatus], _CLOUD, "How the clouds stand"),
    Route("status", "POST", "/cloud/status", "owner or admin", Whose, CloudStatus, _CLOUD, "How a cloud stands"),
    Route("stats", "POST", "/cloud/stats", "owner or admin", Whose, CloudStats, _CLOUD, "Memory and CPU of a cloud"),
    Route("logs", "POST", "/cloud/logs", "owner or admin", LogRequest, str, _CLOUD, "What a cloud printed"),
    Route("pause", "POST", "/cloud/pause", "owner or admin", Whose, CloudStatus, _VAULT, "Let a cloud sleep"),
    Route("wake", "POST", "/cloud/wake", "owner or admin", Whose, CloudStatus, _VAULT, "Let a cloud run"),
    Route("lock", "POST", "/cloud/lock", "owner or admin", Whose, CloudStatus, _VAULT, "Stop a cloud, close its vault"),
    Route(
        "unlock", "POST", "/cloud/unlock", "owner or admin", Unlocking, CloudStatus, _VAULT, "Open a vault by its key"
    ),
    Route("rekey", "POST", "/cloud/rekey", "owner", Rekeying, CloudStatus, _VAULT, "Open my vault by something else"),
    Route("recovery", "POST", "/cloud/recovery", "owner", Unlocking, Code, _VAULT, "A code that opens my vault, too"),
    Route("forget", "POST", "/cloud/forget", "owner or admin", Naming, Naming, _VAULT, "A cloud and its data are gone"),
    Route("lease", "POST", "/leases", "owner or admin", LeaseRequest, LeaseReport, _VAULT, "A cloud is not paused"),
    Route("release_lease", "POST", "/leases/release", "owner or admin", LeaseEnd, LeaseReport, _CLOUD, "End a lease"),
    Route("audit", "POST", "/audit", "owner or admin", AuditRequest, list[AuditRow], _CLOUD, "Who did what"),
    Route("tokens", "GET", "/tokens", "owner or admin", None, list[Token], _ANY, "Which tokens there are"),
    Route("issue", "POST", "/tokens", "owner or admin", TokenRequest, Issued, _VAULT, "A further token"),
    Route("revoke", "POST", "/tokens/revoke", "owner or admin", Revocation, Token, _CLOUD, "A token opens nothing"),
    Route("register_provider", "POST", "/providers", "admin", ProviderRequest, Issued, _CLOUD, "A provider may ask"),
    Route("aggregator", "GET", "/aggregator", "any token", None, AggregatorReport, _ANY, "Whom answers are sealed to"),
    Route("roster", "GET", "/roster", "provider", None, list[str], _ANY, "The clouds that I may ask, by alias"),
    Route("put", "POST", "/asks", "provider", Putting, Outcome, _ASK, "Ask one cloud"),  # type: ignore[arg-type]
    Route(
        "release",
        "POST",
        "/releases",
        "provider",
        Releasing,
        Release,
        (*_ASK, errors.TooFewUsers),
        "Aggregate what clouds answered, with noise",
    ),
    Route(
        "directory",
        "POST",
        "/directory",
        "aggregator",
        DirectoryRequest,
        dict[str, str],
        _ASK,
        "The public keys of clouds, by what a provider knows them by",
    ),
    Route("idle", "GET", "/idle", "admin", None, IdleForm, _ANY, "Which clouds are paused when idle"),
    Route(
        "set_idle",
        "PUT",
        "/idle",
        "admin",
        IdleForm,
        IdleForm,
        _ASK,
        "Pause others",
    ),
    Route(
        "events",
        "POST",
        "/events",
        "owner or admin",
        EventsRequest,
        EventPage,
        _ASK,
        "What happened",
    ),
)
CONTROL_BY_NAME = {route.name: route for route in CONTROL_ROUTES}
