"""The contract of an engine, tested by tests/contract/test_engines.py on every implementation."""

from __future__ import annotations

from typing import Protocol

from emlab.state import CloudSpec, CloudState, CloudStats, Handle
from emlab.wire.transport import Transport

START_TIMEOUT_S = 60.0
LABEL_HOME, LABEL_LAB = "emlab.home", "emlab.lab"
LABEL_CLOUD, LABEL_GENERATION, LABEL_RUN_DIR = "emlab.cloud", "emlab.generation", "emlab.run_dir"
SOCKET = "custodian.sock"  # in a cloud's run_dir


class Engine(Protocol):
    """Runs clouds. Every method blocks, may be called from several threads for different clouds, and asks the
    backend itself: an engine object keeps nothing that a restarted process would miss. What the backend is told and
    keeps names the cloud by its id, and never its person."""

    name: str

    @classmethod
    def missing(cls) -> str | None:
        """None if this host can run the engine, else one sentence: what it lacks and how to get it."""

    def start(self, spec: CloudSpec) -> Handle:
        """Start the cloud, or restart it when it is stopped; returns when it answers `health`.

        A start that dies is tried once more. What was begun is removed before an error leaves (a restart of a
        stopped cloud leaves it stopped).
        Raises: StartTimeout (with the last log lines), EngineMissing, ImageMissing, DiskFull.
        """

    def pause(self, handle: Handle) -> None:
        """The cloud uses no CPU and answers nothing. Idempotent. Raises CloudGone, EngineError."""

    def resume(self, handle: Handle) -> None:
        """A paused cloud runs again, with all it had in memory. Idempotent. Raises CloudGone, EngineError."""

    def stop(self, handle: Handle) -> None:
        """The cloud has ended in order: thawed, its mongod closed. Its data stays. Idempotent."""

    def remove(self, handle: Handle) -> None:
        """The engine knows the cloud no more. Works in every state; leaves the data directories. Idempotent."""

    def state(self, handle: Handle) -> CloudState:
        """The state that the backend reports now. ABSENT for a cloud that it does not know."""

    def stats(self, handle: Handle) -> CloudStats:
        """Memory and CPU now. Raises CloudGone."""

    def find(self, lab: str | None = None) -> list[Handle]:
        """All clouds of this lab (None: of every lab of this emlab home), in every state, by label or state file."""

    def states(self, lab: str) -> dict[str, CloudState]:
        """The state of each cloud that `find` would find, by its id, as `state` reports it; asked for all at once."""

    def connect(self, handle: Handle) -> Transport:
        """A new transport to the cloud's custodian. Does not wake it."""

    def logs(self, handle: Handle, lines: int = 50) -> str:
        """The last lines that the cloud printed; empty if there are none."""
