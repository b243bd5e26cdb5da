"""When a cloud counts as started, and what is said when it does not start. For the engines that start programs."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable

from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.engines import base
from emlab.errors import (
    DiskFull,
    EmlabError,
    EngineError,
    EngineMissing,
    ImageMissing,
    StartTimeout,
    Unreachable,
    VaultError,
)
from emlab.state import CloudSpec, Handle
from emlab.wire.transport import UnixTransport

log = logging.getLogger(__name__)

_REFUSED = re.compile("VaultError: (.*)")
HEALTH_TIMEOUT_S = 5.0
ALIVE_EVERY_S = 0.25  # an engine takes longer to say whether it is alive than a cloud to answer


class Died(Exception):
    """The cloud's program ended while it was waited for."""


def wait_for_health(spec: CloudSpec, alive: Callable[[], bool]) -> bool:
    """True when the custodian answers, False when START_TIMEOUT_S passed. Raises Died soon when it is not alive."""
    socket = spec.run_dir / base.SOCKET
    transport = UnixTransport(socket)
    look_s = SYSTEM_CLOCK.monotonic()

    def answers() -> bool:
        nonlocal look_s
        if SYSTEM_CLOCK.monotonic() >= look_s:
            if not alive():
                raise Died("it ended")
            look_s = SYSTEM_CLOCK.monotonic() + ALIVE_EVERY_S
        if not socket.exists():
            return False
        try:
            status, _ = transport.send("GET", "/health", headers={}, body=b"", timeout_s=HEALTH_TIMEOUT_S)
        except Unreachable:
            return False
        return status == 200

    try:
        return wait_until(answers, base.START_TIMEOUT_S)
    finally:
        transport.close()


def twice(attempt: Callable[[], Handle], spec: CloudSpec) -> Handle:
    """What the attempt returns; one that died or was refused is made again, one that took too long is not.

    One of 50 starts died in a measured run of Docker, and the next one of the same cloud did not.
    """
    try:
        return attempt()
    except (Died, EngineError) as exc:
        if isinstance(exc, EngineMissing | ImageMissing | StartTimeout):
            raise
        log.warning("a start of %s/%s failed, once more: %s", spec.lab, spec.user, exc)
    return attempt()


def start_error(spec: CloudSpec, reason: str, logs: str) -> EmlabError:
    """The error for a cloud that did not start: DiskFull or VaultError if it said so, else StartTimeout with all."""
    if "No space left on device" in logs or "DiskFull: " in logs:
        free = shutil.disk_usage(spec.vault_parent).free
        return DiskFull(f"the disk under {spec.vault_parent} is full ({free} bytes free): cloud of {spec.user!r}")
    if refused := _REFUSED.findall(logs):
        return VaultError(f"the cloud of {spec.user!r} in lab {spec.lab!r} does not start: {refused[-1]}")
    return StartTimeout(f"the cloud of {spec.user!r} in lab {spec.lab!r} {reason}; its last lines:\n{logs.rstrip()}")
