"""What a request may cost before it is understood: its body's size and the time it may take to arrive."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from elizacloud.agents.wishes import CONFIG_MAX_BYTES
from elizacloud.api.problem import problem

BODY_MAX_BYTES = 2 * CONFIG_MAX_BYTES
DISCARD_MAX_BYTES = 32 * BODY_MAX_BYTES
BODY_SECONDS = 30.0

_CLOSE = {"Connection": "close"}

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
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(receive)
        except TimeoutError:
            detail = f"cannot wait longer for the request's body: it took over {BODY_SECONDS:.0f} seconds"
            await problem(408, "request_timeout", detail, headers=_CLOSE)(scope, receive, send)
            return
        if body is None:
            return
        if len(body) > BODY_MAX_BYTES:
            await problem(413, "request_too_large", _TOO_LARGE, headers=_CLOSE)(scope, receive, send)
            return
        given = False

        async def receive_read() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, receive_read, send)


async def _read(receive: Receive) -> bytes | None:
    """The body, None when the client left; of one that is too large only so much that it is seen to be.

    The rest of it is read too, to a limit: a client that is still sending would miss the answer.
    """
    body, total = bytearray(), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        total += len(part)
        if len(body) <= BODY_MAX_BYTES:
            body += part
        if total > DISCARD_MAX_BYTES or not message.get("more_body", False):
            return bytes(body)
