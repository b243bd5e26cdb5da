"""The one table of the custodian's routes: it drives the server, the client and the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from emlab import errors
from emlab.ask import AskRequest, Envelope
from emlab.entries import StoreReport
from emlab.intake.report import IntakeReport
from emlab.ledger import Row
from emlab.policy import Policy
from emlab.wire.archive import AdoptRequest, ArchiveHead, Page, PageRequest, RestoreRequest

MAX_BODY_BYTES = 64 << 20
MAX_HEADER_BYTES = 16 << 10
MAX_ENTRIES = 100_000
Who = Literal["anyone", "owner", "capability", "user", "admin", "provider", "owner or admin", "any token", "newcomer"]
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


class RunPipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Lines of public transport, a GeoJSON FeatureCollection, for this run and all later ones; null: as before."""

    lines: dict[str, object] | None = None


class LedgerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What has been spent of the owner's budget, and each debit, oldest first."""

    spent_micro: int
    remaining_micro: int
    seq: int
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `name` is the custodian's method; `who` must present which credential.

    An owner sends `Authorization: Bearer <owner token>`; a capability is part of the ask itself; of a "user", who is an
    owner with an e-mission client, the token is the field `user` of the body. A "newcomer" is whom the controller lets
    sign up. A path may end in one {parameter}.
    """

    name: str
    method: Literal["GET", "POST", "PUT"]
    path: str
    who: Who
    request: type[msgspec.Struct] | None
    response: type
    raises: tuple[type[errors.EmlabError], ...]
    summary: str


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
        "ask",
        "POST",
        "/ask",
        "capability",
        AskRequest,
        Envelope,
        (errors.BadQuery, errors.NotPermitted, errors.PolicyRefused, errors.BudgetExhausted, errors.StoreError),
        "Answer a provider's ask, sealed to its aggregator",
    ),
    Route("policy", "GET", "/policy", "owner", None, Policy, _OWNER, "What the owner permits"),
    Route("set_policy", "PUT", "/policy", "owner", Policy, Policy, (*_OWNER, errors.BadQuery), "Permit something else"),
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
BY_PATH = {f"{route.method} {route.path}": route for route in ROUTES}
