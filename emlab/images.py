"""The image that every cloud under Docker runs, built from this very tree.

Two images: `emlab/runtime` holds what changes rarely (Python, mongod, the custodian's libraries), `emlab/cloud` adds
emlab's own code. A tag is a digest over all that went in, so that a changed tree is noticed before a cloud starts.
Imports `mongod`, and docker only inside functions.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.errors import EngineError, ImageMissing
from emlab.mongod import find_mongod

if TYPE_CHECKING:
    from docker import DockerClient

Progress = Callable[[str], None]

CLOUD, RUNTIME, LABEL, TREE = "emlab/cloud", "emlab/runtime", "emlab.image", "emlab.tree"
DEBIAN, MADE_BASE = "debian:bookworm-slim", "emlab/base:bookworm"
LIBRARIES = (
    *("cryptography", "httptools", "lazy_loader", "msgspec", "numpy", "opendp", "pandas", "pymongo", "requests"),
    *("starlette", "uvicorn", "uvloop"),
)
# What a cloud does not run: an edit there leaves the image as it is. The build proves that nothing else is needed.
_ON_HOST = (
    "_data admission archive audit cleaning cli cli_served cli_verify clouds controller demo diary ending experiment "
    "fanout gate idle images kept lab lease lifecycle lives machines me measure models panel parts planning plots "
    "provider record registry remote remote_lease removal report service serving session simulate sweeping tokens "
    "usercloud uses vaults verifying waking apps/controller apps/gateway apps/metrics apps/recording apps/upstream "
    "queries/testing"
)
HOST_ONLY = frozenset(_ON_HOST.split())
# ... except what mounts an eCryptfs vault for a user who is not root
MOUNTER = {f"vaults/{name}.py" for name in ("__init__", "ecryptfs_token", "mounter", "mounts")}
PYTHON = "3.11"  # Debian 12's, which the image runs; the host may have a newer one
GLIBC_MINOR = 36  # Debian 12's glibc is 2.36
PROBE_S = 5
PULL_SILENCE_S = 20  # the hub may be silent for so long before the base is made here
PACKAGE = Path(__file__).parent
MMDEBSTRAP = (
    *("mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,libcurl4,tini"),
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "man", "locale", "info")),
    "bookworm",
)


def build(client: DockerClient, *, base: str | None = None, progress: Progress = lambda line: None) -> str:
    """The engine has the image of this tree; returns its tag. Seconds if only emlab's own code changed.

    Args:
        base: a Debian 12 image to start from; None finds, pulls or makes one.
        progress: gets a line for each step.
    Raises:
        EngineError: a step failed; the message ends with its last lines.
    """
    with _wrapped("build the image"):
        runtime, tag = runtime_tag(), current_tag()
        if base is not None or not _has(client, runtime):
            _build_runtime(client, runtime, base or _find_base(client, progress), progress)
        with tempfile.TemporaryDirectory(prefix="emlab-image-") as folder:
            context = Path(folder)
            shutil.copy(dockerfile("cloud"), context)
            for file in _sources():
                target = context / "emlab" / file.relative_to(PACKAGE)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
            _build(client, context, tag, {"RUNTIME": runtime}, progress, network="none")
        for keep in (tag, runtime):
            client.api.tag(keep, keep.partition(":")[0], "latest")
            _remove_unused(client, keep)
    return tag


def require(client: DockerClient) -> str:
    """The tag of this tree's image. Raises ImageMissing when the engine has none."""
    tag = current_tag()
    if not _has(client, tag):
        raise ImageMissing(f"no image of this version of emlab ({tag}); run: emlab images build")
    return tag


def engine_missing() -> str | None:
    """None if a Docker engine on this host answers us, else one sentence: what to do about it."""
    address = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if not address.startswith("unix://"):
        return f"the Docker engine at {address} is on another host, which emlab cannot use: unset DOCKER_HOST"
    path = address.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(path)
        except PermissionError:
            return f"no permission for {path}: join its group (sudo usermod -aG docker $USER) and log in again"
        except OSError:
            return f"no Docker engine answers at {path}: install and start one (sudo apt-get install docker.io)"
    return None


def current_tag() -> str:
    """The tag that the image of the tree has, as it lies there now."""
    content = hashlib.sha256(runtime_tag().encode())
    for file in (dockerfile("cloud"), *_sources()):
        content.update(f"\0{file.name}\0".encode() + file.read_bytes())
        content.update(str(file.relative_to(PACKAGE) if file.is_relative_to(PACKAGE) else "").encode())
    return f"{CLOUD}:{content.hexdigest()[:12]}"


def runtime_tag() -> str:
    """The tag of the image below, for the libraries and the mongod of this host."""
    content = hashlib.sha256(dockerfile("runtime").read_bytes())
    content.update(json.dumps([library_versions(), mongod_digest(), platform.machine()]).encode())
    return f"{RUNTIME}:{content.hexdigest()[:12]}"


def dockerfile(image: str) -> Path:
    """The Dockerfile of an image: in a checkout beside the package, in an installed wheel inside it."""
    for folder in (PACKAGE.parent / "images", PACKAGE / "_data" / "images"):
        if (path := folder / image / "Dockerfile").is_file():
            return path
    raise EngineError(f"this installation of emlab has no Dockerfile of the image {image!r}; install it again")


def library_versions() -> dict[str, str]:
    """The custodian's libraries and what they need, at the versions that this host has."""
    found: dict[str, str] = {}
    ahead = list(LIBRARIES)
    while ahead:
        name = ahead.pop()
        if name in found:
            continue
        try:
            library = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # needed only on another version of Python
        found[name] = library.version
        needs = [line for line in library.requires or [] if "extra ==" not in line]
        ahead += [re.split(r"[^\w.-]", line, maxsplit=1)[0].lower().replace("_", "-") for line in needs]
    return dict(sorted(found.items()))


def mongod_digest() -> str:
    """SHA-256 of this host's mongod, remembered by its size and time of change."""
    mongod = find_mongod()
    status = mongod.stat()
    key = f"{mongod}:{status.st_size}:{status.st_mtime_ns}"
    cache = _cache_dir() / "mongod.json"
    try:
        known: dict[str, str] = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        with mongod.open("rb") as file:
            known = {key: hashlib.file_digest(file, "sha256").hexdigest()}
        fresh = cache.with_suffix(f".{os.getpid()}")
        cache.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(known))
        fresh.replace(cache)
    return known[key]


def _cache_dir() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("emlab")


def _sources() -> list[Path]:
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]  # emlab/__init__.py reads its stub at run time
    return sorted(file for file in files if _is_in_image(file.relative_to(PACKAGE)))


def _is_in_image(file: Path) -> bool:
    return file.as_posix() in MOUNTER or HOST_ONLY.isdisjoint([file.parts[0].split(".")[0], str(file.with_suffix(""))])


def _build_runtime(client: DockerClient, tag: str, base: str, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix="emlab-image-") as folder:
        context = Path(folder)
        shutil.copy(dockerfile("runtime"), context)
        _lay_mongod(context / "mongod", progress)
        _lay_libraries(context / "site", progress)
        network = None if base != MADE_BASE else "none"  # ours lacks nothing
        _build(client, context, tag, {"BASE": base}, progress, network=network)


def _lay_mongod(target: Path, progress: Progress) -> None:
    mongod = find_mongod()
    progress(f"mongod: {mongod}")
    if shutil.which("strip"):  # 141 -> 106 MB
        _run("strip", "-o", str(target), str(mongod))
    else:
        shutil.copyfile(mongod, target)
    target.chmod(0o755)


def _lay_libraries(target: Path, progress: Progress) -> None:
    """Wheels for the image's Python, unpacked here: pip inside a build may lack the host's proxy and certificates."""
    versions = library_versions()
    progress("libraries: " + " ".join(f"{name}=={version}" for name, version in versions.items()))
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 16, -1)] + [f"manylinux2014_{machine}"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.writelines(f"{name}=={version}\n" for name, version in versions.items())
        constraints.flush()
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"),
            *("--target", str(target), "--python-version", PYTHON, "--implementation", "cp", "--only-binary=:all:"),
            *(part for tag in tags for part in ("--platform", tag)),
            *("--constraint", constraints.name, *LIBRARIES),
        )
    if shutil.which("strip"):  # 269 -> 165 MB
        _run("strip", *map(str, target.glob("opendp/lib/*.so")))
    for pattern in ("bin", "**/tests", "**/*.pyx", "**/*.pxd", "**/*.c", "**/*.h"):  # 11 MB that nothing imports
        for path in list(target.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _tree() -> str:
    """Which installation or checkout built an image: another's are left alone."""
    return hashlib.sha256(os.fsencode(PACKAGE.resolve())).hexdigest()[:12]


def _find_base(client: DockerClient, progress: Progress) -> str:
    """A Debian 12: one that is here, else the hub's, else one made here."""
    for name in (DEBIAN, MADE_BASE):
        if _has(client, name):
            return name
    progress(f"pulling {DEBIAN}")
    if (reason := _pull()) is None:
        return DEBIAN
    if os.geteuid() != 0 or not shutil.which("mmdebstrap"):
        raise EngineError(
            f"cannot pull {DEBIAN} ({reason}), and making a base here needs root and mmdebstrap: "
            f"sudo apt-get install mmdebstrap, then build as root; or load {DEBIAN} with `docker load`"
        )
    progress(f"the hub does not answer ({reason}): making {MADE_BASE} with mmdebstrap")
    return _make_base(client)


def _pull() -> str | None:
    """None when the base was pulled, else why not. Does not wait longer than the hub may be silent."""
    import docker
    import requests

    repository, _, tag = DEBIAN.partition(":")
    patient = docker.from_env(timeout=PULL_SILENCE_S)
    try:
        for event in patient.api.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in event:
                return str(event["error"])
    except (docker.errors.DockerException, requests.RequestException) as exc:
        return str(exc).splitlines()[0][:200]
    finally:
        patient.close()
    return None


def _make_base(client: DockerClient) -> str:
    with tempfile.TemporaryDirectory(prefix="emlab-base-") as folder:
        archive = str(Path(folder) / "base.tar")
        _run(*MMDEBSTRAP, archive)
        repository, _, tag = MADE_BASE.partition(":")
        client.api.import_image_from_file(
            archive, repository=repository, tag=tag, changes=[f"LABEL {LABEL}={repository}"]
        )
    return MADE_BASE


def _build(
    client: DockerClient, context: Path, tag: str, args: dict[str, str], progress: Progress, *, network: str | None
) -> None:
    """One classic build of a folder; its image has the tag. `network`: None is Docker's default."""
    output = ""
    for event in client.api.build(
        path=str(context),
        tag=tag,
        rm=True,
        forcerm=True,
        buildargs=args,
        decode=True,
        network_mode=network,
        labels={TREE: _tree()},
    ):
        if "error" in event:
            last = "\n".join(output.splitlines()[-20:])
            raise EngineError(f"building {tag} failed: {event['error']}\n{last}")
        text = re.sub(r"\x1b\[\d*m", "", event.get("stream", ""))  # the builder colours what goes to stderr
        output += text
        if line := text.strip():
            progress(line)


def _has(client: DockerClient, name: str) -> bool:
    import docker

    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _remove_unused(client: DockerClient, keep: str) -> None:
    """Older images of this tree are gone, except those that a container or another image still needs."""
    import docker

    newest, repository = client.images.get(keep).id, keep.partition(":")[0]
    for image in client.api.images(filters={"label": [f"{LABEL}={repository}", f"{TREE}={_tree()}"]}):
        names = set(image["RepoTags"] or ()) - {"<none>:<none>"}
        if image["Id"] == newest or any(not name.startswith(f"{repository}:") for name in names):
            continue
        for name in names or {image["Id"]}:
            try:
                client.api.remove_image(name)
            except docker.errors.APIError as exc:
                if exc.status_code not in (404, 409):
                    raise


def _run(*command: str) -> None:
    """A command of the host ends well. Raises EngineError with its last lines."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-10:])
        raise EngineError(f"{Path(command[0]).name} failed ({done.returncode}):\n{last}")


@contextmanager
def _wrapped(what: str) -> Iterator[None]:
    import docker
    import requests

    try:
        yield
    except (docker.errors.DockerException, requests.RequestException) as exc:
        raise EngineError(f"cannot {what}: {exc}") from exc
