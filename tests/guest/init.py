"""The guest's first process: mounts, loads the modules, runs one command, leaves its status, halts.

It is copied into the folder that guest and host share and runs with the host's Python, alone with its standard library.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import TypedDict

FINIT_MODULE = 313  # x86-64's number of the system call
POWER_OFF = 0x4321FEDC
NOSUID_NODEV = 2 | 4
SCRATCH = Path("/run/scratch")
TIMED_OUT = 124  # as coreutils' timeout
LIBC = ctypes.CDLL(None, use_errno=True)


class Job(TypedDict):
    """What `guest.run` asks for."""

    command: list[str]
    cwd: str
    disk: bool
    env: dict[str, str]
    modules: list[str]
    timeout_s: float


def main(shared: Path) -> None:
    """The command of `job.json` ran; its status is in `status`; the machine is off."""
    try:
        _mount("proc", "/proc", "proc")
        _mount("tmpfs", "/run", "tmpfs", NOSUID_NODEV)
        _mount("none", str(shared), "hostfs", NOSUID_NODEV, str(shared))
        job: Job = json.loads((shared / "job.json").read_text())
        _mount_more(job["disk"])
        for module in job["modules"]:
            _load(module)
        status = _run(job, shared)
        (shared / "status.new").write_text(str(status))
        (shared / "status.new").rename(shared / "status")
    except BaseException:  # the kernel panics if its first process ends: say why on its console, and halt
        traceback.print_exc()
    os.sync()
    LIBC.reboot(POWER_OFF)


def _mount_more(disk: bool) -> None:
    _mount("sysfs", "/sys", "sysfs")
    _mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    for name, kind in (("/dev/pts", "devpts"), ("/dev/shm", "tmpfs")):
        Path(name).mkdir(exist_ok=True)
        _mount(kind, name, kind)
    SCRATCH.mkdir()
    if disk:
        _mount("/dev/ubda", str(SCRATCH), "ext4")
    for name, mode in (("tmp", 0o1777), ("home", 0o700)):
        (SCRATCH / name).mkdir()
        (SCRATCH / name).chmod(mode)


def _mount(what: str, where: str, kind: str, flags: int = 0, options: str = "") -> None:
    if LIBC.mount(what.encode(), os.fsencode(where), kind.encode(), flags, os.fsencode(options)):
        raise OSError(ctypes.get_errno(), f"mounting {kind}: {os.strerror(ctypes.get_errno())}", where)


def _load(module: str) -> None:
    with Path(module).open("rb") as file:
        if LIBC.syscall(FINIT_MODULE, file.fileno(), b"", 0):
            raise OSError(ctypes.get_errno(), f"loading: {os.strerror(ctypes.get_errno())}", module)


def _run(job: Job, shared: Path) -> int:
    """The command's status, or TIMED_OUT; whatever else it started is collected when it ends."""
    environment = {**job["env"], "HOME": str(SCRATCH / "home"), "TMPDIR": str(SCRATCH / "tmp")}
    with (shared / "stdout").open("wb") as out, (shared / "stderr").open("wb") as err:
        child = subprocess.Popen(
            job["command"], cwd=job["cwd"], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        )
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, job["timeout_s"])
    try:
        pid = 0
        while pid != child.pid:
            pid, status = os.wait()
    except TimeoutError:
        return TIMED_OUT
    return os.waitstatus_to_exitcode(status)


def _too_late(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


if __name__ == "__main__":
    main(Path(sys.argv[1]))
