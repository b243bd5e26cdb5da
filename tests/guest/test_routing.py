"""What happens to a test in the guest is what this session says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.guest import guest

pytestmark = pytest.mark.skipif(
    "ecryptfs" in Path("/proc/filesystems").read_text(), reason="this kernel has eCryptfs: no test runs in a guest"
)
OUTCOMES = "tests/guest/outcomes.py"


def run_pytest(*arguments: str, path: str = os.environ["PATH"]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments]
    env = os.environ | {"PATH": path}
    done = subprocess.run(command, cwd=guest.TREE, env=env, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout


@pytest.mark.needs("guest")
def test_each_outcome_in_the_guest_is_the_tests_own() -> None:
    status, said = run_pytest(OUTCOMES)
    assert "6 tests ran in a guest" in said
    assert re.findall(r"^tests/guest/outcomes\.py::(\w+) (\w+)", said, re.MULTILINE) == [
        ("test_passes", "PASSED"),
        ("test_fails", "FAILED"),
        ("test_has_a_broken_fixture", "ERROR"),
        ("test_skips", "FAILED"),
        ("test_kills_the_guest", "FAILED"),
        ("test_is_never_reached", "FAILED"),
    ]
    assert status == 1
    for text in ("assert (1 + 1) == 3", "some output", "this fixture is broken", "not in the mood"):
        assert text in said
    assert "no result of this test; it said:\nGuestError: the guest ended with status" in said
    assert "sysrq triggered crash" in said


def test_where_no_guest_boots_a_test_for_it_is_skipped_or_fails_with_the_reason(tmp_path: Path) -> None:
    test = f"{OUTCOMES}::test_passes"
    status, said = run_pytest(test, path=str(tmp_path))
    assert (status, "SKIPPED" in said, "apt-get install user-mode-linux" in said) == (0, True, True)
    status, said = run_pytest(test, "--require", "guest", path=str(tmp_path))
    assert (status, "--require guest: this host has no user-mode Linux" in said) == (1, True)


@pytest.mark.needs("guest")
def test_a_kernel_that_has_ecryptfs_runs_them_itself(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--require", "ecryptfs", f"--junitxml={junit}"]
    result = guest.run([*command, "tests/contract/test_vaults.py", "-k", "ecryptfs and twice_is_as_once"], tmp_path)
    assert (result.status, "ran in a guest" in result.stdout) == (0, False), result.stdout
    suite = ElementTree.parse(junit).getroot()[0]
    assert [suite.get(what) for what in ("tests", "failures", "errors", "skipped")] == ["1", "0", "0", "0"]
