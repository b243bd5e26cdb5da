"""A Docker engine of the guest's own around one command: `python -m tests.guest.dockerd IMAGE COMMAND...`.

The engine keeps everything in the scratch and makes no network; `save_image` puts the image of this tree into a file
outside, the guest's engine loads it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

from emlab.clock import wait_until
from emlab.engines.docker import DockerEngine

if TYPE_CHECKING:
    from docker import DockerClient

FOLDER = Path("/run/scratch/docker")
ENGINE = (
    *("dockerd", "--data-root", str(FOLDER), "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid"),
    *("--host", "unix:///run/docker.sock", "--storage-driver", "overlay2"),
    *("--iptables=false", "--ip6tables=false", "--bridge=none"),
)
START_S = 60.0
CHUNK = 1 << 20


def image(client: DockerClient) -> str:
    """The tag of the image of this tree, built now if the engine lacks it."""
    from emlab import images
    from emlab.errors import ImageMissing

    try:
        return images.require(client)
    except ImageMissing:
        return images.build(client)


def save_image(file: Path) -> None:
    """The image of this tree, built if the host's engine lacks it, is in the file."""
    import docker

    client = docker.from_env()
    try:
        with file.open("wb") as out:
            for chunk in client.images.get(image(client)).save(CHUNK, named=True):
                out.write(chunk)
    finally:
        client.close()


def main(file: Path, command: list[str]) -> int:
    """The command's status, after it ran with an engine that has the image."""
    FOLDER.mkdir()
    log = FOLDER.with_suffix(".log")
    with log.open("wb") as out, subprocess.Popen(ENGINE, stdout=out, stderr=out) as engine:
        try:
            if not wait_until(lambda: DockerEngine.missing() is None or engine.poll() is not None, START_S):
                raise TimeoutError(f"no Docker engine within {START_S:g} s:\n{log.read_text()[-3000:]}")
            with file.open("rb") as tar:
                _load(tar)
            return subprocess.run(command, check=False).returncode
        finally:
            engine.terminate()


def _load(tar: IO[bytes]) -> None:
    import docker

    client = docker.from_env(timeout=300)
    client.images.load(tar)
    client.close()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
