"""The OpenAPI 3.1 document: what FastAPI finds, with the errors that every call can answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from elizacloud.api.problem import MEDIA_TYPE

DESCRIPTION = """A private agent cloud: every agent in its own container, on a private tailnet, reached only through the relay.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. What another owner has is 404.
Requests for an agent itself go to `/api/relay/{agentId}/…`, which the relay serves."""

_PROBLEM: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457. `code` is stable; `detail` is a sentence for people.",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "checks": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "examples": [
        {
            "type": "about:blank",
            "title": "Conflict",
            "status": 409,
            "code": "name_taken",
            "detail": "cannot store this: an agent of this name exists already: choose another name",
        }
    ],
}
_ALWAYS = (400, 422, 500, 503)
_WITH_BODY = (408, 413, 415)
_METHODS = frozenset({"get", "post", "patch", "put", "delete"})


def install(app: FastAPI) -> None:
    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            app.openapi_schema = _with_problems(found)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in _METHODS:
                _add_problems(path, operation)
    return document


def _add_problems(path: str, operation: dict[str, Any]) -> None:
    statuses = set(_ALWAYS)
    if "requestBody" in operation:
        statuses |= set(_WITH_BODY)
    if operation.get("security"):
        statuses |= {401, 403, 409, 429, 502}
    names = {parameter["name"] for parameter in operation.get("parameters", ())}
    if "{" in path or path.endswith("cli-approval") or "cursor" in names:
        statuses |= {404}
    if path.endswith("cli-session"):
        statuses |= {429}
    for status in sorted(statuses):
        operation["responses"][str(status)] = {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
