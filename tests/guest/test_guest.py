"""The guest itself: what goes in, what comes back, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from emlab.clock import wait_until
from tests.guest import guest

pytestmark = pytest.mark.needs("guest")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


def processes_of(shared: Path) -> list[psutil.Process]:
    """The machine's processes and its warden: each names the folder."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _names(p, shared)]


def _names(process: psutil.Process, shared: Path) -> bool:
    try:
        return any(str(shared) in word for word in process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def test_a_command_runs_as_root_on_a_kernel_with_ecryptfs_and_comes_back(shared: Path) -> None:
    script = "id -u; cat /proc/filesystems; pwd; echo $WORD > $WHERE/kept; echo aside >&2; exit 7"
    result = guest.run(["sh", "-c", script], shared, env={"WORD": "said", "WHERE": str(shared)})
    assert result.status == 7
    assert {"0", "ecryptfs", str(guest.TREE)} <= set(result.stdout.split())
    assert result.stderr == "aside\n"
    assert (shared / "kept").read_text() == "said\n"
    assert processes_of(shared) == []


def test_what_it_writes_elsewhere_never_reaches_the_host(shared: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()
    script = f'echo more > "{mark}" || df --output=fstype,size "$TMPDIR" && touch "$TMPDIR/x" "$HOME/x"'
    result = guest.run(["sh", "-c", script], shared, disk=guest.make_disk(shared / "disk", 64))
    assert (result.status, result.stdout.split()[2]) == (0, "ext4"), result.stderr
    assert mark.read_text() == ""


def test_a_command_that_takes_too_long_is_ended_with_what_it_said(shared: Path) -> None:
    result = guest.run(["sh", "-c", "echo begun; sleep 60"], shared, timeout_s=0.5)
    assert (result.status, result.stdout) == (guest.TIMED_OUT, "begun\n")


def test_a_kernel_that_panics_says_why(shared: Path) -> None:
    with pytest.raises(guest.GuestError, match="sysrq triggered crash"):
        guest.run(["sh", "-c", "echo c > /proc/sysrq-trigger"], shared)
    assert processes_of(shared) == []


def test_a_guest_that_does_not_boot_in_time_is_ended(shared: Path) -> None:
    with pytest.raises(guest.GuestError, match=r"did not end within 0\.2 s"):
        guest.run(["true"], shared, boot_s=0.2, timeout_s=0.0)
    assert processes_of(shared) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_one_who_started_it_is_killed(shared: Path, number: signal.Signals) -> None:
    # the command computes: what it would do next, were it let go, would be done on the host
    script = f"touch {shared}/begun; while :; do :; done"
    program = (
        "import sys; from pathlib import Path; from tests.guest import guest;"
        "guest.run(['sh', '-c', sys.argv[1]], Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, script, str(shared)]
    with subprocess.Popen(command, cwd=guest.TREE, stderr=subprocess.DEVNULL) as starter:
        assert wait_until((shared / "begun").exists, 30.0)
        assert len(processes_of(shared)) > 2
        starter.send_signal(number)
    assert starter.returncode == -number
    assert wait_until(lambda: not processes_of(shared), 10.0)
    assert wait_until(lambda: not shared.exists(), 10.0)
