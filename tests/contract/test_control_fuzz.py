"""Requests made up from the controller's OpenAPI document, by callers of each kind: none breaks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NotSet

import emlab as em
from emlab.service import Service
from emlab.wire.control import CONTROL_ROUTES, Opening
from emlab.wire.openapi import describe
from emlab.wire.serve import Server

SCHEMA = schemathesis.openapi.from_dict(json.loads(msgspec.json.encode(describe("emlab controller", CONTROL_ROUTES))))
KEY = em.Key(bytes(range(32)))
GUARDED = {(route.method, route.path) for route in CONTROL_ROUTES if route.who != "anyone"}
HOLDERS = ("admin", "owner", "provider", None)
OPENING = {"key": Opening.of(KEY).key}


class World:
    """A lab of one cloud, and callers of each kind."""

    def __init__(self, lab: em.Lab) -> None:
        self.lab = lab
        self.service = Service(lab.controller, lab.registry)
        self.server: Server = self.service.server()
        self.tokens: dict[str | None, str] = {"admin": self.service.issue("admin", "root").token}

    def restore(self) -> None:
        """Ann has a cloud and a token, whatever the last request did; the other tokens hold."""
        tokens = self.lab.controller.tokens
        if not any(cloud.user == "ann" for cloud in self.lab.controller.clouds()):
            self.tokens["owner"] = str(self.lab.controller.signup("ann", key=KEY).token)
        for kind, subject in (("owner", "ann"), ("admin", "root")):
            if not tokens.hashes(kind, subject):  # type: ignore[arg-type]
                self.tokens[kind] = self.service.issue(kind, subject).token  # type: ignore[arg-type]
        self.tokens["provider"] = self.lab.controller.register_provider("planner").token


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp("home")
    with em.Lab("memory", home=home, idle=None, default_policy=em.Policy.open()) as lab:
        yield World(lab)


@SCHEMA.parametrize()
@settings(
    max_examples=60,
    derandomize=True,  # the same requests each time
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_breaks_the_controller_or_gets_through_without_a_token(
    case: schemathesis.Case[Any], world: World
) -> None:
    body: Any = case.body
    if isinstance(body, dict):
        # names and keys that exist, so that what is behind the door is tried, too
        body = {name: OPENING if name in ("opening", "old", "new") else value for name, value in body.items()}
        if "user" in body and case.operation.path != "/signup":
            body["user"] = "ann"
    raw = b"" if isinstance(body, NotSet) else body if isinstance(body, bytes) else json.dumps(body).encode()
    for holder in HOLDERS:
        world.restore()
        token = world.tokens.get(holder)
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        status, reply = world.server.handle(case.method, case.formatted_path, headers, raw)
        assert status < 500, (holder, reply)
        answer = json.loads(reply)
        if token is None and (case.method, case.operation.path) in GUARDED:
            assert (status, answer["kind"]) == (401, "NoToken")
        assert KEY.raw().hex().encode() not in reply
