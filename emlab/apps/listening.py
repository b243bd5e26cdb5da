"""Where a server of ours listens over TCP, and with which certificate."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from emlab import tls
from emlab.errors import ConfigError
from emlab.tls import Certificate
from emlab.wire.address import is_loopback


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


def check(chosen: Listening) -> None:
    """Returns if a server can listen so. Raises ConfigError."""
    if not chosen.tls and not is_loopback(chosen.host):
        raise ConfigError(f"plain HTTP is for this host only: serve {chosen.host} with TLS")
    if bool(chosen.certificate) != bool(chosen.key):
        raise ConfigError("a certificate comes with its key: give both, or none to have one made")


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
    return tls.private(folder, list(dict.fromkeys([chosen.host, *chosen.names, socket.gethostname(), "localhost"])))


def url(chosen: Listening, listener: socket.socket) -> str:
    """Where it answers."""
    host = f"[{chosen.host}]" if ":" in chosen.host else chosen.host
    return f"http{'s' if chosen.tls else ''}://{host}:{listener.getsockname()[1]}"
