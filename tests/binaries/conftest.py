"""A server of releases that misbehaves on order, and programs that are shell scripts."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Mirror:
    """Answers each request with the next of `answers`, the last one for ever; keeps the requests' headers."""

    def __init__(self) -> None:
        self.answers: list[Handler] = []
        self.requests: list[web.Request] = []
        self.stalled = asyncio.Event()
        """Set once a request that never ends has sent what it sends."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self.server = TestServer(app, shutdown_timeout=0.1)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answers[min(len(self.requests), len(self.answers)) - 1](request)

    @property
    def resumed(self) -> list[bool]:
        """Which requests asked for a rest; where it begins depends on what the socket held when it broke."""
        return ["Range" in request.headers for request in self.requests]

    def url(self, path: str) -> str:
        return str(self.server.make_url(path))

    def whole(self, content: bytes = CONTENT, *, etag: str | None = '"one"', honest: bool = True) -> Handler:
        """The file, or the part asked for when `If-Range` matches (if not `honest`: whatever it says)."""

        async def answer(request: web.Request) -> web.StreamResponse:
            headers = {"ETag": etag} if etag else {}
            wanted = request.headers.get("Range")
            if wanted is None or (honest and request.headers.get("If-Range") != etag):
                return web.Response(body=content, headers=headers)
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return web.Response(status=416)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return web.Response(status=206, body=content[start:], headers=headers)

        return answer

    def cut(self, at: int, content: bytes = CONTENT, *, etag: str | None = '"one"', stall: bool = False) -> Handler:
        """The first `at` bytes of what is announced as the whole, then a closed (or a silent) connection."""

        async def answer(request: web.Request) -> web.StreamResponse:
            headers = {"ETag": etag} if etag else {}
            response = web.StreamResponse(headers={**headers, "Content-Length": str(len(content))})
            await response.prepare(request)
            await response.write(content[:at])
            if stall:
                self.stalled.set()
                await asyncio.Event().wait()
            assert request.transport is not None
            request.transport.close()
            return response

        return answer

    def status(self, status: int, headers: dict[str, str] | None = None) -> Handler:
        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers=headers)

        return answer


@pytest.fixture
async def mirror() -> AsyncIterator[Mirror]:
    mirror = Mirror()
    await mirror.server.start_server()
    yield mirror
    await mirror.server.close()


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def program(path: Path, says: str) -> Path:
    """A program that, asked for its version, says that."""
    return script(path, f"echo '{says}'")
