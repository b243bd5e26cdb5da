"""Which of too many entries are answered. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from emlab.errors import BadQuery

T = TypeVar("T")


def truncate(found: Iterable[T], count: int, max_entries: int | None, method: str | None) -> Iterable[T]:
    """All if there are not more than `max_entries`, else some.

    Args:
        count: how many `found` gives.
        max_entries: None or 0 is no bound, as at e-mission's server with "last".
        method: "first" or "last" of them, or "sample": each n-th from the first, with the smallest n that suffices.
    Raises:
        BadQuery: they are too many, and the method is None.
    """
    if not max_entries or count <= max_entries:
        return found
    if method is None:
        raise BadQuery("max_entries needs a trunc_method: first, last or sample")
    return _some(found, count, max_entries, method)


def _some(found: Iterable[T], count: int, max_entries: int, method: str) -> Iterator[T]:
    if method == "first":
        return itertools.islice(found, max_entries)
    if method == "last":
        return iter(deque(found, max_entries))
    return itertools.islice(found, 0, None, count // max_entries + 1)
