"""The way of a control plane to Headscale's API, with switches: on it calls fail, or are done and their answers lost.

In front of devcontrol as of a real Headscale, so that both can be had to fail. Nodes do not come this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web


class Trouble(Enum):
    NONE = "none"
    FAILS = "answers 500 and does nothing"
    LOSES_ANSWERS = "does it, and the connection ends"


class Proxy:
    """`async with` starts it. `target` says where Headscale is, which may come and go."""

    def __init__(self, target: Callable[[], str]) -> None:
        self._target = target
        self._trouble = Trouble.NONE
        self.url = ""

    @contextmanager
    def trouble(self, trouble: Trouble) -> Iterator[None]:
        self._trouble = trouble
        try:
            yield
        finally:
            self._trouble = Trouble.NONE

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(auto_decompress=False)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        trouble = self._trouble
        if trouble is Trouble.FAILS:
            return web.json_response({"code": 13, "message": "it was told to fail", "details": []}, status=500)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_ONE_HOP}
        try:
            async with self._session.request(
                request.method, self._target() + request.raw_path, headers=headers, data=await request.read()
            ) as answer:
                body, status = await answer.read(), answer.status
                kind = answer.headers.get("Content-Type", "")
        except aiohttp.ClientError:
            trouble = Trouble.LOSES_ANSWERS
        if trouble is Trouble.LOSES_ANSWERS:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return web.Response(status=status, body=body, headers={"Content-Type": kind})


_OF_ONE_HOP = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})
