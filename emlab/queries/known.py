"""All queries that can be asked here: ours, and those that installed packages offer as entry points `emlab.queries`.

QUERIES.md says how to write one, and `emlab.queries.testing` checks it. Provider, controller, aggregator and clouds
must all have the package: whoever lacks it refuses the ask as malformed.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Union

import msgspec

from emlab.errors import ConfigError
from emlab.queries.count_trips import CountTrips
from emlab.queries.count_users import CountUsers
from emlab.queries.heatmap import Heatmap
from emlab.queries.in_range import InRange
from emlab.queries.mean_distance import MeanDistance
from emlab.queries.mean_duration import MeanDuration
from emlab.queries.origin_destination import OriginDestination
from emlab.queries.quantile import Quantile
from emlab.queries.sum_distance import SumDistance
from emlab.queries.sum_duration import SumDuration
from emlab.queries.sum_trip_distance import SumTripDistance
from emlab.queries.trip_histogram import TripHistogram
from emlab.query import MAX_SLOT_S, MIN_SLOT_S, Query

GROUP = "emlab.queries"
OURS: tuple[type[Query], ...] = (
    CountTrips,
    CountUsers,
    Heatmap,
    InRange,
    MeanDistance,
    MeanDuration,
    OriginDestination,
    Quantile,
    SumDistance,
    SumDuration,
    SumTripDistance,
    TripHistogram,
)


def tag(query_class: type[Query]) -> str:
    """The word by which a query is known on the wire."""
    return str(query_class.__struct_config__.tag)


def known(theirs: Iterable[EntryPoint]) -> tuple[type[Query], ...]:
    """Our queries and those of these entry points, each by a tag of its own.

    Raises ConfigError, which names the entry point: it cannot be loaded, is no such query, or has the tag of another.
    """
    found = {tag(query_class): query_class for query_class in OURS}
    for entry in theirs:
        query_class = _load(entry)
        if found.setdefault(entry.name, query_class) is not query_class:
            raise ConfigError(f"{_named(entry)} has the tag of another query, {_path(found[entry.name])}")
    return tuple(found.values())


def _load(entry: EntryPoint) -> type[Query]:
    try:
        query_class = entry.load()
    except Exception as exc:  # whatever another package raises when it is imported
        raise ConfigError(f"{_named(entry)} cannot be loaded: {type(exc).__name__}: {exc}") from exc
    if fault := unfit(query_class):
        raise ConfigError(f"{_named(entry)} {fault}")
    if tag(query_class) != entry.name:
        raise ConfigError(f"{_named(entry)} has another tag, {tag(query_class)!r}: the two are the same word")
    return query_class  # type: ignore[no-any-return]


def unfit(query_class: object) -> str | None:
    """Why a class cannot be asked, in words that follow its name; None if it can."""
    if not (isinstance(query_class, type) and issubclass(query_class, Query)) or query_class is Query:
        return "is no subclass of emlab.query.Query"
    config = query_class.__struct_config__
    if not (config.frozen and config.forbid_unknown_fields and config.tag_field == "kind" and _is_word(config.tag)):
        return 'is declared without frozen=True, forbid_unknown_fields=True, tag_field="kind" or a tag="a_word"'
    slot_s = query_class.slot_s
    if isinstance(slot_s, bool) or not isinstance(slot_s, (int, float)) or not MIN_SLOT_S <= slot_s <= MAX_SLOT_S:
        return f"has slot_s = {slot_s!r}, which is not within {MIN_SLOT_S}..{MAX_SLOT_S} seconds"
    try:
        msgspec.json.Decoder(Union[query_class, _Other])  # noqa: UP007 - a union of what is only known now
    except (TypeError, NameError) as exc:
        return f"has a field that does not travel: {exc}"
    return None


class _Other(msgspec.Struct, tag_field="kind", tag=""):
    """What stands beside a query in a union: no query has this tag."""


def _is_word(tag: object) -> bool:
    return isinstance(tag, str) and tag.isidentifier() and len(tag) <= 64


def _named(entry: EntryPoint) -> str:
    package = f" of {entry.dist.name}" if entry.dist is not None else ""
    return f"the query {entry.name!r}{package} ({GROUP}: {entry.value})"


def _path(query_class: type[Query]) -> str:
    return f"{query_class.__module__}.{query_class.__qualname__}"


KNOWN = known(entry_points(group=GROUP))
if TYPE_CHECKING:
    AnyQuery = Query
else:
    AnyQuery = Union[KNOWN]  # noqa: UP007 - by its tag, msgspec finds the class of what it decodes
