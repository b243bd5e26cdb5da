"""`emlab serve`: a lab whose controller and clouds are reached over HTTP, from its start to its end."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import msgspec

from emlab.aggregator import SIMULATED
from emlab.apps import listening
from emlab.apps.listening import Address
from emlab.audit import Audit
from emlab.clock import SYSTEM_CLOCK
from emlab.errors import ConfigError, EmlabError
from emlab.files import replacing
from emlab.key import new_token
from emlab.lab import Lab
from emlab.parts import unready
from emlab.registry import check_free, owner_of
from emlab.service import Service, SignupMode

# subjects of admin tokens: the first one, and that of one command, which is no name that anybody can have
ADMIN, COMMAND_LINE = "admin", "command line"
log = logging.getLogger(__name__)
FLUSH_S = 5.0
KEPT_EVENTS = 100_000
TOKEN_FILE, ADDRESS_FILE = "admin.token", "serve.json"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a lab is served; the table [serve] of its file.

    Attributes:
        host: name or address to listen on; names: what else callers call this host, for a certificate made here.
        port: 0 for any that is free.
        tls: False speaks plain HTTP, on loopback only. certificate, key: files; one is made without them.
        signup: who may sign up: "open", "invitation" or "admin".
        requests_per_s: of one address, in the long run.
    """

    host: str = "127.0.0.1"
    names: list[str] = msgspec.field(default_factory=list)
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 4430
    tls: bool = True
    certificate: str = ""
    key: str = ""
    signup: SignupMode = "admin"
    requests_per_s: Annotated[float, msgspec.Meta(gt=0, le=1e9)] = 2000.0


def address(lab_dir: Path) -> Address | None:
    """Where the lab in this folder is served now; None if it is not."""
    try:
        found = msgspec.json.decode((lab_dir / ADDRESS_FILE).read_bytes(), type=Address)
    except (OSError, msgspec.DecodeError):
        return None
    return found if owner_of(lab_dir) == found.pid else None  # not left by one that was killed


def settings(raw: object, path: Path) -> Settings:
    """The settings in a table [serve] of that file. Raises ConfigError."""
    known = Settings.__struct_fields__
    if isinstance(raw, dict) and (strange := sorted(raw.keys() - set(known))):
        raise ConfigError(f"{path}: [serve] has {strange[0]!r}; it has {', '.join(known)}")
    try:
        return msgspec.convert(raw, Settings)
    except msgspec.ValidationError as exc:
        modes = ", ".join(get_args(SignupMode))
        raise ConfigError(f"{path}: [serve]: {exc} (signup is one of {modes})") from exc


def serve(lab: Lab, chosen: Settings, say: Callable[[str], None]) -> None:
    """The lab is open and served until SIGTERM or Ctrl-C; then it is closed.

    Raises: ConfigError (also: the port is taken), LabInUse and others of `Lab.start`.
    """
    from emlab.apps import controller as app
    from emlab.apps.gateway import Gateway
    from emlab.apps.recording import Recording
    from emlab.waking import Waker

    listening.check(chosen)
    with _listening(lab, chosen) as listener, lab.start(sweep=False):
        say(repr(lab) + (f"; engine: {lab.engine_reason}" if lab.engine_reason else ""))
        if (lacks := unready(lab.engine)) is not None:
            say(f"clouds that run or sleep go on, and no other can start: {lacks}")
        lab.recorder.keep(KEPT_EVENTS)
        certificate = listening.certificate(lab.path / "tls", chosen)
        service = Service(lab.controller, lab.registry, signup=chosen.signup, follow=partial(setattr, lab, "idle"))
        waker = Waker()
        front = app.Front(service, Gateway(service, waker), per_s=chosen.requests_per_s)
        url = listening.url(chosen, listener)
        if lab.controller.aggregator.trust == SIMULATED:
            lab.controller.aggregator.trust = f"the aggregator ran in the program of the lab {lab.name} at {url}"
        _first_token(lab, service, say)
        announced = listening.announced(lab.path / ADDRESS_FILE, f"lab {lab.name}", chosen, listener, certificate, say)
        with closing(waker), _flushing(service.audit), _sweeping(lab), announced:
            recorded = Recording(front, service)
            server = listening.server(recorded, certificate, limit_concurrency=app.MAX_CONNECTIONS, lifespan="on")
            front.is_ending = lambda: server.should_exit
            with _waking_leased(service):
                listening.run(server, listener)


@contextmanager
def _listening(lab: Lab, chosen: Settings) -> Iterator[socket.socket]:
    """As `listening`; a port that is taken by who serves this lab is said to be."""
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(listening.listening(chosen))
        except ConfigError:
            check_free(lab.path)
            raise
        yield listener


def _first_token(lab: Lab, service: Service, say: Callable[[str], None]) -> None:
    """There is an admin: the first one's token is in a file of the lab."""
    path = lab.path / TOKEN_FILE
    lab.controller.tokens.drop("admin", COMMAND_LINE)  # left by a command that was killed
    now = SYSTEM_CLOCK.now()
    if not any(token.holds(now) for token in lab.controller.tokens.of("admin")):
        text = new_token("admin")
        with replacing(path) as file:  # before it opens anything: nobody shall have to look for a token that is lost
            file.write(f"{text}\n".encode())
        service.issue("admin", ADMIN, text=text)
        say(f"the token of its first admin is in {path}; only you can read it")


@contextmanager
def _beside(name: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """A thread works while the block runs, until the event that it is given is set; the block ends when it has."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def _waking_leased(service: Service) -> Iterator[None]:
    """Clouds that are leased come to run: when the last service ended in order, it paused them."""

    def wake(stop: threading.Event) -> None:
        for user in service.leases.users():
            if stop.is_set():
                return
            try:
                service.controller.wake(user)
            except EmlabError as exc:
                log.warning("the cloud of %s is leased and cannot be woken: %s", user, exc.kind)

    with _beside("emlab-leased", wake):
        yield


@contextmanager
def _sweeping(lab: Lab) -> Iterator[None]:
    """The idle rule is followed: the leases that were kept are known."""
    lab.idle = lab.idle
    try:
        yield
    finally:
        lab.end_sweeping()


@contextmanager
def _flushing(audit: Audit) -> Iterator[None]:
    """What the audit log counts is on disk every few seconds, and at the end."""

    def flush(stop: threading.Event) -> None:
        while not stop.wait(FLUSH_S):
            try:
                audit.flush()
            except EmlabError as exc:
                log.error("the audit log cannot be written now; what is to be in it waits: %s", exc)

    try:
        with _beside("emlab-audit", flush):
            yield
    finally:
        audit.flush()
