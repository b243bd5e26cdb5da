"""A lab that `emlab serve` serves, as a program of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from emlab import serving
from emlab.apps.listening import Address
from emlab.clock import wait_until
from emlab.remote import ControllerClient

START_S = 30.0


class Served:
    """A running `emlab serve`, and where its lab is."""

    def __init__(self, process: subprocess.Popen[bytes], lab_dir: Path, log: Path) -> None:
        self.process = process
        self.lab_dir = lab_dir
        self.log = log

    @property
    def address(self) -> Address:
        found = serving.address(self.lab_dir)
        assert found is not None, self.log.read_text()
        return found

    @property
    def admin_token(self) -> str:
        return (self.lab_dir / serving.TOKEN_FILE).read_text().strip()

    def client(self, token: str | None = None) -> ControllerClient:
        """A client for this token, or the admin's."""
        return ControllerClient(self.address.url, token or self.admin_token, ca=self.address.ca)

    def kill(self) -> None:
        """It is dead, and has ended nothing in order."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> int:
        """It has ended in order; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def served(home: Path, config: Path, **env: str) -> Iterator[Served]:
    """`emlab serve` of the lab "served" in this file, until the block ends."""
    log = config.with_suffix(".log")
    lab_dir = home / "labs" / "served"
    command = [sys.executable, "-m", "emlab.cli", "serve", "--config", str(config)]
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **env}) as process:
        running = Served(process, lab_dir, log)
        try:
            assert wait_until(lambda: process.poll() is not None or _answers(running), START_S)
            assert process.poll() is None, log.read_text()
            yield running
        finally:
            if process.poll() is None:
                running.end()


def _answers(running: Served) -> bool:
    found = serving.address(running.lab_dir)
    return found is not None and found.pid == running.process.pid


def free_port() -> int:
    """A port on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def lab_file(path: Path, engine: str, serve: Mapping[str, object] | None = None, **lab: object) -> Path:
    """A lab's file: never pausing by itself, on a free port, and kept, as what is served is."""
    settings = {"name": "served", "engine": engine, "idle_s": 0, **lab}
    lines = [_line(*item) for item in settings.items()]
    lines += ["[serve]", *(_line(*item) for item in {"port": 0, **(serve or {})}.items())]
    path.write_text("\n".join(lines))
    return path


def _line(name: str, value: object) -> str:
    return f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {str(value).lower()}"
