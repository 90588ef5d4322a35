"""What a request may cost before it is understood: its body's size and the time it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elizacloud.agents.wishes import CONFIG_MAX_BYTES
from elizacloud.api.problem import problem

BODY_MAX_BYTES = 2 * CONFIG_MAX_BYTES
BODY_SECONDS = 30.0

_TOO_LARGE = (
    f"cannot accept a request body over {BODY_MAX_BYTES} bytes: an agentConfig may have {CONFIG_MAX_BYTES}; "
    "make it smaller"
)


class BodyLimit:
    """Reads the body, which no route wants as a stream, before anything else sees the request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                if _declared_bytes(scope) > BODY_MAX_BYTES:
                    raise OverflowError
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    if len(body) > BODY_MAX_BYTES:
                        raise OverflowError
                    if not message.get("more_body", False):
                        break
        except OverflowError:
            answer = problem(413, "request_too_large", _TOO_LARGE, headers={"Connection": "close"})
            await answer(scope, receive, send)
            return
        except TimeoutError:
            detail = f"cannot wait longer for the request's body: it took over {BODY_SECONDS:.0f} seconds"
            await problem(408, "request_timeout", detail, headers={"Connection": "close"})(scope, receive, send)
            return
        given = False

        async def receive_read() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self._app(scope, receive_read, send)


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0
