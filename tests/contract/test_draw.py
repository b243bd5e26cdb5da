"""Noise in a cloud: drawn by a program that is gone again, in time or not at all, and never left out."""

from __future__ import annotations

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from emlab.apps import draw
from emlab.ask import DRAWING_S, Ask
from emlab.clock import ManualClock
from emlab.custodian import Custodian
from emlab.errors import StoreError
from emlab.ledger import MemoryLedger
from emlab.policy import Policy
from emlab.provision import Provision, new_marker
from emlab.store.memory import MemoryStore
from tests.unit.asks import CLOUD, NOW, World


def local(epsilon_micro: int = 1_000_000) -> Ask:
    return World().ask(model="local", epsilon_micro=epsilon_micro)


def test_a_program_draws_by_the_law_and_this_one_loads_nothing_for_it() -> None:
    """Ten draws at a scale of 1000 are all the same with probability below 1e-20."""
    before = set(sys.modules)
    drawn = [draw.draw(local(1000), timeout_s=60.0) for _ in range(10)]
    assert all(len(one) == 1 and type(one[0]) is int for one in drawn)
    assert len(Counter(map(tuple, drawn))) > 1
    assert not {name for name in set(sys.modules) - before if name.startswith(("opendp", "numpy"))}


def test_gaussian_noise_is_drawn_too() -> None:
    ask = World().ask(model="local", rho_nano=1)
    assert abs(draw.draw(ask, timeout_s=60.0)[0]) < 10**6  # sigma is 22,361


def test_what_is_not_drawn_in_time_is_an_error() -> None:
    began = time.monotonic()
    with pytest.raises(StoreError, match="no noise was drawn within"):
        draw.draw(local(), timeout_s=0.01)
    assert time.monotonic() - began < DRAWING_S


def test_more_programs_than_two_wait_for_each_other_and_no_longer_than_they_may() -> None:
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(lambda _: draw.draw(local(), timeout_s=60.0), range(6)))) == 6
        hurried = [pool.submit(draw.draw, local(), timeout_s=0.02) for _ in range(6)]
        assert all(isinstance(one.exception(60), StoreError) for one in hurried)
    assert draw.draw(local(), timeout_s=60.0)  # whoever gave up has given its turn back


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit(3)", "status 3"),
        ("import os; os.kill(os.getpid(), 9)", "status -9"),
        ("print('[]')", "more or fewer"),
        ("print('[1, 2]')", "more or fewer"),
        ("print('[0.5]')", "no whole numbers"),
        ("print('nothing')", "no whole numbers"),
        ("", "no whole numbers"),
    ],
)
def test_a_program_that_does_not_draw_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    (tmp_path / "stand_in.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(draw, "MODULE", "stand_in")
    with pytest.raises(StoreError, match=f"no noise was drawn.*{said}"):
        draw.draw(local(), timeout_s=60.0)


def test_a_cloud_that_cannot_draw_spends_nothing_and_gives_no_answer() -> None:
    world, failures = World(), [StoreError("no noise was drawn")]

    def drawing(ask: Ask) -> list[int]:
        if failures:
            raise failures.pop()
        return [1_000_000]

    provision = Provision(
        lab="test",
        cloud=CLOUD,
        generation=1,
        owner_tokens=[],
        controller=world.controller.public,
        policy=Policy.open(),
        marker=new_marker(),
    )
    ledger = MemoryLedger()
    custodian = Custodian(provision, MemoryStore(UUID(CLOUD)), ledger, draw=drawing, clock=ManualClock(NOW))
    ask = world.ask(model="local")
    request = world.request(ask)
    with pytest.raises(StoreError, match="no noise"):
        custodian.ask(request)
    assert (ledger.balance().seq, ledger.balance().spent.micro) == (0, 0)
    envelope = custodian.ask(request)
    clear = world.aggregator.open(
        envelope.sealed, f"emlab/sealed\0{envelope.stub.cloud}\0{envelope.stub.ask_digest}".encode()
    )
    assert int.from_bytes(clear, "big") == 1_000_000
    assert ledger.balance().spent.micro == ask.loss.epsilon_micro
    assert custodian.ask(request) == envelope


def test_the_program_is_told_laws_and_counts_and_nothing_else() -> None:
    told: list[bytes] = []

    def run(request: bytes, timeout_s: float) -> bytes:
        told.append(request)
        return b"[0]"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "_run", run)
        draw.draw(local())
    assert msgspec.json.decode(told[0]) == [{"law": {"law": "laplace", "scale": 1.0}, "count": 1}]
