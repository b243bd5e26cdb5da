"""What a server writes in one go leaves it in one piece: the head of an answer and a small body are one system call."""

from __future__ import annotations

import asyncio
from typing import Any

SMALL_BYTES = 8 << 10  # what is larger is not copied to be joined


class Joined:
    """A transport that joins the small parts that are written before its loop goes on; else as the one within."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._waiting = 0  # bytes of them
        self.is_closing = transport.is_closing  # which is asked all the time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """It is on its way as soon as the loop goes on."""
        if self._waiting + len(data) > SMALL_BYTES:
            self._send()
            self._transport.write(data)
        elif data:
            if not self._parts:
                self._loop.call_soon(self._send)
            self._parts.append(data)
            self._waiting += len(data)

    def get_write_buffer_size(self) -> int:
        """How many bytes the kernel has not taken."""
        return self._waiting + self._transport.get_write_buffer_size()

    def close(self) -> None:
        """It is closed once all was sent."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        parts, self._parts, self._waiting = self._parts, [], 0
        if parts and not self.is_closing():  # else it was ended since, by either side
            self._transport.write(b"".join(parts))
