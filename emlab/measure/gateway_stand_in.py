"""A program that answers at once, in the place of a cloud: what a gateway can pass on is not bounded by it.

`python -m emlab.measure.gateway_stand_in SOCKET` serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from emlab.clock import wait_until
from emlab.errors import StartTimeout

START_S = 20.0
BODY = b'{"nothing":"but an answer"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


@contextmanager
def in_place_of(socket: Path) -> Iterator[None]:
    """While the block runs, the program answers at this path; who listened there before does so again afterwards."""
    real = socket.with_suffix(".real")
    socket.rename(real)
    try:
        with subprocess.Popen([sys.executable, "-m", __name__, str(socket)], stdin=subprocess.PIPE) as program:
            try:
                wait_until(lambda: socket.exists() or program.poll() is not None, START_S)
                if not socket.exists():
                    raise StartTimeout("the program in the place of a cloud does not listen")
                yield
            finally:
                assert program.stdin is not None
                program.stdin.close()
    finally:
        real.replace(socket)


class _Answering(asyncio.Protocol):
    """One connection: each request gets the answer."""

    def __init__(self) -> None:
        import httptools

        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is there."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods and not the class

    def data_received(self, data: bytes) -> None:
        """A part of a request has come."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """A whole request has come."""
        self._transport.write(ANSWER)


async def _serve(path: str) -> None:
    loop = asyncio.get_running_loop()
    fresh = path + ".new"
    server = await loop.create_unix_server(_Answering, fresh)
    os.rename(fresh, path)  # noqa: PTH104 - only now it is found, when it answers
    async with server:
        await loop.run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(sys.argv[1]))
