from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from emlab.errors import ConfigError, LabInUse
from emlab.registry import CloudRow, Registry, Tombstone

ROW = CloudRow(
    user="ann", cloud="0" * 32, generation=1, token_hash="h", marker="m", policy=b"{}", created_ts=1.0, intent="signup"
)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "lab")
    registry.open()
    yield registry
    registry.close()


def test_a_cloud_is_remembered_after_the_registry_was_closed(registry: Registry) -> None:
    registry.add(ROW)
    registry.born("ann", "public")
    registry.granted("ann", 5)
    registry.seen("ann", 9)
    registry.seen("ann", 2)
    registry.close()
    registry.open()
    assert registry.clouds() == [replace(ROW, public="public", granted_micro=5, ledger_seq=9, intent="")]


def test_a_user_has_one_cloud(registry: Registry) -> None:
    registry.add(ROW)
    with pytest.raises(ConfigError, match="ann has a cloud"):
        registry.add(replace(ROW, cloud="1" * 32))


def test_another_process_is_told_who_owns_the_lab(registry: Registry, tmp_path: Path) -> None:
    code = "import sys, pathlib, emlab.registry as r; r.Registry(pathlib.Path(sys.argv[1])).open()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "lab")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"in use by process {os.getpid()}" in done.stderr


def test_the_same_process_cannot_open_a_lab_twice(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(LabInUse, match=str(os.getpid())):
        Registry(tmp_path / "lab").open()


def test_only_its_user_can_read_the_registry(registry: Registry, tmp_path: Path) -> None:
    assert (tmp_path / "lab").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "lab" / "registry.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_tombstone_never_shrinks_and_does_not_name_its_person(registry: Registry, tmp_path: Path) -> None:
    registry.bury("ann-the-unique", Tombstone(5, 1))
    registry.bury("ann-the-unique", Tombstone(3, 2))
    assert registry.tombstone("ann-the-unique") == Tombstone(5, 2)
    assert registry.tombstone("bob") == Tombstone()
    registry.close()
    for file in (tmp_path / "lab").iterdir():
        assert b"ann-the-unique" not in file.read_bytes()


def test_a_provider_s_name_belongs_to_its_key(registry: Registry) -> None:
    registry.add_provider("planner", "key", "token-1")
    registry.add_provider("planner", "key", "token-2")
    assert registry.provider("key") == ("planner", "token-2")
    with pytest.raises(ConfigError, match="another key"):
        registry.add_provider("planner", "other", "token-3")


def test_a_secret_stays_the_same(registry: Registry) -> None:
    assert registry.secret("x") == registry.secret("x") != registry.secret("y")


def test_a_registry_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "registry.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="registry"):
        Registry(tmp_path / "lab").open()
