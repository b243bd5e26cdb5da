"""Requests made up from the OpenAPI document that a service gives, by callers of each kind: none breaks it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NotSet
from starlette.types import Message

import emlab as em
from emlab.apps.controller import Front
from emlab.apps.gateway import Gateway
from emlab.apps.recording import Recording
from emlab.service import ALL_ROUTES, Service
from emlab.waking import Waker
from emlab.wire.control import Opening
from emlab.wire.openapi import describe
from emlab.wire.transport import Reply

SCHEMA = schemathesis.openapi.from_dict(json.loads(msgspec.json.encode(describe("emlab controller", ALL_ROUTES))))
KEY = em.Key(bytes(range(32)))
GUARDED = {(route.method, route.path) for route in ALL_ROUTES if route.who != "anyone"}
KINDS = ("admin", "owner", "provider", "invitation", "aggregator")
PATIENCE_S = 20.0  # only a failing test waits for so long
OPENING = {"key": Opening.of(KEY).key}


class World:
    """A lab of one cloud, its whole application, and callers of each kind."""

    def __init__(self, lab: em.Lab, waker: Waker) -> None:
        self.lab = lab
        self.service = Service(lab.controller, lab.registry, signup="invitation")
        self.tokens: dict[str | None, str] = {"admin": self.service.issue("admin", "root").token}
        self._app = Recording(Front(self.service, Gateway(self.service, waker)), self.service)
        self._addresses = itertools.count()

    def restore(self) -> None:
        """Ann has a cloud and a token, whatever the last request did; the other tokens hold."""
        tokens = self.lab.controller.tokens
        if not any(cloud.user == "ann" for cloud in self.lab.controller.clouds()):
            self.tokens["owner"] = str(self.lab.controller.signup("ann", key=KEY).token)
        for kind, subject in (("owner", "ann"), ("admin", "root"), ("invitation", "kim"), ("aggregator", "sum")):
            if not tokens.hashes(kind, subject):  # type: ignore[arg-type]
                self.tokens[kind] = self.service.issue(kind, subject).token  # type: ignore[arg-type]
        self.tokens["provider"] = self.lab.controller.register_provider("planner").token

    async def ask(self, method: str, target: str, token: str | None, body: bytes) -> Reply:
        """The answer, or its beginning if it has no end; each from another address, so that nobody asks too often."""
        path, _, query = target.partition("?")
        headers = [(b"content-length", str(len(body)).encode())]
        headers += [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "client": (f"192.0.2.{next(self._addresses)}", 1),
            "headers": headers,
        }
        sent: list[Message] = []
        begun = asyncio.Event()
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if parts:
                return parts.pop()
            await begun.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)
            if message["type"] == "http.response.body":
                begun.set()

        async with asyncio.timeout(PATIENCE_S):
            await self._app(scope, receive, send)
        return int(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with closing(asyncio.new_event_loop()) as loop:
        yield loop


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp("home")
    with em.Lab("memory", home=home, idle=None, default_policy=em.Policy.open()) as lab, closing(Waker()) as waker:
        yield World(lab, waker)


@SCHEMA.parametrize()
@settings(
    max_examples=60,
    derandomize=True,  # the same requests each time
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_controller_or_gets_through_without_a_token(
    case: schemathesis.Case[Any], world: World, loop: asyncio.AbstractEventLoop
) -> None:
    body: Any = case.body
    if isinstance(body, dict):
        # names and keys that exist, so that what is behind the door is tried, too
        body = {name: OPENING if name in ("opening", "old", "new") else value for name, value in body.items()}
        if "user" in body and case.operation.path != "/signup":
            body["user"] = "ann"
    raw = b"" if isinstance(body, NotSet) else body if isinstance(body, bytes) else json.dumps(body).encode()
    for holder in (*KINDS, None):
        world.restore()
        token = world.tokens.get(holder)
        status, reply = loop.run_until_complete(world.ask(case.method, case.formatted_path, token, raw))
        assert status < 500, (holder, reply)
        if token is None and (case.method, case.operation.path) in GUARDED:
            assert (status, json.loads(reply)["kind"]) == (401, "NoToken")
        assert KEY.raw().hex().encode() not in reply
