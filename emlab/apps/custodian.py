"""The program in the cloud: parent of mongod, custodian behind HTTP on a unix socket.

Run as `python -m emlab.apps.custodian --run RUN_DIR --data VAULT_DIR`. SIGTERM ends it in order (exit 0); when
mongod dies it exits 1 at once, and mongod dies with it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import logging
import os
import random
import sys
import threading
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import provision as provisioning
from emlab.apps import program
from emlab.engines.base import SOCKET
from emlab.errors import InUse
from emlab.mongod import Mongod

if TYPE_CHECKING:
    from emlab.custodian import Custodian
    from emlab.provision import Provision
    from emlab.wire.serve import Server

log = logging.getLogger("emlab.apps.custodian")
RETAIN_S = 3600.0
_LIBRARIES = ("uvloop", "httptools", "pymongo")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def main(argv: list[str] | None = None) -> int:
    """Serve until told to end; returns the exit status."""
    parser = argparse.ArgumentParser(prog="emlab.apps.custodian", description="The program in a user cloud.")
    parser.add_argument("--run", type=Path, required=True, help="run directory: provision.json and the sockets")
    parser.add_argument("--data", type=Path, required=True, help="the open vault")
    where = parser.parse_args(argv)
    _keep_heap_small()
    return program.run(lambda: serve(where.run, where.data))


def serve(run_dir: Path, vault_dir: Path) -> int:
    """Start mongod, serve, stop mongod; returns the exit status. Raises EmlabError."""
    provision = provisioning.read(run_dir)
    provisioning.check_marker(vault_dir, provision.marker)
    mongod = Mongod(vault_dir / provisioning.DATABASE_DIR, run_dir, on_death=end_with_mongod)
    try:
        mongod.start(meanwhile=import_rest)  # which on two cores costs next to nothing
        _serve_http(_server(provision, mongod, run_dir), run_dir / SOCKET)
    finally:
        mongod.stop()
    return 0


def end_with_mongod(status: int) -> None:
    """This program has ended: who still waits for an answer would wait for a database that does not come back."""
    log.error("mongod ended with status %d, and so does this cloud", status)
    os._exit(1)


def _keep_heap_small() -> None:
    """One malloc arena: each worker thread's own would keep what a store needed. Large parts go back when freed."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_TRIM_THRESHOLD, 1 << 20)
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def import_rest() -> None:
    """All that the program needs is imported."""
    for module in (
        *(f"emlab.{name}" for name in ("apps.draw", "apps.http", "apps.job", "custodian", "emission", "store")),
        *_LIBRARIES,
    ):
        importlib.import_module(module)


def _server(provision: Provision, mongod: Mongod, run_dir: Path) -> Server:
    from emlab.apps import draw, job
    from emlab.chain import MongoChain
    from emlab.custodian import Custodian
    from emlab.emission import Emission
    from emlab.ledger import MongoLedger
    from emlab.store import MongoStore
    from emlab.store.emission import EmissionStore
    from emlab.wire.serve import custodian_server

    client, user_id = mongod.client(), uuid.UUID(provision.cloud)
    ledger = MongoLedger(client, data_dir=mongod.data_dir)
    ledger.recover()
    chain = MongoChain(client, provision.cloud, data_dir=mongod.data_dir)
    chain.recover()
    store = MongoStore(client, user_id, data_dir=mongod.data_dir)
    custodian = Custodian(
        provision,
        store,
        ledger,
        digest=lambda request: job.run_pipeline(request, run_dir, mongod.data_dir),
        publish=partial(provisioning.publish, run_dir),
        chain=chain,
        draw=draw.draw,
    )
    threading.Thread(target=keep_to_retention, args=(custodian, threading.Event(), RETAIN_S), daemon=True).start()
    return custodian_server(custodian, Emission(store, EmissionStore(client, user_id, data_dir=mongod.data_dir)))


def keep_to_retention(custodian: Custodian, ended: threading.Event, every_s: float) -> None:
    """Old data is deleted from time to time, also if nobody runs intake.

    The time runs on while the cloud is paused. Many that wake together, to be asked, do not look for old data together.
    """
    while not (ended.wait(every_s) or ended.wait(random.uniform(0.0, every_s / 4))):  # noqa: S311 - no secret
        try:
            custodian.retain()
        except InUse:
            continue  # a run of the pipeline does it, too
        except Exception as exc:  # the next time may be better, and the cloud answers meanwhile
            log.error("old data could not be deleted: %s", type(exc).__name__)


def _serve_http(app: Server, socket: Path) -> None:
    from emlab.apps.http import server

    # uvicorn ends in order on SIGTERM and then raises it once more, for the handler that was there before
    with contextlib.suppress(SystemExit):
        server(app, socket).run()


if __name__ == "__main__":
    sys.exit(main())
