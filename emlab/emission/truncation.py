"""Which of too many entries are answered. Pure."""

from __future__ import annotations

from emlab.errors import BadQuery


def places(count: int, max_entries: int, method: str | None) -> range:
    """Which entries are answered, by their places: all if there are not more than `max_entries`, else some.

    Args:
        count: how many there are. max_entries: 0 is no bound, as at e-mission's server with "last".
        method: "first" or "last" of them, or "sample": each n-th from the first, with the smallest n that suffices.
    Raises:
        BadQuery: they are too many, and the method is None.
    """
    if not max_entries or count <= max_entries:
        return range(count)
    if method is None:
        raise BadQuery("max_entries needs a trunc_method: first, last or sample")
    if method == "first":
        return range(max_entries)
    return range(count - max_entries, count) if method == "last" else range(0, count, count // max_entries + 1)
