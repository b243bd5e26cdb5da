"""One address for all clouds: /CLOUD/... reaches that cloud, which wakes for it and stays awake until it has answered.

A request is authorised before anything wakes. It is sent while the cloud wakes: a frozen cloud's socket takes it, and
it is answered as soon as the cloud thaws. Framing is decided here: what reaches a cloud was parsed and written anew.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from emlab.apps import head
from emlab.apps.bodies import BODY_BYTES_PER_S, BODY_S, UNKNOWN_S, Full, Pace, Places, Reading
from emlab.apps.head import Asked, Turned
from emlab.apps.refusals import RETRY_AFTER_S
from emlab.apps.upstream import KEEP_S, Answer, NotConnected, Upstream
from emlab.engines.base import SOCKET
from emlab.errors import BadQuery, EmlabError, Locked, TooMany, UnknownUser, Unreachable
from emlab.lifecycle import Lifecycle
from emlab.waking import Waker
from emlab.wire import problem
from emlab.wire.serve import user_token

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

log = logging.getLogger(__name__)
SMALL_BODY_BYTES = 64 << 10  # is sent while the cloud wakes, and again if the cloud had to be started
PART_BYTES = 64 << 10
AGAIN_S = (0.0, 0.0, 0.05, 0.2, 0.5)  # before each try: to its engine, a cloud that is dying still runs
OF_CLOUD = "emlab.cloud"  # in the message that begins an answer: whether it is the cloud's own, or a refusal of ours
_CUT = (errno.ECONNRESET, errno.EPIPE)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what a request may take.

    Attributes:
        wake_s: until who waits for a cloud is told to ask again; the wake goes on.
        suspect_s: without an answer for so long, the engine is asked whether the cloud runs at all.
        answer_s: until a running cloud has begun to answer. stall_s: until the next part of an answer has passed on.
        body_s: until a body is there; one more second for each `body_bytes_per_s` of it that have come.
        unknown_s: until all is there of a body that says itself who sends it.
        unknown: of those, how many from one address at once, while they come.
        under_way: requests of one cloud's owner at once.
    """

    wake_s: float = 30.0
    suspect_s: float = 1.0
    answer_s: float = 900.0
    stall_s: float = 60.0
    body_s: float = BODY_S
    body_bytes_per_s: float = BODY_BYTES_PER_S
    unknown_s: float = UNKNOWN_S
    unknown: int = 128
    under_way: int = 512

    def whole_s(self, size: int) -> float:
        """Until an answer has begun, with the time that a body of that size may take."""
        return self.answer_s + self.body_s + size / self.body_bytes_per_s


class Door(Protocol):
    """What a gateway asks those who know the clouds and their owners. For one thread; nothing of it blocks."""

    def life(self, cloud: str) -> Lifecycle | None:
        """The life of the cloud with this id; None if there is none."""

    def admit(self, cloud: str, token: str | None) -> None:
        """Returns if that is a token of the cloud's owner. Raises NoToken, NotPermitted."""


class Gone(Exception):
    """The client is not there any more."""


class Gateway:
    """An ASGI app for the paths that begin with the id of a cloud. For one event loop.

    Args:
        door: says who may pass. waker: wakes; whoever made it closes it.
    """

    def __init__(self, door: Door, waker: Waker, *, limits: Limits | None = None) -> None:
        self._door = door
        self._waker = waker
        self._limits = Limits() if limits is None else limits
        self._reading = Reading()
        self._unknown = Places(self._limits.unknown)  # by address
        self._admitted = Places(self._limits.under_way)  # by cloud
        self._upstreams: dict[Lifecycle, Upstream] = {}
        self._tidying: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request is answered: by its cloud, or with a problem document."""
        line = _Line(receive, send, self._limits)
        try:
            await self._serve(scope, line)
        except Gone:
            line.give_up()
        except Turned as exc:
            await line.refuse(exc.error, exc.status)
        except Full as exc:
            await line.refuse(exc.error, 503)
        except EmlabError as exc:
            await line.refuse(exc, exc.status)
        except Exception as exc:
            log.error("a request failed with %s", problem.anonymous(exc))
            await line.refuse(EmlabError(f"the gateway failed with {type(exc).__name__}"), 500)

    async def close(self) -> None:
        """No connection to a cloud is open. Idempotent."""
        if self._tidying is not None:
            self._tidying.cancel()
        upstreams, self._upstreams = self._upstreams, {}
        for upstream in upstreams.values():
            upstream.renew()

    async def _serve(self, scope: Scope, line: _Line) -> None:
        cloud, path = head.where(scope)
        life = self._door.life(cloud)
        if life is None:
            raise UnknownUser(head.NO_CLOUD)
        client = scope["client"][0] if scope["client"] else ""
        await self._pass(head.read(scope, path), life, line, client)

    async def _pass(self, asked: Asked, life: Lifecycle, line: _Line, client: str) -> None:
        """Who may is passed on to the cloud."""
        cloud = life.spec.cloud
        line.expect(asked.size, whole_s=self._limits.unknown_s if asked.by_user else math.inf)
        if not asked.by_user:
            self._door.admit(cloud, asked.token)
            with self._admitted.of(cloud):
                body = await line.whole() if asked.size <= SMALL_BODY_BYTES else None
                return await self._carry(asked, life, line, body)
        with self._reading.of(asked.size, client) as reading:
            with self._unknown.of(client):
                body = b"".join([reading.keep(part) async for part in line.parts()])
            self._door.admit(cloud, user_token(asked.path, body))
            with self._admitted.of(cloud):
                await self._carry(asked, life, line, body)

    async def _carry(self, asked: Asked, life: Lifecycle, line: _Line, body: bytes | None) -> None:
        """The cloud's answer is passed on. `body`: the whole one; None if it is passed on as it comes."""
        lease = life.begin_use()
        exchange = _Exchange(asked, life, line, body, waker=self._waker, limits=self._limits)
        try:
            with self._upstream(life) as upstream:
                await exchange.run(upstream)
        finally:
            life.release(lease, answered=exchange.answered)

    def _upstream(self, life: Lifecycle) -> Upstream:
        upstream = self._upstreams.get(life)
        if upstream is None:
            upstream = self._upstreams[life] = Upstream(str(life.spec.run_dir / SOCKET))
        if self._tidying is None:
            self._tidying = asyncio.get_running_loop().call_later(KEEP_S, self._tidy)
        return upstream

    def _tidy(self) -> None:
        """Clouds that nobody has used for a while have no connections any more."""
        unused = [life for life, upstream in self._upstreams.items() if upstream.unused()]
        for life in unused:
            self._upstreams.pop(life).renew()
        loop = asyncio.get_running_loop()
        self._tidying = loop.call_later(KEEP_S, self._tidy) if self._upstreams else None


class _Line:
    """The client's end of one request: what it still sends, and what it is answered."""

    def __init__(self, receive: Receive, send: Send, limits: Limits) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits
        self._left = 0
        self._whole_s = math.inf
        self._answering = False

    def expect(self, size: int, *, whole_s: float) -> None:
        """A body of that size is to come, all of it within that time."""
        self._left = size
        self._whole_s = whole_s

    async def whole(self) -> bytes:
        """What is left of the body. Raises Gone, Turned."""
        return b"" if self.is_read else b"".join([part async for part in self.parts()])

    async def parts(self) -> AsyncIterator[bytes]:
        """What is left of the body, as it comes, within its time from now on. Raises Gone, Turned."""
        pace = Pace(self._limits.body_s, self._limits.body_bytes_per_s, whole_s=self._whole_s)
        while self._left > 0:
            try:
                async with asyncio.timeout_at(pace.until):
                    message = await self._receive()
            except TimeoutError:
                raise Turned(BadQuery("the body of the request came too slowly"), 408) from None
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            self._left -= len(part)
            pace.earn(part)
            yield part

    async def gone(self) -> None:
        """The client has closed the connection, or has its answer. After the body only."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @property
    def is_read(self) -> bool:
        """Whether the whole body was read."""
        return self._left <= 0

    async def answer(self, status: int, headers: list[tuple[bytes, bytes]], *, of_cloud: bool = True) -> None:
        """The head of the answer has been sent. One that comes before the whole request ends the connection."""
        self._answering = True
        ends = [] if self.is_read or not of_cloud else [(b"connection", b"close")]
        start = {"type": "http.response.start", "status": status, "headers": [*headers, *ends]}
        await self._send({**start, OF_CLOUD: of_cloud})

    async def pass_on(self, part: bytes, *, more: bool) -> None:
        """A part of the answer has been sent."""
        await self._send({"type": "http.response.body", "body": part, "more_body": more})

    async def refuse(self, error: EmlabError, status: int) -> None:
        """The error is the answer, and the connection ends. An answer that had begun is broken off instead."""
        if self._answering:
            return self.give_up()
        status, body = problem.encode(error, status=status)
        headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
        if status in (429, 503):
            after_s = error.retry_after_s if isinstance(error, TooMany) else RETRY_AFTER_S
            headers.append((b"retry-after", str(math.ceil(after_s)).encode()))
        await self.answer(status, [*headers, (b"connection", b"close")], of_cloud=False)
        await self.pass_on(body, more=False)

    def give_up(self) -> None:
        """Nothing more is sent: the server closes the connection of an app that returns so."""
        log.info("a request was broken off")


class _Exchange:
    """One request to a cloud and its answer, while somebody holds a lease on the cloud."""

    def __init__(
        self, asked: Asked, life: Lifecycle, line: _Line, body: bytes | None, *, waker: Waker, limits: Limits
    ) -> None:
        self._asked = asked
        self._life = life
        self._line = line
        self._body = body
        self._waker = waker
        self._limits = limits
        self._limit: asyncio.Timeout
        self._timer: asyncio.TimerHandle
        self._beside: list[asyncio.Task[None]] = []
        self._wants_wake = True  # nobody has asked the engine for this request, and there is no answer
        self._fault: Exception | None = None
        self.answered = False

    async def run(self, upstream: Upstream) -> None:
        """The answer has been passed on. Raises EmlabError, Turned, Gone."""
        self._timer = asyncio.get_running_loop().call_later(self._limits.suspect_s, self._suspect)
        try:
            async with asyncio.timeout(self._limits.whole_s(self._asked.size)) as self._limit:
                answer = await self._answer(upstream)
                self.answered, self._wants_wake = True, False
                try:
                    await self._pass_back(answer)
                finally:
                    answer.end()
        except TimeoutError:
            raise (self._fault or Turned(Unreachable("the cloud did not answer in time"), 504)) from None
        finally:
            self._timer.cancel()
            for task in self._beside:
                task.cancel()

    async def _answer(self, upstream: Upstream) -> Answer:
        """The answer's head. The request is sent again if the cloud never had the whole of it."""
        self._life.check_usable()
        if not self._life.runs:
            upstream.renew()
            if self._body is None:
                await self._awake()
            else:
                self._wake(self._awake)
        why: Exception | None = None
        for pause_s in AGAIN_S:
            if why is not None:
                await asyncio.sleep(pause_s)
                await self._awake()
            try:
                return await upstream.send(self._asked, self._line.parts() if self._body is None else self._body)
            except OSError as exc:
                if not self._is_repeatable(exc):
                    raise Turned(Unreachable("the cloud ended before it had answered"), 502) from exc
                why = exc
        raise Turned(Unreachable("the cloud cannot be reached: ask again soon"), 503) from why

    def _is_repeatable(self, exc: OSError) -> bool:
        """Whether the cloud cannot have had the whole request, and it is all here.

        A unix socket whose reader closes it with something unread says "connection reset", else just its end.
        """
        cut = isinstance(exc, ConnectionResetError) or exc.errno in _CUT
        return isinstance(exc, NotConnected) or (cut and self._body is not None)

    async def _awake(self) -> None:
        try:
            await self._waker.awake(self._life, self._limits.wake_s)
        except Locked:
            raise
        except EmlabError as exc:
            self._life.check_usable()
            raise Turned(exc, 503) from exc
        except OSError as exc:
            raise Turned(Unreachable(f"the cloud cannot be woken: {type(exc).__name__}"), 503) from exc

    async def _awake_or_at_work(self) -> None:
        try:
            await self._awake()
        except Turned:
            if not self._life.runs:  # else nobody can be asked whether it does, and it may be at work on the request
                raise

    def _wake(self, wait: Callable[[], Awaitable[None]]) -> None:
        """It is woken beside the request: now, and not when the loop next has time."""
        self._wants_wake = False
        self._waker.begin(self._life)
        self._watch(wait)

    def _suspect(self) -> None:
        """No answer for a while: perhaps the cloud does not run, or nobody waits for it any more."""
        if self._wants_wake:
            self._wake(self._awake_or_at_work)
        if self._line.is_read:
            self._watch(self._abandoned)
        else:
            self._timer = asyncio.get_running_loop().call_later(self._limits.suspect_s, self._suspect)

    async def _abandoned(self) -> None:
        await self._line.gone()
        raise Gone

    def _watch(self, beside: Callable[[], Awaitable[None]]) -> None:
        self._beside.append(asyncio.get_running_loop().create_task(self._or_end(beside)))

    async def _or_end(self, beside: Callable[[], Awaitable[None]]) -> None:
        """If that fails, the request ends with its error; once the cloud answers, only if nobody wants it any more."""
        try:
            await beside()
        except Exception as exc:
            if (isinstance(exc, Gone) or not self.answered) and not self._limit.expired():
                self._fault = exc
                self._limit.reschedule(0.0)

    async def _pass_back(self, answer: Answer) -> None:
        """The answer is passed on: a small one at once, another as it comes."""
        headers = head.passed_back(answer.headers, answer.status)
        try:
            if answer.size is not None and answer.size <= PART_BYTES:
                body = await answer.read()
                await self._line.answer(answer.status, headers)
                return await self._line.pass_on(body, more=False)
            await self._line.answer(answer.status, headers)
            async for part in answer.parts():
                if self._fault is None:  # else it ends now
                    self._limit.reschedule(asyncio.get_running_loop().time() + self._limits.stall_s)
                await self._line.pass_on(part, more=True)
            await self._line.pass_on(b"", more=False)
        except OSError as exc:
            raise Turned(Unreachable("the cloud ended while it answered"), 502) from exc
