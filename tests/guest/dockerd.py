"""A Docker engine of one's own: for the guest, around one command (`python -m tests.guest.dockerd COMMAND...`), and for
a test that kills one.

It makes no network. The image of this tree is put on the guest's disk before it boots: inside that takes two minutes.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from emlab.clock import wait_until
from emlab.vaults import mounts
from tests.guest import init

if TYPE_CHECKING:
    from docker import DockerClient

FOLDER = "docker"  # on the guest's disk
QUICK = "crun"  # in the guest a container starts within 2 s by it, and within 4 s by runc
START_S, END_S = 60.0, 30.0
CHUNK = 1 << 20
NAMESPACE = "emlab-own"  # in a containerd that another engine may use as well


class Dockerd:
    """An engine that can be started again on the same folders, however it ended.

    Args:
        data: where images and containers are kept; on a file system that the storage driver overlay2 works on.
        run: for what lives as long as the processes, the socket among it; a short path.
        runtime: the program that makes containers, in place of the engine's own.
    """

    def __init__(self, data: Path, run: Path, runtime: str | None = None) -> None:
        self._data = data
        self._run = run
        self._runtime = ["--add-runtime", f"other={runtime}", "--default-runtime", "other"] if runtime else []
        self._log = run / "dockerd.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What DOCKER_HOST is to be."""
        return f"unix://{self._run}/docker.sock"

    def start(self) -> None:
        """It answers. Raises TimeoutError with its last words."""
        places = ("--data-root", self._data, "--exec-root", self._run / "docker", "--pidfile", self._run / "docker.pid")
        manner = ("--storage-driver", "overlay2", "--iptables=false", "--ip6tables=false", "--bridge=none")
        names = ("--containerd-namespace", NAMESPACE, "--containerd-plugins-namespace", f"{NAMESPACE}-plugins")
        with self._log.open("ab") as out:
            command = ["dockerd", "--host", self.address, *map(str, places), *manner, *names, *self._runtime]
            self._process = process = subprocess.Popen(command, stdout=out, stderr=out)
        if not wait_until(lambda: self._answers() or process.poll() is not None, START_S) or process.poll() is not None:
            raise TimeoutError(f"no Docker engine within {START_S:g} s:\n{self._log.read_text()[-3000:]}")
        client = self._client()
        client.ping()  # it listens before it works
        client.close()

    def load(self, image: Iterable[bytes]) -> None:
        """It has the image, which was saved like that."""
        client = self._client()
        client.images.load(image)  # type: ignore[arg-type]  # the SDK sends it as it comes
        client.close()

    def kill(self) -> None:
        """It is dead at once, and the containerd that it started; what runs in containers is left alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        # the kernel kills its containerd, too, whose command line is empty as soon as it is dead
        assert wait_until(lambda: not any(p.name() == "containerd" for p in self.processes()), END_S)
        # dockerd 20.10 takes for alive what is dead and was not collected yet, and never starts another
        (self._run / "docker/containerd/containerd.pid").unlink(missing_ok=True)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Whoever calls it waits, until the block ends."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """It ended in order, its containers before it; no mount is left of it, or of one that was killed before."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(END_S)
        for mount in reversed(mounts.read()):
            if Path(mount.point).is_relative_to(self._data) or Path(mount.point).is_relative_to(self._run / "docker"):
                mounts.unmount(Path(mount.point), lazy=True)

    def clear(self) -> None:
        """It runs, and has no container."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        client = self._client()
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.close()

    def containers(self) -> list[str]:
        """The ids of all its containers."""
        client = self._client()
        found = [container["Id"] for container in client.api.containers(all=True)]
        client.close()
        return found

    def processes(self) -> list[psutil.Process]:
        """What runs of it: the engine, its containerd and a shim for each container; each names the folder."""
        return [
            p for p in psutil.process_iter(["cmdline"]) if any(str(self._run) in w for w in p.info["cmdline"] or [])
        ]

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.address.removeprefix("unix://")) == 0

    def _client(self) -> DockerClient:
        import docker

        return docker.DockerClient(base_url=self.address, timeout=300)


def image(client: DockerClient) -> str:
    """The tag of the image of this tree, built now if the engine lacks it."""
    from emlab import images
    from emlab.errors import ImageMissing

    try:
        return images.require(client)
    except ImageMissing:
        return images.build(client)


def saved_image() -> Iterator[bytes]:
    """The image of this tree as the host's engine saves it; built if it has none."""
    import docker

    client = docker.from_env()
    try:
        yield from client.images.get(image(client)).save(CHUNK, named=True)
    finally:
        client.close()


def put_image(disk: Path) -> None:
    """The engine of the guest that has this disk has that image. Needs root."""
    with tempfile.TemporaryDirectory(prefix="em-") as name:
        mounted = Path(name, "disk")
        mounted.mkdir()
        subprocess.run(["mount", "-o", "loop", str(disk), str(mounted)], check=True)
        engine = Dockerd(mounted / FOLDER, Path(name))
        try:
            engine.start()
            engine.load(saved_image())
        finally:
            engine.stop()
            subprocess.run(["umount", str(mounted)], check=True)


def main(command: list[str]) -> int:
    """The command's status, after it ran with an engine that has the image."""
    engine = Dockerd(init.SCRATCH / FOLDER, Path("/run"), shutil.which(QUICK))
    try:
        engine.start()
        return subprocess.run(command, check=False).returncode
    finally:
        engine.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
