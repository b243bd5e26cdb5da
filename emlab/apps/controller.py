"""The controller behind HTTP: its routes, the gateway to the clouds, a stream of events, and figures for Prometheus.

One ASGI application over TCP, with TLS unless only this host can reach it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emlab.apps import http
from emlab.apps.gateway import OF_CLOUD, Gateway
from emlab.apps.head import cloud_of
from emlab.apps.metrics import Metrics
from emlab.apps.refusals import refusal, too_many
from emlab.apps.threads import Shares
from emlab.errors import EmlabError, NotPermitted, TooMany
from emlab.limits import Limit
from emlab.service import METRICS, STREAM, Service
from emlab.session import Session
from emlab.wire import problem
from emlab.wire.serve import bearer

FAILURES = (401, 403, 404, 429)
POLL_S = 0.25
BEAT_S = 15.0
SLICE = 256  # events that one stream looks at before others have their turn
MAX_STREAMS, MAX_STREAMS_EACH = 64, 8
MAX_CONNECTIONS = 1024


class Front:
    """The whole application.

    Args:
        gateway: answers the paths that begin with a cloud's id.
        per_s: how many requests an address may send a second, five times as many at once.
    """

    def __init__(self, service: Service, gateway: Gateway, *, per_s: float = 2000.0) -> None:
        self._service = service
        self._gateway = gateway
        self._threads = Shares(self._caller)
        self._control = http.asgi(service.server(), self._threads.call)
        self._metrics = Metrics(service.controller)
        self._streams: Counter[str] = Counter()
        self.is_ending: Callable[[], bool] = lambda: False  # when streams of events end, too
        self._requests = Limit("requests", per_s=per_s, burst=math.ceil(5 * per_s))
        self._failures = Limit("requests that were refused", per_s=2.0, burst=60)
        self._signups = Limit("sign-ups", per_s=0.5, burst=60)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; or the server's own life, whose end closes the gateway's connections."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        address = scope["client"][0] if scope["client"] else ""
        try:
            self._limit(address, scope)
        except TooMany as exc:
            await too_many(exc)(scope, receive, send)
            return

        await self._route(scope)(scope, receive, self._counting_refusals(address, scope, receive, send))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._gateway.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _limit(self, address: str, scope: Scope) -> None:
        now = time.monotonic()
        self._requests.take(address, now)
        if scope["path"] == "/signup":
            self._signups.take(address, now)

    def _counting_refusals(self, address: str, scope: Scope, receive: Receive, send: Send) -> Send:
        """Sends what it is given; of an address with too many refusals another one is 429, whatever it was.

        Who is not refused passes: others may stand behind the same address.
        """
        replaced = False

        async def watched(message: Message) -> None:
            nonlocal replaced
            if replaced:
                return
            refused = message["type"] == "http.response.start" and message["status"] in FAILURES
            if refused and not message.get(OF_CLOUD, False):  # what a cloud answers its owner is no refusal
                try:
                    self._failures.take(address, time.monotonic())
                except TooMany as exc:
                    replaced = True
                    await too_many(exc, ends=True)(scope, receive, send)
                    return
            await send(message)

        return watched

    def _caller(self, request: Request) -> str:
        """Whose request that is; where no token says so, its address."""
        try:
            token = self._service.controller.tokens.who(bearer(request.headers) or "")
        except NotPermitted:
            return request.client.host if request.client else ""
        return f"{token.kind} {token.subject}"

    def _route(self, scope: Scope) -> ASGIApp:
        if cloud_of(scope) is not None:
            return self._gateway
        streams: Mapping[str, Callable[[Request], Awaitable[Response]]] = {
            STREAM.path: self._stream,
            METRICS.path: self._figures,
        }
        special = streams.get(scope["path"]) if scope["method"] == "GET" else None
        if special is None:
            return self._control

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            response = await special(Request(scope, receive))
            await response(scope, receive, send)

        return answer

    async def _figures(self, request: Request) -> Response:
        """What Prometheus collects; for admins."""
        try:
            self._service.session(METRICS, request.headers)
        except EmlabError as exc:
            return refusal(problem.encode(exc))
        text, media = await self._threads.call(request, self._metrics.render)
        return Response(text, media_type=media)

    async def _stream(self, request: Request) -> Response:
        """What happens, as server-sent events, each as `events` says it; `Last-Event-ID` continues a stream."""
        last = request.headers.get("last-event-id")
        try:
            session = self._service.session(STREAM, request.headers)
            mine = session.actor
            if self._streams.total() >= MAX_STREAMS or self._streams[mine] >= MAX_STREAMS_EACH:
                raise TooMany("too many streams of events at once: ask again soon", retry_after_s=BEAT_S)
        except EmlabError as exc:
            return refusal(problem.encode(exc))
        after = self._after(last) if last else None

        self._streams[mine] += 1  # at once: many may come before the first of them begins
        return _Stream(self._lines(session, after, request), lambda: self._streams.subtract([mine]))

    def _after(self, last: str) -> int:
        """How many events who saw that one last has seen: none, if it was of an earlier run."""
        run, _, number = last.partition(".")
        known = run == self._service.controller.recorder.run and number.isascii() and number.isdigit()
        return int(number) if known and len(number) < 16 else 0

    async def _lines(self, session: Session, after: int | None, request: Request) -> AsyncIterator[bytes]:
        recorder = self._service.controller.recorder
        count = recorder.count if after is None else after
        await self._threads.call(request, lambda: session.since_ts)  # asks the registry, once
        quiet_s = 0.0
        yield b": the events of this lab\n\n"
        while not self.is_ending():
            events, count = recorder.since(count)
            for number, event in enumerate(events, count - len(events) + 1):
                if number % SLICE == 0:  # of a long run there are many, and others are answered meanwhile
                    await asyncio.sleep(0)
                if session.sees(event):
                    quiet_s = 0.0
                    yield b"id: %s.%d\ndata: %s\n\n" % (recorder.run.encode(), number, msgspec.json.encode(event))
            quiet_s += POLL_S
            if quiet_s >= BEAT_S:  # so that who has gone is noticed
                quiet_s = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(POLL_S)
            try:  # the token may have been revoked, or have expired
                self._service.session(STREAM, request.headers)
            except EmlabError:
                return


class _Stream(StreamingResponse):
    """Server-sent events; `ended` is called when nobody gets them any more, also if nobody ever did."""

    def __init__(self, lines: AsyncIterator[bytes], ended: Callable[[], None]) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The events, until the client goes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()
