"""Whatever happens in whatever order, on each engine: what the registry, the engine and people know is the same."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.stateful.machine import Machine

EXAMPLES = {"memory": (60, 40), "process": (2, 20), "docker": (2, 20)}  # sequences, steps of each


@pytest.mark.parametrize("engine_name", list(EXAMPLES), indirect=True)
def test_no_sequence_of_steps_faults_and_crashes_breaks_a_lab(engine_name: str) -> None:
    class OnEngine(Machine):
        pass

    OnEngine.engine_name = engine_name
    examples, steps = EXAMPLES[engine_name]
    real = engine_name != "memory"
    phases = [Phase.generate] if real else [Phase.generate, Phase.shrink]  # to shrink takes too long there
    chosen = settings(max_examples=examples, stateful_step_count=steps, phases=phases, derandomize=real, database=None)
    run_state_machine_as_test(OnEngine, settings=chosen)
