"""Mounting eCryptfs, and seeing that it is gone; by root itself, or by a container of the cloud's image that is root.

One piece of code for both: `Mounter` here, and the program that `helper` runs in the container,
`python -m emlab.vaults.mounter ACT ...`. It says in one line what came of it. The image holds this module and what it
imports, and no other of the vaults.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from emlab.clock import wait_until
from emlab.errors import VaultError
from emlab.vaults import ecryptfs_token as token
from emlab.vaults import mounts

KIND = "ecryptfs"
DONE, BUSY, KEPT, ERRNO, FAILED = "done", "busy", "kept", "errno", "failed"  # the first word of what the program says
ASIDE = Path("/mnt")  # an empty directory of every image
KEPT_WAIT_S = 1.0  # the kernel collects the keys of a mount that has gone a moment later
_FLAGS = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC


def options(names: Sequence[str]) -> dict[str, str]:
    """What is asked of the kernel, and what it is to tell afterwards, for the two keys of these names."""
    return {
        "ecryptfs_sig": names[0],
        "ecryptfs_fnek_sig": names[1],
        "ecryptfs_cipher": "aes",
        "ecryptfs_key_bytes": str(token.CIPHER_BYTES),
    }


class Mounter:
    """Mounts by the calls of this process, which is root."""

    def mount(self, source: str, point: Path, keys: Sequence[bytes]) -> None:
        """It is mounted; no key is left but the mount's own. Raises OSError.

        Args:
            keys: of the contents, of the names.
        """
        asked = [f"{name}={value}" for name, value in options([token.signature(key) for key in keys]).items()]
        with token.lent(*keys):
            mounts.mount(source, point, KIND, _FLAGS, ",".join([*asked, "ecryptfs_mount_auth_tok_only"]))

    def unmount(self, point: Path, names: Sequence[str], *, lazy: bool) -> str:
        """BUSY, or the topmost mount is gone: KEPT if the kernel still has a key of one of these names, else DONE.

        `lazy` and errors as of `mounts.unmount`.
        """
        if not mounts.unmount(point, lazy=lazy):
            return BUSY
        return KEPT if self.kept(names) else DONE

    def end(self) -> None:
        """Nobody else mounts this vault any more: only a helper container could."""

    def kept(self, names: Sequence[str]) -> str | None:
        """The name of one of these keys that the kernel still has, None if it has none."""
        there = token.known()
        return next((name for name in names if name in there), None)


# -- the program of the helper container -------------------------------------------------------------------------------


def _mount(source: str, point: str) -> str:
    raw = sys.stdin.buffer.read(2 * token.KEY_BYTES)
    if len(raw) != 2 * token.KEY_BYTES:
        return f"{FAILED} the keys did not arrive"
    keys = raw[: token.KEY_BYTES], raw[token.KEY_BYTES :]
    if (said := _kept(*map(token.signature, keys))) != DONE:
        return said
    Mounter().mount(source, Path(point), keys)
    return DONE


def _unmount(point: str, *names: str, lazy: bool = False) -> str:
    if Mounter().unmount(Path(point), names, lazy=lazy) == BUSY:
        return BUSY
    return _kept(*names)


def _kept(*names: str) -> str:
    if wait_until(lambda: Mounter().kept(names) is None, KEPT_WAIT_S):
        return DONE
    return f"{KEPT} {Mounter().kept(names)}"


def _try(source: str) -> str:
    """A mount works here, which nobody else saw; said with the group of mounts to which one in `source` would go."""
    Mounter().mount(source, ASIDE, (os.urandom(token.KEY_BYTES), os.urandom(token.KEY_BYTES)))
    mounts.unmount(ASIDE)
    return f"{DONE} {mounts.holding(Path(source)).shared}"


ACTS: dict[str, Callable[..., str]] = {
    "mount": _mount,
    "unmount": _unmount,
    "detach": partial(_unmount, lazy=True),
    "kept": _kept,
    "try": _try,
}


def main(act: str, arguments: Sequence[str]) -> str:
    """What is said of an act."""
    try:
        return ACTS[act](*arguments)
    except OSError as exc:
        return f"{ERRNO} {exc.errno}"
    except VaultError as exc:
        return f"{FAILED} {exc}"


if __name__ == "__main__":
    print(main(sys.argv[1], sys.argv[2:]))  # noqa: T201 - the answer
