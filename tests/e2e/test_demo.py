from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

import emlab as em
from emlab import demo
from tests.e2e.clouds import entry


def test_what_is_wrong_is_said_before_anything_is_done(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    for wrong, out in ((float("nan"), tmp_path / "out"), (-1.0, tmp_path / "out"), (1.0, tmp_path / "file")):
        with pytest.raises((em.BadQuery, em.ConfigError)):
            demo.tell(out, engine="memory", n_users=1, days=1, seed=1, epsilon=wrong, say=said.append)
    assert said == []


def test_phone_days_are_found_read_and_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(em.ConfigError, match="no phone days"):
        demo.phone_days_in(tmp_path)
    (tmp_path / "-ünï day.json.gz").write_bytes(gzip.compress(json.dumps([entry(1)]).encode()))
    (tmp_path / "x.ground_truth.json").write_text("{}")
    files = demo.phone_days_in(tmp_path)
    told = demo.tell(tmp_path / "out", engine="memory", n_users=1, days=1, seed=1, phone_days=files)
    assert told.clouds["user"].tolist() == ["user-001", "n--day"]
    assert told.release.asked == told.distance.asked == 2
    wanted = {"query", "values", "loss", "noise", "trust", "asked", "answered", "refused", "failed", "receipt"}
    assert wanted <= json.loads((tmp_path / "out" / "release.json").read_text()).keys()


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--engine", "memory", "--out", "/proc/x"],
        ["demo", "--engine", "memory", "--phone-days", "/nonexistent"],
        ["demo", "--engine", "cloud9"],
        ["run", "experiments/quickstart.toml", "--out", "/proc/x"],
        ["run", "no-such.toml", "--out", "/proc/x"],
        ["clean", "--lab", "no-such-lab"],
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_sentence(home: Path, arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "emlab.cli", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("emlab: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
