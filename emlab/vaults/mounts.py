"""The mount table as the kernel tells it, mount(2) and umount(2), and who keeps a mount alive.

Nothing of emlab but errors. Source of the table's form: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from emlab.errors import VaultError

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8
UNMOUNT_TIMEOUT_S = 30.0
DEAD_ERRNOS = frozenset({errno.ENOTCONN, errno.ECONNABORTED})
LOOKS = 5  # before an input/output error is believed: each thread of a daemon that is being killed may cause one
MAX_NAMED = 5  # of those who use a mount


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo.

    `groups`: the peer groups that it is in or a slave of, through which unmounts spread. `shared`: the one that it is
    in; what is mounted there is mounted for all of the group.
    """

    point: str
    kind: str
    source: str
    flags: frozenset[str]
    options: dict[str, str]
    groups: frozenset[str]
    shared: str = ""


def parse(text: str) -> list[Mount]:
    """The mounts in the text of a mountinfo, lowest first; later ones on the same point hide earlier ones."""
    return [_parse_line(line) for line in text.split("\n") if line]


def _parse_line(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    fields, (kind, source, options) = before.split(" "), after.split(" ", 2)
    tags = [field.split(":") for field in fields[6:]]
    return Mount(
        point=_plain(fields[4]),
        kind=_plain(kind),
        source=_plain(source),
        flags=frozenset(fields[5].split(",")),
        options=dict(_option(one) for one in options.split(",")),
        groups=frozenset(tag[1] for tag in tags if tag[0] in ("shared", "master")),
        shared=next((tag[1] for tag in tags if tag[0] == "shared"), ""),
    )


def _option(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, _plain(value)


def _plain(text: str) -> str:
    """Spaces, tabs, newlines and backslashes stand there in octal. The result is as of `os.fsdecode`."""
    raw = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 255]), os.fsencode(text))
    return os.fsdecode(raw)


def read(process: str = "thread-self") -> list[Mount]:
    """The mounts that a process sees. Raises OSError if it has ended, or is somebody else's."""
    return parse(_table(process))


def _table(process: str) -> str:
    return os.fsdecode(Path("/proc", process, "mountinfo").read_bytes())


def at(point: Path) -> list[Mount]:
    """What this thread sees mounted exactly there, lowest first. The point itself is not touched."""
    wanted = in_full(point)
    # asked at each use of a cloud, beside which there may be hundreds: a path with a backslash may be written otherwise
    lines = [line for line in _table("thread-self").split("\n") if wanted in line or "\\" in line]
    return [mount for mount in map(_parse_line, lines) if mount.point == wanted]


def holding(path: Path) -> Mount:
    """The mount on which a path lies, as this thread sees it."""
    real = path.resolve()
    over = [mount for mount in read() if real.is_relative_to(mount.point)]
    return max(reversed(over), key=lambda mount: len(mount.point))  # of those on one point, the last hides the others


def in_full(point: Path) -> str:
    """The path as the kernel tells it. Only its parent is resolved: the point, which may be dead, is not touched."""
    return str(point.parent.resolve() / point.name)


def answers(point: Path) -> bool:
    """Whether the file system there is alive. A FUSE file system whose daemon has ended is not."""
    for left in reversed(range(LOOKS)):
        try:
            os.statvfs(point)  # unlike stat, never answered by the kernel's cache
        except OSError as exc:
            if exc.errno in DEAD_ERRNOS:
                return False
            if exc.errno != errno.EIO or not left:
                raise VaultError(f"cannot look at {point}: {exc.strerror}") from exc
        else:
            break
    return True


# -- system calls ------------------------------------------------------------------------------------------------------


def libc() -> ctypes.CDLL:
    """The C library, whose calls leave their errno for `ctypes.get_errno`."""
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, point: Path, kind: str, flags: int, options: str) -> None:
    """That is mounted there. Raises OSError. The kernel ignores options that it does not know: read the table back."""
    arguments = (os.fsencode(source), os.fsencode(point), kind.encode(), ctypes.c_ulong(flags), options.encode())
    if libc().mount(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(point))


def unmount(point: Path, *, lazy: bool = False) -> bool:
    """True when the topmost mount there is gone (or there was none), False while somebody uses it.

    Args:
        lazy: also if it is used; for dead mounts, from which nobody reads anything.
    Raises: VaultError.
    """
    if os.geteuid() != 0:
        return _unmount_as_user(point, lazy=lazy)
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
    if libc().umount2(os.fsencode(point), flags) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EBUSY, errno.EINVAL):  # EINVAL: nothing is mounted there
        return number == errno.EINVAL
    raise VaultError(f"cannot unmount {point}: {os.strerror(number)}")


def fusermount() -> str | None:
    """The program that mounts and unmounts FUSE for those who are not root."""
    return shutil.which("fusermount3") or shutil.which("fusermount")


def _unmount_as_user(point: Path, *, lazy: bool) -> bool:
    program = fusermount()
    if program is None:
        raise VaultError(f"cannot unmount {point}: there is no fusermount3 (Debian: apt-get install fuse3)")
    command = [program, "-u", *(["-z"] if lazy else []), "--", str(point)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=UNMOUNT_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as exc:
        raise VaultError(f"cannot unmount {point}: {program} did not end within {UNMOUNT_TIMEOUT_S:g} s") from exc
    if done.returncode == 0 or not at(point):
        return True
    if "busy" in done.stderr:
        return False
    raise VaultError(f"cannot unmount {point}: {done.stderr.strip()[-200:]}")


# -- who keeps it ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has something of a mount.

    `follows`: an unmount here reaches its namespace, too. `moved`: it sees the mount where it is not seen here.
    """

    pid: int
    name: str
    follows: bool = False
    moved: bool = False

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid})"


def elsewhere(mine: Callable[[Mount], bool]) -> list[Holder]:
    """One process of each other mount namespace (each container) that sees such a mount; of those we may look at."""
    here = [mount for mount in read() if mine(mount)]
    ours, points = frozenset(group for mount in here for group in mount.groups), {mount.point for mount in here}
    seen = {_link("thread-self/ns/mnt")}
    found = []
    for pid in _pids():
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
            space = _link(f"{pid}/ns/mnt")
            if space not in seen:
                seen.add(space)
                mounts = [mount for mount in read(str(pid)) if mine(mount)]
                if mounts:
                    follows = all(mount.groups & ours for mount in mounts)
                    moved = any(mount.point not in points for mount in mounts)
                    found.append(Holder(pid, _name(pid), follows=follows, moved=moved))
    return found


def users(point: Path) -> list[Holder]:
    """Some of the processes that have a file open there, or work in it; of those that we may look at."""
    top = in_full(point)
    found = []
    for pid in _pids():
        if any(path == top or path.startswith(top + "/") for path in _paths(pid)):
            found.append(Holder(pid, _name(pid)))
            if len(found) == MAX_NAMED:
                break
    return found


def names(holders: Iterable[Holder]) -> str:
    """Who they are, for a sentence; there is somebody even if we may not look at them."""
    return ", ".join(map(str, holders)) or "somebody whom this user may not see"


def commands() -> Iterator[tuple[int, list[bytes]]]:
    """The command line of each process that we may look at."""
    for pid in _pids():
        with contextlib.suppress(OSError):
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - thousands of names


def _link(path: str) -> str:
    return os.readlink(f"/proc/{path}")  # noqa: PTH115 - "mnt:[4026531840]" and "/gone (deleted)" are no paths


def _name(pid: int) -> str:
    return os.fsdecode(Path(f"/proc/{pid}/comm").read_bytes()).strip()


def _paths(pid: int) -> Iterator[str]:
    for one in ("cwd", "root"):
        with contextlib.suppress(OSError):
            yield _link(f"{pid}/{one}")
    for many in ("fd", "map_files"):
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/{many}"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    yield _link(f"{pid}/{many}/{name}")
