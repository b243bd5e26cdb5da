"""The one table of an aggregator's routes, and what they carry. See `wire.table` for the custodian's."""

from __future__ import annotations

from typing import Annotated

import msgspec

from emlab import errors
from emlab.aggregate import Release
from emlab.ask import Ask, Outcome
from emlab.query import Query, cells
from emlab.wire.table import MAX_BODY_BYTES, Route

MAX_OUTCOMES = 100_000
ANSWER_BYTES, CELL_BYTES = 760, 11  # of an answer in a request, at most: without its cells, and for each of them
ASK_BYTES = 1 << 20  # of the ask in it, at most


class About(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregator.

    Attributes:
        public: the key (X25519) to which answers are sealed, and which policies pin. signing: the one (Ed25519) with
            which it signs.
        trust: what its releases say of who sees clear answers.
    """

    public: str
    signing: str
    trust: str


class Releasing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that clouds said to an ask, which its provider has signed, for an aggregator."""

    ask: Ask
    signature: bytes
    outcomes: Annotated[list[Outcome], msgspec.Meta(max_length=MAX_OUTCOMES)]


def room(query: Query) -> int:
    """How many clouds' answers to it fit into one request."""
    return min(MAX_OUTCOMES, (MAX_BODY_BYTES - ASK_BYTES) // (ANSWER_BYTES + CELL_BYTES * cells(query)))


_RELEASE = (
    errors.BadQuery,
    errors.ConfigError,
    errors.NotPermitted,
    errors.TooFewUsers,
    errors.TooMany,
    errors.Unreachable,
)
AGGREGATOR_ROUTES: tuple[Route, ...] = (
    Route("about", "GET", "/about", "anyone", None, About, (errors.TooMany,), "Whose keys, and who sees clear answers"),
    Route(
        "release",
        "POST",
        "/releases",
        "capability",
        Releasing,
        Release,
        _RELEASE,
        "Aggregate what clouds answered, with noise; once for each ask, which its provider has signed",
    ),
)
AGGREGATOR_BY_NAME = {route.name: route for route in AGGREGATOR_ROUTES}
