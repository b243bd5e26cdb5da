"""What the tests share: `--require`, the `needs` mark, engines by name, homes, and an end at which nothing is left."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from emlab.engines.base import LABEL_RUN_DIR, Engine
from emlab.engines.docker import DockerEngine
from emlab.engines.process import STATE_FILE, ProcessEngine
from emlab.engines.rundir import home_id
from emlab.parts import VAULTS
from emlab.state import Handle
from emlab.vaults.ecryptfs import EcryptfsVault
from emlab.vaults.fscrypt import FscryptVault
from emlab.vaults.gocryptfs import GocryptfsVault
from tests.guest import dockerd, guest, routing
from tests.programs import docker_client

NEEDED_BY_ENGINE = {"memory": (), "process": ("mongod",), "docker": ("docker", "mongod")}
NEEDED_BY_VAULT: dict[str, tuple[str, ...]] = {
    "plain": (),
    "gocryptfs": ("gocryptfs",),
    "fscrypt": ("fscrypt", "mounting"),
    "ecryptfs": ("ecryptfs",),
}
RUN_ROOTS = pytest.StashKey[Path]()


def _phone_days_missing() -> str | None:
    folder = os.environ.get("EMLAB_PHONE_DAYS", "")
    if folder and any(Path(folder).glob("*.json.gz")):
        return None
    return "no real phone days: set EMLAB_PHONE_DAYS to a folder of *.json.gz"


def _notebooks_missing() -> str | None:
    absent = [name for name in ("papermill", "ipykernel", "nbval") if importlib.util.find_spec(name) is None]
    return f"notebooks need {', '.join(absent)}: pip install 'emlab[test]'" if absent else None


def _mounting_missing() -> str | None:
    return None if os.geteuid() == 0 and shutil.which("mount") else "mounting a small file system needs root"


MISSING: dict[str, Callable[[], str | None]] = {
    "mounting": _mounting_missing,
    "docker": DockerEngine.missing,
    "mongod": ProcessEngine.missing,
    "ecryptfs": EcryptfsVault.missing,
    "guest": guest.missing,
    "notebooks": _notebooks_missing,
    "phone-days": _phone_days_missing,
    "gocryptfs": GocryptfsVault.missing,
    "fscrypt": FscryptVault.missing,
}


# CI tries more examples of each property than somebody at work
# and no property depends on how fast a machine is, or how much else it does
_UNTIMED = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", _UNTIMED)
hypothesis.settings.register_profile("work", _UNTIMED, max_examples=30)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "work")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="NAMES",
        help=f"comma list of {', '.join(MISSING)}: a test that lacks one of these fails instead of being skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*names): skipped without these; any of {', '.join(MISSING)}")
    # a shell that starts this in the background has it ignore Ctrl-C, and all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # all run directories of this session, also those of programs and workers that it starts, lie in one folder
    if not _is_worker(config):
        os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="em-")
    config.stash[RUN_ROOTS] = Path(os.environ["XDG_RUNTIME_DIR"])
    if part := routing.plugin(config, MISSING):
        config.pluginmanager.register(part, "emlab-guest")
    if unknown := _required(config) - MISSING.keys():
        raise pytest.UsageError(f"--require knows {', '.join(MISSING)}, not {', '.join(sorted(unknown))}")


def _is_worker(config: pytest.Config) -> bool:
    """Whether this is one of several processes (`-n 2`) that test for another, which looks after them."""
    return hasattr(config, "workerinput")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            _need(item.config, name)


def _required(config: pytest.Config) -> set[str]:
    return {name.strip() for name in str(config.getoption("--require")).split(",") if name.strip()}


def _need(config: pytest.Config, name: str) -> None:
    if reason := MISSING[name]():
        if name in _required(config):
            pytest.fail(f"--require {name}: {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def need(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """`need("docker")` skips where it is missing, and fails there under `--require docker`."""
    return lambda name: _need(request.config, name)


@pytest.fixture(params=list(NEEDED_BY_ENGINE))
def engine_name(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    """Each engine's name in turn. For only some: `@pytest.mark.parametrize("engine_name", [...], indirect=True)`."""
    name = str(request.param)
    for needed in NEEDED_BY_ENGINE[name]:
        need(needed)
    if name == "docker":
        request.getfixturevalue("cloud_image")
    return name


@pytest.fixture(params=sorted(VAULTS))
def kind(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    """Each vault's name in turn. For only some: `@pytest.mark.parametrize("kind", [...], indirect=True)`."""
    name = str(request.param)
    for needed in NEEDED_BY_VAULT[name]:
        need(needed)
    return name


@pytest.fixture(scope="session")
def cloud_image(need: Callable[[str], None]) -> str:
    """The tag of the image of this tree, built now if the engine lacks it."""
    need("docker")
    need("mongod")
    with docker_client() as client:
        return dockerd.image(client)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A fresh emlab home, which EMLAB_HOME names."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("EMLAB_HOME", str(folder))
    Path(request.config.stash[RUN_ROOTS], home_id(folder)).write_text(request.node.nodeid)  # whose home it is
    return folder


@pytest.fixture
def small_disk(need: Callable[[str], None]) -> Iterator[Path]:
    """A file system of 64 MB."""
    need("mounting")
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "emlab", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def encrypting_disk(need: Callable[[str], None]) -> Iterator[Path]:
    """A file system of 64 MB that can encrypt directories."""
    need("mounting")
    need("fscrypt")
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    image, disk = folder / "image", folder / "disk"
    image.touch()
    os.truncate(image, 64 << 20)
    disk.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-O", "encrypt", "-b", "4096", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
    shutil.rmtree(folder)


@pytest.fixture
def phone_days(need: Callable[[str], None]) -> Path:
    """The folder of real e-mission days, *.json.gz."""
    need("phone-days")
    return Path(os.environ["EMLAB_PHONE_DAYS"])


def _engines(home: Path) -> list[Engine]:
    """The engines that may have clouds of this home: Docker only if a test of this session used it."""
    engines: list[Engine] = [ProcessEngine(home)]
    if "docker" in sys.modules and DockerEngine.missing() is None:
        engines.append(DockerEngine(home))
    return engines


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failing test shows what its clouds printed."""
    report = yield
    home = getattr(item, "funcargs", {}).get("home")
    if report.failed and report.when == "call" and isinstance(home, Path):
        for engine in _engines(home):
            for handle in engine.find():
                report.sections.append((f"{engine.name} cloud {handle.cloud}", engine.logs(handle)))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No cloud of any test is left on any engine; what is left is named and removed, and fails the session."""
    if _is_worker(session.config):
        return
    root = session.config.stash[RUN_ROOTS]
    left = [*_left_processes(root), *_left_containers(root)]
    for run_dir, what in left:
        owner = root / run_dir.parent.name.removeprefix("emlab-")
        test = owner.read_text() if owner.exists() else "a test"
        print(f"\n{test} left {what}", file=sys.stderr)  # noqa: T201 - after the last test there is no report
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _is_worker(config):
        shutil.rmtree(config.stash[RUN_ROOTS], ignore_errors=True)


def _left_processes(root: Path) -> list[tuple[Path, str]]:
    left = []
    for file in root.glob(f"*/*/{STATE_FILE}"):
        left.append((file.parent, f"processes: {file.read_text()}"))
        ProcessEngine(root).remove(Handle("?", "?", 0, file.parent))
    return left


def _left_containers(root: Path) -> list[tuple[Path, str]]:
    if DockerEngine.missing() is not None:
        return []
    import docker

    left = []
    client = docker.from_env()
    for container in client.api.containers(all=True, filters={"label": LABEL_RUN_DIR}):
        run_dir = Path(container["Labels"][LABEL_RUN_DIR])
        if run_dir.is_relative_to(root):
            left.append((run_dir, f"the container {container['Names']}: {container['Status']}"))
            client.api.remove_container(container["Id"], force=True)
    client.close()
    return left
