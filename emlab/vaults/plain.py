"""PlainVault: a directory without encryption, for machines and experiments that need none. It protects nothing."""

from __future__ import annotations

from pathlib import Path

from emlab.key import Key
from emlab.vaults.base import Found
from emlab.vaults.header import Step, proceed
from emlab.vaults.keyed import KeyedVault


class PlainVault(KeyedVault):
    """Always readable on disk; yet it opens and closes (by renaming) and refuses a wrong key, as the others do."""

    name = "plain"

    def __init__(self, home: Path, *, step: Step = proceed) -> None:
        super().__init__(home, step=step)
        self._closed = home / "closed"

    @classmethod
    def missing(cls) -> str | None:
        """None: every host has directories."""
        return None

    def _prepare(self, data_key: Key) -> None:
        self._closed.mkdir(mode=0o700)

    def _show(self, data_key: Key) -> None:
        if self._look() is Found.CLOSED:
            self._closed.rename(self.clear)

    def _hide(self) -> None:
        if self._look() is Found.OPEN:
            self.clear.rename(self._closed)

    def _look(self) -> Found:
        return Found.OPEN if self.clear.is_dir() else Found.CLOSED
