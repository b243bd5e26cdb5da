"""A program of its own, from its first line to its exit status. Light: it loads in every cloud."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable

from emlab.errors import EmlabError

log = logging.getLogger("emlab.apps")
LINE = "%(asctime)s %(levelname)s %(name)s %(message)s"


def run(serve: Callable[[], int]) -> int:
    """The exit status of what serves until SIGTERM, which ends it in order; 1 for an error, which is logged."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=LINE)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _end)
    try:
        return serve()
    except EmlabError as exc:
        log.error("%s: %s", exc.kind, exc)
        return 1


def _end(_signal: int, _frame: object) -> None:
    raise SystemExit(0)
