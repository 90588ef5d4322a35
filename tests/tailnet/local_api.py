"""A LocalAPI that a test scripts: answers by path, and a bus that says what the test puts on it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

END_OF_STREAM: dict[str, Any] = {}


class FakeLocalApi:
    """`asked` has every request: method, path and query, JSON body."""

    def __init__(self) -> None:
        self.status: dict[str, Any] = {"BackendState": "Running", "HaveNodeKey": True, "TailscaleIPs": ["100.64.0.9"]}
        self.status["Self"] = {"ID": "9"}
        self.prefs: dict[str, Any] = {}
        self.answers: dict[str, tuple[int, str]] = {}
        """By path without query: a status and a body instead of the usual answer."""
        self.silent: Counter[str] = Counter()
        """By path without query: how many of the next requests get no answer."""
        self.asked: list[tuple[str, str, Any]] = []
        self.subscriptions: asyncio.Queue[asyncio.Queue[dict[str, Any]]] = asyncio.Queue()
        """One queue of events for each time that somebody watches the bus."""
        self.first: list[dict[str, Any]] = []
        """What each subscription begins with."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/localapi/v0/")
        self.asked.append((request.method, request.path_qs.removeprefix("/localapi/v0/"), await _body(request)))
        if self.silent[path]:
            self.silent[path] -= 1
            await asyncio.Event().wait()
        if path in self.answers:
            status, text = self.answers[path]
            return web.Response(status=status, text=text)
        match path:
            case "status":
                return web.json_response(self.status)
            case "prefs":
                return web.json_response(self.prefs)
            case "watch-ipn-bus":
                return await self._watch(request)
        return web.Response(status=204)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for event in self.first:
            events.put_nowait(event)
        self.subscriptions.put_nowait(events)
        while (event := await events.get()) is not END_OF_STREAM:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    def paths(self) -> list[str]:
        return [path for _method, path, _body in self.asked]


async def _body(request: web.Request) -> Any:
    data = await request.read()
    return json.loads(data) if data else None


@asynccontextmanager
async def serving(fake: FakeLocalApi, socket: Path) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield
    finally:
        await runner.cleanup()
