"""Requests made up from the OpenAPI document, good and bad ones, against a cloud's whole server: none breaks it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NotSet

from emlab.wire import openapi
from tests.contract.rest import OWNER, Client, Rest

SCHEMA = schemathesis.openapi.from_dict(json.loads(msgspec.json.encode(openapi.document())))
# The document cannot say that a time span has one of two forms: what is missing is filled in, what is there stays.
SPAN = {"start_time": 0, "end_time": 2e9}
MISSING: dict[str, dict[str, Any]] = {
    "/datastreams/find_entries/{time_type}": SPAN,
    "/result/heatmap/pop.route/{time_type}": SPAN,
    "/result/metrics/timestamp": {"metric": "distance"},
    "/result/metrics/local_date": {"metric": "count"},
}


@pytest.fixture(scope="module")
def rest(shared_client: Client) -> Rest:
    return Rest(shared_client)


@SCHEMA.parametrize()
@settings(
    max_examples=40,
    derandomize=True,  # the same requests each time
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_request_is_a_server_error(case: schemathesis.Case[Any], rest: Rest) -> None:
    body = case.body
    if isinstance(body, dict) and "user" in body:
        # the owner's token, so that what is behind the door is tried, too
        body = {**MISSING.get(case.operation.path, {}), **body, "user": OWNER}
    raw = b"" if isinstance(body, NotSet) else body if isinstance(body, bytes) else json.dumps(body).encode()
    owner = {"authorization": f"Bearer {OWNER}"} if case.operation.definition.raw["security"] else {}
    status, reply = rest.server.handle(case.method, case.formatted_path, owner, raw)
    assert status < 500, reply
    json.loads(reply or b"null")
