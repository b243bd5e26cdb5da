"""GocryptfsVault: authenticated encryption through FUSE, on any file system and without root.

gocryptfs ends up as a daemon of its own session, so that neither Ctrl-C in a notebook nor the end of this process takes
the mount away. Source: gocryptfs(1), whose exit codes are used below; measured with gocryptfs 2.3.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from emlab.errors import VaultDamaged, VaultError
from emlab.key import Key
from emlab.vaults import mounts
from emlab.vaults.header import sync_directory
from emlab.vaults.mounted import MountedVault

TIMEOUT_S = 30.0
DEVICE = Path("/dev/fuse")
ROOM_BYTES = 1 << 14  # more than a new lower directory takes
_MEANING = {
    10: "the mount point is not empty or cannot be used",
    19: "the kernel or fusermount3 refused the mount (it serves no user without a name in /etc/passwd)",
}
_DAMAGE = {
    11: "its header gocryptfs.conf cannot be read: restore it from a copy",
    12: "its own header does not fit the vault's key",
    23: "its header gocryptfs.conf cannot be read: restore it from a copy",
    27: "its header gocryptfs.conf is of another gocryptfs, or was changed: restore it from a copy",
}
_KEPT = {"gocryptfs.conf": 1, "gocryptfs.diriv": 16}  # in the lower directory, and the least bytes of it


class GocryptfsVault(MountedVault):
    """Contents (AES-GCM) and names (EME) are encrypted; a changed byte is an error when it is read, not garbage.

    Sizes, times, the number of files and the shape of the tree stay visible.
    """

    name = "gocryptfs"
    kind = "fuse.gocryptfs"

    @classmethod
    def missing(cls) -> str | None:
        """None if gocryptfs is installed and this user may use FUSE, else what to do."""
        if shutil.which("gocryptfs") is None:
            return "no gocryptfs on PATH (Debian: apt-get install gocryptfs fuse3)"
        if mounts.fusermount() is None:
            return "no fusermount3 on PATH (Debian: apt-get install fuse3)"
        try:
            os.close(os.open(DEVICE, os.O_RDWR))
        except OSError as exc:
            return (
                f"{DEVICE} cannot be opened ({exc.strerror}): load the module fuse, or ask root for chmod 666 {DEVICE}"
            )
        return None

    @property
    def _source(self) -> str:
        return "emlab-" + hashlib.sha256(os.fsencode(self._home.resolve())).hexdigest()[:24]

    def _prepare(self, data_key: Key) -> None:
        super()._prepare(data_key)
        try:
            # -scryptn: the least that it takes, because the password is random and not a person's
            self._run("make a vault", ["-init", "-scryptn", "10", str(self._lower.absolute())], data_key)
        except VaultError:
            self._ask_for_room()
            raise
        sync_directory(self._lower)

    def _ask_for_room(self) -> None:
        """Returns if the disk is not full, which gocryptfs does not tell from other errors. Raises OSError."""
        with tempfile.TemporaryFile(dir=self._home, buffering=0) as file:
            file.write(bytes(ROOM_BYTES))
            os.fsync(file.fileno())

    def _mount(self, data_key: Key) -> None:
        self._refuse_damage()
        options = ["-nosyslog", "-nosuid", "-nodev", "-noexec", "-fsname", self._source]
        if os.geteuid() == 0:
            options.append("-allow_other")  # the cloud runs as another uid than root
        self._run("open the vault", [*options, str(self._lower.absolute()), str(self.clear.absolute())], data_key)

    def _refuse_damage(self) -> None:
        """Returns if what gocryptfs keeps is there; without its diriv it would mount, and find no file."""
        for name, least in _KEPT.items():
            path = self._lower / name
            if not path.is_file() or path.stat().st_size < least:
                raise VaultDamaged(f"{path} is missing or was cut: restore it from a copy")

    def _left(self) -> str | None:
        wanted = os.fsencode(self._source)
        for pid, command in mounts.commands():
            if wanted in command:
                return f"the daemon gocryptfs (process {pid})"
        return None

    @staticmethod
    def _run(what: str, arguments: list[str], data_key: Key) -> None:
        """gocryptfs has done it. The daemon inherits its outputs: a pipe would never end, a log would tell names."""
        command = ["gocryptfs", "-q", "-passfile", "/dev/stdin", *arguments]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )
        try:
            process.communicate(data_key.derive("gocryptfs").hex().encode() + b"\n", TIMEOUT_S)
        except BaseException as exc:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(exc, subprocess.TimeoutExpired):
                raise VaultError(f"cannot {what}: gocryptfs did not end within {TIMEOUT_S:g} s") from exc
            raise
        if process.returncode != 0:
            status = process.returncode
            meaning = (_MEANING | _DAMAGE).get(status, "see gocryptfs(1)")
            error = VaultDamaged if status in _DAMAGE else VaultError
            raise error(f"cannot {what}: gocryptfs ended with {status}: {meaning}")
