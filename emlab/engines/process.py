"""Clouds as plain processes: a custodian and its mongod in a session of their own. Isolates nothing.

A state file in the run directory says which session is the cloud's, so that any later process finds it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from emlab import provision
from emlab.clock import wait_until
from emlab.engines import base, session
from emlab.engines.ready import Died, start_error, twice, wait_for_health
from emlab.engines.rundir import run_root
from emlab.engines.session import Session
from emlab.errors import CloudGone, ConfigError, EmlabError, EngineError, EngineMissing, MongodMissing
from emlab.mongod import find_mongod
from emlab.state import CloudSpec, CloudState, CloudStats, Handle
from emlab.wire.transport import Transport, UnixTransport

log = logging.getLogger(__name__)

STATE_FILE, LOG_FILE = "process.json", "custodian.log"
PROGRAM = "emlab.apps.custodian"
STOP_GRACE_S = 20.0
MAX_LOG_BYTES, KEPT_LOG_BYTES = 1 << 20, 1 << 18
INHERITED = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The state file.

    Attributes:
        session: the cloud's processes; None from before their start until they are known.
        ended: they were stopped in order.
    """

    lab: str
    cloud: str
    generation: int
    session: Session | None = None
    ended: bool = False


class ProcessEngine:
    """Runs each cloud as processes of this user; see Engine for what the methods promise.

    Args:
        home: the emlab home; its clouds' run directories lie in `run_root(home)`.
    """

    name = "process"

    def __init__(self, home: Path) -> None:
        self._home = home

    @classmethod
    def missing(cls) -> str | None:
        """None if this host can run clouds as processes, else what it lacks."""
        if not sys.platform.startswith("linux"):
            return "clouds as processes need Linux, whose /proc they are read from"
        try:
            find_mongod()
        except MongodMissing as exc:
            return str(exc)
        return None

    def start(self, spec: CloudSpec) -> Handle:
        """Start or restart the cloud; see Engine."""
        if reason := self.missing():
            raise EngineMissing(reason)
        if spec.run_dir.parent != run_root(self._home):
            raise ConfigError(f"{spec.run_dir} is not a run directory of {self._home}: use make_run_dir")
        handle = Handle(spec.lab, spec.cloud, spec.generation, spec.run_dir)
        before = self.state(handle)
        if before in (CloudState.RUNNING, CloudState.PAUSED):
            self.resume(handle)
            return self._answering(spec)
        try:
            return self._start_or_say_why(spec)
        except BaseException:
            if before is CloudState.ABSENT:  # a stopped cloud stays, with the log that says why it did not start
                self.remove(handle)
            raise

    def pause(self, handle: Handle) -> None:
        """SIGSTOP to every process of the session; see Engine."""
        session.freeze(self._running(handle, "pause"))

    def resume(self, handle: Handle) -> None:
        """SIGCONT to every process of the session; see Engine."""
        session.thaw(self._running(handle, "resume"))

    def stop(self, handle: Handle) -> None:
        """Thaw, let the custodian close its mongod, end; see Engine."""
        record = _read(handle.run_dir)
        if record is None or record.session is None or record.ended:
            return
        running = record.session
        ours = session.leader(running)
        session.thaw(running)
        session.send(signal.SIGTERM, [ours] if ours else session.members(running))
        in_order = wait_until(lambda: not session.members(running), STOP_GRACE_S)
        status = session.reap(running)
        session.kill(running)
        if ours and in_order and status in (0, None):
            _write(handle.run_dir, msgspec.structs.replace(record, ended=True))
        else:
            log.warning("%s/%s did not end in order: %s", handle.lab, handle.cloud, self.logs(handle, 3))

    def remove(self, handle: Handle) -> None:
        """Kill the session and forget it; see Engine."""
        if (record := _read(handle.run_dir)) is not None:
            if record.session is not None:
                session.kill(record.session)
            for name in (LOG_FILE, STATE_FILE):
                (handle.run_dir / name).unlink(missing_ok=True)

    def state(self, handle: Handle) -> CloudState:
        """What the processes do now; see Engine. A mongod that outlived its custodian is told to end."""
        record = _read(handle.run_dir)
        return CloudState.ABSENT if record is None else _state(record, handle.run_dir)

    def stats(self, handle: Handle) -> CloudStats:
        """Of all processes: anonymous memory and page tables, and CPU since the start; see Engine."""
        record = _read(handle.run_dir)
        if record is None:
            raise _gone(handle)
        members = session.members(record.session) if record.session else []
        return CloudStats(
            memory_mb=sum(session.memory_kb(process) for process in members) / 1024,
            cpu_s=sum(process.cpu for process in members) / session.TICKS_PER_S,
        )

    def find(self, lab: str | None = None) -> list[Handle]:
        """The clouds with a state file; see Engine."""
        return [_handle(record, run_dir) for run_dir, record in self._records(lab)]

    def states(self, lab: str) -> dict[str, CloudState]:
        """What the processes of each cloud do now; see Engine."""
        return {record.cloud: _state(record, run_dir) for run_dir, record in self._records(lab)}

    def _records(self, lab: str | None) -> Iterator[tuple[Path, Record]]:
        """The run directories with a state file, and what that says."""
        for file in sorted(run_root(self._home).glob(f"*/{STATE_FILE}")):
            record = _read(file.parent)
            if record is not None and lab in (None, record.lab):
                yield file.parent, record

    def connect(self, handle: Handle) -> Transport:
        """HTTP over the socket in the run directory; see Engine."""
        return UnixTransport(handle.run_dir / base.SOCKET)

    def logs(self, handle: Handle, lines: int = 50) -> str:
        """What the custodian and its mongod printed last; see Engine."""
        tail = _tail(handle.run_dir / LOG_FILE).decode(errors="replace")
        return "\n".join(tail.splitlines()[-lines:])

    def _running(self, handle: Handle, verb: str) -> Session:
        """The session of a cloud whose custodian lives. Raises CloudGone, EngineError."""
        record = _read(handle.run_dir)
        if record is None:
            raise _gone(handle)
        if record.session is None or session.leader(record.session) is None:
            raise EngineError(f"cannot {verb} the cloud {handle.cloud} in lab {handle.lab!r}: it is not running")
        return record.session

    def _start_or_say_why(self, spec: CloudSpec) -> Handle:
        try:
            return twice(lambda: self._try_start(spec), spec)
        except Died as exc:
            logs = _tail(spec.run_dir / LOG_FILE).decode(errors="replace")
            raise start_error(spec, "died while starting", logs) from exc

    def _try_start(self, spec: CloudSpec) -> Handle:
        """One attempt with fresh processes; the log of one that failed stays. Raises Died, StartTimeout."""
        left = _read(spec.run_dir)
        if left is not None and left.session is not None:
            old = left.session
            wait_until(lambda: not session.members(old), STOP_GRACE_S)  # a mongod that was told to end
            session.kill(old)
        record = Record(lab=spec.lab, cloud=spec.cloud, generation=spec.generation)
        _write(spec.run_dir, record)  # before the processes, so that even a crash right now leaves a trace of them
        started = session.led_by(_spawn(spec))
        if started is None:
            raise Died("it ended at once")
        _write(spec.run_dir, msgspec.structs.replace(record, session=started))
        try:
            return self._answering(spec)
        except BaseException:
            session.kill(started)
            raise

    def _answering(self, spec: CloudSpec) -> Handle:
        """The handle, as soon as the cloud answers. Raises Died, StartTimeout."""
        record = _read(spec.run_dir)
        if record is None or (running := record.session) is None:
            raise Died("it was removed")
        handle = _handle(record, spec.run_dir)
        if not wait_for_health(spec, lambda: session.leader(running) is not None):
            raise start_error(spec, f"did not answer within {base.START_TIMEOUT_S:g} s", self.logs(handle))
        return handle


def _spawn(spec: CloudSpec) -> int:
    """The pid of a new custodian: a session of its own, our files closed, few variables, and none that is secret."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment |= {"EMLAB_MONGOD": str(find_mongod()), "PYTHONUNBUFFERED": "1"}
    log_flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", PROGRAM, "--run", str(spec.run_dir), "--data", str(spec.vault_dir)],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(spec.run_dir / LOG_FILE), log_flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP),
    )


def _inheritable() -> list[int]:
    """Our open files that a new program would get: none of Python's own, but libraries open some."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
        except OSError:
            continue  # the listing's own, closed again
    return found


def _handle(record: Record, run_dir: Path) -> Handle:
    ref = str(record.session.pid) if record.session else ""
    return Handle(record.lab, record.cloud, record.generation, run_dir, ref=ref)


def _state(record: Record, run_dir: Path) -> CloudState:
    """What the processes do now. A mongod that outlived its custodian is told to end."""
    _cut(run_dir / LOG_FILE)
    if record.session is None:
        return CloudState.FAILED
    if leader := session.leader(record.session):
        return CloudState.PAUSED if leader.state == "T" else CloudState.RUNNING
    session.reap(record.session)
    if record.ended:
        return CloudState.STOPPED
    for number in (signal.SIGTERM, signal.SIGCONT):
        session.send(number, session.members(record.session))
    return CloudState.FAILED


def _gone(handle: Handle) -> CloudGone:
    return CloudGone(f"there is no process of the cloud {handle.cloud} in lab {handle.lab!r}")


def _read(run_dir: Path) -> Record | None:
    """The state file, or None without one. A session that it does not name is looked for."""
    try:
        record = msgspec.json.decode((run_dir / STATE_FILE).read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError:
        record = _restored(run_dir)
    if record.session is None:
        return msgspec.structs.replace(record, session=session.find(PROGRAM, str(run_dir)))
    return record


def _restored(run_dir: Path) -> Record:
    """What a damaged state file said, as far as the provision tells; else under the run directory's own name."""
    try:
        told = provision.read(run_dir)
    except EmlabError as exc:
        log.warning("%s is damaged, and whose it was is unknown: %s", run_dir / STATE_FILE, exc)
        return Record(lab="", cloud=run_dir.name, generation=0)
    log.warning("%s is damaged; it is of %s/%s", run_dir / STATE_FILE, told.lab, told.cloud)
    return Record(lab=told.lab, cloud=told.cloud, generation=told.generation)


def _write(run_dir: Path, record: Record) -> None:
    """The state file says this, also after a crash of the machine: a rename may reach the disk before the content."""
    fresh = run_dir / (STATE_FILE + ".new")
    with fresh.open("wb") as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(run_dir / STATE_FILE)


def _tail(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - KEPT_LOG_BYTES))
            return opened.read()
    except FileNotFoundError:
        return b""


def _cut(file: Path) -> None:
    """A log that grew too long keeps its end. The processes append to it, so it stays the same file."""
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        return
    if size > MAX_LOG_BYTES:
        kept = _tail(file)
        with file.open("r+b") as opened:
            opened.truncate(0)
            opened.write(kept)
