"""The command line on a lab that was kept: files in, an archive out, and a token that nobody else sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import emlab as em
from emlab import files
from emlab.errors import NotPermitted
from emlab.kept import kept_lab, read_token
from tests.e2e.clouds import entry

pytestmark = pytest.mark.needs("mongod")


class Shell:
    """A folder to work in and an emlab home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"

    def __call__(self, *words: str, says: str = "", fails: bool = False) -> str:
        """What `emlab WORDS` prints on the channel that says how it went."""
        done = subprocess.run(
            [sys.executable, "-m", "emlab.cli", *words],
            cwd=self.folder,
            env={**os.environ, "EMLAB_HOME": str(self.home), "EMLAB_LOG": "ERROR"},
            input=says,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == (1 if fails else 0), done.stderr
        return done.stderr if fails else done.stdout

    def write(self, name: str, things: list[Any]) -> str:
        """A file of entries; returns its name."""
        (self.folder / name).write_text(json.dumps(things))
        return name


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    made = Shell(tmp_path)
    monkeypatch.setenv("EMLAB_HOME", str(made.home))
    monkeypatch.chdir(tmp_path)
    with em.Lab("process", name="study", keep=True, idle=None):  # whose engine is then known
        pass
    yield made
    made("clean", "--lab", "study", "--yes")


def test_a_day_goes_in_and_an_archive_comes_out(shell: Shell) -> None:
    day = shell.write("day.json", [entry(0), entry(1)])
    told = shell("import", day, "--user", "alice", "--new")
    assert "day.json: 2 received: 2 inserted, 0 replaced, 0 rejected" in told
    token = shell.folder / "alice.token"
    assert token.stat().st_mode & 0o777 == 0o600
    shell("export", "--user", "alice", "--out", "alice.json.gz", "--token-file", "alice.token")
    assert len(list(files.read(shell.folder / "alice.json.gz"))) == 2
    piped = shell("import", "alice.json.gz", "--user", "alice", says=token.read_text())
    assert "2 received: 0 inserted, 2 replaced" in piped
    assert token.read_text().strip() not in (shell.folder / "alice.json.gz").read_bytes().decode("latin-1") + piped


def test_bad_entries_are_counted_by_reason_or_refuse_the_file(shell: Shell) -> None:
    mixed = shell.write("mixed.json", [entry(0), {"metadata": {}}, 7])
    refused = shell("import", mixed, "--user", "alice", "--new", fails=True)
    assert refused.startswith("emlab: mixed.json: entry 1 (no key): metadata.key is missing")
    told = shell("import", mixed, "--user", "alice", "--token-file", "alice.token", "--partial")
    assert "3 received: 1 inserted, 0 replaced, 2 rejected" in told
    assert "1 x the entry is no JSON object" in told


def test_whoever_has_no_token_learns_nothing(shell: Shell) -> None:
    shell("import", shell.write("day.json", [entry(0)]), "--user", "alice", "--new")
    out = ("export", "--user", "alice", "--out", "out.json")
    assert "there is no token" in shell(*out, fails=True)
    assert "wrong, expired or missing token" in shell(*out, says="emo_guess\n", fails=True)
    (shell.folder / "alice.token").chmod(0o640)
    assert "chmod 600" in shell(*out, "--token-file", "alice.token", fails=True)
    assert "cannot be read" in shell(*out, "--token-file", "absent", fails=True)
    assert not (shell.folder / "out.json").exists()


def test_a_new_user_neither_replaces_another_nor_its_token(shell: Shell) -> None:
    day = shell.write("day.json", [entry(0)])
    shell("import", day, "--user", "alice", "--new")
    assert "alice.token is there already" in shell("import", day, "--user", "alice", "--new", fails=True)
    taken = shell("import", day, "--user", "alice", "--new", "--token-file", "other", fails=True)
    assert "alice" in taken
    assert not (shell.folder / "other").exists()
    assert "nobody called 'bob'" in shell("import", day, "--user", "bob", fails=True)
    lost = shell("import", day, "--user", "carol", "--new", "--token-file", "absent/carol", fails=True)
    assert "cannot be written" in lost
    assert "nobody called 'carol'" in shell("import", day, "--user", "carol", says="x", fails=True)


def test_it_is_said_which_labs_there_are(shell: Shell) -> None:
    out = ("export", "--user", "alice", "--out", "out.json")
    assert "no lab 'absent' that was kept; there are: study" in shell(*out, "--lab", "absent", fails=True)
    (shell.home / "labs" / "other").mkdir()
    assert "several labs: name one of other, study with --lab" in shell(*out, fails=True)
    (shell.home / "labs" / "other").rmdir()


def test_a_lab_in_use_is_left_alone(shell: Shell) -> None:
    with kept_lab("study"):
        assert "is in use by process" in shell("export", "--user", "alice", "--out", "out.json", fails=True)


def test_a_lab_stays_kept_with_its_clouds(shell: Shell) -> None:
    with kept_lab(None) as lab:
        cloud = lab.controller.signup("alice")
        cloud.save_token(shell.folder / "mine")
        with pytest.raises(NotPermitted, match="only the handle that signup returned"):
            lab.controller.cloud("alice").save_token(shell.folder / "none")
    with kept_lab("study") as lab:
        assert lab.controller.cloud("alice", token=read_token(shell.folder / "mine")).counts() == {}
