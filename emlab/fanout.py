"""The one place where work on many clouds runs side by side: a bounded pool, a progress bar, order kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
MAX_WORKERS = 16


def fan_out(items: Sequence[T], work: Callable[[T], R], *, description: str, progress: bool = True) -> list[R]:
    """The results of `work` on each item, in the items' order.

    An exception of `work`, or Ctrl-C, cancels what has not begun, waits for what has, and goes through.
    """
    from tqdm.auto import tqdm

    if not threading.main_thread().is_alive():  # the interpreter ends: what atexit runs cannot start threads
        return [work(item) for item in items]
    if not items:
        return []
    pool = ThreadPoolExecutor(max_workers=min(MAX_WORKERS, len(items)), thread_name_prefix="emlab")
    try:
        futures = [pool.submit(work, item) for item in items]
        done = as_completed(futures)
        # disable=None shows no bar where nobody looks (output is not a terminal)
        for future in tqdm(done, total=len(items), desc=description, leave=False, disable=None if progress else True):
            future.result()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
