"""What mounts an eCryptfs vault for a user who is not root: a container of the cloud's image that lives for a moment.

The keys go to its standard input and nowhere else: they are in the memory of the Docker engine as they pass, never in
what it keeps, shows or logs. It sees the directory of one vault; what it mounts there, the host has mounted. Who may
use the Docker engine could do all this by hand: it gives nobody more than that.

The docker SDK is imported when it is used, not with this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emlab import images
from emlab.clock import wait_until
from emlab.errors import EmlabError, VaultBusy, VaultError
from emlab.vaults import mounter, mounts

if TYPE_CHECKING:
    from docker import APIClient, DockerClient

LABEL = "emlab.vault"  # the path of the vault's directory, which tells the home, the lab and the cloud
PROGRAM = ("python3", "-OO", "-P", "-m", "emlab.vaults.mounter")
LIMIT_S = 60.0  # takes less than a second on an idle machine
MEMORY, PIDS = 64 << 20, 32  # runc needs a dozen threads to begin
MAX_ANSWER = 4096
# Mounting needs SYS_ADMIN. The directories belong to the user, and root without DAC_OVERRIDE may not even enter them;
# DAC_READ_SEARCH would do, but opens files of the host by their number.
CAPABILITIES = ("SYS_ADMIN", "DAC_OVERRIDE")
# Docker's own list without /proc/keys: there the program sees whether the kernel still has a key.
MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/latency_stats", "/proc/sched_debug"),
    *("/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
)
# What an engine with seccomp lets through; all else fails. Docker's own profile refuses add_key and keyctl to all.
CALLS = (
    *("add_key", "keyctl", "mount", "umount2"),  # what it is there for
    *("access", "faccessat", "faccessat2", "open", "openat", "close", "close_range", "read", "pread64", "readv"),
    *("write", "writev", "lseek", "ioctl", "fcntl", "dup", "dup2", "dup3", "pipe2", "poll", "ppoll", "pselect6"),
    *("select", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "getdents64", "getcwd", "chdir"),
    *("readlink", "readlinkat", "brk", "mmap", "mprotect", "mremap", "munmap", "madvise", "getrandom", "uname"),
    *("arch_prctl", "prctl", "set_tid_address", "set_robust_list", "rseq", "futex", "sched_yield", "prlimit64"),
    *("sched_getaffinity", "getrlimit", "sysinfo", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
    *("clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "times", "getpid", "gettid"),
    *("getppid", "getuid", "geteuid", "getgid", "getegid", "getgroups", "capget", "capset", "tgkill", "epoll_ctl"),
    *("epoll_pwait", "execve", "exit", "exit_group", "clone", "clone3", "fstatat64", "restart_syscall"),
)


class Helper:
    """Does what `mounter.Mounter` does for one vault. A container that a killed process left is ended before.

    Args:
        home: the vault's directory; whoever calls has the vault's lock.
    """

    def __init__(self, home: Path) -> None:
        self._home = home.resolve()

    def mount(self, source: str, point: Path, keys: Sequence[bytes]) -> None:
        """It is mounted, and this process sees it.

        Raises: OSError, VaultError, VaultBusy (somebody still has keys of this vault): nothing is mounted.
        """
        where = mounts.in_full(point)
        word, name = self._act("mount", source, where, may=(mounter.DONE, mounter.KEPT), send=b"".join(keys))
        if word == mounter.KEPT:
            raise VaultBusy(f"{point} was unmounted, but the kernel's key {name} is still there: stop who has it open")
        if not mounts.at(point):
            self.unmount(point, [], lazy=True)
            raise VaultError(f"the Docker engine mounted {point} where this process does not see it")

    def unmount(self, point: Path, names: Sequence[str], *, lazy: bool) -> str:
        """As `Mounter.unmount`. Raises OSError, VaultError."""
        may = (mounter.DONE, mounter.BUSY, mounter.KEPT)
        return self._act("detach" if lazy else "unmount", mounts.in_full(point), *names, may=may)[0]

    def end(self) -> None:
        """No container mounts this vault any more, whoever started one. Raises VaultError."""
        with _engine(f"look for who mounts {self._home}") as client:
            _remove(client.api, self._name)

    def kept(self, names: Sequence[str]) -> str | None:
        """The name of one of these keys that the kernel still has, None if it has none. Raises OSError, VaultError."""
        if not names:
            return None
        word, rest = self._act("kept", *names, may=(mounter.DONE, mounter.KEPT))
        return rest if word == mounter.KEPT else None

    def trial(self) -> str:
        """The group of mounts for which the container would mount here; it has mounted for itself alone.

        Raises OSError, VaultError: it cannot.
        """
        return self._act("try", str(self._home), may=(mounter.DONE,))[1]

    @property
    def _name(self) -> str:
        """The container's name, which is this vault's alone."""
        return "emlab-vault-" + hashlib.sha256(os.fsencode(self._home)).hexdigest()[:16]

    def _act(self, act: str, *arguments: str, may: Sequence[str], send: bytes = b"") -> tuple[str, str]:
        """The container's answer, its first word being one that it may say. Raises OSError, VaultError."""
        said = self._run([act, *arguments], send)
        word, _, rest = said.partition(" ")
        if word == mounter.ERRNO and rest.isdecimal():
            raise OSError(int(rest), os.strerror(int(rest)), str(self._home))
        if word not in may:
            raise VaultError(f"the container that was to {act} in {self._home} said: {said or 'nothing'}")
        return word, rest

    def _run(self, command: list[str], send: bytes) -> str:
        """What the container said; it is gone."""
        with _engine(f"{command[0]} in {self._home}") as client:
            _remove(client.api, self._name)
            created = self._create(client.api, command)["Id"]
            try:
                return _talk(client.api, created, send)
            finally:
                _remove(client.api, self._name)

    def _create(self, api: APIClient, command: list[str]) -> dict[str, Any]:
        tag = images.current_tag()
        host = host_config(api, self._home, confined=any("seccomp" in one for one in api.info()["SecurityOptions"]))
        found: dict[str, Any] = api.create_container(
            tag,
            command,
            name=self._name,
            entrypoint=list(PROGRAM),
            user="0:0",
            stdin_open=True,
            use_config_proxy=False,  # it would put the proxy's password into the environment
            labels={LABEL: str(self._home)},
            host_config=host,
        )
        return found


def host_config(api: APIClient, home: Path, *, confined: bool) -> dict[str, Any]:
    """What the container may: mount in one directory, for a moment, and nothing else.

    Args:
        confined: whether the engine has seccomp; one that has not refuses to be given a profile.
    """
    from docker.types import LogConfig, Mount, Ulimit

    # AppArmor's profile of Docker's forbids every mount; where there is no AppArmor, this says nothing
    security = ["no-new-privileges:true", "apparmor=unconfined", *([f"seccomp={_profile()}"] if confined else [])]
    config: dict[str, Any] = api.create_host_config(
        mounts=[Mount(str(home), str(home), type="bind", propagation="rshared")],
        network_mode="none",
        ipc_mode="none",
        cap_drop=["ALL"],
        cap_add=list(CAPABILITIES),
        security_opt=security,
        read_only=True,
        mem_limit=MEMORY,
        memswap_limit=MEMORY,  # no key goes to a swap
        pids_limit=PIDS,
        ulimits=[Ulimit(name="core", soft=0, hard=0)],  # a core file would hold the keys
        log_config=LogConfig(type="none"),
        restart_policy={"Name": "no"},
        auto_remove=True,  # also if this process is killed meanwhile
    )
    return config | {"MaskedPaths": list(MASKED)}


def missing() -> str | None:
    """None if a Docker engine of this host can be asked and has the image, else what it lacks."""
    if lacks := images.engine_missing():
        return lacks
    try:
        with _engine("look for the image") as client:
            images.require(client)
    except EmlabError as exc:
        return str(exc)
    return None


def missing_in(folder: Path) -> str | None:
    """None if the container mounts in a folder so that this process sees it, else why not; it is tried."""
    if not (groups := mounts.holding(folder).groups):
        return f"{folder} is not on a shared mount: for it or a D above it, mount --bind D D; mount --make-rshared D"
    try:
        with tempfile.TemporaryDirectory(prefix=".try-", dir=folder) as place:
            group = Helper(Path(place)).trial()
    except (OSError, VaultError) as exc:
        return f"the helper container cannot mount eCryptfs in {folder}: {exc}"
    if group not in groups:
        return (
            f"what the Docker engine mounts in {folder} is not seen here: use an engine that shares this host's mounts"
        )
    return None


# -- the Docker engine -------------------------------------------------------------------------------------------------


def _profile() -> str:
    allowed = {"names": list(CALLS), "action": "SCMP_ACT_ALLOW"}
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allowed]})


@contextmanager
def _engine(what: str) -> Iterator[DockerClient]:
    """The Docker engine of this host, and its errors as VaultError."""
    import docker
    import requests

    if lacks := images.engine_missing():
        raise VaultError(f"cannot {what}: {lacks}")
    try:
        with contextlib.closing(docker.from_env(timeout=int(LIMIT_S))) as client:
            yield client
    except docker.errors.ImageNotFound as exc:
        raise VaultError(f"cannot {what}: no image of this version of emlab; run: emlab images build") from exc
    except (docker.errors.DockerException, requests.RequestException, TimeoutError) as exc:
        raise VaultError(f"cannot {what} with a helper container: {exc}") from exc


def _talk(api: APIClient, container: str, send: bytes) -> str:
    """The first line of what the container says once it was sent that. Raises TimeoutError."""
    attached = api.attach_socket(container, {"stdin": 1, "stdout": 1, "stream": 1})
    # the answer first: it is read through the stream
    with contextlib.closing(attached._sock) as stream, contextlib.closing(attached._response):
        stream.settimeout(LIMIT_S)
        api.start(container)
        with contextlib.suppress(ConnectionError):  # it has ended: what it says tells why
            stream.sendall(send)
            stream.shutdown(socket.SHUT_WR)
        return _listen(stream)


def _listen(stream: socket.socket) -> str:
    """What the engine passes on until the container ends, in frames: the kind of output, its size, the bytes."""
    raw = bytearray()
    with stream.makefile("rb") as file:
        while len(head := file.read(8)) == 8 and len(raw) < MAX_ANSWER:
            raw += file.read(min(struct.unpack(">4xL", head)[0], MAX_ANSWER))
    return raw.decode(errors="replace").partition("\n")[0][:500]


def _remove(api: APIClient, name: str) -> None:
    """There is no such container, whatever it was doing."""
    import docker

    try:
        api.remove_container(name, v=True, force=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as exc:
        if exc.status_code != 409:  # it is being removed already
            raise
    if not wait_until(lambda: _is_gone(api, name), LIMIT_S):
        raise VaultError(f"the helper container {name} cannot be removed")


def _is_gone(api: APIClient, name: str) -> bool:
    import docker

    try:
        api.inspect_container(name)
    except docker.errors.NotFound:
        return True
    return False
