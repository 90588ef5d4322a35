"""An HTTP server that answers what a test wrote down, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Asked:
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class Scripted:
    """`script[method, path]` is the answer, or a list of answers of which the last one stays."""

    url: str = ""
    script: dict[tuple[str, str], list[web.Response | asyncio.Event]] = field(default_factory=lambda: defaultdict(list))
    asked: list[Asked] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def on(
        self,
        method: str,
        path: str,
        value: object = None,
        *,
        status: int = 200,
        text: str | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        body = text if text is not None else json.dumps(value)
        answer = web.Response(status=status, text=body, headers=headers, content_type=content_type)
        self.script[method, path].append(answer)

    def stall(self, method: str, path: str) -> asyncio.Event:
        """No answer before the event is set."""
        event = asyncio.Event()
        self.script[method, path].append(event)
        return event

    def requests(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append(Asked(request.method, request.path, dict(request.query), dict(request.headers), body))
        answers = self.script.get((request.method, request.path))
        if not answers:
            return web.Response(status=404, text="404 page not found")
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if isinstance(answer, asyncio.Event):
                await answer.wait()
                return web.json_response({})
            await asyncio.sleep(0)
            # A response can be sent once only.
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def serving() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", scripted._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    scripted.url = f"http://{host}:{port}"
    try:
        yield scripted
    finally:
        await runner.cleanup()
