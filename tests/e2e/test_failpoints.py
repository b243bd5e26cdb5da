"""The controlling process dies by SIGKILL at every failpoint of what it does: nothing is lost, nothing is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

import emlab as em
from emlab.engines.rundir import run_root
from emlab.key import SigningKey, token_hash
from tests.e2e.clouds import entry
from tests.e2e.failpoints import ACTIONS, KEY, LAB, OTHER, Job
from tests.mounting import mounts_below
from tests.programs import what_runs

ENTRIES = 7
USERS = {"unlock": ("bob",), "wake": ("eve",), "forget": ("ann", "eve")}  # who has a cloud before; else ann alone
HELD = {"background/location": ENTRIES}
MOST = 60  # failpoints of one action; there are fewer


class World:
    """A kept lab in which bob is locked and others are paused, each with entries and a debit."""

    def __init__(self, home: Path, engine: str, vault: str, users: tuple[str, ...]) -> None:
        self.users = users
        self._planner = SigningKey()
        self.home = home
        self._engine = engine
        self._vault = vault
        self.tokens: dict[str, str] = {}
        self.spent: dict[str, int] = {}

    @contextmanager
    def lab(self) -> Iterator[em.Lab]:
        policy = em.Policy.open()
        with em.Lab(
            self._engine, self._vault, name=LAB, keep=True, home=self.home, idle=None, default_policy=policy
        ) as lab:
            yield lab

    def prepare(self, lab: em.Lab) -> None:
        """Those users and no others have clouds, as said."""
        there = {cloud.user for cloud in lab.controller.clouds()}
        for user in there - set(self.users):
            lab.controller.forget(user)
        fresh = [user for user in self.users if user not in there]
        for user in fresh:
            cloud = lab.controller.signup(user, key=KEY)
            cloud.store([entry(n) for n in range(ENTRIES)])
            self.tokens[user] = str(cloud.token)
        if fresh:
            self._spend(lab)
        if "bob" in self.users:
            lab.controller.lock("bob")

    def _spend(self, lab: em.Lab) -> None:
        planner = lab.controller.register_provider("planner", key=self._planner)
        planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=0.5, min_users=1)
        for user, token in self.tokens.items():
            self.spent[user] = lab.controller.cloud(user, token=token).ledger.spent_micro

    def die(self, action: str, at: int) -> tuple[bool, list[str]]:
        """Whether the action ended before its process died, and the failpoints that it passed."""
        job = Job(str(self.home), self._engine, self._vault, action, at)
        command = [sys.executable, "-m", "tests.e2e.failpoints", msgspec.json.encode(job).decode()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode == 0, done.stdout.splitlines()

    def check(self, lab: em.Lab) -> None:
        """Registry and engine agree, nothing is left of who is gone, everybody else has everything."""
        rows = {row.user: row for row in lab.registry.clouds()}
        assert {row.intent for row in rows.values()} <= {""}
        handles = lab.controller.engine.find(LAB)
        assert {handle.cloud for handle in handles} == {row.cloud for row in rows.values()}
        assert what_runs(self._engine, self.home) <= {handle.ref for handle in handles}
        assert {path.name for path in (lab.path / "clouds").iterdir()} == {row.cloud for row in rows.values()}
        assert len(list(run_root(self.home).iterdir())) == len(rows)
        assert len(mounts_below(self.home)) == sum(
            cloud.status.vault_open is True for cloud in lab.controller.clouds()
        ) * (self._vault != "plain")
        for user in rows:
            self._check_cloud(lab, user)

    def _check_cloud(self, lab: em.Lab, user: str) -> None:
        try:
            lab.controller.unlock(user, KEY)
        except em.WrongKey:
            lab.controller.unlock(user, OTHER)
            lab.controller.rekey(user, OTHER, KEY)
        if user in self.tokens:
            cloud = lab.controller.cloud(user, token=self.tokens[user])
            assert cloud.counts() == HELD
            assert cloud.ledger.spent_micro == self.spent[user]


@pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
@pytest.mark.parametrize("action", list(ACTIONS))
def test_the_controlling_process_dies_at_every_failpoint(home: Path, engine_name: str, action: str) -> None:
    _die_everywhere(World(home, engine_name, "plain", USERS.get(action, ("ann",))), action)


@pytest.mark.needs("gocryptfs", "mounting")
@pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
@pytest.mark.parametrize("action", ["lock", "unlock", "rekey"])
def test_it_dies_while_it_works_on_an_encrypted_cloud(home: Path, engine_name: str, action: str) -> None:
    _die_everywhere(World(home, engine_name, "gocryptfs", USERS.get(action, ("ann",))), action)


def _die_everywhere(world: World, action: str) -> None:
    may_be_missing = {"ann"} if action == "forget" else set()
    for at in range(MOST):
        with world.lab() as lab:
            world.prepare(lab)
            known = {user: token_hash(token) for user, token in world.tokens.items()}
        ended, passed = world.die(action, at)
        if ended:
            break
        with world.lab() as lab:
            there = {cloud.user for cloud in lab.controller.clouds()}
            assert set(world.users) - there <= may_be_missing
            for user in world.tokens.keys() - there:
                del world.tokens[user]
            world.check(lab)
            for user in world.tokens:
                assert known[user] in lab.controller.tokens.hashes("owner", user)
    assert ended, f"more than {MOST} failpoints: {passed}"
    assert len(passed) >= 2
    with world.lab() as lab:
        lab.keep = False
    assert not (world.home / "labs" / LAB).exists()
