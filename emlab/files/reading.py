"""Entries out of a file, whatever of the known forms it has.

Imports of emlab entries, errors and files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from emlab.entries.view import ENVELOPE
from emlab.errors import BadEntry
from emlab.files import gpx
from emlab.files.opening import Reader, opened
from emlab.files.scanning import Scanner

# The fields whose lists are entries: of no object, of find_entries' answers and archives, of usercache/put and get.
LISTS = ("", "phone_data", "phone_to_server", "server_to_phone")


def read(path: Path | str, *, zone: str = "UTC") -> Iterator[object]:
    """The entries of a file, one by one, as they stand there; what is not one is for `store` to reject.

    The form is seen from the content: a JSON list of entries; an answer of find_entries or an archive (whose
    `phone_data` is taken); one entry after the other (a line for each, as mongoexport writes, in whichever of its
    modes); GPX. Each may be packed with gzip.

    Args:
        zone: IANA name of where the phone was, for GPX, which does not say it.
    Raises:
        BadEntry: damaged, or of another form; the message names the file and the place. Entries before it were given.
        ConfigError: the file cannot be read, or there is no such zone.
    """
    return (item for field, item in sections(path, zone=zone) if field in LISTS)


def sections(path: Path | str, *, zone: str = "UTC") -> Iterator[tuple[str, object]]:
    """Everything in a file, as (field, value), and of a field that is a list each item. No field is called "".

    Args, Raises: as `read`.
    """
    with opened(Path(path)) as file:
        start = _start(file)
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            yield from (("", entry) for entry in gpx.read(_Again(file, start), zone))
        else:
            yield from _sections(Scanner(_Again(file, start)))


def _sections(scanner: Scanner) -> Iterator[tuple[str, object]]:
    if scanner.next() == "[":
        yield from (("", item) for item in scanner.items())
    elif scanner.next() == "{" and scanner.first_name() not in ENVELOPE:
        yield from _fields(scanner)
    else:
        if scanner.next() != "{":
            raise scanner.wrong("there should be a list of entries, or an entry")
        while scanner.next() == "{":
            yield "", scanner.value()
    if scanner.next():
        raise scanner.wrong("there should be nothing more")


def _fields(scanner: Scanner) -> Iterator[tuple[str, object]]:
    missing = True
    for name in scanner.fields():
        missing = missing and name not in LISTS
        if scanner.next() == "[":
            yield from ((name, item) for item in scanner.items())
        else:
            yield name, scanner.value()
    if missing:
        raise scanner.wrong(f"the object has no field {', '.join(LISTS[1:])}")


def _start(file: Reader) -> bytes:
    start = b""
    while not start.strip() and (part := file.read(4096)):
        start += part
    if not start.strip():
        raise BadEntry(f"{file.name} is empty")
    return start


class _Again:
    """A file whose start was read already."""

    def __init__(self, file: Reader, start: bytes) -> None:
        self.name = file.name
        self._rest = file
        self._start = start

    def read(self, size: int = -1, /) -> bytes:
        """The start first."""
        part, self._start = self._start, b""
        return part or self._rest.read(size)
