"""The host's HTTP over its unix socket: one route a call of runtime/protocol.py, JSON bodies, our errors by code."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web

from elizacloud.errors import Error, Invalid
from elizacloud.processes import LogFile
from elizacloud.runtime.process.instances import Instances
from elizacloud.runtime.process.wire import (
    BODY_LIMIT_BYTES,
    INSTANCE,
    INSTANCES,
    SECRETS,
    SPEC,
    USAGE,
    VOLUMES,
    decode,
    encode,
)

MAX_TAIL = 100_000
MAX_GRACE_SECONDS = 120.0

T = TypeVar("T")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(instances: Instances) -> web.Application:
    routes = _Routes(instances)
    app = web.Application(middlewares=[_errors_as_json], client_max_size=BODY_LIMIT_BYTES)
    app.router.add_post("/instances", routes.create)
    app.router.add_get("/instances", routes.list)
    app.router.add_get("/instances/{ref}", routes.inspect)
    app.router.add_delete("/instances/{ref}", routes.remove)
    app.router.add_post("/instances/{ref}/start", routes.start)
    app.router.add_post("/instances/{ref}/pause", routes.pause)
    app.router.add_post("/instances/{ref}/resume", routes.resume)
    app.router.add_post("/instances/{ref}/stop", routes.stop)
    app.router.add_get("/instances/{ref}/logs", routes.logs)
    app.router.add_get("/instances/{ref}/usage", routes.usage)
    app.router.add_get("/volumes", routes.volumes)
    app.router.add_get("/watch", routes.watch)
    return app


@web.middleware
async def _errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Error as error:
        return web.json_response({"code": error.reason, "message": str(error)}, status=error.status)


@dataclass(frozen=True, slots=True)
class _Routes:
    instances: Instances
    _changes: set[asyncio.Task[Any]] = field(default_factory=set)

    async def _whole(self, change: Coroutine[Any, Any, T]) -> T:
        """A change goes on to its end when the client that asked for it is gone, which ends the request's own task."""
        task = asyncio.create_task(change, name="change")
        self._changes.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._changes.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also when nobody waits for it any more

    async def create(self, request: web.Request) -> web.Response:
        ref = await self._whole(self.instances.create(decode(SPEC, await request.read())))
        return web.json_response({"ref": ref})

    async def list(self, request: web.Request) -> web.Response:
        found = self.instances.list(request.query.get("installation", ""))
        return web.Response(body=encode(INSTANCES, [*found]), content_type="application/json")

    async def volumes(self, request: web.Request) -> web.Response:
        query = request.query
        found = await self.instances.volumes(query.get("installation", ""), agent_id=query.get("agent"))
        return web.Response(body=encode(VOLUMES, [*found]), content_type="application/json")

    async def inspect(self, request: web.Request) -> web.Response:
        instance = self.instances.inspect(_ref(request))
        if instance is None:
            return web.json_response({"code": "not_found", "message": "there is no such instance"}, status=404)
        return web.Response(body=encode(INSTANCE, instance), content_type="application/json")

    async def start(self, request: web.Request) -> web.Response:
        await self._whole(self.instances.start(_ref(request), decode(SECRETS, await request.read())))
        return web.Response(status=204)

    async def pause(self, request: web.Request) -> web.Response:
        await self._whole(self.instances.pause(_ref(request)))
        return web.Response(status=204)

    async def resume(self, request: web.Request) -> web.Response:
        await self._whole(self.instances.resume(_ref(request)))
        return web.Response(status=204)

    async def stop(self, request: web.Request) -> web.Response:
        grace_seconds = _number(request, "grace", MAX_GRACE_SECONDS)
        await self._whole(self.instances.stop(_ref(request), grace_seconds))
        return web.Response(status=204)

    async def remove(self, request: web.Request) -> web.Response:
        delete_volume = request.query.get("volume") == "1"
        await self._whole(self.instances.remove(_ref(request), delete_volume=delete_volume))
        return web.Response(status=204)

    async def logs(self, request: web.Request) -> web.StreamResponse:
        tail = int(_number(request, "tail", MAX_TAIL))
        log = self.instances.log_of(_ref(request))
        lines = log.follow(tail) if request.query.get("follow") == "1" else _read(log, tail)
        return await _stream(request, (f"{line}\n".encode() async for line in lines))

    async def usage(self, request: web.Request) -> web.Response:
        return web.Response(body=encode(USAGE, self.instances.usage(_ref(request))), content_type="application/json")

    async def watch(self, request: web.Request) -> web.StreamResponse:
        return await _stream(request, (encode(INSTANCE, seen) + b"\n" async for seen in self.instances.watch()))


def _ref(request: web.Request) -> str:
    return request.match_info["ref"]


def _number(request: web.Request, name: str, most: float) -> float:
    """A number of the query, brought into 0 to `most`."""
    try:
        number = float(request.query.get(name, "0"))
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise Invalid(f"cannot use {name}: it is not a number")
    return min(max(number, 0.0), most)


async def _read(log: LogFile, tail: int) -> AsyncIterator[str]:
    for line in log.read(tail):
        yield line


async def _stream(request: web.Request, lines: AsyncIterator[bytes]) -> web.StreamResponse:
    """Answer with lines as they come, until there are no more or the client is gone."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    await response.prepare(request)
    async with aclosing(lines) as closing:  # type: ignore[type-var]
        async for line in closing:
            await response.write(line)
    await response.write_eof()
    return response
