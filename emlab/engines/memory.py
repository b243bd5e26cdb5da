"""Clouds as objects in this process: for unit tests of the logic and for documentation. Isolates and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from emlab.errors import CloudGone, EngineError, StartTimeout, Unreachable
from emlab.state import CloudSpec, CloudState, CloudStats, Handle
from emlab.wire.transport import App, MemoryTransport, Reply, Transport


@dataclass(slots=True)
class MemoryCloud:
    """One cloud: what it was started with, where it stands, and its app while it runs."""

    handle: Handle
    state: CloudState
    app: App | None


class MemoryEngine:
    """Runs each cloud as an app in this process; see Engine for what the methods promise.

    Args:
        serve: makes the app of a cloud, at each start; whether it has its old data is its own doing.
        world: all clouds. Hand one to two engines to try what a restarted controller sees.
    """

    name = "memory"

    def __init__(self, serve: Callable[[CloudSpec], App], world: dict[str, MemoryCloud] | None = None) -> None:
        self._serve = serve
        self._world: dict[str, MemoryCloud] = {} if world is None else world

    @classmethod
    def missing(cls) -> str | None:
        """None: it needs nothing."""
        return None

    def start(self, spec: CloudSpec) -> Handle:
        """Make the app and ask it for its health; see Engine."""
        cloud = self._world.get(spec.cloud)
        if cloud is not None and cloud.app is not None:
            cloud.state = CloudState.RUNNING
            return cloud.handle
        handle = Handle(spec.lab, spec.cloud, spec.generation, spec.run_dir, ref=spec.cloud)
        for _ in range(2):
            app = self._serve(spec)
            status, body = app.handle("GET", "/health", {}, b"")
            if status == 200:
                self._world[spec.cloud] = MemoryCloud(handle, CloudState.RUNNING, app)
                return handle
        if cloud is not None:
            cloud.state = CloudState.FAILED
        reason = body.decode(errors="replace")
        raise StartTimeout(f"the cloud of {spec.user!r} in lab {spec.lab!r} died while starting; it said:\n{reason}")

    def pause(self, handle: Handle) -> None:
        """The app is not called any more; see Engine."""
        self._running(handle).state = CloudState.PAUSED

    def resume(self, handle: Handle) -> None:
        """The app is called again; see Engine."""
        self._running(handle).state = CloudState.RUNNING

    def stop(self, handle: Handle) -> None:
        """The app is dropped; see Engine."""
        cloud = self._world.get(handle.cloud)
        if cloud is not None and cloud.app is not None:
            cloud.state, cloud.app = CloudState.STOPPED, None

    def remove(self, handle: Handle) -> None:
        """The cloud is forgotten; see Engine."""
        self._world.pop(handle.cloud, None)

    def fail(self, handle: Handle) -> None:
        """The cloud dies, as a killed process would."""
        cloud = self._running(handle)
        cloud.state, cloud.app = CloudState.FAILED, None

    def state(self, handle: Handle) -> CloudState:
        """Where the cloud stands; see Engine."""
        cloud = self._world.get(handle.cloud)
        return CloudState.ABSENT if cloud is None else cloud.state

    def stats(self, handle: Handle) -> CloudStats:
        """Zeros: what the apps use cannot be told apart; see Engine."""
        if handle.cloud not in self._world:
            raise _gone(handle)
        return CloudStats(memory_mb=0.0, cpu_s=0.0)

    def find(self, lab: str | None = None) -> list[Handle]:
        """The clouds of the world; see Engine."""
        return [cloud.handle for cloud in list(self._world.values()) if lab in (None, cloud.handle.lab)]

    def states(self, lab: str) -> dict[str, CloudState]:
        """Where the clouds of the world stand; see Engine."""
        return {handle.cloud: self.state(handle) for handle in self.find(lab)}

    def connect(self, handle: Handle) -> Transport:
        """Calls the app while the cloud runs; see Engine."""
        return _Line(self._world, handle)

    def logs(self, handle: Handle, lines: int = 50) -> str:
        """Nothing: an app prints to this process; see Engine."""
        return ""

    def _running(self, handle: Handle) -> MemoryCloud:
        cloud = self._world.get(handle.cloud)
        if cloud is None:
            raise _gone(handle)
        if cloud.app is None:
            raise EngineError(f"the cloud {handle.cloud} in lab {handle.lab!r} is not running")
        return cloud


class _Line:
    """The transport to one cloud, which finds out at each request whether it runs."""

    def __init__(self, world: Mapping[str, MemoryCloud], handle: Handle) -> None:
        self._world = world
        self._handle = handle

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes, timeout_s: float) -> Reply:
        cloud = self._world.get(self._handle.cloud)
        if cloud is None or cloud.app is None or cloud.state is not CloudState.RUNNING:
            raise Unreachable(f"no answer from the cloud {self._handle.cloud}: it does not run")
        line = MemoryTransport(cloud.app)
        return line.send(method, path, headers=headers, body=body, timeout_s=timeout_s)

    def close(self) -> None:
        pass


def _gone(handle: Handle) -> CloudGone:
    return CloudGone(f"there is no cloud {handle.cloud} in lab {handle.lab!r}")
