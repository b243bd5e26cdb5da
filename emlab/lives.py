"""The lives of a lab's clouds in this process: how one is made, and where it is found. L3."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from emlab.clock import Clock
from emlab.engines.base import Engine
from emlab.engines.rundir import make_run_dir
from emlab.errors import CloudGone, EmlabError, UnknownUser
from emlab.idle import Past
from emlab.lifecycle import Lifecycle
from emlab.provision import Provision
from emlab.record import Recorder
from emlab.registry import CloudRow, Registry
from emlab.state import CloudSpec, Handle
from emlab.vaults.base import Vault

log = logging.getLogger(__name__)


class Lives:
    """The life of each cloud, by its user and by its id. Thread-safe.

    Args:
        engine, vault, registry, lab, home, lab_dir, recorder: see `Controller`.
        provision: what the custodian of the cloud with this id is told when it starts.
    """

    def __init__(
        self,
        engine: Engine,
        vault: Callable[[Path], Vault],
        registry: Registry,
        *,
        lab: str,
        home: Path,
        lab_dir: Path,
        provision: Callable[[str], Provision],
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self.by_user: dict[str, Lifecycle] = {}
        self.by_cloud: dict[str, Lifecycle] = {}  # the same ones
        self._kept: dict[str, Past] = {}  # of their uses, as in the registry
        self._forgets = False  # the last time they could not be kept
        self._engine = engine
        self._vault = vault
        self._registry = registry
        self._lab = lab
        self._home = home
        self._dir = lab_dir
        self._provision = provision
        self._recorder = recorder
        self._clock = clock

    def folder(self, row: CloudRow) -> Path:
        """Where the cloud's vault is."""
        return self._dir / "clouds" / row.cloud

    def begin(self, row: CloudRow, handle: Handle | None = None) -> Lifecycle:
        """The life of the cloud in that row is known from now on; `handle`: what the engine has of it already."""
        vault = self._vault(self.folder(row))
        spec = CloudSpec(
            lab=self._lab,
            user=row.user,
            cloud=row.cloud,
            generation=row.generation,
            run_dir=make_run_dir(self._home, row.cloud),
            vault_parent=vault.parent,
            vault_dir=vault.parent / "clear",
        )
        life = Lifecycle(
            spec,
            engine=self._engine,
            vault=vault,
            provision=lambda: self._provision(row.cloud),
            intend=lambda intent: self._registry.turn(row.cloud, intent),
            recorder=self._recorder,
            clock=self._clock,
            handle=handle,
            past=self._registry.past(row.cloud),
        )
        self.by_user[row.user] = self.by_cloud[row.cloud] = life
        return life

    def remember(self) -> None:
        """When clouds were used is in the registry; or the log says why not."""
        pasts = {life.spec.cloud: life.past() for life in self}
        changed = {cloud: past for cloud, past in pasts.items() if self._kept.get(cloud) != past}
        try:
            if changed:
                self._registry.remember(changed)
        except EmlabError as exc:  # it decides when they are paused, and nothing else
            level = logging.DEBUG if self._forgets else logging.WARNING  # each sweep tries, and it is said once
            log.log(level, "when the clouds of the lab %s were used is not kept: %s", self._lab, exc)
            self._forgets = True
        else:
            self._kept, self._forgets = pasts, False

    def end(self, row: CloudRow) -> None:
        """The life of the cloud in that row is not known any more. Idempotent."""
        self.by_user.pop(row.user, None)
        self.by_cloud.pop(row.cloud, None)

    def of(self, user: str) -> Lifecycle:
        """The life of the user's cloud. Raises UnknownUser."""
        life = self.by_user.get(user)
        if life is None:
            raise unknown(user, self._lab)
        return life

    def behind(self, cloud: str) -> Lifecycle:
        """The life of the cloud with this id. Raises CloudGone."""
        life = self.by_cloud.get(cloud)
        if life is None:
            raise CloudGone(f"the cloud {cloud} is gone")
        return life

    def detach(self) -> None:
        """Connections are closed, and no life is known any more. Idempotent."""
        self.remember()
        for life in self:
            life.detach()
        self.by_user.clear()
        self.by_cloud.clear()

    def __iter__(self) -> Iterator[Lifecycle]:
        return iter(list(self.by_user.values()))

    def __len__(self) -> int:
        return len(self.by_user)


def unknown(user: str, lab: str) -> UnknownUser:
    """What is said of a user who has no cloud."""
    return UnknownUser(f"nobody called {str(user)[:80]!r} has a cloud in the lab {lab}")
