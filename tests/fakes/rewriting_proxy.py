"""A proxy as platforms put in front: some paths are rewritten to us over keep-alive, with headers and timeouts of its own.

It does what Vercel's rewrites and nginx with `proxy_buffering off` do: hop-by-hop headers end here, X-Forwarded-For is
appended to, -Host and -Proto are set, bodies stream, and an upstream that is silent for too long is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

HOST = "milady.test"
_HOP_BY_HOP = ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host")
_OF_WEBSOCKETS = "sec-websocket-"


class RewritingProxy:
    """`port` is where it listens; what is not below /api/ is its own."""

    def __init__(self, upstream_port: int, *, read_timeout_seconds: float, keep_host: bool) -> None:
        self._upstream_port = upstream_port
        self._timeout = aiohttp.ClientTimeout(total=None, sock_read=read_timeout_seconds)
        self._keep_host = keep_host
        self._session: aiohttp.ClientSession
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RewritingProxy]:
        self._session = aiohttp.ClientSession(
            timeout=self._timeout, auto_decompress=False, skip_auto_headers=("User-Agent",)
        )
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await self._session.close()
            await runner.cleanup()

    def _headers(self, request: web.Request) -> CIMultiDict[str]:
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP
        )
        named = [value for value in request.headers.getall("X-Forwarded-For", []) if value]
        headers["X-Forwarded-For"] = ", ".join([*named, str(request.remote)])
        headers["X-Forwarded-Host"] = HOST
        headers["X-Forwarded-Proto"] = "https"
        if self._keep_host:
            headers["Host"] = request.headers["Host"]
        return headers

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith("/api/") and not self._keep_host:
            return web.Response(text="the platform's own page")
        url = URL(f"http://127.0.0.1:{self._upstream_port}{request.raw_path}", encoded=True)
        headers = self._headers(request)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._websocket(request, url, headers)
        body = request.content if request.can_read_body else None
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as answer:
                return await self._pass_back(request, answer)
        except TimeoutError:
            return web.Response(status=504, text="the platform gave up")

    async def _pass_back(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        back = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                back.headers.add(name, value)
        await back.prepare(request)
        try:
            async for data in answer.content.iter_any():
                await back.write(data)
            await back.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.close()
        return back

    async def _websocket(self, request: web.Request, url: URL, headers: CIMultiDict[str]) -> web.StreamResponse:
        plain = CIMultiDict(
            (name, value) for name, value in headers.items() if not name.lower().startswith(_OF_WEBSOCKETS)
        )
        there = await self._session.ws_connect(url, headers=plain, max_msg_size=0)
        here = web.WebSocketResponse(max_msg_size=0)
        await here.prepare(request)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_pump(here, there), name="up")
            tasks.create_task(_pump(there, here), name="down")
        return here


async def _pump(
    source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
    sink: web.WebSocketResponse | aiohttp.ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.TEXT:
            await sink.send_str(message.data)
        else:
            await sink.send_bytes(message.data)
    await sink.close(code=source.close_code or 1000)
