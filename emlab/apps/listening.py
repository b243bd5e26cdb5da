"""Where a server of ours listens over TCP, with which certificate, and how programs of this host find it."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from emlab import tls
from emlab.errors import ConfigError
from emlab.files import replacing
from emlab.tls import Certificate
from emlab.wire.address import is_loopback

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp


EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names no address to call; those of this host are there
LOCAL = ("localhost", "127.0.0.1", "::1")
FILES = 4096  # open at once: each connection is one, also while TLS shakes hands


class Listening(Protocol):
    """Settings of a server. `tls` False speaks plain HTTP, on loopback only; `names`: what else callers call it."""

    @property
    def host(self) -> str: ...  # noqa: D102
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def tls(self) -> bool: ...  # noqa: D102
    @property
    def names(self) -> list[str]: ...  # noqa: D102
    @property
    def certificate(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102


class Address(msgspec.Struct, frozen=True):
    """Where a program answers on this host now: in a file of its folder while it does.

    Attributes:
        fingerprint: of the certificate that it shows, whose names may be for callers from elsewhere.
    """

    url: str
    ca: str | None
    pid: int
    fingerprint: str | None = None


def check(chosen: Listening) -> None:
    """Returns if a server can listen so. Raises ConfigError."""
    if not chosen.tls and not is_loopback(chosen.host):
        raise ConfigError(f"plain HTTP is for this host only: serve {chosen.host} with TLS")
    if bool(chosen.certificate) != bool(chosen.key):
        raise ConfigError("a certificate comes with its key: give both, or none to have one made")
    if chosen.tls and chosen.certificate:
        tls.given(Path(chosen.certificate), Path(chosen.key))


@contextmanager
def listening(chosen: Listening) -> Iterator[socket.socket]:
    """A listener, bound before anything is started: a port that is taken costs nobody anything."""
    family = socket.AF_INET6 if ":" in chosen.host else socket.AF_INET
    try:
        listener = socket.create_server((chosen.host, chosen.port), family=family, backlog=2048)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {chosen.host} port {chosen.port}: {exc.strerror}") from exc
    with listener:
        yield listener


def certificate(folder: Path, chosen: Listening) -> Certificate | None:
    """The certificate to show; one of a private authority in the folder if none is given. Raises ConfigError."""
    if not chosen.tls:
        return None
    if chosen.certificate:
        return tls.given(Path(chosen.certificate), Path(chosen.key))
    return tls.private(folder, list(dict.fromkeys([chosen.host, *chosen.names, socket.gethostname(), *LOCAL])))


def url(chosen: Listening, listener: socket.socket, *, here: bool = False) -> str:
    """Where it answers callers from elsewhere, or those of this host."""
    host = EVERYWHERE[chosen.host] if here and chosen.host in EVERYWHERE else chosen.host
    host = socket.gethostname() if host in EVERYWHERE else host
    host = f"[{host}]" if ":" in host else host
    return f"http{'s' if chosen.tls else ''}://{host}:{listener.getsockname()[1]}"


@contextmanager
def announced(
    path: Path,
    name: str,
    chosen: Listening,
    listener: socket.socket,
    certificate: Certificate | None,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Who started this process is told where it is, and programs of the same user find it in the file meanwhile.

    Args:
        name: of what answers there.
    """
    ca = None if certificate is None or certificate.ca is None else str(certificate.ca)
    shown = None if certificate is None else tls.fingerprint(certificate)
    with replacing(path) as file:
        file.write(msgspec.json.encode(Address(url(chosen, listener, here=True), ca, os.getpid(), shown)))
    try:
        say(f"{name} is at {url(chosen, listener)}")
        if ca is not None:
            say(f"callers trust it by the certificate in {ca}")
        yield
    finally:
        path.unlink(missing_ok=True)


def run(server: uvicorn.Server, listener: socket.socket) -> None:
    """It has answered there until SIGTERM or Ctrl-C, which is how it is meant to end."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if now != resource.RLIM_INFINITY and now < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])


def server(
    app: ASGIApp, certificate: Certificate | None, *, limit_concurrency: int, lifespan: Literal["on", "off"] = "off"
) -> uvicorn.Server:
    """A server that is not yet running; `run(sockets=...)` is told where it listens.

    Args:
        certificate: None speaks plain HTTP, which `check` allows on loopback only.
    """
    import uvicorn

    from emlab.apps import http
    from emlab.apps.handshakes import TlsServer
    from emlab.apps.head import TimedHead

    config = http.config(
        app,
        limit_concurrency=limit_concurrency,
        lifespan=lifespan,
        protocol=TimedHead,
        ssl_certfile=None if certificate is None else certificate.chain,
        ssl_keyfile=None if certificate is None else certificate.key,
    )
    return uvicorn.Server(config) if certificate is None else TlsServer(config)
