"""The gate: how many are inside, in which order they come, and who gives up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from emlab.clock import wait_until
from emlab.errors import ConfigError, Unreachable
from emlab.gate import Gate

WAIT_S = 10.0  # only a failing test waits for so long


@contextmanager
def shut(gate: Gate, width: int) -> Iterator[threading.Event]:
    """All places are taken until the event is set, or the block ends."""
    inside, go_on = threading.Semaphore(0), threading.Event()

    def stay() -> None:
        with gate.through():
            inside.release()
            assert go_on.wait(WAIT_S)

    with ThreadPoolExecutor(width) as pool:
        staying = [pool.submit(stay) for _ in range(width)]
        for _ in staying:
            assert inside.acquire(timeout=WAIT_S)
        try:
            yield go_on
        finally:
            go_on.set()
        for future in staying:
            future.result(WAIT_S)


def test_those_who_wait_come_in_the_order_in_which_they_came() -> None:
    gate, order, wanted = Gate("calls", 1), [], list(range(20))

    def go(number: int) -> None:
        with gate.through():
            order.append(number)

    with ThreadPoolExecutor(len(wanted)) as pool:
        with shut(gate, 1):
            going: list[Future[None]] = []
            for number in wanted:
                going.append(pool.submit(go, number))
                assert wait_until(lambda: gate.waiting == len(going), WAIT_S)
        for future in going:
            future.result(WAIT_S)
    assert order == wanted


def test_never_more_are_inside_than_fit_and_in_the_end_all_places_are_free() -> None:
    gate, lock = Gate("calls", 3), threading.Lock()
    inside = most = 0

    def go(_: int) -> None:
        nonlocal inside, most
        with gate.through(WAIT_S):
            with lock:
                inside += 1
                most = max(most, inside)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(go, range(2000)))
    assert 1 <= most <= 3
    with shut(gate, 3), pytest.raises(Unreachable), gate.through(0.0):
        pass


def test_who_waits_too_long_gives_up_and_is_not_in_the_way() -> None:
    gate = Gate("calls to the engine", 1)
    with shut(gate, 1):
        error = r"too many calls to the engine: no turn within 0\.02 s"
        with pytest.raises(Unreachable, match=error), gate.through(0.02):
            pass
        assert gate.waiting == 0
    with gate.through(0.0):
        pass


def test_a_turn_that_comes_while_its_waiter_gives_up_is_handed_on() -> None:
    gate = Gate("calls", 1)
    for _ in range(50):

        def hasty() -> bool:
            try:
                with gate.through(0.001):
                    return True
            except Unreachable:
                return False

        with ThreadPoolExecutor(4) as pool:
            with shut(gate, 1) as go_on:
                trying = [pool.submit(hasty) for _ in range(4)]
                wait_until(lambda: gate.waiting == 0, 0.001)
                go_on.set()
            for future in trying:
                future.result(WAIT_S)
        with gate.through(0.0):  # the only place is free
            assert gate.waiting == 0


def test_an_error_inside_frees_the_place() -> None:
    gate = Gate("calls", 1)
    with pytest.raises(KeyError), gate.through():
        raise KeyError
    with gate.through(0.0):
        pass
    with pytest.raises(ConfigError, match="1 or more"):
        Gate("calls", 0)
