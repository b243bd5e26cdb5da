"""Does something as an ordinary user, in a process forked by root, whose interpreter that user could not even read."""

from __future__ import annotations

import ctypes
import os
import pwd
import stat
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from emlab.key import Key
from emlab.vaults import mounts
from emlab.vaults.ecryptfs import EcryptfsVault
from emlab.vaults.gocryptfs import DEVICE, GocryptfsVault
from emlab.vaults.header import new_header

# an ordinary user that every system has: fusermount3 serves no user without a name
USER = pwd.getpwnam("nobody")
_SET_DUMPABLE = 4
_NEW_NAMESPACE = 0x20000
_BIND, _RECURSIVE, _PRIVATE = 1 << 12, 1 << 14, 1 << 18
_TREE = Path(__file__).parents[2]


def as_user(
    act: Callable[[], object], *, before: Callable[[], object] = lambda: None, groups: Sequence[int] = ()
) -> str:
    """Why `act` failed, as a traceback; empty if it did not. `before` is done by the same process while it is root.

    Args:
        groups: the user is a member of these. Modules that `act` needs must have been imported.
    """
    new_header("plain", Key.random())  # imports what the user may not be able to read
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before()
            _become(groups)
            act()
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


def _become(groups: Sequence[int]) -> None:
    os.setgroups(list(groups))
    os.setresgid(USER.pw_gid, USER.pw_gid, USER.pw_gid)
    os.setresuid(USER.pw_uid, USER.pw_uid, USER.pw_uid)
    os.environ["HOME"] = "/nonexistent"
    # a process that changed its user may not look at itself in /proc, until it says so or executes a program
    if ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1) != 0:
        raise OSError("prctl refused")


def mount_for_itself() -> None:
    """What this process mounts from now on, nobody else sees."""
    assert mounts.libc().unshare(_NEW_NAMESPACE) == 0
    mounts.mount("none", Path("/"), "none", _PRIVATE | _RECURSIVE, "")
    let_go()


def let_go(but: Path | None = None) -> None:
    """This process's own mount namespace keeps no vault open that another test works on just now.

    Args:
        but: what is mounted below this stays.
    """
    for mount in reversed(mounts.read()):
        mine = but is not None and Path(mount.point).is_relative_to(but)
        if mount.kind in (GocryptfsVault.kind, EcryptfsVault.kind) and not mine:
            mounts.unmount(Path(mount.point), lazy=True)


def give_device(folder: Path) -> None:
    """In this process's own mount namespace, everybody may use FUSE."""
    device = folder / "fuse"
    os.mknod(device, stat.S_IFCHR, os.makedev(10, 229))
    device.chmod(0o666)
    mounts.mount(str(device), DEVICE, "none", _BIND, "")


def give_programs(folder: Path) -> None:
    """In this process's own mount namespace, everybody may run Python and emlab, whoever may enter what is above them.

    Args:
        folder: an empty one, which is mounted over.
    """
    wanted = [Path(sys.base_prefix), Path(sys.prefix), _TREE]
    closed = {path: above for path in wanted if (above := _first_closed(path))}
    for number, path in enumerate(closed):
        aside = folder / str(number)
        aside.mkdir()
        mounts.mount(str(path), aside, "none", _BIND | _RECURSIVE, "")
    for above in set(closed.values()):
        mounts.mount("tmpfs", above, "tmpfs", 0, "mode=755")
    for number, path in enumerate(closed):
        path.mkdir(parents=True, exist_ok=True)
        mounts.mount(str(folder / str(number)), path, "none", _BIND | _RECURSIVE, "")


def _first_closed(path: Path) -> Path | None:
    """The topmost directory above it that not everybody may enter."""
    return next((above for above in reversed(path.parents) if not above.stat().st_mode & stat.S_IXOTH), None)
