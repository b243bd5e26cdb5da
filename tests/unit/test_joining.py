"""What is written in one go is sent in one piece, in order, and nothing of it is lost at an ordered end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from emlab.apps.joining import SMALL_BYTES, Joined


class Sent:
    """A transport that keeps what it is told to send, and its loop, which goes on when it is told to."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[str] = []
        self._soon: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self._soon.append(call)

    def go_on(self) -> None:
        soon, self._soon = self._soon, []
        for call in soon:
            call()

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def is_closing(self) -> bool:
        return bool(self.ends)

    def get_write_buffer_size(self) -> int:
        return 5

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


def joined() -> tuple[Joined, Sent]:
    sent = Sent()
    return Joined(cast(asyncio.Transport, sent), cast(asyncio.AbstractEventLoop, sent)), sent


def test_a_head_and_a_small_body_are_one_piece_as_soon_as_the_loop_goes_on() -> None:
    line, sent = joined()
    line.write(b"head ")
    line.write(b"")
    line.write(b"body")
    assert (sent.pieces, line.get_write_buffer_size()) == ([], 5 + 9)
    sent.go_on()
    assert (sent.pieces, line.get_write_buffer_size()) == ([b"head body"], 5)
    line.write(b"the next")
    sent.go_on()
    assert sent.pieces == [b"head body", b"the next"]


def test_what_is_large_is_sent_at_once_after_what_was_written_before_it() -> None:
    line, sent = joined()
    large = bytes(SMALL_BYTES + 1)
    line.write(b"head")
    line.write(large)
    line.write(b"end")
    assert sent.pieces == [b"head", large]
    sent.go_on()
    assert sent.pieces == [b"head", large, b"end"]


def test_many_small_parts_do_not_wait_together_without_bound() -> None:
    line, sent = joined()
    for _ in range(10):
        line.write(bytes(SMALL_BYTES // 2))
        assert line.get_write_buffer_size() <= 5 + SMALL_BYTES
    sent.go_on()
    assert sum(map(len, sent.pieces)) == 10 * (SMALL_BYTES // 2)


def test_an_ordered_end_sends_what_waits_and_an_abrupt_one_does_not() -> None:
    line, sent = joined()
    line.write(b"last")
    line.close()
    assert (sent.pieces, sent.ends) == ([b"last"], ["close"])
    line, sent = joined()
    line.write(b"lost")
    line.abort()
    sent.go_on()
    assert (sent.pieces, sent.ends, line.get_write_buffer_size()) == ([], ["abort"], 5)


def test_what_waits_for_somebody_who_has_gone_meanwhile_is_dropped() -> None:
    line, sent = joined()
    line.write(b"too late")
    sent.abort()  # by the transport itself
    sent.go_on()
    assert sent.pieces == []
