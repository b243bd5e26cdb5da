"""An App behind HTTP on a unix socket: Starlette and uvicorn, bodies bounded, calls in worker threads."""

from __future__ import annotations

from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emlab.errors import BadQuery
from emlab.wire import problem
from emlab.wire.table import MAX_BODY_BYTES
from emlab.wire.transport import App

GRACE_S = 5


def server(app: App, socket: Path) -> uvicorn.Server:
    """A server that is not yet running; `run()` blocks until `should_exit`, or SIGTERM."""
    socket.unlink(missing_ok=True)
    return uvicorn.Server(
        uvicorn.Config(
            asgi(app),
            uds=str(socket),
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


def asgi(app: App) -> Starlette:
    """The app on Starlette: every path goes to it."""

    async def handle(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            status, reply = problem.encode(BadQuery(f"a request has at most {MAX_BODY_BYTES} bytes"))
        else:
            status, reply = await run_in_threadpool(
                app.handle, request.method, request.url.path, dict(request.headers), body
            )
        media = "application/json" if status == 200 else "application/problem+json"
        return Response(reply, status, media_type=media)

    return Starlette(routes=[Route("/{path:path}", handle, methods=["GET", "POST", "PUT", "DELETE", "PATCH"])])


async def _body(request: Request) -> bytes | None:
    """The body of a request, or None if it is too large; never holds more than the bound."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)
