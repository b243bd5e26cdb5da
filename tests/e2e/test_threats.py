"""Who reads a cloud's data while it runs, is paused, is locked: each is tried. See THREATS.md."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

import emlab as em
from emlab.vaults import mounts
from tests.canary import search
from tests.memory import memory

pytestmark = pytest.mark.needs("mongod")


@pytest.mark.parametrize("kind", ["ecryptfs", "gocryptfs", "plain"], indirect=True)
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
        assert any(struct.pack("<d", somewhere[0]) in memory(pid) for pid in serving(spec.cloud))
        cloud.lock()
        assert bool(search(home, somewhere)) == (kind == "plain")
        assert serving(spec.cloud) == []
        assert str(spec.vault_dir) not in Path("/proc/self/mountinfo").read_text()


def serving(cloud: str) -> list[int]:
    """The cloud's processes: its custodian, its mongod, the daemon of its vault."""
    return [pid for pid, command in mounts.commands() if any(cloud.encode() in word for word in command)]
