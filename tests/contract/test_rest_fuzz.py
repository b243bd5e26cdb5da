"""Requests made up from the OpenAPI document, good and bad ones, against a cloud's whole server: none breaks it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.core import NotSet

from emlab.key import new_token
from emlab.wire import openapi
from emlab.wire.transport import Reply
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
STRANGER = new_token("owner")


@pytest.fixture(scope="module")
def rest(shared_client: Client) -> Rest:
    return Rest(shared_client)


SETTINGS = settings(
    max_examples=40,
    derandomize=True,  # the same requests each time
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@SCHEMA.parametrize()
@SETTINGS
def test_no_request_is_a_server_error(case: schemathesis.Case[Any], rest: Rest) -> None:
    # with the owner's token what is behind the door is tried, too
    status, reply = _send(rest, case, OWNER)
    assert status < 500, reply
    json.loads(reply or b"null")


@SCHEMA.parametrize()
@SETTINGS
def test_no_request_of_a_stranger_gets_further_than_the_door(case: schemathesis.Case[Any], rest: Rest) -> None:
    by_user = isinstance(case.body, dict) and "user" in case.body
    if not case.operation.definition.raw["security"] and not by_user:
        return  # open to all, or an ask, which shows a capability
    there_is_none = case.method.lower() != case.operation.method.lower()
    for token, refusal in ((STRANGER, 403), (None, 401)):
        status, reply = _send(rest, case, token)
        assert status == (405 if there_is_none else refusal), reply


def _send(rest: Rest, case: schemathesis.Case[Any], token: str | None) -> Reply:
    """The answer to who shows that token where the route wants one."""
    body = case.body
    if isinstance(body, dict) and "user" in body:
        body = {**MISSING.get(case.operation.path, {}), **body, "user": token}
        if token is None:
            del body["user"]
    raw = b"" if isinstance(body, NotSet) else body if isinstance(body, bytes) else json.dumps(body).encode()
    shows = token is not None and case.operation.definition.raw["security"]
    return rest.server.handle(
        case.method, case.formatted_path, {"authorization": f"Bearer {token}"} if shows else {}, raw
    )
