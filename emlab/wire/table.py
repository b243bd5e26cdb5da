"""The one table of the custodian's routes: it drives the server, the client and the OpenAPI document."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from emlab import errors
from emlab.ask import Ask, AskRequest, Envelope
from emlab.chain import Head
from emlab.entries import StoreReport
from emlab.explanation import Explanation
from emlab.intake.report import IntakeReport
from emlab.ledger import Denial, Row
from emlab.loss import Accounting, Spent
from emlab.policy import Policy
from emlab.wire.archive import AdoptRequest, ArchiveHead, Page, PageRequest, RestoreRequest
from emlab.wire.log import Deleted, DeleteRequest, Links, LinksRequest, Remaining, RemainingRequest

if TYPE_CHECKING:
    import pandas as pd

MAX_BODY_BYTES = 64 << 20
MAX_HEADER_BYTES = 16 << 10
MAX_ENTRIES = 100_000
SHOWN_ROWS = 20
LEDGER_COLUMNS = ["time", "provider", "query", "purpose", "outcome", "kind", "epsilon", "rho"]
Who = Literal[
    "anyone",
    "owner",
    "capability",
    "user",
    "admin",
    "provider",
    "aggregator",
    "owner or admin",
    "any token",
    "newcomer",
]
Key = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_./-]{1,100}$")]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The custodian and its MongoDB answer."""

    cloud: str
    generation: int
    public: str
    ledger_seq: int


class StoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Entries in wire form. With `partial`, the good ones are stored and the others counted."""

    entries: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_ENTRIES)]
    partial: bool = False


class FindRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Entries of one key within a time range (UTC seconds, both ends included), by `time_key`."""

    key: Key
    start_ts: float | None = None
    end_ts: float | None = None
    time_key: Key = "data.ts"
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_ENTRIES)] = MAX_ENTRIES


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Entries in wire form, at most `limit`; `more` when others match besides."""

    entries: list[msgspec.Raw]
    more: bool


class AmendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A policy that was made out of the one of this version."""

    policy: Policy
    version: int


class RunPipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lines of public transport, a GeoJSON FeatureCollection, for this run and all later ones; null: as before."""

    lines: dict[str, object] | None = None


class LedgerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What has been spent of the owner's budget, and on what.

    Attributes:
        spent: in all, also in other clouds. remaining: now, for all providers together, in millionths of epsilon or,
            with accounting "zcdp", in billionths of rho.
        seq: how many debits there were in this cloud. rows: each debit, oldest first, those of other clouds too.
        denials: the last 1000 asks that were refused, oldest first.
    """

    spent: Spent
    remaining: int
    accounting: Accounting
    seq: int
    rows: list[Row]
    denials: list[Denial] = []

    @property
    def spent_micro(self) -> int:
        """Sum of all epsilons, in millionths."""
        return self.spent.micro

    @property
    def remaining_micro(self) -> int:
        """What remains, in millionths of epsilon. Raises ConfigError: it is not accounted for in these."""
        if self.accounting != "pure":
            raise errors.ConfigError(f"the budget is accounted for as {self.accounting}: see `remaining`")
        return self.remaining

    def frame(self) -> pd.DataFrame:
        """Who asked what, when, at what cost and with what outcome: one row per ask, oldest first.

        Returns:
            time (UTC), provider, query, purpose, outcome ("answered", "unanswered", "refunded" or "refused"), kind of
            the refusal (else ""), and what it cost: epsilon (NaN with Gaussian noise, which has none) and rho, both 0
            if it was refunded or refused. Unanswered asks were debited before a crash, and count.
        """
        import pandas as pd

        found = sorted([*map(_debited, self.rows), *map(_denied, self.denials)], key=lambda one: one[0])
        frame = pd.DataFrame(found, columns=LEDGER_COLUMNS)
        frame["time"] = pd.to_datetime(frame["time"].astype(float), unit="s", utc=True, errors="coerce")
        return frame.astype(dict.fromkeys(LEDGER_COLUMNS[1:6], "string") | {"epsilon": float, "rho": float})

    def _repr_html_(self) -> str:
        pure = self.accounting == "pure"
        spent = f"epsilon {self.spent.micro / 1e6:g}" if not self.spent.gaussians else "no epsilon (Gaussian noise)"
        left = f"epsilon {self.remaining / 1e6:g}" if pure else f"rho {self.remaining / 1e9:g}"
        said = (
            f"spent: {spent}, rho {self.spent.nano / 1e9:g}; remaining: {left}; "
            f"{len(self.rows)} debits, {len(self.denials)} refusals"
        )
        return f"<p>{said}</p>{self.frame().tail(SHOWN_ROWS).to_html(index=False, border=0)}"


Line = tuple[float, str, str, str, str, str, float, float]


def _debited(row: Row) -> Line:
    epsilon, rho = row.loss.epsilon_micro / 1e6 or math.nan, row.loss.as_rho_nano / 1e9
    cost = (0.0, 0.0) if row.refunded else (epsilon, rho)
    return row.ts, row.provider, row.query, row.purpose, row.outcome, "", *cost


def _denied(one: Denial) -> Line:
    return one.ts, one.provider, one.query, one.purpose, "refused", one.kind, 0.0, 0.0


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `name` is the custodian's method; `who` must present which credential.

    An owner sends `Authorization: Bearer <owner token>`; a capability is part of the ask itself; of a "user", who is an
    owner with an e-mission client, the token is the field `user` of the body. A "newcomer" is whom the controller lets
    sign up. A path may end in one {parameter}. The response is JSON, or text of another `media` type.
    """

    name: str
    method: Literal["GET", "POST", "PUT"]
    path: str
    who: Who
    request: type[msgspec.Struct] | None
    response: type
    raises: tuple[type[errors.EmlabError], ...]
    summary: str
    media: str = "application/json"


_OWNER = (errors.NotPermitted,)
ROUTES: tuple[Route, ...] = (
    Route("health", "GET", "/health", "anyone", None, Health, (errors.StoreError,), "Whether the cloud answers"),
    Route(
        "store",
        "POST",
        "/entries/store",
        "owner",
        StoreRequest,
        StoreReport,
        (*_OWNER, errors.BadEntry, errors.StoreError, errors.DiskFull),
        "Keep entries; acknowledged means journaled",
    ),
    Route(
        "find",
        "POST",
        "/entries/find",
        "owner",
        FindRequest,
        Found,
        (*_OWNER, errors.BadQuery, errors.StoreError),
        "Entries of one key",
    ),
    Route(
        "counts",
        "GET",
        "/entries/counts",
        "owner",
        None,
        dict[str, int],
        (*_OWNER, errors.StoreError),
        "How many entries there are of each key",
    ),
    Route(
        "run_pipeline",
        "POST",
        "/run/pipeline",
        "owner",
        RunPipeline,
        IntakeReport,
        (*_OWNER, errors.BadQuery, errors.ConfigError, errors.InUse, errors.StoreError, errors.DiskFull),
        "Turn raw entries into trips, sections and places",
    ),
    Route(
        "delete_period",
        "POST",
        "/entries/delete",
        "owner",
        DeleteRequest,
        Deleted,
        (*_OWNER, errors.BadQuery, errors.InUse, errors.StoreError, errors.DiskFull),
        "Delete all that tells of a period, for ever",
    ),
    Route(
        "remaining",
        "POST",
        "/ledger/remaining",
        "owner",
        RemainingRequest,
        Remaining,
        (*_OWNER, errors.BadQuery, errors.StoreError),
        "What each of some providers may still spend",
    ),
    Route("head", "GET", "/log/head", "owner", None, Head, (*_OWNER, errors.StoreError), "The log's head, signed"),
    Route(
        "links",
        "POST",
        "/log/page",
        "owner",
        LinksRequest,
        Links,
        (*_OWNER, errors.BadQuery, errors.StoreError),
        "Who asked and was refused, what the owner changed: the log, page by page",
    ),
    Route(
        "ask",
        "POST",
        "/ask",
        "capability",
        AskRequest,
        Envelope,
        (errors.BadQuery, errors.NotPermitted, errors.PolicyRefused, errors.BudgetExhausted, errors.StoreError),
        "Answer a provider's ask, sealed to its aggregator",
    ),
    Route("policy", "GET", "/policy", "owner", None, Policy, (*_OWNER, errors.ConfigError), "What the owner permits"),
    Route("set_policy", "PUT", "/policy", "owner", Policy, Policy, (*_OWNER, errors.BadQuery), "Permit something else"),
    Route(
        "amend_policy",
        "POST",
        "/policy/amend",
        "owner",
        AmendRequest,
        Policy,
        (*_OWNER, errors.BadQuery, errors.InUse),
        "Permit something else, unless the policy is not that of this version any more",
    ),
    Route(
        "explain",
        "POST",
        "/policy/explain",
        "owner",
        Ask,
        Explanation,
        (*_OWNER, errors.BadQuery, errors.ConfigError, errors.StoreError),
        "Whether policy and budget permit an ask, and why not",
    ),
    Route("ledger", "GET", "/ledger", "owner", None, LedgerReport, _OWNER, "What has been asked and spent"),
    Route(
        "archive",
        "GET",
        "/archive",
        "owner",
        None,
        ArchiveHead,
        (*_OWNER, errors.StoreError),
        "What the cloud holds besides documents, and how many of those",
    ),
    Route(
        "page",
        "POST",
        "/archive/page",
        "owner",
        PageRequest,
        Page,
        (*_OWNER, errors.BadQuery, errors.StoreError),
        "Documents of a collection, whatever they are, page by page",
    ),
    Route(
        "restore",
        "POST",
        "/archive/restore",
        "owner",
        RestoreRequest,
        StoreReport,
        (*_OWNER, errors.BadEntry, errors.BadQuery, errors.StoreError, errors.DiskFull),
        "Keep documents of another cloud of this owner",
    ),
    Route(
        "adopt",
        "POST",
        "/archive/adopt",
        "owner",
        AdoptRequest,
        LedgerReport,
        (*_OWNER, errors.BadQuery, errors.StoreError),
        "Take over what was spent in another cloud of this owner",
    ),
)
BY_NAME = {route.name: route for route in ROUTES}
