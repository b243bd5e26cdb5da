"""The contract of a vault, tested by tests/contract/test_vaults.py on every implementation.

A vault has a random data key, from which its driver derives what it needs. The data key is kept wrapped, once for each
secret that opens the vault (`header`), so that a passphrase changes without any data being rewritten.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Protocol

from emlab.key import OwnerSecret, RecoveryCode, Secret


class Found(enum.Enum):
    """What the system says of a vault's clear directory."""

    CLOSED = "closed"
    OPEN = "open"
    DEAD = "dead"  # it is mounted, but nobody answers there: the daemon that showed it has ended


class Vault(Protocol):
    """One person's directory, readable only while open.

    Every method blocks. Each does its work alone: what another thread, object or process does to the same vault is
    waited for, at most half a minute (VaultBusy). Nothing is remembered: whether it is open, the system says, so that
    an object made after a crash or in another process knows as much.
    """

    name: str

    @classmethod
    def missing(cls) -> str | None:
        """None if this host can run the vault, else one sentence: what it lacks and how to get it."""

    @classmethod
    def missing_in(cls, folder: Path) -> str | None:
        """None if vaults of this kind work in a folder that exists, else one sentence; `missing` is part of it."""

    @property
    def parent(self) -> Path:
        """The directory that is bound into a container; it holds the open directory `clear` and nothing of others."""

    @property
    def is_open(self) -> bool:
        """Whether the clear directory is there and answers now, read from the system."""

    def create(self, key: OwnerSecret) -> None:
        """The vault exists and is closed. If it fails, only a directory with its lock is left.

        Raises: VaultError (something is there already, or the file system is of the wrong kind), DiskFull.
        """

    def check(self, key: Secret) -> None:
        """Returns if that opens the vault. What takes long about a passphrase is done then, and `open` is quick.

        Waits for nobody. Raises: WrongKey, VaultDamaged, VaultError.
        """

    def open(self, key: Secret) -> Path:
        """The clear directory. Idempotent; replaces a dead mount.

        Raises: before anything is mounted: WrongKey, VaultDamaged, VaultError (nothing was created, or this host
            cannot open it).
        """

    def close(self) -> None:
        """The clear directory is gone, and with it every key that the kernel or a daemon had. Idempotent.

        Raises: VaultBusy: somebody still uses it, and is named. It stays open, or `open` makes it whole again.
        """

    def rekey(self, old: Secret, new: OwnerSecret) -> None:
        """The owner opens it with the new secret and not with the old one. Open or closed, no data is rewritten.

        A crash leaves the one or the other. The recovery code stays. Raises as `open`, DiskFull: the old one stays.
        """

    def recovery(self, key: Secret) -> RecoveryCode:
        """A new code that opens the vault; an earlier one does not any more. Raises as `rekey`."""

    def shred_keys(self) -> None:
        """No key opens it ever again; what is open stays open. Idempotent; `shred` begins with it.

        Raises VaultBusy, VaultError (the disk cannot be written; a key may still be there).
        """

    def shred(self) -> None:
        """Nobody reads the data again, with whatever key: first the wrapped keys are gone, then what they encrypted.

        Idempotent, also after a crash in between. Raises as `shred_keys`; VaultBusy may also mean: the keys are gone,
        but somebody still has it open.
        """

    def repair(self) -> Found:
        """What was found after a crash; a dead mount, or one whose keys were shredded, is closed then.

        Never opens anything. Raises VaultBusy, VaultError.
        """
