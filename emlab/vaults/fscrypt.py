"""FscryptVault: a directory that the file system itself encrypts; ext4 with the feature `encrypt`, f2fs or ubifs.

Works without root, and without a mount or a daemon for each vault. The key lies in the kernel until it is removed.
"""

from __future__ import annotations

from pathlib import Path

from emlab.clock import wait_until
from emlab.errors import VaultBusy, VaultDamaged, VaultError, WrongKey
from emlab.key import Key
from emlab.vaults import fscrypt_calls as kernel
from emlab.vaults import mounts
from emlab.vaults.base import Found
from emlab.vaults.fscrypt_calls import KeyStatus
from emlab.vaults.header import disk_errors, sync_directory
from emlab.vaults.keyed import BUSY_WAIT_S, KeyedVault

_FEATURES = (Path("/sys/fs/ext4/features/encryption"), Path("/sys/fs/f2fs/features/encryption"))


class FscryptVault(KeyedVault):
    """Contents (AES-XTS) and names (AES-CTS) are encrypted, without integrity: a changed byte reads as garbage.

    Sizes, times, the number of files and the shape of the tree stay visible. While it is closed, the kernel refuses
    new files in the directory (ENOKEY). Closing while a file is open removes the key all the same: what is open goes
    on, nothing else can be opened until `open`.
    """

    name = "fscrypt"

    @classmethod
    def missing(cls) -> str | None:
        """None if this kernel can encrypt directories, else what to do."""
        if any(feature.exists() for feature in _FEATURES):
            return None
        return "this kernel does not encrypt directories: one with CONFIG_FS_ENCRYPTION, and ext4 or f2fs, is needed"

    @classmethod
    def missing_in(cls, folder: Path) -> str | None:
        """None if vaults of this kind can be made in a folder, else what to do."""
        if lacks := cls.missing():
            return lacks
        with disk_errors(folder, "look for encryption"):
            if kernel.supported(folder):
                return None
        return (
            f"the file system of {folder} does not encrypt directories: use ext4 made with mkfs.ext4 -O encrypt,"
            " or turn it on with tune2fs -O encrypt DEVICE"
        )

    def _prepare(self, data_key: Key) -> None:
        if lacks := self.missing_in(self._parent):
            raise VaultError(lacks)
        self.clear.mkdir(mode=0o700)
        raw, name = _key_and_name(data_key)
        with disk_errors(self._parent, "encrypt a directory"):
            kernel.add_key(self._parent, raw)
            try:
                kernel.set_policy(self.clear, name)
            finally:
                kernel.remove_key(self._parent, name)
        sync_directory(self._parent)

    def _show(self, data_key: Key) -> None:
        raw, name = _key_and_name(data_key)
        with disk_errors(self._parent, "open the vault"):
            known = self._policy()
            if known is None:
                raise VaultDamaged(f"{self.clear} is not the vault's encrypted directory: restore it from a copy")
            if name != known:
                raise WrongKey(f"the key does not open what is in {self.clear}")
            kernel.add_key(self._parent, raw)

    def _hide(self) -> None:
        name = self._policy()
        if name is not None and not wait_until(lambda: self._removed(name), BUSY_WAIT_S):
            raise VaultBusy(f"{self.clear} is not closed: {mounts.names(mounts.users(self.clear))} still uses it")

    def _removed(self, name: bytes) -> bool:
        with disk_errors(self._parent, "close the vault"):
            if kernel.key_status(self._parent, name) is not KeyStatus.ABSENT:
                kernel.remove_key(self._parent, name)
            return kernel.key_status(self._parent, name) is KeyStatus.ABSENT

    def _look(self) -> Found:
        name = self._policy()
        with disk_errors(self._parent, "look for the key"):
            if name is None or kernel.key_status(self._parent, name) is KeyStatus.ABSENT:
                return Found.CLOSED
        return Found.OPEN

    def _policy(self) -> bytes | None:
        """The name of the key of the clear directory, None if there is no such directory; a link is none."""
        if self.clear.is_symlink() or not self.clear.is_dir():
            return None
        with disk_errors(self.clear, "look for encryption"):
            return kernel.policy(self.clear)


def _key_and_name(data_key: Key) -> tuple[bytes, bytes]:
    raw = data_key.derive("fscrypt", size=kernel.KEY_BYTES)
    return raw, kernel.identifier(raw)
