"""What cuts a ledger off between two writes, as the end of its program does."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pymongo.collection import Collection
from pymongo.errors import PyMongoError

WRITES = ("insert_one", "update_one", "update_many", "delete_one", "delete_many", "replace_one")


class Cut(PyMongoError):
    """The program ended here."""


@contextmanager
def cut_after(steps: int) -> Iterator[None]:
    """From the n-th write on, every write of the driver fails: what a crash between two writes leaves."""
    counter = itertools.count()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in WRITES:
            real = getattr(Collection, name)

            @functools.wraps(real)
            def write(self: object, *args: object, _real: object = real, **options: object) -> object:
                if next(counter) >= steps:
                    raise Cut
                return _real(self, *args, **options)  # type: ignore[operator]

            monkeypatch.setattr(Collection, name, write)
        yield
