"""Policy: what an owner permits. A frozen value and pure decisions.

What the fields mean for an owner, and what they do not protect: POLICIES.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Unpack, overload

import msgspec

from emlab import explanation, profile
from emlab.ask import MAX_MIN_USERS, MAX_SEQ, Ask, Model, Public
from emlab.errors import BadQuery, ConfigError, PolicyRefused
from emlab.explanation import Explanation
from emlab.loss import Accounting, Left, Terms
from emlab.polygon import box_of
from emlab.privacy import DELTA_MAX, DELTA_MIN, EPSILON_MICRO_MAX, MICRO, rho_nano
from emlab.query import MAX_REGION_POINTS, Region
from emlab.wishes import Changes, Wishes, fields, keys
from emlab.wishes import HasPublicKey as HasPublicKey

SCHEMA = 1
MAX_KEYS = 1000
MAX_PLACES = 16
DAY_S = 86_400.0
MAX_PLACE_DEG, MAX_PLACE_LATITUDE = 20.0, 85.0
Anyone = Literal["anyone"]
Any = Literal["any"]
Pinned = Annotated[tuple[Public, ...], msgspec.Meta(max_length=MAX_KEYS)] | Anyone
Amount = Annotated[int, msgspec.Meta(ge=0, le=EPSILON_MICRO_MAX)]  # of micro-epsilon
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Tag = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
Words = Annotated[tuple[Word, ...], msgspec.Meta(max_length=32)] | Any
Tags = Annotated[tuple[Tag, ...], msgspec.Meta(max_length=64)] | Any
Idle = Annotated[float, msgspec.Meta(ge=1, le=366 * 86400)]


class Hours(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whole hours of each day, from `start` (0 to 23) until `end` (1 to 24); from 22 until 6 goes over midnight."""

    start: Annotated[int, msgspec.Meta(ge=0, le=23)]
    end: Annotated[int, msgspec.Meta(ge=1, le=24)]

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise BadQuery(f"hours from {self.start} until {self.end} are none, or all: all are from 0 until 24")

    def covers(self, hour: int) -> bool:
        """Whether the hour (0 to 23) is among them."""
        if self.start < self.end:
            return self.start <= hour < self.end
        return hour >= self.start or hour < self.end


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """All of a policy that the controller reads, also while the cloud sleeps."""

    providers: Pinned
    pause_after_s: Idle | None = None
    lock_after_s: Idle | None = None


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may ask this person's cloud, through whom, about what, and for how much in all.

    Attributes:
        providers, aggregators: their public keys, or "anyone". Because keys are pinned, nobody else (the
            controller included) can invent a provider or an aggregator.
        total_epsilon_micro: the whole privacy budget, in millionths of epsilon.
        quota_epsilon_micro: what each provider may spend of it; None: all of it. quotas: and of some, by public key.
        renew_s: after so many seconds both begin anew; None: never. What is lost over all periods adds up.
        accounting: "pure" adds epsilons up, and admits Laplace noise only; "zcdp" adds up zero-concentrated losses, of
            which the budget is the most that implies (epsilon, `delta`)-differential privacy.
        min_users: asks that may be released with fewer people are refused.
        purposes, queries: the words for a purpose, and the tags of queries, of which an ask bears one; or "any".
        models: where noise may be added.
        min_side_m: the narrowest region or grid cell that may be asked about, see `Query.side_m`. min_span_s: the
            shortest time. None: any.
        excluded_places, excluded_hours: where and when (by the clock of `zone`, an IANA name) no query sees anything.
        retention_days: no query sees older data, which the cloud deletes; None: never.
        vaults: the kinds in which the owner's data may lie; looked at at sign-up.
        pause_after_s, lock_after_s: a sweep pauses or locks the cloud at the latest after so many seconds without use.
        name: what the owner calls it. version: counts the policies of a cloud; the cloud sets it. schema: of these
            fields.
    """

    providers: Pinned
    aggregators: Pinned
    total_epsilon_micro: Amount
    min_users: Annotated[int, msgspec.Meta(ge=1, le=MAX_MIN_USERS)]
    quota_epsilon_micro: Amount | None = None
    quotas: Annotated[dict[Public, Amount], msgspec.Meta(max_length=MAX_KEYS)] = {}
    renew_s: Annotated[float, msgspec.Meta(ge=3600, le=10 * 366 * 86400)] | None = None
    accounting: Accounting = "pure"
    delta: Annotated[float, msgspec.Meta(ge=DELTA_MIN, le=DELTA_MAX)] = 1e-9
    purposes: Words = "any"
    queries: Tags = "any"
    models: Annotated[tuple[Model, ...], msgspec.Meta(min_length=1, max_length=2)] = ("central", "local")
    min_side_m: Annotated[float, msgspec.Meta(gt=0, le=1e6)] | None = None
    min_span_s: Annotated[float, msgspec.Meta(gt=0, le=10 * 366 * 86400)] | None = None
    excluded_places: Annotated[tuple[Region, ...], msgspec.Meta(max_length=MAX_PLACES)] = ()
    excluded_hours: Annotated[tuple[Hours, ...], msgspec.Meta(max_length=24)] = ()
    zone: Annotated[str, msgspec.Meta(max_length=64)] = "UTC"
    retention_days: Annotated[int, msgspec.Meta(ge=1, le=36_600)] | None = None
    vaults: Tags = "any"
    pause_after_s: Idle | None = None
    lock_after_s: Idle | None = None
    name: Annotated[str, msgspec.Meta(max_length=64)] = "custom"
    version: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] = 0
    schema: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA

    def __post_init__(self) -> None:
        """Raises BadQuery: fields contradict each other, a place is too large, or there is no such zone."""
        _check_places(self.excluded_places)
        _check_zone(self.zone)
        if self.pause_after_s is not None and self.lock_after_s is not None and self.lock_after_s < self.pause_after_s:
            raise BadQuery("lock_after_s is at least pause_after_s")

    # -- presets -----------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, **but: Unpack[Changes]) -> Policy:
        """Anyone, alone, for an epsilon of 100: for demonstrations with simulated people, not for a real person."""
        preset = cls(
            providers="anyone", aggregators="anyone", total_epsilon_micro=EPSILON_MICRO_MAX, min_users=1, name="open"
        )
        return preset.but(**but)

    @classmethod
    def research(
        cls,
        providers: Iterable[HasPublicKey | str] = (),
        aggregators: Iterable[HasPublicKey | str] = (),
        **but: Unpack[Wishes],
    ) -> Policy:
        """Only these providers, through these aggregators, in groups of ten or more, epsilon 3 in all.

        Without arguments nobody may ask until the owner permits somebody (`UserCloud.permit`).
        """
        preset = cls(
            providers=keys(providers),
            aggregators=keys(aggregators),
            total_epsilon_micro=3 * MICRO,
            min_users=10,
            name="research",
        )
        return preset.but(**but)

    @classmethod
    def careful(
        cls,
        providers: Iterable[HasPublicKey | str] = (),
        aggregators: Iterable[HasPublicKey | str] = (),
        **but: Unpack[Wishes],
    ) -> Policy:
        """Only these providers, in groups of 50 or more, epsilon 1 in all and 0.25 each; nothing narrow, nothing brief.

        Regions and cells are 500 m wide at least and times a day long; data is deleted after a year; the vault
        encrypts; the cloud pauses after 5 minutes and locks after a day without use.
        """
        preset = cls(
            providers=keys(providers),
            aggregators=keys(aggregators),
            total_epsilon_micro=MICRO,
            quota_epsilon_micro=MICRO // 4,
            min_users=50,
            min_side_m=500.0,
            min_span_s=86400.0,
            retention_days=365,
            vaults=("gocryptfs", "fscrypt", "ecryptfs"),
            pause_after_s=300.0,
            lock_after_s=86400.0,
            name="careful",
        )
        return preset.but(**but)

    @classmethod
    def closed(cls, **but: Unpack[Changes]) -> Policy:
        """Nobody, for nothing: also whom the owner permits then waits for a budget."""
        preset = cls(
            providers=(), aggregators=(), total_epsilon_micro=0, min_users=10, models=("central",), name="closed"
        )
        return preset.but(**but)

    @classmethod
    def from_profile(
        cls,
        found: Mapping[str, object],
        *,
        providers: Mapping[str, HasPublicKey | str],
        aggregators: Iterable[HasPublicKey | str] = (),
        **but: Unpack[Wishes],
    ) -> Policy:
        """The policy of an ancestor's user profile; never more open than it was. What has no place here is warned of.

        Args:
            found: `aggs`, `algs`, `agg_alg_map`, `default_algs` and `privacy_budget`, as `json.load` gives them.
            providers: who stands behind the names in `aggs`; names without anybody are left out.
            aggregators: the profile knows none that is not the one who asks.
        Raises: BadQuery: it is no profile, and why.
        """
        import warnings

        carried = profile.read(found, providers)
        if carried.lost:
            warnings.warn("not carried over: " + "; ".join(carried.lost), RuntimeWarning, stacklevel=2)
        policy = cls(
            providers=keys(providers[name] for name in carried.names),
            aggregators=keys(aggregators),
            total_epsilon_micro=carried.total_epsilon_micro,
            min_users=10,
            queries=carried.queries,
            models=("central",),
            name="imported",
        )
        return policy.but(**but)

    # -- other policies ----------------------------------------------------------------------------------------

    def but(self, **wishes: Unpack[Changes]) -> Policy:
        """This policy with these fields instead; see `wishes.Changes`. Raises BadQuery."""
        return _checked(msgspec.structs.replace(self, **fields(wishes)))

    def permitting(
        self, *, providers: Iterable[HasPublicKey | str] = (), aggregators: Iterable[HasPublicKey | str] = ()
    ) -> Policy:
        """This policy with these providers and aggregators permitted besides."""
        more = _more(self.providers, keys(providers)), _more(self.aggregators, keys(aggregators))
        return _checked(msgspec.structs.replace(self, providers=more[0], aggregators=more[1]))

    def forbidding(
        self, *, providers: Iterable[HasPublicKey | str] = (), aggregators: Iterable[HasPublicKey | str] = ()
    ) -> Policy:
        """This policy without these. Raises BadQuery: anyone is permitted, of whom nobody can be left out."""
        less = _less(self.providers, keys(providers)), _less(self.aggregators, keys(aggregators))
        return _checked(msgspec.structs.replace(self, providers=less[0], aggregators=less[1]))

    # -- decisions ---------------------------------------------------------------------------------------------

    @property
    def total_epsilon(self) -> float:
        """The whole budget as epsilon."""
        return self.total_epsilon_micro / MICRO

    @property
    def published(self) -> Published:
        """What the controller may read of it."""
        return Published(providers=self.providers, pause_after_s=self.pause_after_s, lock_after_s=self.lock_after_s)

    @property
    def digest(self) -> str:
        """SHA-256 of the policy in canonical form, in hex: what the cloud's log tells of it."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def kept_since(self, now: float) -> float:
        """The moment (UTC seconds) of which, and before which, nothing is kept any more: a midnight of UTC, or -inf."""
        return -math.inf if self.retention_days is None else (now // DAY_S - self.retention_days) * DAY_S

    def check(self, ask: Ask) -> None:
        """Returns if the policy allows the ask; the budget is the ledger's to check. Raises PolicyRefused."""
        if reasons := self.reasons(ask):
            raise PolicyRefused("; ".join(reasons))

    def reasons(self, ask: Ask) -> tuple[str, ...]:
        """Why the policy does not allow the ask, each reason; empty if it does."""
        return explanation.reasons(self, ask)

    def accepts_vault(self, name: str) -> bool:
        """Whether the owner's data may lie in a vault of this kind."""
        return self.vaults == "any" or name in self.vaults

    def terms(self, provider: str, now: float) -> Terms:
        """How much the provider with this public key may spend at this time (UTC seconds)."""
        quota = self.quotas.get(provider, self.quota_epsilon_micro)
        return Terms(
            accounting=self.accounting,
            limit=self._in_currency(self.total_epsilon_micro),
            quota=None if quota is None else self._in_currency(quota),
            provider=provider,
            renew_s=self.renew_s,
            ts=now,
        )

    def _in_currency(self, epsilon_micro: int) -> int:
        return epsilon_micro if self.accounting == "pure" else rho_nano(epsilon_micro, self.delta)

    # -- in words ----------------------------------------------------------------------------------------------

    @overload
    def explain(self) -> str: ...

    @overload
    def explain(self, ask: Ask, left: Left | None = None) -> Explanation: ...

    def explain(self, ask: Ask | None = None, left: Left | None = None) -> str | Explanation:
        """What is permitted, in words; or whether an ask is, and each reason why not.

        Args:
            left: what is left of the budget and of the provider's quota; without it, nothing was spent yet.
        """
        if ask is None:
            return "\n".join(f"{field}: {text}." for field, text in explanation.lines(self))
        return explanation.of(self, ask, left)

    def __repr__(self) -> str:  # logs and tracebacks show it, which the places must not reach
        return f"Policy(name={self.name!r}, version={self.version}, not shown here: see explain())"

    def _repr_html_(self) -> str:
        return explanation.table(f"Policy “{self.name}”, version {self.version}", explanation.lines(self))


def read(raw: bytes) -> Policy:
    """The policy in these bytes. Raises ConfigError: another version of emlab wrote it, or nobody did; says which."""
    try:
        schema = msgspec.json.decode(raw, type=_Head).schema
        if schema > SCHEMA:
            raise ConfigError(f"the policy has the schema {schema} of a newer emlab, this one reads {SCHEMA}")
        return msgspec.json.decode(raw, type=Policy)
    except (msgspec.DecodeError, BadQuery) as exc:
        raise ConfigError(f"the policy is not one of this emlab: {exc}") from exc


class _Head(msgspec.Struct):
    """What every version of a policy has."""

    schema: int = SCHEMA
    version: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)] = 0


def version_of(raw: bytes) -> int:
    """The version of the policy in these bytes, whatever emlab wrote it; 0 if they are none."""
    try:
        return msgspec.json.decode(raw, type=_Head).version
    except msgspec.DecodeError:
        return 0


def admits(pinned: Pinned, public: str) -> bool:
    """Whether who has this public key is among those."""
    return pinned == "anyone" or public in pinned


def _more(pinned: Pinned, more: tuple[str, ...]) -> Pinned:
    return "anyone" if pinned == "anyone" else keys((*pinned, *more))


def _less(pinned: Pinned, less: tuple[str, ...]) -> Pinned:
    if pinned == "anyone" and less:
        raise BadQuery("anyone is permitted: say who is, with policy.but(providers=[...], aggregators=[...])")
    return "anyone" if pinned == "anyone" else tuple(key for key in pinned if key not in less)


def _checked(policy: Policy) -> Policy:
    """The policy, its fields validated as they would be on the wire. Raises BadQuery."""
    try:
        return msgspec.convert(msgspec.to_builtins(policy), Policy)
    except (msgspec.ValidationError, TypeError) as exc:
        raise BadQuery(f"not a policy: {exc}") from exc


def _check_places(places: tuple[Region, ...]) -> None:
    polygons = [polygon for place in places for polygon in place.polygons]
    if sum(len(ring) for polygon in polygons for ring in polygon) > MAX_REGION_POINTS:
        raise BadQuery(f"all excluded places together have at most {MAX_REGION_POINTS} points")
    for west, south, east, north in map(box_of, polygons):
        if max(east - west, north - south) > MAX_PLACE_DEG or max(-south, north) > MAX_PLACE_LATITUDE:
            raise BadQuery(
                f"an excluded place spans at most {MAX_PLACE_DEG:g} degrees, within ±{MAX_PLACE_LATITUDE:g} of latitude"
            )


def _check_zone(zone: str) -> None:
    if zone == "UTC":
        return
    from zoneinfo import ZoneInfo  # which an idle custodian can do without

    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError) as exc:
        raise BadQuery(f"there is no time zone {zone[:64]!r}; one is called like Europe/Berlin") from exc
