"""A lab that `emlab serve` serves for the time of a measurement, and plain clients of it and of its clouds' sockets."""

from __future__ import annotations

import functools
import os
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from emlab import serving
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.engines.base import SOCKET, Engine
from emlab.errors import BadReply, EngineError, InUse, StartTimeout
from emlab.fanout import fan_out
from emlab.lab import Lab
from emlab.measure.pausing import raw_verbs
from emlab.parts import make_engine
from emlab.remote import ControllerClient
from emlab.state import CloudState

START_S, ANSWER_S, SETTLE_S, END_S = 60.0, 60.0, 10.0, 120.0
PATH = "/policy"  # one small read of the database
# No cloud is idle for long enough to be paused by it, and yet every few seconds the sweep looks at all of them.
IDLE_S = 86_400
# The limit for one address would stop a generator of load that has one address.
LIMIT_PER_S = 1e9
SETTINGS = """\
name = "{name}"
engine = "{engine}"
keep = true
idle_s = {idle_s}
[serve]
port = 0
tls = {tls}
requests_per_s = {limit}
"""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_PART_BYTES = 1 << 16


@dataclass(frozen=True)
class Way:
    """How a cloud is reached, and the owner's request that it answers.

    Attributes:
        address: of a unix socket, or host and port. ca: certificate to trust; None speaks plain HTTP.
    """

    address: str | tuple[str, int]
    request: bytes
    ca: str | None = None

    def connect(self) -> socket.socket:
        """A new connection."""
        if isinstance(self.address, str):
            line = socket.socket(socket.AF_UNIX)
            line.settimeout(ANSWER_S)
            line.connect(self.address)
            return line
        line = socket.create_connection(self.address, timeout=ANSWER_S)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.ca is None:
            return line
        return _trusting(self.ca).wrap_socket(line, server_hostname=self.address[0])

    def fresh_s(self) -> float:
        """Seconds from nothing, over a new connection, to the answer's first byte. Raises OSError, BadReply."""
        start = SYSTEM_CLOCK.monotonic()
        with closing(self.connect()) as line:
            return self._answered(line, start)

    @contextmanager
    def kept(self) -> Iterator[Callable[[], float]]:
        """A call that returns the seconds from request to first byte, over a connection that stays open."""
        with closing(self.connect()) as line:
            yield lambda: self._answered(line, SYSTEM_CLOCK.monotonic())

    def _answered(self, line: socket.socket, start: float) -> float:
        line.sendall(self.request)
        answer = line.recv(_PART_BYTES)
        seconds = SYSTEM_CLOCK.monotonic() - start
        _finish(line, answer)
        return seconds


@functools.lru_cache(maxsize=4)
def _trusting(ca: str) -> ssl.SSLContext:
    """Made once, as a client does that asks often."""
    return ssl.create_default_context(cafile=ca)


def _finish(line: socket.socket, answer: bytes) -> None:
    """All of an answer that began so was read, and it was a good one. Raises BadReply."""
    while _HEAD_END not in answer:
        answer = _more(line, answer)
    size = _LENGTH.search(answer)
    if not answer.startswith(b"HTTP/1.1 200 ") or size is None:
        raise BadReply(f"the answer begins with {answer[:60]!r}")
    whole = answer.index(_HEAD_END) + len(_HEAD_END) + int(size[1])
    while len(answer) < whole:
        answer = _more(line, answer)


def _more(line: socket.socket, answer: bytes) -> bytes:
    part = line.recv(_PART_BYTES)
    if not part:
        raise BadReply(f"the connection ended after {len(answer)} bytes of an answer")
    return answer + part


@dataclass(frozen=True)
class Person:
    """Somebody with a cloud in a served lab. `wake`: the engine's own, without emlab."""

    user: str
    cloud: str
    socket: Path
    request: Callable[[str], bytes]  # for a path
    wake: Callable[[], None]

    @property
    def direct(self) -> Way:
        """To the cloud itself."""
        return Way(str(self.socket), self.request(PATH))

    def woken_s(self) -> float:
        """Seconds until the first byte of a paused cloud, woken and asked without emlab."""
        start = SYSTEM_CLOCK.monotonic()
        self.wake()
        return SYSTEM_CLOCK.monotonic() - start + self.direct.fresh_s()


class ServedLab:
    """A lab on that engine, served by a program that can be ended and started again. A context manager.

    Args:
        home: where it lives, instead of $EMLAB_HOME.
    """

    def __init__(self, engine: str, *, home: Path | str | None = None) -> None:
        self.people: list[Person] = []
        self._lab = Lab(engine, name=f"served-{secrets.token_hex(4)}", idle=None, keep=True, home=home)
        self._stack = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._admin: ControllerClient | None = None
        self._folder = Path()
        self._engine: Engine

    def __enter__(self) -> ServedLab:
        with ExitStack() as stack:
            with self._lab:  # it is kept, so that no program that ends takes it along
                self._engine = make_engine(self._lab.engine, self._lab.home)
            stack.callback(self._remove)
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emlab-served-")))
            stack.callback(self.end)
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _remove(self) -> None:
        """Nothing is left of the lab."""
        lab = self._lab
        Lab(self._engine.name, name=lab.name, idle=None, keep=False, home=lab.home).start().close()

    # -- the program -------------------------------------------------------------------------------------------

    def start(self, *, tls: bool = False) -> None:
        """The program runs and answers. Raises StartTimeout, with what it said."""
        config, log = self._folder / "lab.toml", self._folder / "log"
        config.write_text(
            SETTINGS.format(
                name=self._lab.name,
                engine=self._engine.name,
                idle_s=IDLE_S,
                tls=str(tls).lower(),
                limit=LIMIT_PER_S,
            )
        )
        command = [sys.executable, "-m", "emlab.cli", "serve", "--config", str(config)]
        env = {**os.environ, "EMLAB_HOME": str(self._lab.home)}
        with log.open("wb") as out:
            self._process = process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        if not wait_until(lambda: process.poll() is not None or self._answers(), START_S) or not self._answers():
            self.kill()
            raise StartTimeout(f"emlab serve did not answer; it said: {log.read_text()[-500:]}")

    def _answers(self) -> bool:
        """Whether the program that was started last has said where it is, to which there is a client from now on."""
        found = serving.address(self._lab.path)
        if found is None or self._process is None or found.pid != self._process.pid:
            return False
        if self._admin is None:
            token = (self._lab.path / serving.TOKEN_FILE).read_text().strip()
            self._admin = ControllerClient(found.url, token, ca=found.ca)
        return True

    @property
    def pid(self) -> int:
        """Of the program."""
        if self._process is None:
            raise EngineError("emlab serve does not run")
        return self._process.pid

    @property
    def admin(self) -> ControllerClient:
        """A client of the program that may do everything."""
        if self._admin is None:
            raise EngineError("emlab serve does not run")
        return self._admin

    def kill(self) -> None:
        """The program is dead and has ended nothing in order. Idempotent."""
        self._end(signal.SIGKILL)

    def end(self) -> None:
        """The program has ended in order. Idempotent."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        process.send_signal(how)
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    # -- its people --------------------------------------------------------------------------------------------

    def grow(self, number: int) -> None:
        """So many people have clouds. Raises TooMany: sixty may sign up at once, and one more every two seconds."""
        users = [f"person{k}" for k in range(len(self.people), number)]
        clouds = {cloud.id: cloud for cloud in fan_out(users, self.admin.signup, description="sign-ups")}
        for handle in self._engine.find(self._lab.name):
            if handle.cloud in clouds:
                _, wake = self._stack.enter_context(raw_verbs(self._engine.name, handle))
                cloud = clouds[handle.cloud]
                self.people.append(
                    Person(cloud.user, handle.cloud, handle.run_dir / SOCKET, _requests(str(cloud.token)), wake)
                )

    def through(self, person: Person) -> Way:
        """To a cloud by the gateway."""
        host, _, port = self.admin.address.rpartition("/")[2].rpartition(":")
        found = serving.address(self._lab.path)
        return Way((host, int(port)), person.request(f"/{person.cloud}{PATH}"), None if found is None else found.ca)

    def pause(self, person: Person) -> None:
        """The engine says that the cloud is paused. Raises EngineError."""

        def paused() -> bool:
            with suppress(InUse):  # who has the answer's last byte may ask before its lease has ended
                self.admin.pause(person.user)
            return self.admin.status(person.user).state == CloudState.PAUSED.value

        if not wait_until(paused, SETTLE_S):
            raise EngineError(f"the cloud of {person.user!r} is not paused")

    def pause_all(self) -> None:
        """All clouds are paused."""
        fan_out(self.people, self.pause, description="pausing")

    def knows_all(self) -> bool:
        """Whether the controller answers, and says of all clouds that they are paused."""
        found = self.admin.clouds().statuses()
        states = {status.user for status in found if status.state == CloudState.PAUSED.value}
        return states == {person.user for person in self.people}

    def cpu_s(self) -> float:
        """CPU seconds that all clouds have used since they were started."""
        return sum(self.admin.stats(person.user).cpu_s for person in self.people)


def _requests(token: str) -> Callable[[str], bytes]:
    """What an owner sends to a path; the token is in no field that could be shown."""
    return lambda path: f"GET {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
