"""An aggregator as a program of its own, beside a lab that `emlab serve` serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from emlab import ask as asking
from emlab.apps.aggregator import ADDRESS_FILE
from emlab.apps.listening import Address
from emlab.ask import Ask, Model, Outcome
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.loss import Loss
from emlab.provider import Provider
from emlab.queries.count_users import CountUsers
from emlab.query import Query
from emlab.remote import ControllerClient
from emlab.remote_aggregator import AggregatorClient
from emlab.wire.aggregation import Releasing

START_S = 30.0
COMMAND = ("-m", "emlab.cli", "aggregator", "--config")
# Dies after a release was kept and before it is answered, or before it is kept: when it is asked for the first one.
DYING = {
    "kept": "from emlab.releases import Releases; real = Releases.once\n"
    "def once(self, name, make):\n    real(self, name, make); os.kill(os.getpid(), 9)\n",
    "drawn": "from emlab.releases import Releases\ndef once(self, name, make):\n    make(); os.kill(os.getpid(), 9)\n",
}


class Aggregating:
    """A running aggregator, and where its folder and log are."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
        self.process = process
        self.folder = folder
        self.log = log

    @property
    def address(self) -> Address | None:
        """Where it answers; None while it starts."""
        path = self.folder / ADDRESS_FILE
        found = msgspec.json.decode(path.read_bytes(), type=Address) if path.exists() else None
        return found if found is not None and found.pid == self.process.pid else None

    def client(self, public: str | None = None) -> AggregatorClient:
        """A client of it."""
        assert self.address is not None, self.log.read_text()
        return AggregatorClient(self.address.url, ca=self.address.ca, public=public)

    def kill(self) -> None:
        """It is dead, and has ended nothing in order."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> int:
        """It has ended in order; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def settings(path: Path, lab: Address, token: str, **changed: object) -> Path:
    """The file of an aggregator for the lab at this address, and its token beside it."""
    secret = path.with_suffix(".token")
    secret.touch(mode=0o600)
    secret.write_text(token)
    chosen: dict[str, object] = {
        "operator": "Example trust",
        "folder": str(path.with_suffix(".folder")),
        "controller": lab.url,
        "ca": lab.ca or "",
        "token_file": secret.name,
        "port": 0,
        **changed,
    }
    lines = [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in chosen.items()]
    path.write_text("\n".join(lines))
    return path


@contextmanager
def aggregating(
    config: Path, command: Sequence[str] = COMMAND, env: Mapping[str, str] | None = None
) -> Iterator[Aggregating]:
    """The aggregator of this file runs until the block ends."""
    log = config.with_suffix(".log")
    argv = [sys.executable, *command, str(config)]
    environment = {**os.environ, "EMLAB_LOG": "DEBUG", **(env or {})}
    with log.open("ab") as out, subprocess.Popen(argv, stdout=out, stderr=out, env=environment) as process:
        running = Aggregating(process, config.with_suffix(".folder"), log)
        try:
            assert wait_until(lambda: process.poll() is not None or running.address is not None, START_S)
            assert process.poll() is None, log.read_text()
            yield running
        finally:
            if process.poll() is None:
                running.end()


def dying(when: str) -> tuple[str, ...]:
    """The command of an aggregator that is killed by the first release that it makes."""
    program = f"import os, sys\n{DYING[when]}Releases.once = once\nfrom emlab.apps.aggregator import main\n"
    return ("-c", program + "sys.exit(main(sys.argv[1:]))", "--config")


def asked(
    lab: ControllerClient,
    provider: Provider,
    aggregator: AggregatorClient,
    query: Query = CountUsers(None, 0.0, 2e9),  # noqa: B008 (a frozen value)
    *,
    epsilon_micro: int = 1000,
    min_users: int = 1,
    lasts_s: float = 120.0,
    model: Model = "central",
) -> Releasing:
    """An ask that every cloud has answered, as its provider brings it to the aggregator."""
    ask = Ask(
        id=asking.new_id(),
        query=query,
        loss=Loss(epsilon_micro=epsilon_micro),
        model=model,
        min_users=min_users,
        provider=provider.public,
        provider_name=provider.name,
        aggregator=aggregator.public,
        purpose="test",
        expires_ts=SYSTEM_CLOCK.now() + lasts_s,
    )
    signature = asking.sign(ask, provider.key)
    outcomes: list[Outcome] = [
        lab.put(ask, signature, alias, token=provider.token, timeout_s=30.0)
        for alias in lab.roster(provider.token, provider.public)
    ]
    return Releasing(ask=ask, signature=signature, outcomes=outcomes)
