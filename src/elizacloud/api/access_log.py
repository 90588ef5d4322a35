"""One line a request, without the query and without values from the path: both may hold secrets."""

from __future__ import annotations

import asyncio

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elizacloud.api.problem import route_of
from elizacloud.model import is_agent_id

log = structlog.get_logger()

_UNTOLD = frozenset({"/healthz", "/readyz"})
"""Asked again and again by machines; the relay's own log has them."""


class AccessLog:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNTOLD:
            await self._app(scope, receive, send)
            return
        began = asyncio.get_running_loop().time()
        status = 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            facts = {}
            agent_id = scope.get("path_params", {}).get("agent_id", "")
            if is_agent_id(agent_id):
                facts["agent"] = agent_id
            log.info(
                "request",
                method=scope["method"],
                route=route_of(scope),
                status=status,
                seconds=round(asyncio.get_running_loop().time() - began, 4),
                **facts,
            )
