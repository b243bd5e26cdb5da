"""Whatever happens in whatever order, on each engine: what the registry, the engine and people know is the same."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from emlab.idle import Histogram, PauseAfter
from tests.stateful.faults import Fault, Verb
from tests.stateful.machine import Machine, Trace

EXAMPLES, STEPS = 60, 40
TRACES, TRACED_STEPS = {"process": 5, "docker": 3}, 25  # of those on memory, for real engines
LOCKING = PauseAfter(60.0, lock_after_s=3600.0)
# A step, a call that it makes, and what is done before so that it makes it.
CALLS: list[tuple[str, Verb, tuple[str, ...]]] = [
    ("signup", "start", ("forget",)),
    ("forget", "remove", ()),
    ("store", "state", ()),
    ("store", "resume", ("pause",)),
    ("store", "start", ("stop_from_outside",)),
    ("ask", "state", ()),
    ("ask", "resume", ("pause",)),
    ("ask", "start", ("stop_from_outside",)),
    ("pause", "state", ()),
    ("pause", "pause", ()),
    ("wake", "resume", ("pause",)),
    ("wake", "start", ("stop_from_outside",)),
    ("lock", "stop", ()),
    ("lock", "stop", ("pause",)),
    ("unlock", "state", ("lock",)),
    ("unlock", "start", ("lock",)),
    ("unlock", "resume", ("pause",)),
    ("sweep", "state", ()),
    ("sweep", "pause", ()),
    ("sweep", "stop", ("long",)),
    ("look", "state", ()),
    ("crash", "find", ()),
]


def machine_on(engine_name: str) -> type[Machine]:
    class OnEngine(Machine):
        pass

    OnEngine.engine_name = engine_name
    return OnEngine


def test_no_sequence_of_steps_faults_and_crashes_breaks_a_lab() -> None:
    chosen = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, database=None)
    run_state_machine_as_test(machine_on("memory"), settings=chosen)


@functools.cache
def traces() -> list[Trace]:
    """Sequences of steps that break no lab in memory, those with the most kinds of steps and faults last."""
    kept: list[Trace] = []

    class Traced(machine_on("memory")):  # type: ignore[misc]
        def teardown(self) -> None:
            super().teardown()
            kept.append(self.trace)

    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=TRACED_STEPS,
        phases=[Phase.generate],
        derandomize=True,  # the same ones each time
        database=None,
    )
    run_state_machine_as_test(Traced, settings=chosen)
    return sorted(kept, key=lambda trace: len({(name, *map(str, named.values())) for name, _, named in trace}))


@pytest.mark.parametrize("engine_name", list(TRACES), indirect=True)
def test_what_breaks_no_lab_in_memory_breaks_none_on_a_real_engine(engine_name: str) -> None:
    for trace in traces()[-TRACES[engine_name] :]:
        machine = machine_on(engine_name)()
        try:
            machine.replay(trace)
        finally:
            machine.teardown()


@pytest.fixture
def machine(engine_name: str) -> Iterator[Machine]:
    machine = machine_on(engine_name)()
    yield machine
    machine.teardown()


def prepare(machine: Machine, before: tuple[str, ...]) -> None:
    """Ann has a cloud that runs and is used, and what was to be done before was done."""
    if machine.limbo:
        machine.crash(None)
    if "ann" not in machine.members:
        machine.signup("ann")
    machine.unlock("ann")
    machine.store("ann")
    for step in before:
        if step == "long":
            machine.clock.advance(4000.0)
        else:
            getattr(machine, step)("ann")
    machine.check()


@pytest.mark.parametrize(
    ("engine_name", "after", "kills"),  # on real engines what takes long there is left out, where it is like another
    [
        ("memory", False, False),
        ("memory", False, True),
        ("memory", True, False),
        ("memory", True, True),
        ("process", True, False),
        ("process", True, True),
        ("docker", True, False),
    ],
    indirect=["engine_name"],
)
def test_each_call_of_each_step_may_fail_or_be_the_last_one(machine: Machine, after: bool, kills: bool) -> None:
    machine.two_sign_up()
    machine.choose(LOCKING)
    machine.ask("ann")  # what she spends here is to outlive all that she is forgotten
    for step, verb, before in CALLS:
        prepare(machine, before)
        fired, fault = machine.engine.fired, Fault(verb, after=after, kills=kills, times=1 if kills else 2)
        if step == "sweep":
            machine.sweep(61.0, fault)
        elif step in ("crash", "look"):
            getattr(machine, step)(fault)
        else:
            getattr(machine, step)("ann", fault)
        assert machine.engine.fired > fired, f"{step} does not call {verb}"
        machine.engine.disarm()
        machine.check()


@pytest.mark.parametrize("engine_name", ["memory", *TRACES], indirect=True)
def test_a_lease_and_an_expected_use_keep_a_cloud_awake_whatever_else_fails(machine: Machine) -> None:
    machine.two_sign_up()
    machine.choose(LOCKING)
    machine.lease("ann", 10_000.0)
    for fault in (None, Fault("pause", times=2), Fault("state"), Fault("stop", after=True)):
        machine.sweep(700.0, fault)
        machine.pause("ann")
        machine.lock("ann")
        machine.engine.disarm()
        machine.check()
    assert machine.members["ann"].awake
    machine.release("ann")
    machine.sweep(4000.0)
    assert machine.members["ann"].shut
    machine.unlock("ann")
    machine.choose(Histogram(60.0, least=3, spread=10.0))
    for _ in range(5):
        machine.store("ann")
        machine.clock.advance(700.0)
    machine.store("ann")
    machine.sweep(5.0)
    assert machine.state("ann").value == "paused"
    machine.sweep(690.0)
    assert machine.state("ann").value == "running"
    machine.read("ann")
    machine.check()
