"""OpenAPI 3.1 documents, made from tables of routes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import msgspec

from emlab.wire.emission import EMISSION_ROUTES
from emlab.wire.problem import Problem
from emlab.wire.table import ROUTES, Route

_JSON = "application/json"
_PARAMETERS: dict[str, object] = {
    "day": {"type": "string", "format": "date"},
    "time_type": {"type": "string", "enum": ["timestamp", "local_date"]},
}
_USER = {
    "type": "object",
    "required": ["user"],
    "properties": {"user": {"type": "string", "description": "owner token"}},
}


@functools.cache
def document() -> Mapping[str, object]:
    """The custodian's, ready for JSON."""
    return describe("emlab custodian", (*ROUTES, *EMISSION_ROUTES))


def describe(title: str, routes: Sequence[Route]) -> Mapping[str, object]:
    """The document of these routes, ready for JSON."""
    types: list[object] = [Problem]
    for route in routes:
        types += [one for one in (route.request, route.response) if one is not None]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}", schema_hook=_anything
    )
    schema_of = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, dict[str, object]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "1"},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schema_of: Mapping[str, object]) -> dict[str, object]:
    statuses = sorted(
        {error.status for error in route.raises} | {500} | (set() if route.who in ("anyone", "capability") else {401})
    )
    failures = {
        str(status): {
            "description": ", ".join(e.__name__ for e in route.raises if e.status == status) or "an error",
            "content": {"application/problem+json": {"schema": schema_of[repr(Problem)]}},
        }
        for status in statuses
    }
    success = {"description": "done", "content": {route.media: {"schema": schema_of[repr(route.response)]}}}
    operation: dict[str, object] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {"200": success, **failures},
        "security": [] if route.who in ("anyone", "capability", "user") else [{"bearer": []}],
    }
    schema = _body(route, schema_of)
    if schema is not None:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    if "{" in route.path:
        name = route.path.rpartition("{")[2].rstrip("}")
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]}]
    return operation


def _body(route: Route, schema_of: Mapping[str, object]) -> object:
    """The schema of the request's body, with the caller's token where the body holds it; None if there is no body."""
    request = None if route.request is None else schema_of[repr(route.request)]
    if route.who != "user":
        return request
    return _USER if request is None else {"allOf": [_USER, request]}


def _anything(type_: type) -> dict[str, object]:
    if type_ is object:
        return {"description": "any JSON value"}
    raise NotImplementedError(f"no schema for {type_}")
