"""pymongo's errors as ours, without what they quote of documents and queries.

Imports pymongo when an error is awaited, and of emlab errors and mongod.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.errors import StoreError
from emlab.mongod import FULL_BELOW_BYTES, disk_full, free_bytes

if TYPE_CHECKING:
    from pymongo.errors import PyMongoError

_OUT_OF_DISK = 14031


@contextmanager
def wrapped(doing: str, data_dir: Path | None) -> Iterator[None]:
    """A block whose database errors leave it as StoreError, DiskFull if that is why.

    Args:
        doing: what the block does, such as "store entries": for the message.
        data_dir: where mongod keeps its files, None if that is not known here.
    """
    from pymongo.errors import OperationFailure, PyMongoError

    try:
        yield
    except OperationFailure as exc:
        raise _error(doing, exc, data_dir) from OperationFailure("what mongod said is left out", exc.code)
    except PyMongoError as exc:
        raise _error(doing, exc, data_dir) from exc


def _error(doing: str, exc: PyMongoError, data_dir: Path | None) -> StoreError:
    from pymongo.errors import BulkWriteError

    faults = exc.details["writeErrors"] if isinstance(exc, BulkWriteError) else []
    codes = {fault["code"] for fault in faults} or {getattr(exc, "code", None)} - {None}
    if data_dir and (_OUT_OF_DISK in codes or free_bytes(data_dir) < FULL_BELOW_BYTES):
        return disk_full(data_dir)
    why = f" (code {', '.join(map(str, sorted(codes)))})" if codes else ""
    return StoreError(f"the database could not {doing}: {type(exc).__name__}{why}")
