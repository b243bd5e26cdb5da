"""Who reads a cloud's data while it runs, is paused, is locked: each is tried. See THREATS.md."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import emlab as em
from emlab.parts import VAULTS
from tests.canary import search
from tests.memory import memory

NEEDED = {"gocryptfs": ("gocryptfs",), "ecryptfs": ("ecryptfs",), "plain": ()}
pytestmark = pytest.mark.needs("mongod")


@pytest.fixture(params=sorted(NEEDED))
def kind(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    assert set(NEEDED) < set(VAULTS)
    for needed in NEEDED[request.param]:
        need(needed)
    return str(request.param)


def test_a_paused_cloud_is_as_readable_as_a_running_one_and_a_locked_one_is_not(kind: str, home: Path) -> None:
    person = em.Simulator(1, 1, seed=5).person(0)
    with em.Lab("process", kind, idle=None, default_policy=em.Policy.open()) as lab:
        cloud = lab.controller.signup(person.name, key=person.key)
        cloud.store(person.entries())
        somewhere = [float(cloud.entries("background/filtered_location")["latitude"].iloc[0])]
        spec = lab.controller.life(person.name).spec
        assert search(spec.vault_dir, somewhere) != []
        cloud.pause()
        assert search(spec.vault_dir, somewhere) != []
        serving = [pid for pid in pids() if serves(pid, spec.cloud)]
        assert any(struct.pack("<d", somewhere[0]) in memory(pid) for pid in serving)
        cloud.lock()
        assert bool(search(home, somewhere)) == (kind == "plain")
        assert not any(serves(pid, spec.cloud) for pid in pids())
        assert str(spec.vault_dir) not in Path("/proc/self/mountinfo").read_text()


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def serves(pid: int, cloud: str) -> bool:
    """Whether the process is this cloud's: its custodian, its mongod, the daemon of its vault."""
    try:
        return cloud.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False
