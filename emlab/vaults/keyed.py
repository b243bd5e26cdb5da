"""What all vaults share: the header with the wrapped data key, the lock, and the order of each verb.

A driver says how its clear directory is prepared, shown, hidden and looked for; see PlainVault for the smallest one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emlab.clock import wait_until
from emlab.errors import VaultBusy, VaultError
from emlab.key import Key, OwnerSecret, RecoveryCode, Secret
from emlab.vaults.base import Found
from emlab.vaults.header import Header, HeaderFile, Step, disk_error, disk_errors, new_header, proceed, sync_directory

LOCK_WAIT_S = 30.0  # another process may be mounting, or waiting for who uses the vault
BUSY_WAIT_S = 1.0  # for drivers: a program that was just stopped still closes its files
LOCK = "vault.lock"


class KeyedVault(ABC):
    """The verbs of `Vault`. A driver fills in `missing`, `_prepare`, `_show`, `_hide` and `_look`.

    Args:
        home: the vault's own directory; everything of it lies here.
        step: told what has just been done to the header.
    """

    name: str

    def __init__(self, home: Path, *, step: Step = proceed) -> None:
        self._home = home
        self._header = HeaderFile(home / "vault.json", step)
        self._parent = home / "open"

    @classmethod
    def missing_in(cls, folder: Path) -> str | None:
        """None if vaults of this kind can be made in a folder that exists, else what is lacking there."""
        return cls.missing()

    # -- what a driver does; the vault's lock is held ----------------------------------------------------------

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """None if this host can run the vault, else what it lacks and how to get it."""

    @abstractmethod
    def _prepare(self, data_key: Key) -> None:
        """Whatever encrypted data needs is there, empty and closed. `_parent` exists."""

    @abstractmethod
    def _show(self, data_key: Key) -> None:
        """The clear directory is there, whatever was before. If it fails, it is not."""

    @abstractmethod
    def _hide(self) -> None:
        """The clear directory is gone, whatever was before. Raises VaultBusy."""

    @abstractmethod
    def _look(self) -> Found:
        """What the system says of the clear directory now; takes no lock."""

    # -- the verbs ---------------------------------------------------------------------------------------------

    @property
    def parent(self) -> Path:
        """The directory that is bound into a container."""
        return self._parent

    @property
    def clear(self) -> Path:
        """Where the clear directory is while the vault is open."""
        return self._parent / "clear"

    @property
    def is_open(self) -> bool:
        """Whether the clear directory is there and answers now."""
        return self._look() is Found.OPEN

    def create(self, key: OwnerSecret) -> None:
        """The vault exists and is closed. If that fails, only a directory with its lock is left.

        Raises: VaultError, DiskFull.
        """
        header, data_key = new_header(self.name, key)
        with disk_errors(self._home, "make a vault"):
            self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._alone():
                self._refuse_what_is_there()
                try:
                    self._parent.mkdir(mode=0o700)
                    self._prepare(data_key)
                    self._header.write(header)
                    sync_directory(self._home.parent)
                except BaseException:
                    self._erase()
                    raise

    def _refuse_what_is_there(self) -> None:
        if self._header.exists:
            raise VaultError(f"there is a vault in {self._home} already")
        if left := sorted({path.name for path in self._home.iterdir()} - {LOCK}):
            raise VaultError(f"{self._home} is not empty: {', '.join(left[:5])}; a vault is made in a new directory")

    def check(self, key: Secret) -> None:
        """Returns if that opens the vault. Raises WrongKey, VaultDamaged, VaultError."""
        self._header.read(self.name).unlock(key)

    def open(self, key: Secret) -> Path:
        """The clear directory. Idempotent. Raises WrongKey, VaultDamaged, VaultError, VaultBusy."""
        with self._alone(), disk_errors(self._home, "open the vault"):
            self._header.tidy()
            self._show(self._header.read(self.name).unlock(key))
        return self.clear

    def close(self) -> None:
        """The clear directory is gone, and every key with it. Idempotent. Raises VaultBusy."""
        if self._home.exists():
            with self._alone(), disk_errors(self._home, "close the vault"):
                self._hide()

    def rekey(self, old: Secret, new: OwnerSecret) -> None:
        """The owner's secret is the new one; no data is rewritten. Raises as `open`, DiskFull."""
        self._rewrite(lambda header: header.with_owner(header.unlock(old), new))

    def recovery(self, key: Secret) -> RecoveryCode:
        """A new code that opens the vault, instead of an earlier one. Raises as `rekey`."""
        code = RecoveryCode.random()
        self._rewrite(lambda header: header.with_recovery(header.unlock(key), code))
        return code

    def _rewrite(self, change: Callable[[Header], Header]) -> None:
        """The header is what the change makes of it. That may take long, and holds up nobody else if it can."""
        before = self._header.read(self.name)
        after = change(before)
        with self._alone():
            found = self._header.read(self.name)
            self._header.write(after if found == before else change(found))  # somebody else has changed it meanwhile

    def shred_keys(self) -> None:
        """No key opens it ever again; what is open stays open. Idempotent. Raises VaultBusy, VaultError."""
        if self._home.exists():
            with self._alone():
                self._header.destroy()

    def shred(self) -> None:
        """Nobody reads the data again: first the keys are gone, then the rest. Idempotent. Raises as `shred_keys`."""
        if self._home.exists():
            with self._alone(), disk_errors(self._home, "remove the vault"):
                self._header.destroy()
                self._hide()
                self._erase()

    def repair(self) -> Found:
        """What was found; a dead mount, or an open vault without keys, is closed then. Raises VaultBusy."""
        if not self._home.exists():
            return Found.CLOSED
        with self._alone(), disk_errors(self._home, "repair the vault"):
            self._header.tidy()
            found = self._look()
            if found is not Found.OPEN or not self._header.exists:
                self._hide()
        return found

    # -- alone -------------------------------------------------------------------------------------------------

    def _erase(self) -> None:
        """Everything of the vault but its lock is gone."""
        for path in self._home.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or process works on this vault meanwhile. Raises VaultBusy, VaultError (no vault)."""
        try:
            lock = os.open(self._home / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError as exc:
            raise VaultError(f"there is no vault in {self._home}") from exc
        except OSError as exc:
            raise disk_error(exc, self._home, "lock the vault") from exc
        try:
            if not wait_until(lambda: _take(lock), LOCK_WAIT_S):
                raise VaultBusy(f"another process works on the vault in {self._home} since {LOCK_WAIT_S:g} s")
            yield
        finally:
            os.close(lock)


def _take(lock: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
