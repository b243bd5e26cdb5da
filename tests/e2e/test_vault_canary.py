"""What a known person has on record is found nowhere outside the open vault after a real run; on plain it is found."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import emlab as em
from emlab import demo
from emlab.engines.rundir import run_root
from tests.canary import Canary, search, search_bytes
from tests.e2e.clouds import cloud_container, entry
from tests.notebooks.nbval import papermill

COORDINATE, NOTE = (
    -33.924868412345,
    "Zebra-Crossing-4711",
)  # in the south: its last byte, too, differs from its neighbours
KEPT: list[Canary] = [COORDINATE, NOTE]
NAME = "quagga.migrating@example.org"  # of the person
EVER = em.CountUsers(None, 0.0, 2e9)

pytestmark = pytest.mark.needs("mongod")
REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)


def entries() -> list[dict[str, object]]:
    found = [entry(number, key="background/filtered_location") for number in range(20)]
    where = {"type": "Point", "coordinates": [18.4, COORDINATE]}
    found[7]["data"] |= {"latitude": COORDINATE, "longitude": 18.4, "loc": where, "note": NOTE}  # type: ignore[operator]
    return found


def told_by_processes() -> Iterator[bytes]:
    """The command line and the environment of every process that this one may look at."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            for name in ("cmdline", "environ"):
                with suppress(OSError):  # it has ended, or is another user's
                    yield (process / name).read_bytes()


def told_by_engine(lab: em.Lab, cloud: em.UserCloud) -> bytes:
    """What the engine says of the cloud and what the cloud has printed."""
    said = cloud.logs(10_000)
    if lab.engine == "docker":
        container = cloud_container(lab, cloud)
        said += subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True).stdout
    return said.encode()


def outside(lab: em.Lab, cloud: em.UserCloud, folder: Path, logged: str, canaries: Iterable[Canary]) -> list[str]:
    """Where canaries are found that should be nowhere but in the open vault and in the memory of who uses it."""
    canaries = list(canaries)
    release = lab.controller.register_provider("planner").ask(EVER, epsilon=1.0, min_users=1)
    demo.write_report(folder, lab, em.Simulator(1, 1, seed=1), release, {})
    assert {"events.parquet", "report.html"} <= {path.name for path in folder.iterdir()}
    found = [f"{hit.path}: {hit.form}" for hit in search(folder, canaries)]
    return [*found, *search_bytes(logged.encode(), canaries), *outside_of_lab(lab, cloud, canaries)]


def outside_of_lab(lab: em.Lab, cloud: em.UserCloud, canaries: list[Canary]) -> list[str]:
    """Where canaries are found that may be known to the lab's own process and files, and to nobody else."""
    found = [f"{hit.path}: {hit.form}" for hit in search(run_root(lab.home), canaries)]
    texts = [told_by_engine(lab, cloud), *told_by_processes()]
    return found + [form for text in texts for form in search_bytes(text, canaries)]


@REAL
@pytest.mark.parametrize(
    ("vault", "kind"),
    [("gocryptfs", "gocryptfs"), ("fscrypt", "fscrypt"), ("gocryptfs", "plain")],
    indirect=["vault"],
)
def test_what_is_in_the_vault_and_what_opens_it_is_found_nowhere_else(
    engine_name: str,
    kind: str,
    vault: str,
    vault_home: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    key, words, wrong = em.Key.random(), "correct horse battery staple 4711", em.Key.random()
    with em.Lab(engine_name, kind, default_policy=em.Policy.open(), idle=None) as lab:
        cloud = lab.controller.signup(NAME, key=key)
        code = cloud.recovery(key).reveal()
        assert cloud.token is not None
        secrets: list[Canary] = [key.raw(), wrong.raw(), words, code, cloud.token]
        cloud.store(entries())
        cloud.intake()
        cloud.pause()
        assert outside(lab, cloud, tmp_path / "open", caplog.text, [*KEPT, *secrets]) == []
        assert outside_of_lab(lab, cloud, [NAME]) == []
        cloud.rekey(key, em.Passphrase(words))
        cloud.lock()
        assert {bool(search(vault_home, [canary])) for canary in KEPT} == {kind == "plain"}
        assert search(vault_home, secrets) == []
        assert {hit.path.name.partition("-")[0] for hit in search(vault_home, [NAME])} == {"registry.sqlite"}
        assert search_bytes(lab.recorder.frame().to_csv().encode(), [NAME]) != []
        for opens in (wrong, key):
            with pytest.raises(em.WrongKey) as caught:
                cloud.unlock(opens)
            assert search_bytes(str(caught.value).encode(), secrets) == []
        cloud.unlock(em.RecoveryCode(code))
        assert cloud.entries("background/filtered_location")["note"].dropna().tolist() == [NOTE]
        assert outside(lab, cloud, tmp_path / "again", caplog.text, [*KEPT, *secrets]) == []
        assert search_bytes(lab.recorder.frame().to_csv().encode(), [*KEPT, *secrets]) == []


@pytest.mark.parametrize("vault", ["gocryptfs"], indirect=True)
def test_the_search_finds_what_it_looks_for(vault: str, vault_home: Path, tmp_path: Path) -> None:
    key = em.Key.random()
    with em.Lab("process", vault, default_policy=em.Policy.open(), idle=None) as lab:
        cloud = lab.controller.signup("ann", key=key)
        assert cloud.token is not None
        canaries: list[Canary] = [key.raw(), cloud.token]
        assert outside(lab, cloud, tmp_path / "clean", "", canaries) == []
        command = [sys.executable, "-c", "import sys; sys.stdin.read()", key.raw().hex()]
        environment = {"TOKEN": cloud.token}
        with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as process:
            assert len(outside(lab, cloud, tmp_path / "told", "", canaries)) == 2
            process.communicate()
        (tmp_path / "kept").mkdir()
        cloud.save_token(tmp_path / "kept" / "token")
        assert len(outside(lab, cloud, tmp_path / "kept", "", canaries)) == 1
        assert len(outside(lab, cloud, tmp_path / "logged", f"its key is {key.raw().hex()}", canaries)) == 1
        clear = lab.controller.life("ann").spec.vault_dir
        cloud.store(entries())
        assert {bool(search(clear, [canary])) for canary in KEPT} == {True}


@pytest.mark.needs("notebooks", "gocryptfs")
@pytest.mark.slow
def test_a_notebook_that_was_run_holds_no_key_and_no_position(home: Path, tmp_path: Path) -> None:
    person = em.Simulator(1, 1, seed=3).person(0)
    positions = [
        one["data"]["latitude"]  # type: ignore[index]
        for one in person.entries()
        if one["metadata"]["key"] == "background/filtered_location"  # type: ignore[index]
    ]
    assert isinstance(person.key, em.Key)
    canaries: list[Canary] = [person.key.raw(), *map(float, positions[:: len(positions) // 20])]
    out, run = tmp_path / "run.ipynb", tmp_path / "run"
    tiny: dict[str, str | int | float] = {"n_users": 1, "days": 1, "seed": 3, "rounds": 1, "min_users": 1}
    done = papermill("notebooks/quickstart.ipynb", out, engine="process", vault="gocryptfs", out_dir=str(run), **tiny)
    assert done.returncode == 0, done.stderr
    assert "encrypted by gocryptfs" in json.dumps(json.loads(out.read_text()))
    assert search(tmp_path, canaries) == []
    (tmp_path / "entries.json").write_text(json.dumps(person.entries()))
    assert search(tmp_path, canaries[1:]) != []
