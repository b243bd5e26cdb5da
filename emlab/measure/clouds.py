"""A cloud for the time of one measurement, and how it is asked without emlab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from emlab.engines.base import SOCKET
from emlab.errors import BadReply
from emlab.lab import Lab
from emlab.usercloud import UserCloud
from emlab.wire.transport import UnixTransport

PROBE_TIMEOUT_S = 5.0


@contextmanager
def cloud_of(lab: Lab, user: str) -> Iterator[UserCloud]:
    """The user has a cloud until the block ends."""
    cloud = lab.controller.signup(user)
    try:
        yield cloud
    finally:
        lab.controller.discard(user)


@contextmanager
def asked_directly(run_dir: Path) -> Iterator[Callable[[], None]]:
    """A call that returns when the cloud has answered GET /health out of its MongoDB, over a connection kept open.

    It raises Unreachable, or BadReply.
    """
    transport = UnixTransport(run_dir / SOCKET)

    def health() -> None:
        status, _ = transport.send("GET", "/health", headers={}, body=b"", timeout_s=PROBE_TIMEOUT_S)
        if status != 200:
            raise BadReply(f"/health answered {status}")

    try:
        yield health
    finally:
        transport.close()
