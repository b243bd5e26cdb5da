"""PlainVault: a directory without encryption, for machines and experiments that need none. It protects nothing."""

from __future__ import annotations

import hmac
from pathlib import Path

from emlab.errors import VaultError, WrongKey
from emlab.key import Key


class PlainVault:
    """Always readable on disk; yet it opens and closes (by renaming) and refuses a wrong key, as the others do."""

    name = "plain"

    def __init__(self, home: Path) -> None:
        self._verifier = home / "verifier"
        self._parent = home / "open"
        self._clear = self._parent / "clear"
        self._closed = home / "closed"

    @classmethod
    def missing(cls) -> str | None:
        """None: every host has directories."""
        return None

    @property
    def parent(self) -> Path:
        """The directory that is bound into a container."""
        return self._parent

    @property
    def is_open(self) -> bool:
        """Whether the clear directory is there now."""
        return self._clear.is_dir()

    def create(self, key: Key) -> None:
        """The vault exists and is closed. Raises VaultError if something is there already."""
        if self._verifier.exists() or self._closed.exists() or self.is_open:
            raise VaultError(f"there is a vault in {self._verifier.parent} already")
        self._parent.mkdir(parents=True, mode=0o700)
        self._closed.mkdir(mode=0o700)
        self._verifier.write_text(self._verify(key))

    def open(self, key: Key) -> Path:
        """The clear directory. Idempotent. Raises WrongKey, VaultError (nothing was created)."""
        if not self._verifier.exists():
            raise VaultError(f"there is no vault in {self._verifier.parent}")
        if not hmac.compare_digest(self._verifier.read_text(), self._verify(key)):
            raise WrongKey("this key does not open the vault")
        if not self.is_open:
            self._closed.rename(self._clear)
        return self._clear

    def close(self) -> None:
        """The clear directory is gone. Idempotent."""
        if self.is_open:
            self._clear.rename(self._closed)

    @staticmethod
    def _verify(key: Key) -> str:
        return key.derive("vault verifier").hex()
