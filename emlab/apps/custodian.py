"""The program in the cloud: parent of mongod, custodian behind HTTP on a unix socket.

Run as `python -m emlab.apps.custodian --run RUN_DIR --data VAULT_DIR`. SIGTERM ends it in order (exit 0); when
mongod dies it exits 1, and mongod dies with it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.errors import BadQuery, EmlabError
from emlab.mongod import Mongod
from emlab.wire import problem
from emlab.wire.table import MAX_BODY_BYTES

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    from emlab.custodian import Custodian
    from emlab.provision import Provision
    from emlab.wire.transport import App

log = logging.getLogger("emlab.apps.custodian")
DATABASE_DIR = "db"


def main(argv: list[str] | None = None) -> int:
    """Serve until told to end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="emlab.apps.custodian", description="The program in a user cloud.")
    parser.add_argument("--run", type=Path, required=True, help="run directory: provision.json and the sockets")
    parser.add_argument("--data", type=Path, required=True, help="the open vault")
    where = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, _end)
    try:
        return serve(where.run, where.data)
    except EmlabError as exc:
        log.error("%s: %s", exc.kind, exc)
        return 1


def serve(run_dir: Path, vault_dir: Path) -> int:
    """Start mongod, serve, stop mongod. Raises EmlabError if something is not as it must be."""
    from emlab import provision as provisioning

    provision = provisioning.read(run_dir)
    provisioning.check_marker(vault_dir, provision.marker)
    database = vault_dir / DATABASE_DIR
    database.mkdir(mode=0o700, exist_ok=True)
    # mongod starts while Python imports the rest: on two cores that hides most of the imports
    mongod = Mongod(database, run_dir)
    mongod.launch()
    try:
        return _serve_http(provision, mongod, run_dir, database)
    finally:
        mongod.stop()


def _serve_http(provision: Provision, mongod: Mongod, run_dir: Path, database: Path) -> int:
    import uvicorn

    from emlab.engines.base import SOCKET
    from emlab.wire.serve import Server

    custodian = _custodian(provision, mongod, database)
    socket = run_dir / SOCKET
    socket.unlink(missing_ok=True)
    server = uvicorn.Server(
        uvicorn.Config(
            _asgi(Server(custodian)),
            uds=str(socket),
            loop="uvloop",
            http="httptools",
            lifespan="off",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
    )
    died = threading.Event()

    def when_mongod_dies() -> None:
        died.set()
        log.error("mongod ended; so does this cloud")
        server.should_exit = True

    mongod.on_death(when_mongod_dies)
    # uvicorn raises the signal that ended it once more, for the handler that was there before: _end
    with contextlib.suppress(SystemExit):
        server.run()
    return 1 if died.is_set() else 0


def _end(_signal: int, _frame: object) -> None:
    raise SystemExit(0)


def _custodian(provision: Provision, mongod: Mongod, database: Path) -> Custodian:
    from emlab.custodian import Custodian
    from emlab.ledger import MongoLedger
    from emlab.store import MongoStore

    client = mongod.client()
    ledger = MongoLedger(client)
    ledger.recover()
    store = MongoStore(client, uuid.UUID(provision.cloud), data_dir=database)
    return Custodian(provision, store, ledger)


def _asgi(app: App) -> Starlette:
    """The app on Starlette: every path goes to it, bodies bounded, calls in worker threads."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import Response
    from starlette.routing import Route

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


if __name__ == "__main__":
    sys.exit(main())
