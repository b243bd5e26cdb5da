"""Entries into a file, whole or not at all.

Imports of emlab errors and files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from emlab.errors import BadEntry, ConfigError
from emlab.files import gpx
from emlab.files.opening import replacing

_KINDS = (".json", ".json.gz", ".gpx", ".gpx.gz")


def write(path: Path | str, entries: Iterable[object]) -> int:
    """The entries are in the file, which only this user can read; returns how many.

    Args:
        path: what its name ends in says the form: .json, .json.gz (a list, an entry on each line), .gpx or .gpx.gz (the
            fixes only, as a track for each trip or day; see `files.gpx`).
    Raises: ConfigError: no such form, or it cannot be written. BadEntry: one cannot be written as JSON. The file is as
        it was then.
    """
    path = Path(path)
    if not path.name.endswith(_KINDS):
        raise ConfigError(f"{path.name} does not end in {', '.join(_KINDS)}")
    counted = _Counted(entries)
    text = gpx.write(counted) if ".gpx" in path.suffixes[-2:] else _listed(counted)
    with replacing(path) as file:
        for part in text:
            file.write(part.encode())
    return counted.number


def encoded(value: object, what: str) -> str:
    """JSON on one line. Raises BadEntry, which says what it was that cannot be written."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise BadEntry(f"{what} cannot be written as JSON: {exc}") from exc


def _listed(entries: Iterable[object]) -> Iterator[str]:
    between = "["
    for number, entry in enumerate(entries):
        yield between + "\n" + encoded(entry, f"entry {number}")
        between = ","
    yield "[]\n" if between == "[" else "\n]\n"


class _Counted:
    def __init__(self, entries: Iterable[object]) -> None:
        self._entries = entries
        self.number = 0

    def __iter__(self) -> Iterator[object]:
        for self.number, entry in enumerate(self._entries, 1):  # noqa: B020 (the number is kept on purpose)
            yield entry
