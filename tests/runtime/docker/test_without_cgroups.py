"""A Docker without cgroups for its containers, as a rootless one without systemd: it can neither freeze nor count them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from elizacloud.errors import RuntimeRefused, RuntimeUnavailable
from elizacloud.runtime.docker import DockerRuntime
from elizacloud.runtime.docker.labels import Role, written
from elizacloud.runtime.docker.usage import USAGE_UNKNOWN
from tests.contract.docker_runtime import options_of
from tests.contract.runtimes import labels


@pytest.fixture
async def runtime() -> AsyncIterator[DockerRuntime]:
    """Of one instance that runs."""
    both = [
        {
            "Id": f"id-of-{role}",
            "Config": {"Labels": written(labels(), role)},
            "State": {"Status": "running", "ExitCode": 0, "StartedAt": "2026-11-22T18:17:41.1Z"},
        }
        for role in (Role.TAILNET, Role.AGENT)
    ]

    async def answers(request: web.Request) -> web.Response:
        path = request.path.split("/")[1:]
        if path[-1] == "version":
            return web.json_response({"ApiVersion": "1.41"})
        if path[-1] == "info":
            return web.json_response({"CgroupDriver": "none", "SystemTime": "2026-11-22T18:17:41.1Z"})
        if path[-1] == "events":
            return web.Response()
        if path[-2:] == ["containers", "json"]:
            return web.json_response([{"Id": each["Id"], "State": "running"} for each in both])
        assert request.method == "GET"
        assert path[-1] != "stats"
        return web.json_response(next(each for each in both if each["Id"] in path))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answers)
    async with TestServer(app) as server:
        made = DockerRuntime(f"http://127.0.0.1:{server.port}", options_of())
        yield made
        await made.close()


async def test_it_is_said_at_the_start_that_nothing_is_limited(runtime: DockerRuntime) -> None:
    with capture_logs() as said:
        async with asyncio.timeout(10), aclosing(runtime.watch()) as changes:
            await anext(changes)

    assert [line["log_level"] for line in said if "not limited" in line["event"]] == ["warning"]


async def test_it_is_not_believed_what_an_instance_uses(runtime: DockerRuntime) -> None:
    with pytest.raises(RuntimeUnavailable, match="no cgroups") as unknown:
        await runtime.usage("bcdfghjkm2345678.1.1")

    assert unknown.value.reason == USAGE_UNKNOWN


async def test_it_says_that_nothing_can_be_frozen_there_and_what_to_do(runtime: DockerRuntime) -> None:
    with pytest.raises(RuntimeRefused, match="stopAfterSeconds") as refused:
        await runtime.pause("bcdfghjkm2345678.1.1")

    assert refused.value.reason == "cannot_freeze"
