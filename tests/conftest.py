"""What the tests share: `--require`, the `needs` mark, engines by name, and a home whose leftovers are noticed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from emlab.engines.base import Engine
from emlab.engines.docker import DockerEngine
from emlab.engines.process import ProcessEngine
from emlab.engines.rundir import run_root

NEEDED_BY_ENGINE = {"memory": (), "process": ("mongod",), "docker": ("docker", "mongod")}
HOMES = pytest.StashKey[dict[Path, str]]()


def _phone_days_missing() -> str | None:
    folder = os.environ.get("EMLAB_PHONE_DAYS", "")
    if folder and any(Path(folder).glob("*.json.gz")):
        return None
    return "no real phone days: set EMLAB_PHONE_DAYS to a folder of *.json.gz"


def _notebooks_missing() -> str | None:
    absent = [name for name in ("papermill", "ipykernel", "nbval") if importlib.util.find_spec(name) is None]
    return f"notebooks need {', '.join(absent)}: pip install 'emlab[test]'" if absent else None


MISSING: dict[str, Callable[[], str | None]] = {
    "docker": DockerEngine.missing,
    "mongod": ProcessEngine.missing,
    "notebooks": _notebooks_missing,
    "phone-days": _phone_days_missing,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="NAMES",
        help=f"comma list of {', '.join(MISSING)}: a test that lacks one of these fails instead of being skipped",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*names): skipped without these; any of {', '.join(MISSING)}")
    config.stash[HOMES] = {}
    if unknown := _required(config) - MISSING.keys():
        raise pytest.UsageError(f"--require knows {', '.join(MISSING)}, not {', '.join(sorted(unknown))}")


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


@pytest.fixture(scope="session")
def cloud_image(need: Callable[[str], None]) -> str:
    """The tag of the image of this tree, built now if the engine lacks it."""
    need("docker")
    need("mongod")
    import docker

    from emlab import images
    from emlab.errors import ImageMissing

    client = docker.from_env()
    try:
        return images.require(client)
    except ImageMissing:
        return images.build(client)
    finally:
        client.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A fresh emlab home, which EMLAB_HOME names. The session fails if a cloud of it is left at its end."""
    folder = tmp_path / "home"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("EMLAB_HOME", str(folder))
    request.config.stash[HOMES][folder] = request.node.nodeid
    return folder


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 64 MB."""
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    if mounted:
        mounted = (
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "emlab", str(folder)], check=False).returncode
            == 0
        )
    if not mounted:
        folder.rmdir()
        pytest.skip("mounting a small file system needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


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
                report.sections.append((f"{engine.name} cloud of {handle.user}", engine.logs(handle)))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No cloud of a test's home is left on any engine; what is left is named and removed."""
    left: list[str] = []
    for home, test in session.config.stash[HOMES].items():
        for engine in _engines(home):
            for handle in engine.find():
                left.append(f"{test} left the {engine.name} cloud of {handle.user} ({handle.ref})")
                engine.remove(handle)
        shutil.rmtree(run_root(home))
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print("\n" + "\n".join(left), file=sys.stderr)  # noqa: T201 - after the last test there is no report
