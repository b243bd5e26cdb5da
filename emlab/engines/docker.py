"""Clouds as Docker containers: one container each, without a network, without rights, with hard limits.

The docker SDK is imported when an engine is used, not with this module.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emlab import images
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.engines import base
from emlab.engines.ready import Died, start_error, twice, wait_for_health
from emlab.engines.rundir import cloud_owner, home_id
from emlab.errors import CloudGone, DiskFull, EngineError, EngineMissing, ImageMissing
from emlab.state import CloudSpec, CloudState, CloudStats, Handle
from emlab.wire.transport import Transport, UnixTransport

if TYPE_CHECKING:
    from docker import APIClient, DockerClient

log = logging.getLogger(__name__)

RUN, VAULT = "/run/emlab", "/vault"  # in the container
STOP_GRACE_S = 20
CALL_TIMEOUT_S = 60
LOOK_TIMEOUT_S = 10  # of what changes nothing: whoever waits for it is told that nobody knows
PIDS, CPUS = 256, 2
LOG = {"max-size": "1m", "max-file": "2"}
FREEZE_TRIES, FREEZE_PAUSE_S = 4, 0.02
CALLS = threading.BoundedSemaphore(4)  # with 50 at once dockerd failed to freeze 2 of 150; with 4 none of 100
SLOW_CALLS = threading.BoundedSemaphore(4)  # those that wait for a cloud to end must not keep others from waking
LOOKS = threading.BoundedSemaphore(8)  # to which a look comes within its time, or not at all

EXITED = "exited"
_STATES = {
    "created": CloudState.STARTING,
    "restarting": CloudState.STARTING,
    "running": CloudState.RUNNING,
    "paused": CloudState.PAUSED,
    "removing": CloudState.ABSENT,
    "dead": CloudState.FAILED,
}


class DockerEngine:
    """Runs each cloud in a container of its own; see Engine for what the methods promise.

    Args:
        home: the emlab home; clouds of other homes on the same Docker are never seen or touched.
        image: what to run; None is the image of this tree, which `emlab images build` makes.
    """

    name = "docker"

    def __init__(self, home: Path, *, image: str | None = None) -> None:
        self._home = home
        self._image = image

    @classmethod
    def missing(cls) -> str | None:
        """None if a Docker engine on this host answers us, else what to do about it."""
        return images.engine_missing()

    def start(self, spec: CloudSpec) -> Handle:
        """Start or restart the cloud; see Engine. A new container each time, so that it has today's image."""
        handle = _handle(spec)
        before = self._settled(handle)
        if before in (CloudState.RUNNING, CloudState.PAUSED):
            self.resume(handle)
            return self._answering(spec)
        try:
            return self._start_or_say_why(spec)
        except BaseException:
            if before is CloudState.ABSENT:
                self.remove(handle)
            else:  # a stopped cloud stays, with the log that says why it did not start
                self.stop(handle)
            raise

    def pause(self, handle: Handle) -> None:
        """Freeze the cloud's processes; see Engine."""
        import docker

        for left in reversed(range(FREEZE_TRIES)):
            try:
                with self._call("pause", handle):
                    self._api.pause(_name(handle))
                return
            except EngineError as exc:
                reason = exc.__cause__
                state = self._settled(handle)
                if state is CloudState.PAUSED:
                    return
                # "unable to freeze" is a 500 and passes
                if left == 0 or state is not CloudState.RUNNING or not isinstance(reason, docker.errors.APIError):
                    raise
                SYSTEM_CLOCK.wait(FREEZE_PAUSE_S)

    def resume(self, handle: Handle) -> None:
        """Thaw the cloud's processes; see Engine."""
        try:
            with self._call("resume", handle):
                self._api.unpause(_name(handle))
        except EngineError:
            if self._settled(handle) is not CloudState.RUNNING:
                raise

    def stop(self, handle: Handle) -> None:
        """Thaw, let mongod close, stop; see Engine."""
        state = self._settled(handle)
        if state is CloudState.PAUSED:  # a frozen container would be killed without closing its mongod
            self.resume(handle)
        if state in (CloudState.RUNNING, CloudState.PAUSED, CloudState.STARTING):
            with self._call("stop", handle, turns=SLOW_CALLS):
                self._api.stop(_name(handle), timeout=STOP_GRACE_S)
            if self._settled(handle) is CloudState.FAILED:
                log.warning("%s/%s did not end in order: %s", handle.lab, handle.cloud, self.logs(handle, 3))

    def remove(self, handle: Handle) -> None:
        """Kill and forget the container; see Engine."""
        import docker

        try:
            with self._call("remove", handle):
                self._api.remove_container(_name(handle), v=True, force=True)
        except CloudGone:
            return
        except EngineError as exc:
            if not (isinstance(exc.__cause__, docker.errors.APIError) and exc.__cause__.status_code == 409):
                raise
        # 409: another call is removing it now
        if not wait_until(lambda: self._inspect(handle, patiently=True) is None, CALL_TIMEOUT_S):
            raise EngineError(f"the container of {handle.cloud} in lab {handle.lab!r} cannot be removed")

    def state(self, handle: Handle) -> CloudState:
        """What Docker says of the container now; see Engine."""
        return _state_of(self._inspect(handle))

    def _settled(self, handle: Handle) -> CloudState:
        """Its state, for which a change waits as long as for any other call: what gives up halfway does harm."""
        return _state_of(self._inspect(handle, patiently=True))

    def stats(self, handle: Handle) -> CloudStats:
        """Memory without file pages, and CPU since the container's start; see Engine."""
        with self._call("measure", handle, turns=LOOKS):
            found = self._looking.stats(_name(handle), stream=False, one_shot=True)
        memory = found.get("memory_stats", {})
        detail = memory.get("stats", {})
        files = detail.get("total_cache", detail.get("file", 0)) - detail.get("total_shmem", detail.get("shmem", 0))
        return CloudStats(
            memory_mb=max(0, memory.get("usage", 0) - files) / 2**20,
            cpu_s=found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        )

    def find(self, lab: str | None = None) -> list[Handle]:
        """The containers with our labels; see Engine."""
        return [_labelled(container) for container in self._listed(lab)]

    def states(self, lab: str) -> dict[str, CloudState]:
        """What Docker lists; see Engine. Only of those that ended it must be asked how."""
        listed = [(_labelled(container), container["State"]) for container in self._listed(lab)]
        return {handle.cloud: self.state(handle) if state == EXITED else _STATES[state] for handle, state in listed}

    def _listed(self, lab: str | None) -> list[dict[str, Any]]:
        """The containers with our labels, as Docker lists them."""
        labels = [f"{base.LABEL_HOME}={home_id(self._home)}"]
        if lab is not None:
            labels.append(f"{base.LABEL_LAB}={lab}")
        with self._call("list", turns=LOOKS):
            # the low-level list: the other one inspects each container, and fails when one goes meanwhile
            found: list[dict[str, Any]] = self._looking.containers(all=True, filters={"label": labels})
        return found

    def connect(self, handle: Handle) -> Transport:
        """HTTP over the socket in the run directory; see Engine."""
        return UnixTransport(handle.run_dir / base.SOCKET)

    def logs(self, handle: Handle, lines: int = 50) -> str:
        """What the container printed last; see Engine."""
        try:
            with self._call("read the log of", handle):
                return bytes(self._api.logs(_name(handle), tail=lines)).decode(errors="replace")
        except CloudGone:
            return ""

    @cached_property
    def _client(self) -> DockerClient:
        return self._connected(CALL_TIMEOUT_S)

    @property
    def _api(self) -> APIClient:
        return self._client.api

    @cached_property
    def _looking(self) -> APIClient:
        return self._connected(LOOK_TIMEOUT_S).api

    def _connected(self, timeout_s: int) -> DockerClient:
        import docker

        if reason := self.missing():
            raise EngineMissing(reason)
        return docker.from_env(timeout=timeout_s)

    @cached_property
    def _tag(self) -> str:
        """One image for all clouds that this object starts, even if the tree changes meanwhile."""
        return self._image or images.require(self._client)

    def _start_or_say_why(self, spec: CloudSpec) -> Handle:
        self._give_away(spec)
        try:
            return twice(lambda: self._try_start(spec), spec)
        except Died as exc:
            raise start_error(spec, "died while starting", self.logs(_handle(spec))) from exc

    def _give_away(self, spec: CloudSpec) -> None:
        """The cloud's directories belong to the uid that will run it. For root only; others stay themselves."""
        uid, gid = cloud_owner()
        if uid != os.geteuid():
            os.chown(spec.vault_parent, uid, gid)
            for top in (spec.run_dir, spec.vault_dir):
                _give(top, uid, gid)
                for folder, folders, files in os.walk(top):
                    for name in (*folders, *files):
                        _give(Path(folder, name), uid, gid)

    def _try_start(self, spec: CloudSpec) -> Handle:
        """One attempt with a fresh container; one that failed stays, for its log. Raises Died, StartTimeout."""
        handle = _handle(spec)
        image = self._tag
        self.remove(handle)
        with self._call("start", handle):
            self._api.start(self._create(spec, image))
        return self._answering(spec)

    def _answering(self, spec: CloudSpec) -> Handle:
        """The handle, as soon as the cloud answers. Raises Died, StartTimeout."""
        handle = _handle(spec)
        if not wait_for_health(spec, lambda: self._settled(handle) is CloudState.RUNNING):
            raise start_error(spec, f"did not answer within {base.START_TIMEOUT_S:g} s", self.logs(handle))
        if (container := self._inspect(handle, patiently=True)) is None:
            raise Died("it was removed")
        return replace(handle, ref=container["Id"])

    def _inspect(self, handle: Handle, *, patiently: bool = False) -> dict[str, Any] | None:
        """What Docker says of the container, None if there is none."""
        try:
            with self._call("look at", handle, turns=CALLS if patiently else LOOKS):
                api = self._api if patiently else self._looking
                found: dict[str, Any] = api.inspect_container(_name(handle))
        except CloudGone:
            return None
        return found

    def _create(self, spec: CloudSpec, image: str) -> str:
        """The id of a new container of this cloud. It holds no secret: those are in the run directory."""
        uid, gid = cloud_owner()
        created = self._api.create_container(
            image,
            ["--run", RUN, "--data", str(Path(VAULT, spec.vault_dir.relative_to(spec.vault_parent)))],
            name=_name(_handle(spec)),
            hostname=spec.cloud[:12],
            user=f"{uid}:{gid}",
            stop_timeout=STOP_GRACE_S,
            use_config_proxy=False,  # it would put the proxy's password into the environment
            labels={
                base.LABEL_HOME: home_id(self._home),
                base.LABEL_LAB: spec.lab,
                base.LABEL_CLOUD: spec.cloud,
                base.LABEL_GENERATION: str(spec.generation),
                base.LABEL_RUN_DIR: str(spec.run_dir),
            },
            host_config=self._host_config(spec),
        )
        return str(created["Id"])

    def _host_config(self, spec: CloudSpec) -> dict[str, object]:
        from docker.types import LogConfig, Mount, Ulimit

        # with the default propagation an unmount on the host would succeed while the cloud still sees the vault
        propagation = "rslave" if _propagates(spec.vault_parent) else None
        config: dict[str, object] = self._api.create_host_config(
            mounts=[
                Mount(RUN, str(spec.run_dir), type="bind"),
                Mount(VAULT, str(spec.vault_parent), type="bind", propagation=propagation),
            ],
            network_mode="none",
            ipc_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            read_only=True,
            tmpfs={"/tmp": "size=16m,mode=1777,noexec,nosuid,nodev"},  # noqa: S108 - the container's own
            mem_limit=spec.memory_mb * 2**20,
            memswap_limit=spec.memory_mb * 2**20,
            pids_limit=PIDS,
            nano_cpus=min(CPUS, os.cpu_count() or 1) * 10**9,
            ulimits=[Ulimit(name="core", soft=0, hard=0)],  # a core file would hold clear data
            log_config=LogConfig(type="json-file", config=LOG),
            restart_policy={"Name": "no"},
        )
        return config

    @contextmanager
    def _call(
        self, verb: str, handle: Handle | None = None, *, turns: threading.BoundedSemaphore = CALLS
    ) -> Iterator[None]:
        """Few calls at a time, and Docker's errors as ours."""
        import docker
        import requests

        whom = f"the cloud {handle.cloud} in lab {handle.lab!r}" if handle else "clouds"
        if not turns.acquire(timeout=LOOK_TIMEOUT_S if turns is LOOKS else None):
            raise EngineError(f"Docker cannot {verb} {whom}: it does not answer others either")
        try:
            yield
        except docker.errors.ImageNotFound as exc:
            raise ImageMissing(f"no image to start {whom}; run: emlab images build") from exc
        except docker.errors.NotFound as exc:
            raise CloudGone(f"Docker does not know {whom}") from exc
        except (docker.errors.DockerException, requests.RequestException) as exc:
            raise _disk_full(str(exc)) or EngineError(f"Docker cannot {verb} {whom}: {exc}") from exc
        finally:
            turns.release()


def _handle(spec: CloudSpec) -> Handle:
    return Handle(spec.lab, spec.cloud, spec.generation, spec.run_dir)


def _labelled(container: dict[str, Any]) -> Handle:
    """The cloud that a container is, from its labels."""
    labels = container["Labels"]
    return Handle(
        lab=labels[base.LABEL_LAB],
        cloud=labels[base.LABEL_CLOUD],
        generation=int(labels[base.LABEL_GENERATION]),
        run_dir=Path(labels[base.LABEL_RUN_DIR]),
        ref=container["Id"],
    )


def _state_of(container: dict[str, Any] | None) -> CloudState:
    """The cloud's state, from what Docker says of its container."""
    if container is None:
        return CloudState.ABSENT
    found = container["State"]
    if found["Status"] == EXITED:
        return CloudState.STOPPED if found["ExitCode"] == 0 else CloudState.FAILED
    return _STATES[found["Status"]]


def _name(handle: Handle) -> str:
    """The container's name, by which it is asked for: unlike its id it stays over a restart."""
    return f"emlab-{re.sub(r'[^a-zA-Z0-9_.-]', '-', handle.lab)}-{handle.cloud[:12]}"


def _give(path: Path, uid: int, gid: int) -> None:
    found = path.lstat()
    if (found.st_uid, found.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)


def _propagates(path: Path) -> bool:
    """Whether the mount that holds the path is shared or a slave; Docker refuses an rslave bind of another."""
    path, parent, shared = path.resolve(), "", False
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if len(point) >= len(parent) and path.is_relative_to(point):
            parent, shared = point, bool({"shared", "master"} & {field.split(":")[0] for field in fields[6:]})
    return shared


def _disk_full(reason: str) -> DiskFull | None:
    if "no space left on device" not in reason.lower():
        return None
    free = shutil.disk_usage("/").free
    return DiskFull(f"the disk of Docker is full ({free} bytes free on /): {reason}")
