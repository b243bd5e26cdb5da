"""Searches a directory for something that must not be readable there: a name, a key, a coordinate, in many forms.

Only what is literally there is found; not what was compressed or encrypted. So a test that finds nothing must also show
that the same search does find it where nothing is encrypted. A database leaves out what stands in its neighbours too:
take a coordinate on another continent than theirs, and words that are found nowhere else.
"""

from __future__ import annotations

import base64
import errno
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Canary = str | bytes | float
MIN_BYTES = 6  # a shorter form would be found in any large file by chance


@dataclass(frozen=True)
class Hit:
    """Where a canary was found, and in which form."""

    path: Path
    form: str


def forms(canary: Canary) -> dict[str, bytes]:
    """The bytes that give a canary away. Raises ValueError if it is so short that chance would find it."""
    if isinstance(canary, float):
        found = {"BSON double": struct.pack("<d", canary), "big-endian double": struct.pack(">d", canary)}
        found |= {f"decimal {name}": form for name, form in _of_bytes(repr(canary).encode()).items()}
    elif isinstance(canary, str):
        found = _of_bytes(canary.encode())
        found |= {"UTF-16": canary.encode("utf-16-le"), "UTF-16, big-endian": canary.encode("utf-16-be")}
    else:
        found = _of_bytes(canary)
    if short := [name for name, form in found.items() if len(form) < MIN_BYTES]:
        raise ValueError(f"a canary of which a form ({short[0]}) has less than {MIN_BYTES} bytes")
    return found


def _of_bytes(raw: bytes) -> dict[str, bytes]:
    found = {"raw": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    for offset in range(3):
        # the letters at both ends depend on what stands beside it there
        letters = base64.b64encode(bytes(offset) + raw)
        inner = letters[(0, 2, 3)[offset] : len(letters) // 4 * 4 - (4 if (offset + len(raw)) % 3 else 0)]
        found[f"base64 at {offset}"] = inner
        found[f"base64url at {offset}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def search(folder: Path, canaries: Iterable[Canary]) -> list[Hit]:
    """Every file below a folder that holds a canary, in its contents or in the name by which it is reached.

    What is mounted below the folder is not searched: there an open vault shows everything.
    """
    wanted = [(name, form) for canary in canaries for name, form in forms(canary).items()]
    return [hit for path in _walk(folder) for hit in _in_one(folder, path, wanted)]


def search_bytes(raw: bytes, canaries: Iterable[Canary]) -> list[str]:
    """The forms in which canaries stand in a text, such as a log or what an engine says of a container."""
    return [name for canary in canaries for name, form in forms(canary).items() if raw.find(form) >= 0]


def _walk(folder: Path) -> Iterator[Path]:
    for top, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not Path(top, name).is_mount()]
        yield from (Path(top, name) for name in (*folders, *files))


def _in_one(folder: Path, path: Path, wanted: list[tuple[str, bytes]]) -> Iterator[Hit]:
    named = os.fsencode(path.relative_to(folder))
    yield from (Hit(path, f"{name} in its name") for name, form in wanted if form in named)
    if path.is_symlink():
        yield from _in_target(path, wanted)
    elif path.is_file() and path.stat().st_size:
        yield from _in_contents(path, wanted)


def _in_target(path: Path, wanted: list[tuple[str, bytes]]) -> Iterator[Hit]:
    target = os.fsencode(path.readlink())
    yield from (Hit(path, f"{name} in its target") for name, form in wanted if form in target)


def _in_contents(path: Path, wanted: list[tuple[str, bytes]]) -> Iterator[Hit]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            yield from (Hit(path, name) for name, form in wanted if raw.find(form) >= 0)
    except OSError as exc:
        if exc.errno != errno.ENOKEY:  # a closed fscrypt vault: search the disk's image for its contents
            raise
