"""A generator of load as a program of its own: `python -m emlab.measure.gateway_load` reads a job and says what came.

It sends one request over each of some connections, again as soon as it was answered: a closed loop.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from typing import cast

import msgspec

from emlab.errors import EngineError
from emlab.measure.gateway import Way

CONNECTIONS = 16
WARM_S = 0.3
PATIENCE_S = 30.0  # a program that hangs is ended so long after its time


class Job(msgspec.Struct, frozen=True):
    """What to send, and for how long. It goes through a pipe: an owner's token is in the request."""

    address: str | tuple[str, int]
    request: bytes
    ca: str | None
    connections: int
    seconds: float


class Load(msgspec.Struct, frozen=True):
    """How many requests were answered in how many seconds, how many in all, and the first thing that went wrong."""

    answers: int
    seconds: float
    total: int
    fault: str

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.answers / self.seconds


def under_load(way: Way, seconds: float, *, connections: int = CONNECTIONS) -> Load:
    """What came of asking over that many connections for so long. Raises EngineError: a request was not answered."""
    job = Job(way.address, way.request, way.ca, connections, seconds)
    command = [sys.executable, "-m", "emlab.measure.gateway_load"]
    done = subprocess.run(
        command, input=msgspec.json.encode(job), capture_output=True, check=False, timeout=seconds + PATIENCE_S
    )
    if done.returncode:
        raise EngineError(f"the generator of load ended: {done.stderr.decode(errors='replace')[-200:]}")
    load = msgspec.json.decode(done.stdout, type=Load)
    if load.fault:
        raise EngineError(f"a request under load failed: {load.fault}")
    return load


class _Tally:
    """What came over all connections."""

    def __init__(self) -> None:
        self.answers = 0
        self.fault = ""
        self.ended = False


class _Asker(asyncio.Protocol):
    """One connection, on which the next request follows each answer."""

    def __init__(self, request: bytes, tally: _Tally) -> None:
        import httptools

        self._request = request
        self._tally = tally
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first request is sent."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods and not the class
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """A part of an answer has come."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A whole answer has come, and the next request is sent."""
        status = self._parser.get_status_code()
        if status != 200:
            self._tally.fault = self._tally.fault or f"status {status}"
        self._tally.answers += 1
        if not self._tally.ended:
            self._transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended, which nothing but the end of the time should cause."""
        if not self._tally.ended:
            self._tally.fault = self._tally.fault or f"a connection ended: {exc}"


async def _run(job: Job) -> Load:
    loop = asyncio.get_running_loop()
    tally = _Tally()
    trust = None if job.ca is None else ssl.create_default_context(cafile=job.ca)
    for _ in range(job.connections):
        if isinstance(job.address, str):
            await loop.create_unix_connection(lambda: _Asker(job.request, tally), job.address)
        else:
            await loop.create_connection(lambda: _Asker(job.request, tally), *job.address, ssl=trust)
    await asyncio.sleep(WARM_S)
    before, start = tally.answers, loop.time()
    await asyncio.sleep(job.seconds)
    answers, seconds = tally.answers - before, loop.time() - start
    tally.ended = True
    return Load(answers, seconds, tally.answers, tally.fault or ("" if answers else "nothing was answered"))


if __name__ == "__main__":
    import uvloop

    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_run(asked))))
