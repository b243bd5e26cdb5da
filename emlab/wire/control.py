"""What the controller says of clouds, in this process and over HTTP alike."""

from __future__ import annotations

import msgspec


class CloudStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one cloud stands.

    Attributes:
        cloud: its id, 32 hex digits. generation: 1 for the user's first one.
        state: of `CloudState`; "unknown" if the engine could not be asked.
        vault_open: None if that is not known.
        idle_s: seconds since the last use ended. leases: how many are running.
    """

    user: str
    cloud: str
    generation: int
    state: str
    vault_open: bool | None
    idle_s: float
    leases: int
