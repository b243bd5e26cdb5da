"""What crosses the wire when an owner reads the cloud's log, or deletes a period."""

from __future__ import annotations

from typing import Annotated

import msgspec

from emlab.ask import Public
from emlab.chain import PAGE, Head, Link
from emlab.intake.report import IntakeReport

MAX_ASKED = 1_000  # providers in one request


class LinksRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The links of the log after that seq, at most so many."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE)] = PAGE


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Links, oldest first, and the head of the whole log, which the cloud signed after it had read them."""

    links: list[Link]
    head: Head


class RemainingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Providers, by their public keys."""

    providers: Annotated[list[Public], msgspec.Meta(max_length=MAX_ASKED)]


class Remaining(msgspec.Struct, frozen=True, kw_only=True):
    """What each may still spend now, in the currency of the policy's accounting (see LedgerReport)."""

    by_provider: dict[str, int]


class DeleteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A period in UTC seconds, both ends included."""

    start_ts: float
    end_ts: float


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """How many documents of each collection told of the period, and what intake made of the rest."""

    removed: dict[str, int]
    intake: IntakeReport
