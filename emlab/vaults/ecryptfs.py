"""EcryptfsVault: the kernel's stacked encryption, on any file system below, where the kernel has it.

Mounted by the system calls themselves: of this process if it is root, else of a container that lives for a moment. A
mount with a wrong key succeeds and shows an empty directory, in which a database would begin anew: so the key's
signature is compared before, and the options after.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
from pathlib import Path

from emlab.errors import VaultDamaged, VaultError, WrongKey
from emlab.key import Key
from emlab.vaults import ecryptfs_token as token
from emlab.vaults import helper, mounter, mounts
from emlab.vaults.header import Step, disk_error, proceed
from emlab.vaults.helper import Helper
from emlab.vaults.mounted import MountedVault
from emlab.vaults.mounter import Mounter

_CAP_SYS_ADMIN = 1 << 21
_WHOLE_HOST = ["0", "0", "4294967295"]  # the uid map of whoever is in no user namespace
_MAX_SIGNATURE_FILE = 256
_SIGNATURE = re.compile(rb"[0-9a-f]{16}")


class EcryptfsVault(MountedVault):
    """Contents (AES-CBC) and names are encrypted, without integrity: a changed byte reads as garbage.

    Names have at most 143 bytes. Sizes, times, the number of files and the shape of the tree stay visible.
    """

    name = "ecryptfs"
    kind = mounter.KIND

    def __init__(self, home: Path, *, step: Step = proceed) -> None:
        super().__init__(home, step=step)
        self._signatures = home / "ecryptfs.sig"
        self._looked = False  # whoever mounts or unmounts in this verb looks for keys that are left, or has looked

    @classmethod
    def missing(cls) -> str | None:
        """None if this kernel has eCryptfs and this process may mount it, or have it mounted, else what to do."""
        if not _kernel_has_it():
            return (
                f"this kernel ({os.uname().release}) has no eCryptfs: use one that has, such as Debian's"
                " linux-image-amd64, or another vault"
            )
        if not token.machine_is_known():
            return f"the system calls of a {os.uname().machine} are not known: use x86_64, aarch64 or riscv64"
        if os.geteuid() != 0:
            lacks = helper.missing()
            return f"only root mounts eCryptfs, or a helper container for you: {lacks}" if lacks else None
        if not _may_mount():
            return (
                "this root may not mount (it lacks CAP_SYS_ADMIN on the host, as in a container or a user namespace):"
                " start the lab on the host itself"
            )
        return None

    @classmethod
    def missing_in(cls, folder: Path) -> str | None:
        """None if vaults of this kind can be made in a folder, else what to do."""
        return cls.missing() or (helper.missing_in(folder) if os.geteuid() != 0 else None)

    @property
    def _mounter(self) -> Mounter | Helper:
        return Mounter() if os.geteuid() == 0 else Helper(self._home)

    @property
    def _source(self) -> str:
        return mounts.in_full(self._lower)

    def _prepare(self, data_key: Key) -> None:
        super()._prepare(data_key)
        self._signatures.write_text(" ".join(map(token.signature, _keys(data_key))))
        self._signatures.chmod(0o600)

    def _mount(self, data_key: Key) -> None:
        keys = _keys(data_key)
        wanted = [token.signature(key) for key in keys]
        known = self._known_signatures()
        if len(known) != len(wanted):
            raise VaultDamaged(f"{self._signatures} does not hold two signatures: restore it from a copy")
        if not hmac.compare_digest(" ".join(known), " ".join(wanted)):
            raise WrongKey(f"the key does not open what is in {self._lower}")
        try:
            self._mounter.mount(self._source, self.clear, keys)
        except OSError as exc:
            raise disk_error(exc, self._home, "mount eCryptfs") from exc
        self._compare(mounter.options(wanted))

    def _show(self, data_key: Key) -> None:
        self._looked = os.geteuid() != 0  # a container looks before it mounts
        try:
            super()._show(data_key)
        finally:
            self._looked = False

    def _hide(self) -> None:
        before = self._looked
        try:
            super()._hide()
        finally:
            self._looked = before

    def _unmount(self, *, lazy: bool = False) -> bool:
        said = self._mounter.unmount(self.clear, self._known_signatures(), lazy=lazy)
        self._looked = self._looked or said == mounter.DONE
        return said != mounter.BUSY

    def _compare(self, options: dict[str, str]) -> None:
        """Returns if the kernel took the options: those that it does not know, it ignores without a word."""
        took = mounts.at(self.clear)[-1].options
        if differ := [name for name, value in options.items() if took.get(name) != value]:
            raise VaultError(f"the kernel mounted {self.clear} with another {', '.join(differ)} than was asked for")
        if "ecryptfs_passthrough" in took:
            raise VaultError(f"the kernel would let unencrypted files through in {self.clear}")

    def _left(self) -> str | None:
        self._mounter.end()
        if self._looked or mounts.at(self.clear):
            return None
        name = self._mounter.kept(self._known_signatures())
        return f"the kernel's key {name}" if name else None

    def _known_signatures(self) -> list[str]:
        """Those of the keys that the vault was made with; fewer if the file is damaged."""
        if not self._signatures.exists():
            return []
        with self._signatures.open("rb") as file:
            found = file.read(_MAX_SIGNATURE_FILE).split()
        return [name.decode() for name in found if _SIGNATURE.fullmatch(name)]


def _keys(data_key: Key) -> tuple[bytes, bytes]:
    """The key of the contents and that of the names."""
    contents = data_key.derive("ecryptfs contents", size=token.KEY_BYTES)
    return contents, data_key.derive("ecryptfs names", size=token.KEY_BYTES)


def _kernel_has_it() -> bool:
    if "ecryptfs" in Path("/proc/filesystems").read_text().split():
        return True
    modules = Path("/lib/modules", os.uname().release)
    for listed in ("modules.dep", "modules.builtin"):
        with contextlib.suppress(OSError):
            if "/ecryptfs.ko" in (modules / listed).read_text():
                return True  # mount(2) loads it
    return False


def _may_mount() -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective & _CAP_SYS_ADMIN) and Path("/proc/self/uid_map").read_text().split() == _WHOLE_HOST
