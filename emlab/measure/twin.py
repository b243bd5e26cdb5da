"""Containers like those of emlab, started with the Docker SDK alone. Imports docker when one is made."""

from __future__ import annotations

import copy
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from emlab import provision
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.engines import base
from emlab.engines.rundir import cloud_owner, make_run_dir
from emlab.errors import EngineError, Unreachable
from emlab.lab import Lab
from emlab.measure.clouds import asked_directly, cloud_of
from emlab.state import CloudSpec

if TYPE_CHECKING:
    from docker import APIClient

CALL_TIMEOUT_S = 60
PATIENCE_S = 2.0  # after which a raw container that does not answer is looked at; before, that would cost it time
MODEL = "measured-model"


@dataclass(frozen=True)
class DockerTwin:
    """Starts what the engine starts: the container of a cloud as Docker shows it, for other directories.

    It is labelled as a cloud of the lab, so that `emlab clean` finds one that a crash left.
    """

    api: APIClient
    spec: CloudSpec  # of the model
    found: dict[str, object]  # what Docker says of the model's container
    told: provision.Provision  # what the model was told
    home: Path
    clouds: Path  # where the lab keeps data

    @contextmanager
    def place(self) -> Iterator[CloudSpec]:
        """A fresh cloud's directories, with all that the controller would have written into them.

        After the block nothing is left of them, nor of the container that `start` made for them.
        """
        spec = self._fresh()
        try:
            self._fill(spec)
            yield spec
        finally:
            self._remove(spec)

    def _fresh(self) -> CloudSpec:
        cloud = secrets.token_hex(16)
        parent = self.clouds / cloud / "open"
        return replace(
            self.spec,
            user=f"raw-{cloud[:8]}",
            cloud=cloud,
            run_dir=make_run_dir(self.home, cloud),
            vault_parent=parent,
            vault_dir=parent / self.spec.vault_dir.relative_to(self.spec.vault_parent),
        )

    def _fill(self, spec: CloudSpec) -> None:
        parent = spec.vault_parent
        spec.vault_dir.mkdir(parents=True, mode=0o700)
        parent.chmod(0o700)
        provision.write_marker(spec.vault_dir, self.told.marker)
        provision.write(spec.run_dir, msgspec.structs.replace(self.told, cloud=spec.cloud))
        uid, gid = cloud_owner()
        for path in (parent, *parent.rglob("*"), spec.run_dir, *spec.run_dir.iterdir()):
            os.chown(path, uid, gid)

    def start(self, spec: CloudSpec) -> None:
        """The container is created, started, and has answered out of its MongoDB; looked for as emlab does.

        Raises: EngineError, errors of docker.
        """
        self.api.start(self._create(spec))
        begun = SYSTEM_CLOCK.monotonic()
        with asked_directly(spec.run_dir) as health:

            def answers() -> bool:
                try:
                    health()
                except Unreachable:
                    if SYSTEM_CLOCK.monotonic() - begun > PATIENCE_S and not self._runs(spec):
                        raise EngineError("a raw container ended instead of answering") from None
                    return False
                return True

            if not wait_until(answers, base.START_TIMEOUT_S):
                raise EngineError(f"a raw container did not answer within {base.START_TIMEOUT_S:g} s")

    def _runs(self, spec: CloudSpec) -> bool:
        return bool(self.api.inspect_container(_name(spec))["State"]["Running"])

    def _remove(self, spec: CloudSpec) -> None:
        import docker

        try:
            self.api.remove_container(_name(spec), v=True, force=True)
        except docker.errors.NotFound:
            pass  # it was never created
        finally:
            for folder in (spec.run_dir, self.clouds / spec.cloud):
                if folder.exists():
                    shutil.rmtree(folder)

    def _create(self, spec: CloudSpec) -> str:
        config = self.found["Config"]
        assert isinstance(config, dict)
        labels = config["Labels"] | {
            base.LABEL_CLOUD: spec.cloud,
            base.LABEL_RUN_DIR: str(spec.run_dir),
        }
        created = self.api.create_container(
            config["Image"],
            config["Cmd"],
            name=_name(spec),
            hostname=spec.cloud[:12],
            user=config["User"],
            stop_timeout=config["StopTimeout"],
            use_config_proxy=False,
            labels=labels,
            host_config=self._host_config(spec),
        )
        return str(created["Id"])

    def _host_config(self, spec: CloudSpec) -> dict[str, object]:
        """That of the model, with this cloud's directories in place of the model's."""
        found = self.found["HostConfig"]
        assert isinstance(found, dict)
        config: dict[str, object] = copy.deepcopy(found)
        directories = {
            str(self.spec.run_dir): str(spec.run_dir),
            str(self.spec.vault_parent): str(spec.vault_parent),
        }
        mounts = config["Mounts"]
        assert isinstance(mounts, list)
        for mount in mounts:
            mount["Source"] = directories[mount["Source"]]
        return config


@contextmanager
def docker_twin(lab: Lab) -> Iterator[DockerTwin]:
    """Makes raw containers for a lab on Docker. Its model is a cloud that lives no longer when this returns."""
    import docker

    client = docker.from_env(timeout=CALL_TIMEOUT_S)
    try:
        with cloud_of(lab, MODEL):
            life = lab.controller.life(MODEL)
            found = client.api.inspect_container(life.handle.ref)
            told = provision.read(life.spec.run_dir)
        yield DockerTwin(client.api, life.spec, found, told, lab.home, lab.path / "clouds")
    finally:
        client.close()


def _name(spec: CloudSpec) -> str:
    return f"emlab-{spec.lab}-raw-{spec.cloud[:12]}"
