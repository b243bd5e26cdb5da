"""Several clouds: a sequence, and a table in a notebook."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from html import escape
from typing import TYPE_CHECKING, overload

from msgspec.structs import astuple

from emlab.errors import EngineError, UnknownUser, VaultError
from emlab.fanout import fan_out
from emlab.state import CloudState, CloudStats
from emlab.wire.control import CloudStatus

if TYPE_CHECKING:
    import pandas as pd

    from emlab.engines.base import Engine
    from emlab.lifecycle import Lifecycle
    from emlab.usercloud import UserCloud

log = logging.getLogger(__name__)
STATE_COLOURS = {
    CloudState.RUNNING: "#2a7f3f",
    CloudState.PAUSED: "#5b6b9a",
    CloudState.STARTING: "#a06a00",
    CloudState.STOPPED: "#666666",
    CloudState.ABSENT: "#666666",
    CloudState.FAILED: "#b00020",
    CloudState.UNKNOWN: "#b00020",
}
VAULT = {True: "open", False: "closed", None: "unknown"}


def how_many(clouds: int) -> str:
    """So many clouds, in words."""
    return f"{clouds} cloud{'s' * (clouds != 1)}"


def state_of(life: Lifecycle) -> CloudState:
    """What the engine says of a cloud now; UNKNOWN if it cannot be asked."""
    try:
        return life.state
    except EngineError as exc:
        log.warning("the state of the cloud of %s is not known: %s", life.spec.user, exc)
        return CloudState.UNKNOWN


def states_of(engine: Engine, lab: str, lives: Iterable[Lifecycle]) -> dict[str, CloudState]:
    """The same of several clouds of a lab, by their ids; the engine is asked once for all."""
    ids = [life.spec.cloud for life in lives]
    try:
        return dict.fromkeys(ids, CloudState.ABSENT) | engine.states(lab)
    except EngineError as exc:
        log.warning("the states of the clouds of the lab %s are not known: %s", lab, exc)
        return dict.fromkeys(ids, CloudState.UNKNOWN)


def status_of(life: Lifecycle, state: CloudState, now: float) -> CloudStatus:
    """How a cloud stands of which the engine says that; what the vault cannot tell now is unknown."""
    use, spec = life.use(), life.spec
    try:
        is_open = life.is_open
    except VaultError as exc:
        log.warning("whether the vault of %s is open is not known: %s", spec.user, exc)
        is_open = None
    return CloudStatus(
        user=spec.user,
        cloud=spec.cloud,
        generation=spec.generation,
        state=state.value,
        vault_open=is_open,
        idle_s=use.idle_s(now),
        leases=sum(until > now for until in use.leases),
    )


class Clouds(Sequence["UserCloud"]):
    """Several clouds: a sequence, and a table in a notebook.

    Args:
        statuses: how these and perhaps others stand, asked for all at once; without it each is asked.
    """

    def __init__(
        self, clouds: Sequence[UserCloud], statuses: Callable[[], Sequence[CloudStatus]] | None = None
    ) -> None:
        self._clouds = list(clouds)
        self._statuses = statuses

    @overload
    def __getitem__(self, index: int) -> UserCloud: ...
    @overload
    def __getitem__(self, index: slice) -> Clouds: ...
    def __getitem__(self, index: int | slice) -> UserCloud | Clouds:
        return Clouds(self._clouds[index], self._statuses) if isinstance(index, slice) else self._clouds[index]

    def __len__(self) -> int:
        return len(self._clouds)

    def __iter__(self) -> Iterator[UserCloud]:
        return iter(self._clouds)

    def frame(self, *, stats: bool = False) -> pd.DataFrame:
        """One row per cloud, a column for each attribute of `CloudStatus`.

        Args:
            stats: also those of `CloudStats`, for which each cloud's engine is asked; NaN where it cannot say.
        """
        import pandas as pd

        rows = [astuple(status) for status in self.statuses()]
        frame = pd.DataFrame(rows, columns=list(CloudStatus.__struct_fields__))
        if not stats:
            return frame
        used = fan_out(self._clouds, _stats, description="stats", progress=False)
        return frame.join(pd.DataFrame(used, columns=[field.name for field in fields(CloudStats)], dtype="float64"))

    def statuses(self) -> list[CloudStatus]:
        """How each cloud stands."""
        if self._statuses is None:
            return fan_out(self._clouds, _status, description="states", progress=False)
        found = {status.user: status for status in self._statuses()}
        return [found.get(cloud.user) or _absent(cloud) for cloud in self._clouds]

    def _repr_html_(self) -> str:
        frame = self.frame()
        head = "".join(f"<th>{name}</th>" for name in ("user", "cloud", "state", "vault", "idle", "leases"))
        body = "".join(
            f"<tr><td>{escape(row['user'])}</td><td><code>{row['cloud'][:12]}</code></td>"
            f'<td style="color:{STATE_COLOURS[CloudState(row["state"])]}">{row["state"]}</td>'
            f"<td>{VAULT[row['vault_open']]}</td>"
            f"<td>{row['idle_s']:.0f} s</td><td>{row['leases']}</td></tr>"
            for row in frame.to_dict("records")
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{how_many(len(frame))}</p>"

    def __repr__(self) -> str:
        return f"Clouds({', '.join(cloud.user for cloud in self._clouds)})"


def _stats(cloud: UserCloud) -> CloudStats:
    try:
        return cloud.stats
    except (EngineError, UnknownUser):  # never started, gone meanwhile, or the engine is away
        return CloudStats(memory_mb=math.nan, cpu_s=math.nan)


def _status(cloud: UserCloud) -> CloudStatus:
    try:
        return cloud.status
    except UnknownUser:
        return _absent(cloud)


def _absent(cloud: UserCloud) -> CloudStatus:
    """How a cloud stands that was forgotten meanwhile, or whose sign-up was interrupted."""
    absent = CloudState.ABSENT.value
    return CloudStatus(
        user=cloud.user, cloud="", generation=0, state=absent, vault_open=False, idle_s=math.nan, leases=0
    )
