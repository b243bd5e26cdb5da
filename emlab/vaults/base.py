"""The contract of a vault, tested by tests/contract/test_vaults.py on every implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from emlab.key import Key


class Vault(Protocol):
    """One person's directory, readable only while open. Every method blocks; one process at a time."""

    name: str

    @classmethod
    def missing(cls) -> str | None:
        """None if this host can run the vault, else one sentence: what it lacks and how to get it."""

    @property
    def parent(self) -> Path:
        """The directory that is bound into a container; it holds the open directory and nothing of others."""

    @property
    def is_open(self) -> bool:
        """Whether the clear directory is there now, read from the system."""

    def create(self, key: Key) -> None:
        """The vault exists and is closed. Raises VaultError if something is there already."""

    def open(self, key: Key) -> Path:
        """The clear directory. Idempotent with the same key. Raises WrongKey before anything is mounted."""

    def close(self) -> None:
        """The clear directory is gone. Idempotent. Raises VaultError while something still uses it."""
