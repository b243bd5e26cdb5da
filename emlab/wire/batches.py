"""Entries on their way to a cloud: as JSON, checked for what JSON would lose, in requests that are not too large."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from emlab.errors import BadEntry
from emlab.wire.table import MAX_BODY_BYTES, MAX_ENTRIES

ONE_REQUEST_BYTES = 512 << 10  # what is checked in the cloud alone: a phone's usual day
BATCH_BYTES = 256 << 10  # of what is more; larger ones would leave the idle custodian larger
MAX_ENTRY_BYTES = MAX_BODY_BYTES - 1024  # what surrounds one entry in a request is shorter


def encoded(entry: object, position: int) -> msgspec.Raw:
    """The entry as it goes over the wire. Raises BadEntry, naming its position: no JSON, not finite, too large."""
    try:
        raw = msgspec.json.encode(entry)
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadEntry(f"entry {position} cannot be written as JSON: {exc}", position) from exc
    if b"null" in raw and not _is_finite(entry):
        raise BadEntry(f"entry {position} has a number that is not finite", position)
    if len(raw) > MAX_ENTRY_BYTES:
        raise BadEntry(f"entry {position} has {len(raw)} bytes; one has at most {MAX_ENTRY_BYTES}", position)
    return msgspec.Raw(raw)


def _is_finite(value: object) -> bool:
    """Whether no number at any depth is NaN or infinite, which JSON would turn into null."""
    if isinstance(value, float):
        return math.isfinite(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return all(_is_finite(one) for one in inner)


def batched(entries: Sequence[msgspec.Raw]) -> list[list[msgspec.Raw]]:
    """The entries in lists for one request each."""
    sizes = [len(memoryview(entry)) + 1 for entry in entries]
    limit = ONE_REQUEST_BYTES if sum(sizes) <= ONE_REQUEST_BYTES else BATCH_BYTES
    batches: list[list[msgspec.Raw]] = []
    size = limit
    for entry, length in zip(entries, sizes, strict=True):
        size += length
        if size > limit or len(batches[-1]) >= MAX_ENTRIES:
            batches.append([])
            size = length
        batches[-1].append(entry)
    return batches
