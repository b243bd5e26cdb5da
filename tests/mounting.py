"""Mounts as the tests of vaults need them: what is mounted where, who shows it, who else keeps it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emlab.clock import wait_until
from emlab.vaults import mounts

WAIT_S = 10.0


def mounts_below(folder: Path) -> list[str]:
    """What is mounted somewhere below a folder."""
    return [mount.point for mount in mounts.read() if mount.point.startswith(f"{folder}/")]


def daemon(clear: Path) -> int:
    """The gocryptfs that shows this clear directory."""
    (pid,) = [
        pid for pid, command in mounts.commands() if command[0].endswith(b"gocryptfs") and os.fsencode(clear) in command
    ]
    return pid


def kill_daemon(clear: Path) -> None:
    """It is dead, and its mount is, too."""
    os.kill(daemon(clear), signal.SIGKILL)
    assert wait_until(lambda: not mounts.answers(clear), WAIT_S)


def slow_path(folder: Path, late_s: float) -> str:
    """A PATH whose gocryptfs begins its work that much later."""
    program = folder / "gocryptfs"
    program.write_text(f'#!/bin/sh\nsleep {late_s}\nexec {shutil.which("gocryptfs")} "$@"\n')
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """Nobody can write it, not even root."""
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@contextmanager
def namespace(propagation: str, first: str = "true") -> Iterator[subprocess.Popen[bytes]]:
    """A process with a mount namespace of its own, as a container has; `first` is what a shell does there before."""
    waiting = ["unshare", "-m", "--propagation", propagation, "sh", "-c", f"{first} && exec cat"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as other:
        yield other
