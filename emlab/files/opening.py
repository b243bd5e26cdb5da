"""Opening a file that may be hostile, and replacing one without ever leaving half of it.

Imports of emlab errors.
"""

from __future__ import annotations

import gzip
import os
import secrets
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from emlab.errors import BadEntry, ConfigError

MAX_FILE_BYTES = 16 << 30  # as it lies on the disk; it is read in parts, so memory does not bound it
MAX_RATIO = 200  # of what it unpacks to; e-mission's JSON packs 10 to 40 times, a bomb 1000 times
FREE_BYTES = 64 << 20  # a small file may unpack to so much, whatever its ratio
MAX_PRIVATE_BYTES = 4096
_GZIP = b"\x1f\x8b"


class Reader(Protocol):
    """Bytes out of a file of that name."""

    name: str

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes, b"" at the end. Raises BadEntry: damaged, or too much."""


class BoundedReader:
    """A file read from its beginning, unpacked if need be, up to a bound; its own errors as BadEntry."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        try:
            packed = file.read(2) == _GZIP
            file.seek(0)
        except OSError as exc:  # such as some of /proc, which only look like files
            raise ConfigError(f"{name} cannot be read: {exc.strerror}") from exc
        self.name = name
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")) if packed else file
        self._left = max(FREE_BYTES, size * MAX_RATIO) if packed else MAX_FILE_BYTES

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes, b"" at the end. Raises BadEntry: damaged, or unpacks to too much."""
        try:
            part = self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        except (OSError, EOFError, zlib.error) as exc:
            raise BadEntry(f"{self.name} is damaged: {exc}") from exc
        self._left -= len(part)
        if self._left < 0:
            raise BadEntry(f"{self.name} unpacks to more than {MAX_RATIO} times its size: it is refused")
        return part


@contextmanager
def opened(path: Path) -> Iterator[BoundedReader]:
    """The file, to be read once. Raises ConfigError: it is not there, no plain file, or larger than 16 GiB."""
    try:
        file = path.open("rb")
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
    with file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path} is no plain file")
        if found.st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} has more than {MAX_FILE_BYTES >> 30} GiB")
        yield BoundedReader(file, path.name, found.st_size)


def read_private(path: Path, what: str) -> bytes:
    """What this user alone can read in a small file: the token or the keys that `what` says.

    Raises ConfigError: it is not there, no plain file of this user or of root, or others can read it.
    """
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
                raise ConfigError(f"{path} is no plain file of yours")
            if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(f"others can read the {what} in {path}: chmod 600 {path}")
            return file.read(MAX_PRIVATE_BYTES)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, for this user's eyes only, that takes its place when the block ends, or never was.

    Packed if its name ends in .gz. What stood there is replaced. Raises ConfigError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be written: {exc}") from exc
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.suffix == ".gz":  # without a time in it: the same entries give the same file
                with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path} cannot be written: {exc}") from exc
    finally:
        fresh.unlink(missing_ok=True)
