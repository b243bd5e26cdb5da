"""A guest: Debian's user-mode Linux, a kernel that has eCryptfs and runs as an ordinary process, for one command.

Inside, everything that this host has is there to be read, under the same paths; what is written goes to a scratch
that ends with the guest, except in one folder that guest and host share.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.guest import init, warden

HERE = Path(__file__).parent
TREE = HERE.parent.parent
ECRYPTFS = ("crypto/cbc", "crypto/ecb", "security/keys/encrypted-keys/encrypted-keys", "fs/ecryptfs/ecryptfs")
DOCKER = ("fs/overlayfs/overlay",)
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_S = 60.0  # takes one second on an idle machine
LAST_LINES = 30
TIMED_OUT = init.TIMED_OUT


class GuestError(Exception):
    """The guest did not get to its command's end; with the last lines of its console."""


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status (TIMED_OUT if it took too long) and what it printed."""

    status: int
    stdout: str
    stderr: str


def missing() -> str | None:
    """None if this host can boot the guest, else what it lacks and how to get it."""
    if platform.machine() != "x86_64" or not shutil.which("linux.uml") or _modules() is None:
        return "this host has no user-mode Linux with eCryptfs: apt-get install user-mode-linux (Debian, x86-64)"
    if not _mkfs():
        return "the guest's disk needs mkfs.ext4: apt-get install e2fsprogs"
    return None


def run(
    command: Sequence[str],
    shared: Path,
    *,
    timeout_s: float = 60.0,
    memory_mb: int = 1024,
    disk: Path | None = None,
    env: Mapping[str, str] | None = None,
    modules: Sequence[str] = ECRYPTFS,
    boot_s: float = BOOT_S,
) -> Result:
    """Boot, run the command as root in the folder of this tree, halt; takes two seconds more than the command.

    Args:
        shared: a folder of the guest's own, of the same name inside, that keeps what is written to it. It is removed
            when this process dies or is interrupted meanwhile.
        timeout_s: how long the command may run; then it ends with the guest, and the status is TIMED_OUT.
        memory_mb: the guest's memory; the host gives what is used.
        disk: a file with an ext4 file system for the command's scratch ($TMPDIR, $HOME); None for one in memory.
        env: more variables for the command.
        modules: what is loaded, in order: paths below the kernel's modules, without ".ko".
        boot_s: how long all but the command may take.
    Raises:
        GuestError: the guest did not boot, panicked or hung; with the last lines of its console.
    """
    if (reason := missing()) is not None:
        raise GuestError(reason)
    job = {
        "command": list(command),
        "cwd": str(TREE),
        "disk": disk is not None,
        "env": {"LANG": "C.UTF-8", "PATH": PROGRAMS, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        "modules": [f"{_modules()}/{name}.ko" for name in modules],
        "timeout_s": timeout_s,
    }
    (shared / "job.json").write_text(json.dumps(job))
    first = shared / "init"
    first.write_text(f"#!{Path(sys.executable).resolve()} -IS\n{(HERE / 'init.py').read_text()}")
    first.chmod(0o700)
    ended = _watch(_machine(shared, memory_mb, disk), shared, boot_s + timeout_s)
    try:
        status = int((shared / "status").read_text())
    except FileNotFoundError:
        raise GuestError(f"the guest {ended}; its console ends:\n{_last_words(shared / 'console')}") from None
    return Result(status, *((shared / name).read_text(errors="replace") for name in ("stdout", "stderr")))


def make_disk(file: Path, size_mb: int) -> Path:
    """The file, which is an empty ext4 file system of that size now."""
    file.touch()
    os.truncate(file, size_mb << 20)
    subprocess.run([str(_mkfs()), "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(file)], check=True)
    return file


def _last_words(console: Path) -> str:
    """The last lines, and before them why the kernel panicked, which a long trace follows."""
    lines = console.read_text(errors="replace").splitlines()
    panic = [line for line in lines[:-LAST_LINES] if "Kernel panic" in line]
    return "\n".join([*panic, *lines[-LAST_LINES:]])


def _modules() -> Path | None:
    """The folder of the kernel's modules."""
    found = sorted(Path("/usr/lib/uml/modules").glob("*/kernel/fs/ecryptfs/ecryptfs.ko"))
    return found[-1].parent.parent.parent if found else None


def _mkfs() -> str | None:
    return shutil.which("mkfs.ext4", path=PROGRAMS)


def _machine(shared: Path, memory_mb: int, disk: Path | None) -> list[str]:
    """The command line of the kernel; of its root, only what is mounted over can be written."""
    return [
        *("linux.uml", f"uml_dir={shared}/", "umid=guest", f"mem={memory_mb}M", "quiet", "con=null", "con0=null,fd:2"),
        *([f"ubd0={disk}"] if disk else []),
        *("root=none", "rootfstype=hostfs", "rootflags=/", "ro", f"init={shared}/init", "--", str(shared)),
    ]


def _watch(machine: Sequence[str], shared: Path, limit_s: float) -> str:
    """How the machine ended. If this process is interrupted or killed, the warden sees its pipe end."""
    command = [sys.executable, "-IS", str(HERE / "warden.py"), str(shared), str(limit_s), *machine]
    watching = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert watching.stdin is not None
    try:
        status = watching.wait()
    finally:  # not `with`, which does not wait after an interrupt
        watching.stdin.close()
        watching.wait()
    return f"ended with status {status}" if status != warden.LATE else f"did not end within {limit_s:g} s"
