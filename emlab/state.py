"""What a cloud is told at birth and what an engine says of it. Values only; imports nothing of emlab."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path


class CloudState(enum.Enum):
    """Where a cloud's container or processes stand. Whether its vault is open is the vault's fact, not a state.

    No engine says UNKNOWN: that is what is told of a cloud whose engine cannot be asked.
    """

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class CloudSpec:
    """All that an engine needs to start one cloud.

    Attributes:
        lab: its name, as it stands in labels.
        user: a person's name, for messages in this process; no engine writes it anywhere.
        cloud: the cloud's id, 32 hex digits; also the e-mission user_id of its entries.
        generation: 1 for a user's first cloud; one more after `forget` and a new sign-up.
        run_dir: absolute, mode 0700; holds provision.json before start, and the sockets.
        vault_parent: absolute; the directory that is bound into a container (never another cloud's).
        vault_dir: absolute, under vault_parent; the open vault, where mongod keeps its files.
        memory_mb: hard limit for the whole cloud.
    """

    lab: str
    user: str
    cloud: str
    generation: int
    run_dir: Path
    vault_parent: Path
    vault_dir: Path
    memory_mb: int = 1024


@dataclass(frozen=True, slots=True)
class Handle:
    """A cloud as an engine knows it: not whose it is. `ref` is the engine's own name for it (container id, pid)."""

    lab: str
    cloud: str
    generation: int
    run_dir: Path
    ref: str = field(compare=False, default="")


@dataclass(frozen=True, slots=True)
class CloudStats:
    """What a cloud uses now: resident anonymous-and-kernel memory in MiB, CPU seconds since its start."""

    memory_mb: float
    cpu_s: float
