"""Every use of a cloud and every refusal is on record: whatever an application answers goes through here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from emlab.apps.gateway import OF_CLOUD
from emlab.apps.head import cloud_of
from emlab.apps.refusals import refusing
from emlab.audit import INCOMING, Incoming
from emlab.errors import Unreachable
from emlab.service import Service
from emlab.wire import problem
from emlab.wire.problem import Problem
from emlab.wire.serve import bearer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

ENDS = Unreachable("the service ends: ask again soon")


class Recording:
    """An ASGI application that puts on record what the one within lets through to clouds, and what it refuses.

    A refusal that is on record already is not put there again.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's own life."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        incoming = Incoming(scope["client"][0] if scope["client"] else "")
        INCOMING.set(incoming)
        refused, begun = 0, False

        async def watched(message: Message) -> None:
            nonlocal refused, begun
            begun = True
            if message["type"] == "http.response.start":
                if message.get(OF_CLOUD, False):
                    self._service.used()
                else:
                    refused = message["status"] if message["status"] >= 400 else 0
            elif refused and not incoming.refused:
                incoming.refused = True
                self._refused(scope, _kind(refused, message.get("body", b"")))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not begun:
                await refusing(problem.encode(ENDS, status=503))(scope, receive, watched)
        finally:
            if not incoming.refused:  # who was let in may have gone before there was an answer
                self._service.used()

    def turned_away(self, address: str, kind: str) -> None:
        """What came from this address was refused before it was a request: see `http.Record`."""
        self._service.turned_away(address, kind)

    def _refused(self, scope: Scope, kind: str) -> None:
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._service.refused(scope["method"], scope["path"], cloud_of(scope), bearer(sent), kind)


def _kind(status: int, body: bytes) -> str:
    """Of the error in the answer; its status where there is none."""
    try:
        return msgspec.json.decode(body, type=Problem).kind
    except msgspec.DecodeError:
        return str(status)
