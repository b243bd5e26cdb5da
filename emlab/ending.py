"""How a process with open labs ends: a SIGTERM ends it as sys.exit does. Standard library only."""

from __future__ import annotations

import signal
import threading
from types import FrameType


def exit_on_sigterm() -> None:
    """From now on a SIGTERM unwinds `with` blocks and runs what atexit holds; a second one kills as usual.

    Whoever ends a process sends SIGTERM and seconds later SIGKILL: systemd, a CI job, and Jupyter, when a kernel does
    not end by itself (about one in ten, because ipykernel waits 10 s for a stream that is already closed).
    A handler that somebody else has set is kept. Only the main thread can do this; in others nothing changes.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise SystemExit(128 + number)
