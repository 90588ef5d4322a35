"""Every error as problem+json (RFC 9457) with a stable `code`. What was sent is never repeated: it may hold a secret."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from elizacloud.errors import Error, Misconfigured

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
_ERRORS_MAX = 20
_WORD = re.compile(r"[A-Za-z_-]{1,40}[0-9]{0,3}")
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
HTTP_CODES = {
    400: "malformed_request",
    404: "no_such_path",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
}


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    retry_after_seconds: float | None = None,
    **more: Any,
) -> JSONResponse:
    """The answer. `detail` is a sentence: what cannot be done, why, and what to do."""
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if status == HTTPStatus.UNAUTHORIZED:
        sent["WWW-Authenticate"] = 'Bearer realm="elizacloud"'
    if retry_after_seconds is not None:
        sent["Retry-After"] = str(max(1, math.ceil(retry_after_seconds)))
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail}
    return JSONResponse(body | more, status, sent, MEDIA_TYPE)


def problem_of(error: Error) -> JSONResponse:
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request failed", code=error.reason, reason=str(error))
    if isinstance(error, Misconfigured):
        return problem(error.status, error.reason, "cannot do this: the server is misconfigured; look at its log")
    return problem(error.status, error.reason, str(error), retry_after_seconds=error.retry_after_seconds)


def install(app: FastAPI) -> None:
    """Answer every kind of error of this app as a problem."""
    app.add_exception_handler(Error, _our_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


async def _our_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Error)
    return problem_of(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found: Sequence[Any] = error.errors()
    if any(detail["type"] == "json_invalid" for detail in found):
        return problem(400, "malformed_json", "cannot read the request's body: it is not JSON; correct it")
    errors = [{"pointer": _pointer(detail["loc"]), "detail": detail["msg"]} for detail in found[:_ERRORS_MAX]]
    first = f"{errors[0]['pointer']}: {errors[0]['detail']}" if errors else "it is not as described"
    return problem(422, "invalid", f"cannot accept the request: {first}", errors=errors)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    headers = dict(error.headers or {})
    details = {
        400: "cannot read the request: its body is not what its headers say",
        404: "cannot find this path: /openapi.json lists them all",
        405: f"cannot {request.method} this path: see the Allow header",
    }
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed_methods(request))
    detail = details.get(status, f"cannot answer the request: {HTTPStatus(status).phrase}")
    return problem(status, HTTP_CODES.get(status, "http_error"), detail, headers=headers)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    log.error("a request met a bug", method=request.method, route=route_of(request.scope), exc_info=error)
    return problem(500, "internal", "cannot answer: the server met a bug; its log has the details")


def route_of(scope: Mapping[str, Any]) -> str:
    """The path's template, such as /api/v1/agents/{agent_id}: paths themselves may hold a session's secret."""
    return getattr(scope.get("route"), "path", "(no such path)")


def _allowed_methods(request: Request) -> list[str]:
    """All methods of the path: Starlette names those of the first route only."""
    routes = request.app.router.routes
    return [
        method
        for method in _METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _pointer(location: Sequence[Any]) -> str:
    return "/".join(shown_name(part) for part in location)


def shown_name(name: str | int) -> str:
    """A name that the sender chose, for an error: only a word is repeated, as anything else may be a secret."""
    return str(name) if isinstance(name, int) or _WORD.fullmatch(name) else "(a name)"
