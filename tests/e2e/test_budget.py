"""A budget for ten, fifty clients in four processes: exactly ten succeed, whatever dies meanwhile."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

import emlab as em
from emlab.engines.base import SOCKET
from emlab.provision import DATABASE_DIR
from tests.e2e.clouds import kill, pid_of, reaches, run_dir, world_of

REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
COST_MICRO = 100_000
PROCESSES, CLIENTS, AFFORDABLE = 4, 50, 10


def requests(lab: em.Lab, cloud: em.UserCloud, count: int) -> list[str]:
    """Signed asks with ids of their own, as the controller would admit them one by one."""
    world = world_of(lab)
    made = (world.request(world.ask(epsilon_micro=COST_MICRO), cloud=cloud.id, lasts_s=59) for _ in range(count))
    return [base64.b64encode(msgspec.json.encode(request)).decode() for request in made]


def start(socket: Path, jobs: list[str], threads: int) -> subprocess.Popen[str]:
    asker = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.askers"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert asker.stdin is not None
    json.dump({"socket": str(socket), "requests": jobs, "threads": threads}, asker.stdin)
    asker.stdin.close()
    return asker


def lines(asker: subprocess.Popen[str]) -> list[str]:
    with asker:
        assert asker.stdout is not None
        found = asker.stdout.read().split()
    assert asker.returncode == 0
    return found


@REAL
def test_of_fifty_clients_in_four_processes_exactly_those_that_the_budget_covers_succeed(
    engine_name: str, home: Path
) -> None:
    with em.Lab(engine_name, idle=None) as lab:
        cloud = lab.controller.signup("ann", policy=em.Policy.open(total_epsilon=1.0))
        jobs = requests(lab, cloud, CLIENTS)
        socket = run_dir(lab, cloud) / SOCKET
        askers = [start(socket, jobs[n::PROCESSES], threads=13) for n in range(PROCESSES)]
        outcomes = Counter(line for asker in askers for line in lines(asker))
        assert outcomes == {"answer": AFFORDABLE, "BudgetExhausted": CLIENTS - AFFORDABLE}
        ledger = cloud.ledger
        assert (ledger.spent_micro, ledger.seq) == (AFFORDABLE * COST_MICRO, AFFORDABLE)
        assert all(row.answered for row in ledger.rows)


@REAL
@pytest.mark.parametrize("k", range(1, AFFORDABLE))
def test_with_mongod_killed_after_the_kth_answer_no_answer_is_without_a_debit(
    engine_name: str, home: Path, k: int
) -> None:
    with em.Lab(engine_name, idle=None) as lab:
        cloud = lab.controller.signup("ann", policy=em.Policy.open(total_epsilon=1.0))
        mongod = pid_of(lab, cloud, "mongod")
        asker = start(run_dir(lab, cloud) / SOCKET, requests(lab, cloud, 30), threads=4)
        assert asker.stdout is not None
        answered = 0
        while answered < k:
            answered += asker.stdout.readline().strip() == "answer"
        kill(mongod)
        answered += lines(asker).count("answer")
        assert reaches(cloud, [em.CloudState.FAILED])
        ledger = cloud.ledger  # which starts the cloud again
        assert k <= answered <= AFFORDABLE
        assert answered * COST_MICRO <= ledger.spent_micro <= AFFORDABLE * COST_MICRO
        assert sum(row.answered for row in ledger.rows) >= answered
        assert ledger.spent_micro == sum(row.loss.epsilon_micro for row in ledger.rows)


@REAL
def test_a_vault_that_was_set_back_is_refused_by_name(engine_name: str, home: Path, tmp_path: Path) -> None:
    with em.Lab(engine_name, idle=None) as lab:
        cloud = lab.controller.signup("ann", policy=em.Policy.open())
        life, planner = lab.controller.life("ann"), lab.controller.register_provider("planner")

        def ask() -> em.Release:
            return planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=1, progress=False)

        ask()
        database = life.spec.vault_dir / DATABASE_DIR
        life.end()
        shutil.copytree(database, tmp_path / "before")
        ask()
        assert cloud.ledger.spent_micro == 2_000_000
        life.end()
        shutil.rmtree(database)
        shutil.copytree(tmp_path / "before", database)
        with pytest.raises(em.errors.VaultError, match=r"ann.*older than the one that the controller remembers"):
            cloud.wake()
        with pytest.raises(em.TooFewUsers, match="VaultError 1"):
            ask()
