"""Where the sockets of running clouds live: a short path that only this user can enter. Standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from emlab.engines.base import SOCKET
from emlab.errors import ConfigError

CLOUD_UID = 64321  # runs a cloud's programs when root drives; nothing else on a host should have it
MAX_SOCKET_PATH = 100  # bytes; mongod refuses 108
_CLOUD_DIGITS = 16


def home_id(home: Path) -> str:
    """A short name of an emlab home, the same for every spelling of its path."""
    return hashlib.sha256(os.fsencode(home.expanduser().resolve())).hexdigest()[:12]


def cloud_owner() -> tuple[int, int]:
    """The uid and gid that own a cloud's directories and run its programs: never 0 in a container."""
    return (CLOUD_UID, CLOUD_UID) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def run_root(home: Path) -> Path:
    """The folder of a home's run directories, 0700 and ours. It does not outlive a restart of the machine.

    Raises:
        ConfigError: somebody else made it, it is a link, or its path is too long for a socket.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        root = Path(runtime) / f"emlab-{home_id(home)}"
    else:
        root = Path(tempfile.gettempdir()) / f"emlab-{os.geteuid()}-{home_id(home)}"
    longest = root / ("0" * _CLOUD_DIGITS) / SOCKET
    if len(os.fsencode(longest)) > MAX_SOCKET_PATH:
        raise ConfigError(f"{root} is too long a path for sockets: set TMPDIR to a shorter one, such as /tmp")
    _make_private(root, {os.geteuid()})
    return root


def make_run_dir(home: Path, cloud: str) -> Path:
    """The run directory of a cloud, 0700. The same one every time.

    Raises:
        ConfigError: as for `run_root`, or the id is not one of a cloud.
    """
    if len(cloud) < _CLOUD_DIGITS or not cloud.isalnum():
        raise ConfigError(f"{cloud!r} is not the id of a cloud")
    run_dir = run_root(home) / cloud[:_CLOUD_DIGITS]
    _make_private(run_dir, {os.geteuid(), cloud_owner()[0]})
    return run_dir


def _make_private(folder: Path, owners: set[int]) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners:
        raise ConfigError(f"{folder} is not a folder of ours: remove it, or set TMPDIR to a folder of yours")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
