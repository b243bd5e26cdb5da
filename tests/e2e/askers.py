"""A process that puts prepared asks to one cloud from several threads; run by test_budget.

Reads {"socket": path, "requests": [base64 of AskRequest JSON], "threads": n} on standard input, writes a line for each
ask as it ends: "answer", or the kind of the error.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from emlab.ask import AskRequest, Envelope
from emlab.errors import EmlabError
from emlab.wire.client import CloudClient
from emlab.wire.transport import UnixTransport


def main() -> None:
    job = json.load(sys.stdin)
    say = threading.Lock()

    def put(raw: str) -> None:
        client = CloudClient(UnixTransport(Path(job["socket"])))
        try:
            client.call("ask", Envelope, msgspec.json.decode(base64.b64decode(raw), type=AskRequest), timeout_s=20.0)
            line = "answer"
        except EmlabError as exc:
            line = exc.kind
        finally:
            client.close()
        with say:
            print(line, flush=True)  # noqa: T201 - read by the test

    with ThreadPoolExecutor(job["threads"]) as pool:
        list(pool.map(put, job["requests"]))


if __name__ == "__main__":
    main()
