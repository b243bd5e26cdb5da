from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from emlab.clock import wait_until
from emlab.errors import ConfigError, LabInUse, StoreError
from emlab.loss import MOST, NOTHING, Loss, Spent
from emlab.registry import CloudRow, Registry, Tombstone, owner_of

ROW = CloudRow(user="ann", cloud="0" * 32, generation=1, marker="m", created_ts=1.0, intent="signup")
FIVE = Loss(epsilon_micro=5)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    registry = Registry(tmp_path / "lab")
    registry.open()
    yield registry
    registry.close()


def test_a_cloud_is_remembered_after_the_registry_was_closed(registry: Registry) -> None:
    registry.add(ROW)
    assert registry.born(ROW.cloud, "public")
    assert registry.grant(ROW.cloud, Loss(epsilon_micro=7))
    assert registry.take_back(ROW.cloud, Loss(epsilon_micro=2))
    registry.seen(ROW.cloud, 9)
    registry.seen(ROW.cloud, 2)
    registry.close()
    registry.open()
    assert registry.clouds() == [replace(ROW, public="public", granted=Spent(micro=5), ledger_seq=9, intent="")]


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
    registry.bury("ann-the-unique", Tombstone(Spent(micro=5), 1))
    registry.bury("ann-the-unique", Tombstone(Spent(micro=3), 2))
    assert registry.tombstone("ann-the-unique") == Tombstone(Spent(micro=5), 2)
    assert registry.tombstone("bob") == Tombstone()
    registry.close()
    for file in (tmp_path / "lab").iterdir():
        assert b"ann-the-unique" not in file.read_bytes()


def test_a_tombstone_keeps_the_larger_of_each_sum(registry: Registry) -> None:
    registry.bury("ann", Tombstone(Spent(micro=5, nano=1, gaussians=2), 1))
    registry.bury("ann", Tombstone(Spent(micro=3, nano=9, gaussians=0), 1))
    registry.close()
    registry.open()
    assert registry.tombstone("ann").spent == Spent(micro=5, nano=9, gaussians=2)


def test_what_was_granted_is_kept_in_both_currencies(registry: Registry) -> None:
    registry.add(replace(ROW, carried=Spent(micro=1, nano=2, gaussians=3)))
    assert registry.born(ROW.cloud, "public")
    for loss in (Loss(epsilon_micro=1_000_000), Loss(rho_nano=7), Loss(rho_nano=9)):
        assert registry.grant(ROW.cloud, loss)
    assert registry.take_back(ROW.cloud, Loss(rho_nano=9))
    row = registry.cloud("ann")
    assert row is not None
    assert row.granted == Spent(micro=1_000_000, nano=500_000_007, gaussians=1)
    assert row.carried == Spent(micro=1, nano=2, gaussians=3)


def test_however_much_is_granted_the_cloud_can_still_be_read(registry: Registry) -> None:
    """An ask that fails is granted too; sums stop where they can still be written and read."""
    registry.add(replace(ROW, granted=Spent(micro=MOST, nano=MOST - 1, gaussians=MOST)))
    assert registry.born(ROW.cloud, "public")
    assert registry.grant(ROW.cloud, Loss(rho_nano=5))
    row = registry.cloud("ann")
    assert row is not None
    assert row.granted == Spent(micro=MOST, nano=MOST, gaussians=MOST)
    for _ in range(2):  # what was never granted cannot be owed
        registry.run("UPDATE clouds SET granted = ?", msgspec.json.encode(Spent()))
        assert registry.take_back(ROW.cloud, Loss(rho_nano=5))
    assert registry.clouds()[0].granted == Spent()


def test_a_provider_s_name_belongs_to_its_key(registry: Registry) -> None:
    registry.add_provider("planner", "key")
    registry.add_provider("planner", "key")
    assert registry.provider("key") == "planner"
    with pytest.raises(ConfigError, match="another key"):
        registry.add_provider("planner", "other")


def test_a_secret_stays_the_same(registry: Registry) -> None:
    assert registry.secret("x") == registry.secret("x") != registry.secret("y")


def test_a_registry_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "registry.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(ConfigError, match="registry"):
        Registry(tmp_path / "lab").open()


def test_tables_of_another_version_are_not_touched(registry: Registry, tmp_path: Path) -> None:
    registry.add(ROW)
    registry.run("PRAGMA user_version=1")
    registry.close()
    with pytest.raises(ConfigError, match="another version of emlab"):
        registry.open()
    with sqlite3.connect(tmp_path / "lab" / "registry.sqlite") as database:
        assert database.execute("SELECT user FROM clouds").fetchall() == [("ann",)]
    database.close()


def test_one_key_is_not_registered_under_two_names(registry: Registry) -> None:
    registry.add_provider("planner", "key")
    with pytest.raises(ConfigError, match="under another name"):
        registry.add_provider("second", "key")
    assert registry.provider("key") == "planner"


def test_a_fault_of_the_database_is_an_error_of_the_lab(registry: Registry, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "lab" / "registry.sqlite") as other:
        other.execute("DROP TABLE tombstones")
    other.close()
    with pytest.raises(StoreError, match="registry of the lab lab: no such table"):
        registry.tombstone("ann")


def test_what_is_written_survives_a_power_cut(registry: Registry) -> None:
    full = 2  # sqlite.org/pragma.html#pragma_synchronous
    assert [tuple(row) for row in registry.run("PRAGMA synchronous")] == [(full,)]


def test_a_cloud_is_found_by_its_id_and_granted_to_only_while_it_stands(registry: Registry) -> None:
    registry.add(ROW)
    assert registry.by_cloud(ROW.cloud) == ROW
    assert registry.by_cloud("1" * 32) is None
    assert registry.public_keys("p" * 64) == {}
    assert not registry.grant(ROW.cloud, FIVE)
    assert registry.born(ROW.cloud, "public")
    aliases = [registry.alias(ROW.cloud, name * 64) for name in "pq"]
    assert registry.public_keys("p" * 64) == {aliases[0]: "public"}
    assert len({ROW.cloud, *aliases}) == 3
    assert registry.grant(ROW.cloud, FIVE)
    assert registry.grant(ROW.cloud, FIVE)
    assert registry.take_back(ROW.cloud, FIVE)
    assert registry.leave(ROW.cloud) == registry.cloud("ann")
    assert not registry.grant(ROW.cloud, FIVE)
    assert not registry.grant("1" * 32, FIVE)
    row = registry.cloud("ann")
    assert row is not None
    assert row.granted == Spent() + FIVE


class TestManyAtOnce:
    """Changes of threads that meet are made durable by one commit."""

    def test_every_grant_counts(self, registry: Registry) -> None:
        users = [f"u{number}" for number in range(4)]
        for user in users:
            registry.add(replace(ROW, user=user, cloud=user, intent=""))
        with ThreadPoolExecutor(16) as pool:
            granted = list(
                pool.map(lambda number: registry.grant(users[number % 4], Loss(epsilon_micro=7)), range(400))
            )
        assert all(granted)
        assert [found.granted.micro for user in users if (found := registry.cloud(user))] == [700] * 4

    def test_those_that_come_while_one_is_written_need_one_commit(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry.add(replace(ROW, intent=""))
        commits, waiting, real = [], threading.Event(), registry.run

        def run(sql: str, *values: object, clash: str | None = None) -> list[sqlite3.Row]:
            if sql == "COMMIT":
                assert waiting.wait(10)
                commits.append(sql)
            return real(sql, *values, clash=clash)

        monkeypatch.setattr(registry, "run", run)
        with ThreadPoolExecutor(16) as pool:
            first = pool.submit(registry.seen, ROW.cloud, 1)
            assert wait_until(lambda: registry._committing.locked(), 10)
            later = [pool.submit(registry.seen, ROW.cloud, number) for number in range(2, 12)]
            assert wait_until(lambda: len(registry._waiting) == 10, 10)
            waiting.set()
            for done in (first, *later):
                done.result(10)
        assert len(commits) == 2
        found = registry.cloud("ann")
        assert found is not None
        assert found.ledger_seq == 11

    def test_where_the_commit_fails_nobody_is_told_that_it_was_granted(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry.add(replace(ROW, intent=""))
        real = registry.run

        def run(sql: str, *values: object, clash: str | None = None) -> list[sqlite3.Row]:
            if sql == "COMMIT":
                raise ConfigError("the disk is full")
            return real(sql, *values, clash=clash)

        monkeypatch.setattr(registry, "run", run)
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(registry.grant, ROW.cloud, Loss(epsilon_micro=7)) for _ in range(8)]
            assert [type(one.exception(10)) for one in asked] == [ConfigError] * 8
        monkeypatch.undo()
        found = registry.cloud("ann")
        assert found is not None
        assert found.granted == NOTHING
        assert registry.grant(ROW.cloud, Loss(epsilon_micro=7))


def test_what_was_made_once_is_never_made_again(registry: Registry) -> None:
    assert registry.once("x", lambda: b"first") == b"first"
    registry.close()
    registry.open()
    assert registry.once("x", lambda: b"second") == b"first"
    assert registry.once("y", lambda: b"third") == b"third"


def test_a_setting_that_was_never_given_is_not_known(registry: Registry) -> None:
    assert registry.known("engine") is None
    registry.setting("engine", "memory")
    assert registry.known("engine") == "memory"


def test_who_has_a_lab_open_is_told_to_others(registry: Registry, tmp_path: Path) -> None:
    lab = tmp_path / "lab"
    assert owner_of(lab) == os.getpid()
    registry.close()
    assert (lab / "owner.lock").read_text() == str(os.getpid())
    assert owner_of(lab) is None
    assert owner_of(tmp_path / "other") is None
    registry.open()


def test_a_cloud_is_found_by_its_alias_also_when_it_came_later(registry: Registry) -> None:
    assert registry.by_alias(registry.alias(ROW.cloud, "p"), "p") is None
    registry.add(ROW)
    assert registry.by_alias(registry.alias(ROW.cloud, "p"), "p") == ROW
    assert registry.by_alias(registry.alias(ROW.cloud, "p"), "q") is None
    registry.drop(ROW.cloud)
    assert registry.by_alias(registry.alias(ROW.cloud, "p"), "p") is None


FORKED = """
import os, pathlib, sys
from emlab.registry import Registry
registry = Registry(pathlib.Path(sys.argv[1]))
registry.open()
if os.fork():
    os._exit(0)
try:
    registry.clouds()
except Exception as exc:
    print(exc, flush=True)
registry.close()
sys.stdin.read()
"""


def test_a_forked_child_neither_uses_a_lab_nor_keeps_it_after_its_parent_s_death(tmp_path: Path) -> None:
    lab = Registry(tmp_path / "lab")
    command = [sys.executable, "-c", FORKED, str(tmp_path / "lab")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert f"belongs to process {parent.pid}" in parent.stdout.readline()
        assert parent.wait(10) == 0
        lab.open()  # while the child still runs
        lab.close()
        parent.stdin.close()
        assert parent.stdout.read() == ""  # it has ended


def test_a_registry_that_cannot_be_opened_is_named_and_leaves_the_lab_free(tmp_path: Path) -> None:
    (tmp_path / "lab" / "registry.sqlite").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"registry\.sqlite cannot be opened"):
            Registry(tmp_path / "lab").open()
