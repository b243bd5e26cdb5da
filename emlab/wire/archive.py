"""What crosses the wire when an owner takes everything out of a cloud, or brings it into another."""

from __future__ import annotations

from typing import Annotated

import msgspec

from emlab.chain import Head
from emlab.ledger import Row
from emlab.loss import Spent
from emlab.policy import Policy

FORMAT = 1
PAGE_BYTES = 256 << 10  # of JSON; larger pages would leave the idle custodian larger
MAX_DOCUMENTS = 100_000  # in one request
MAX_ROWS = 20_000  # of other clouds' ledgers, which one value in the database holds
Text = Annotated[str, msgspec.Meta(max_length=200)]


class ArchiveHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a cloud holds besides documents, and how many of those it has; the field `emlab` of an archive.

    Attributes:
        format: of the archive, 1.
        cloud, generation, exported_ts: which cloud, and when (UTC seconds).
        policy: what the owner permits.
        spent, rows: what was asked and spent, in this cloud and in those that were imported into it.
        documents: how many there are of each of e-mission's collections.
        head: of the log, as it was then; None in an archive of before there was one.
    """

    format: Annotated[int, msgspec.Meta(ge=1)]
    cloud: Text
    generation: int
    exported_ts: float
    policy: Policy
    spent: Spent
    rows: list[Row]
    documents: dict[str, int]
    head: Head | None = None


class PageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The documents of a collection whose `_id` (24 hex digits) comes after that one; None is before the first."""

    collection: Text
    after: Text | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Documents in wire form; `after` is for the request of the next page, None if this is the last."""

    documents: list[msgspec.Raw]
    after: str | None


class RestoreRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Documents of a page, of whatever cloud. With `partial`, the good ones are kept and the others counted."""

    collection: Text
    documents: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_DOCUMENTS)]
    partial: bool = False


class AdoptRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Another cloud's ledger: what it spent in all, and each debit. And its policy, if there is one."""

    spent: Spent
    rows: Annotated[list[Row], msgspec.Meta(max_length=MAX_ROWS)]
    policy: Policy | None = None
