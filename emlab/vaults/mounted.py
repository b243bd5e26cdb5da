"""What vaults that mount share: never twice, dead mounts found, and after closing a look at the whole system."""

from __future__ import annotations

import os
import stat
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from emlab.clock import wait_until
from emlab.errors import VaultBusy, VaultDamaged, VaultError
from emlab.key import Key
from emlab.vaults import mounts
from emlab.vaults.base import Found
from emlab.vaults.header import Step, proceed
from emlab.vaults.keyed import BUSY_WAIT_S, KeyedVault
from emlab.vaults.mounts import Mount

GONE_WAIT_S = 5.0  # for a daemon to end and the kernel to drop its keys
# A container that starts, whosever it is, has a copy of all mounts of the host until it changes its root. With three
# started at a time on 2 cores, one close in a hundred waited for such copies for more than a second (idle: 0.01 s).
STARTING_WAIT_S = 5.0
SAFE_FLAGS = frozenset({"nosuid", "nodev", "noexec"})
_BARE, _WRITABLE = 0o500, 0o700  # modes of a mount point on which nothing is mounted


class MountedVault(KeyedVault):
    """A clear directory that is a mount over an encrypted one. The bare mount point has mode 0500, and stays empty."""

    kind: ClassVar[str]  # as the mount table names the file system

    def __init__(self, home: Path, *, step: Step = proceed) -> None:
        super().__init__(home, step=step)
        self._lower = home / "lower"

    # -- what a driver does ------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def _source(self) -> str:
        """What the mount table names as the source of this vault's mount, and of no other's."""

    @abstractmethod
    def _mount(self, data_key: Key) -> None:
        """It is mounted, or an error says why not; nothing was there."""

    @abstractmethod
    def _left(self) -> str | None:
        """Who still has a key of this vault after unmounting, None if nobody."""

    def _unmount(self, *, lazy: bool = False) -> bool:
        """As `mounts.unmount`; a driver may have it done by somebody else."""
        return mounts.unmount(self.clear, lazy=lazy)

    # -- the verbs of KeyedVault -------------------------------------------------------------------------------

    def _prepare(self, data_key: Key) -> None:
        self._lower.mkdir(mode=0o700)
        self.clear.mkdir(mode=_BARE)

    def _look(self) -> Found:
        there = mounts.at(self.clear)
        if not there:
            return Found.CLOSED
        if not self._is_mine(there[-1]):
            raise VaultError(f"something else is mounted on {self.clear}: {there[-1].kind} of {there[-1].source}")
        return Found.OPEN if mounts.answers(self.clear) else Found.DEAD

    def _show(self, data_key: Key) -> None:
        if self._look() is not Found.OPEN:
            self._hide()  # a dead mount, and one that comes late: of whom a killed process had begun to start
            self._mount_on_bare(data_key)

    def _mount_on_bare(self, data_key: Key) -> None:
        if not self._lower.is_dir():
            raise VaultDamaged(f"{self._lower}, which holds the data, is not there: restore it from a copy")
        self._parent.mkdir(mode=0o700, exist_ok=True)
        if not os.path.lexists(self.clear):
            self.clear.mkdir(mode=_BARE)
        if not self._is_directory():  # mounting would follow a link
            raise VaultError(f"{self.clear} is no directory: the bare mount point was replaced")
        if left := os.listdir(self.clear):  # noqa: PTH208
            raise VaultError(f"{self.clear} is the bare mount point and yet holds {left[0][:80]!r}: move it away")
        if os.geteuid() != 0:
            self.clear.chmod(_WRITABLE)  # or fusermount3 refuses
        try:
            self._mount(data_key)
            self._check()
        except BaseException:
            while mounts.at(self.clear) and self._unmount(lazy=True):
                pass
            self._bare()
            raise

    def _check(self) -> None:
        """Returns if exactly one mount is there and it is as it was asked for. Raises VaultError."""
        there = mounts.at(self.clear)
        if len(there) != 1 or not self._is_mine(there[0]):
            raise VaultError(f"after mounting there are {len(there)} mounts on {self.clear}, not one of this vault")
        if lacks := SAFE_FLAGS - there[0].flags:
            raise VaultError(f"{self.clear} was mounted without {', '.join(sorted(lacks))}")

    def _hide(self) -> None:
        if not wait_until(self._is_gone, GONE_WAIT_S):
            raise VaultBusy(f"{self.clear} was unmounted, but {self._kept_by()} still has it open: stop that first")
        self._bare()

    def _is_gone(self) -> bool:
        """Whether nothing is mounted and nobody is left who keeps it, or will mount it yet. Raises VaultBusy."""
        while (found := self._look()) is not Found.CLOSED:
            if found is Found.DEAD:
                self._unmount(lazy=True)  # nobody reads anything from it
            elif not self._let_go():
                raise VaultBusy(f"{self.clear} stays open: {self._who()} still uses it")
        # in this order: a daemon that has ended, or let go of us, has mounted before that or never does
        return self._kept_by() is None and self._look() is Found.CLOSED

    def _bare(self) -> None:
        """What was a mount point for an ordinary user takes no files any more."""
        if self._is_directory() and stat.S_IMODE(self.clear.stat().st_mode) != _BARE:
            self.clear.chmod(_BARE)

    def _is_directory(self) -> bool:
        return os.path.lexists(self.clear) and stat.S_ISDIR(self.clear.lstat().st_mode)

    def _let_go(self) -> bool:
        """Whether it could be unmounted: who is known to use it is waited for shortly, what passes by itself longer."""
        if wait_until(self._unmounted, BUSY_WAIT_S):
            return True
        return not self._is_used() and wait_until(self._unmounted, STARTING_WAIT_S)

    def _is_used(self) -> bool:
        """Whether a process has a file open, or a container runs that was given the mount."""
        return any(holder.moved for holder in self._stays()) or bool(mounts.users(self.clear))

    def _unmounted(self) -> bool:
        """Unmounts, unless a namespace that would not follow keeps the mount: it would stay alive there unseen."""
        return not self._stays() and self._unmount()

    def _stays(self) -> list[mounts.Holder]:
        return [holder for holder in mounts.elsewhere(self._is_mine) if not holder.follows]

    def _who(self) -> str:
        return mounts.names([*self._stays(), *mounts.users(self.clear)])

    def _kept_by(self) -> str | None:
        holders = mounts.elsewhere(self._is_mine)
        return ", ".join(map(str, holders)) or self._left()

    def _is_mine(self, mount: Mount) -> bool:
        return mount.kind == self.kind and mount.source == self._source
