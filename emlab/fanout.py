"""The one place where work on many clouds runs side by side: a bounded pool, a progress bar, order kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
MAX_WORKERS = 16


@dataclass(frozen=True)
class Deadline(Generic[T, R]):
    """How long work may take in all, and what counts as the result of an item that has none by then."""

    seconds: float
    missed: Callable[[T], R]


def fan_out(
    items: Sequence[T],
    work: Callable[[T], R],
    *,
    description: str,
    progress: bool = True,
    at_once: int = MAX_WORKERS,
    deadline: Deadline[T, R] | None = None,
) -> list[R]:
    """The results of `work` on each item, in the items' order.

    Args:
        at_once: items that are worked on side by side.
        deadline: when it has passed, what has not begun never does; what has goes on behind the caller's back (the
            end of the interpreter waits for it), and its result is dropped.
    An exception of `work`, or Ctrl-C, cancels what has not begun, waits for what has, and goes through.
    """
    if not threading.main_thread().is_alive():  # the interpreter ends: what atexit runs cannot start threads
        return [work(item) for item in items]
    if not items:
        return []
    pool = ThreadPoolExecutor(max_workers=min(at_once, len(items)), thread_name_prefix="emlab")
    in_time = True
    try:
        futures = [pool.submit(work, item) for item in items]
        in_time = _wait(futures, description, None if deadline is None else deadline.seconds, progress=progress)
        return [_result(item, future, deadline) for item, future in zip(items, futures, strict=True)]
    finally:
        pool.shutdown(wait=in_time, cancel_futures=True)


def _wait(futures: Sequence[Future[R]], description: str, seconds: float | None, *, progress: bool) -> bool:
    """Whether all of them ended in time; a bar shows how many have. Raises what one of them raised."""
    from tqdm.auto import tqdm

    done = as_completed(futures, timeout=seconds)
    # disable=None shows no bar where nobody looks (output is not a terminal)
    with tqdm(total=len(futures), desc=description, leave=False, disable=None if progress else True) as bar:
        while True:
            try:
                future = next(done)
            except StopIteration:
                return True
            except TimeoutError:
                return False
            future.result()
            bar.update()


def _result(item: T, future: Future[R], deadline: Deadline[T, R] | None) -> R:
    return future.result() if deadline is None or future.done() else deadline.missed(item)
