"""Several clouds: a sequence, and a table in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, overload

from emlab.clock import SYSTEM_CLOCK
from emlab.fanout import fan_out
from emlab.state import CloudState

if TYPE_CHECKING:
    import pandas as pd

    from emlab.usercloud import UserCloud

STATE_COLOURS = {
    CloudState.RUNNING: "#2a7f3f",
    CloudState.PAUSED: "#5b6b9a",
    CloudState.STARTING: "#a06a00",
    CloudState.STOPPED: "#666666",
    CloudState.ABSENT: "#666666",
    CloudState.FAILED: "#b00020",
}


class Clouds(Sequence["UserCloud"]):
    """Several clouds: a sequence, and a table in a notebook."""

    def __init__(self, clouds: Sequence[UserCloud]) -> None:
        self._clouds = list(clouds)

    @overload
    def __getitem__(self, index: int) -> UserCloud: ...
    @overload
    def __getitem__(self, index: slice) -> Clouds: ...
    def __getitem__(self, index: int | slice) -> UserCloud | Clouds:
        return Clouds(self._clouds[index]) if isinstance(index, slice) else self._clouds[index]

    def __len__(self) -> int:
        return len(self._clouds)

    def __iter__(self) -> Iterator[UserCloud]:
        return iter(self._clouds)

    def frame(self) -> pd.DataFrame:
        """One row per cloud: user, cloud (id), generation, state, vault_open, idle_s, leases (running ones)."""
        import pandas as pd

        now = SYSTEM_CLOCK.now()
        rows = fan_out(self._clouds, lambda cloud: _facts(cloud, now), description="states", progress=False)
        columns = ["user", "cloud", "generation", "state", "vault_open", "idle_s", "leases"]
        return pd.DataFrame(rows, columns=columns)

    def _repr_html_(self) -> str:
        frame = self.frame()
        head = "".join(f"<th>{name}</th>" for name in ("user", "cloud", "state", "vault", "idle", "leases"))
        body = "".join(
            f"<tr><td>{escape(row['user'])}</td><td><code>{row['cloud'][:12]}</code></td>"
            f'<td style="color:{STATE_COLOURS[CloudState(row["state"])]}">{row["state"]}</td>'
            f"<td>{'open' if row['vault_open'] else 'closed'}</td>"
            f"<td>{row['idle_s']:.0f} s</td><td>{row['leases']}</td></tr>"
            for row in frame.to_dict("records")
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{len(frame)} clouds</p>"

    def __repr__(self) -> str:
        return f"Clouds({', '.join(cloud.user for cloud in self._clouds)})"


def _facts(cloud: UserCloud, now: float) -> tuple[object, ...]:
    try:
        life = cloud._controller.life(cloud.user)
    except LookupError:  # forgotten meanwhile, or its sign-up was interrupted
        return cloud.user, "", 0, CloudState.ABSENT.value, False, float("nan"), 0
    use = life.use()
    leases = sum(until > now for until in use.leases)
    spec = life.spec
    return cloud.user, spec.cloud, spec.generation, life.state.value, life.is_open, use.idle_s(now), leases
