"""The short-lived program beside the custodian that draws noise for the local model: OpenDP never loads in the cloud's
own program.

Run as `python -m emlab.apps.draw`: laws and how many draws of each come on standard input, whole numbers go to
standard output, all as JSON. It sees no data, no ask and no key. `draw` is the custodian's end of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from emlab.ask import DRAWING_S, Ask
from emlab.errors import StoreError
from emlab.noise import AnyNoise, noises
from emlab.query import MAX_CELLS

MODULE = "emlab.apps.draw"
TIMEOUT_S = 0.9 * DRAWING_S
_turns = threading.BoundedSemaphore(2)  # programs at once: each takes 42 MiB of what the cloud may use


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many draws of one law."""

    law: AnyNoise
    count: Annotated[int, msgspec.Meta(ge=1, le=MAX_CELLS)]


def draw(ask: Ask, *, timeout_s: float = TIMEOUT_S) -> list[int]:
    """Fresh noise for each cell of an answer, drawn by a program that has ended and dies with this process.

    Raises StoreError: it did not draw in time, or not what it was told. There is no answer without noise.
    """
    laws = zip(noises(ask.query, ask.loss), ask.query.parts, strict=True)
    batches = [Batch(law, len(part.labels)) for law, part in laws]
    until = time.monotonic() + timeout_s
    if not _turns.acquire(timeout=timeout_s):
        raise StoreError(f"no noise was drawn within {timeout_s:g} s: too many asks at once")
    try:
        drawn = _decode(_run(msgspec.json.encode(batches), until - time.monotonic()))
    finally:
        _turns.release()
    if len(drawn) != sum(batch.count for batch in batches):
        raise StoreError("no noise was drawn: the program that draws gave more or fewer numbers than it was told")
    return drawn


def _run(request: bytes, timeout_s: float) -> bytes:
    from emlab.mongod import die_with

    options = sys.orig_argv[1 : sys.orig_argv.index("-m")] if "-m" in sys.orig_argv else []
    try:
        done = subprocess.run(
            [sys.executable, *options, "-m", MODULE],
            input=request,
            stdout=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
            preexec_fn=die_with(os.getpid()),  # one system call, no lock
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"no noise was drawn within {timeout_s:.3g} s") from None  # whose cause would hold the output
    except OSError as exc:
        raise StoreError(f"no noise was drawn: the program that draws did not start ({exc.strerror})") from exc
    if done.returncode != 0:
        raise StoreError(f"no noise was drawn: the program that draws died with status {done.returncode}")
    return done.stdout


def _decode(raw: bytes) -> list[int]:
    try:
        return msgspec.json.decode(raw, type=list[int])
    except msgspec.DecodeError:
        raise StoreError("no noise was drawn: the program that draws gave no whole numbers") from None


def main() -> int:
    """Draw once; returns the exit status."""
    batches = msgspec.json.decode(sys.stdin.buffer.read(), type=Annotated[list[Batch], msgspec.Meta(max_length=64)])
    sys.stdout.buffer.write(msgspec.json.encode(_drawn(batches)))
    return 0


def _drawn(batches: Sequence[Batch]) -> list[int]:
    modules: dict[str, Any] = sys.modules
    modules["numpy"] = None  # OpenDP does without it, and so loads in 0.15 s instead of 0.25 s
    return [one for batch in batches for one in batch.law.draws(batch.count)]


if __name__ == "__main__":
    sys.exit(main())
