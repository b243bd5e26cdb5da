"""Runs a user-mode Linux and sees that nothing of it is left, however it or the one who started it ends.

User-mode Linux runs each of its processes as a traced process of the host. When the tracer is killed alone, one that
is computing goes on, and its next system call is the host's own, with the caller's rights. So the tracer is stopped
first, then what it traces is killed, then it. Imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LATE = 99  # the status that says: not within the limit


def main(shared: Path, limit_s: float, command: list[str]) -> int:
    """The machine's status, once nothing of it is left; LATE after `limit_s`.

    When the standard input ends, who started this is gone or gave up: the shared folder is removed, too.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the standard input tells
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with (shared / "console").open("wb") as console:
        machine = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            env={"HOME": str(shared), "PATH": os.defpath, "TMPDIR": _memory_folder(shared)},
        )
    ready = _wait(machine.pid, limit_s)
    status = _end(machine.pid)
    if sys.stdin.fileno() in ready:
        shutil.rmtree(shared, ignore_errors=True)
    return status if ready else LATE


def _memory_folder(shared: Path) -> str:
    """Where the machine's memory is kept as a file, which has no name."""
    memory = Path("/dev/shm")
    ample = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    return str(memory if ample else shared)


def _wait(machine: int, limit_s: float) -> list[int]:
    """What has ended: the machine's descriptor, the standard input, or nothing within `limit_s`."""
    watched = select.poll()
    for fd in (os.pidfd_open(machine), sys.stdin.fileno()):
        watched.register(fd, select.POLLIN)
    return [fd for fd, _ in watched.poll(limit_s * 1000)]


def _end(machine: int) -> int:
    """The machine's status; every process of its session is gone and collected."""
    os.kill(machine, signal.SIGSTOP)
    os.waitid(os.P_PID, machine, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    for pid in _session(machine):
        if pid != machine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os.kill(machine, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(machine, 0)[1])
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return status


def _session(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if os.getsid(pid) == leader:
                found.append(pid)
        except ProcessLookupError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]) & 0xFF)
