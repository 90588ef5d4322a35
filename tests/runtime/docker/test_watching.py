"""Watching instances: what ends as one, what is told again when Docker comes back, what is left of a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from aiodocker import Docker
from aiohttp import web
from aiohttp.test_utils import TestServer

from elizacloud.errors import NotFound
from elizacloud.runtime.docker import DockerRuntime
from elizacloud.runtime.docker.labels import Role, name_of
from elizacloud.runtime.protocol import Phase
from tests.contract.docker_runtime import DockerRig, docker_rig, options_of
from tests.contract.runtimes import DIES, labels, secrets, spec
from tests.docker_engine import AGENT_IMAGE, DockerEngine

KEY = (labels().agent_id, labels().generation)


@pytest.fixture
async def rig(docker_engine: DockerEngine) -> AsyncIterator[DockerRig]:
    async with docker_rig(docker_engine) as made:
        yield made


async def test_the_sidecar_of_an_agent_that_ended_is_ended(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec(command=DIES))
    await rig.runtime.start(ref, secrets())

    async with asyncio.timeout(20), Docker(rig.engine.url) as docker, aclosing(rig.runtime.watch()) as changes:
        async for instance in changes:
            if instance.phase is Phase.EXITED:
                break
        ended = await docker.containers.container(name_of(KEY, Role.TAILNET)).wait()

    assert ended["StatusCode"] == 137
    assert instance.reason == "agent: exit status 3"
    seen = await rig.runtime.inspect(ref)
    assert seen is not None
    assert seen.reason == "agent: exit status 3", "how it ended can be read when all is over, too"


async def test_it_goes_on_when_docker_comes_back(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())
    async with asyncio.timeout(20), aclosing(rig.runtime.watch()) as changes:
        assert (await anext(changes)).phase is Phase.CREATED
        await rig.takes_down()
        await rig.start()
        assert (await anext(changes)).phase is Phase.CREATED
        await rig.runtime.start(ref, secrets())

        assert (await anext(changes)).phase is Phase.RUNNING


async def test_what_runs_is_listed_only_when_docker_tells_of_changes() -> None:
    """A Docker that restarts while it is asked for its events would otherwise be asked again, and its changes missed."""
    done: list[str] = []
    listed = asyncio.Event()

    async def version(_request: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.43"})

    async def info(_request: web.Request) -> web.Response:
        return web.json_response({"SystemTime": "2026-01-01T00:00:00.5Z"})

    async def events(request: web.Request) -> web.StreamResponse:
        if "cut" not in done:
            done.append("cut")
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        answer = web.StreamResponse()
        await answer.prepare(request)
        done.append("events")
        await listed.wait()
        return answer

    async def containers(_request: web.Request) -> web.Response:
        done.append("list")
        listed.set()
        return web.json_response([])

    app = web.Application()
    app.router.add_get("/version", version)
    app.router.add_get("/v1.43/info", info)
    app.router.add_get("/v1.43/events", events)
    app.router.add_get("/v1.43/containers/json", containers)
    async with TestServer(app) as server, asyncio.TaskGroup() as tasks:
        runtime = DockerRuntime(f"tcp://127.0.0.1:{server.port}", options_of())
        watching = tasks.create_task(anext(runtime.watch()), name="watch")
        async with asyncio.timeout(20):
            await listed.wait()
        watching.cancel()
        await asyncio.wait([watching])
        await runtime.close()

    assert done[:3] == ["cut", "events", "list"]


async def test_a_creation_that_was_cut_short_is_no_instance_and_is_made_again(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())
    async with Docker(rig.engine.url) as docker:
        await docker.containers.container(name_of(KEY, Role.AGENT)).delete()

    assert await rig.runtime.inspect(ref) is None
    assert [instance.ref for instance in await rig.runtime.list("one")] == [ref], "so that a sweep finds it"
    with pytest.raises(NotFound):
        await rig.runtime.start(ref, secrets())

    assert await rig.runtime.create(spec()) == ref
    await rig.runtime.start(ref, secrets())
    seen = await rig.runtime.inspect(ref)
    assert seen is not None
    assert seen.phase is Phase.RUNNING


async def test_a_start_that_was_cut_short_is_gone_on_with(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())
    async with Docker(rig.engine.url) as docker:
        await docker.containers.container(name_of(KEY, Role.TAILNET)).start()
    seen = await rig.runtime.inspect(ref)
    assert seen is not None
    assert seen.phase in (Phase.CREATED, Phase.EXITED)  # without its key the sidecar ends soon

    await rig.runtime.start(ref, secrets())

    seen = await rig.runtime.inspect(ref)
    assert seen is not None
    assert seen.phase is Phase.RUNNING


async def test_a_stranger_with_the_name_is_not_touched(rig: DockerRig) -> None:
    async with Docker(rig.engine.url) as docker:
        config = {"Image": AGENT_IMAGE}
        stranger = await docker.containers.create(config, name=name_of(KEY, Role.AGENT))
        try:
            with pytest.raises(Exception, match="is taken by a container that is not ours") as refused:
                await rig.runtime.create(spec())
            await rig.runtime.remove(f"{KEY[0]}.{KEY[1]}.1", volume=True)

            assert getattr(refused.value, "reason", "") == "name_taken"
            assert (await stranger.show())["State"]["Status"] == "created"
        finally:
            await stranger.delete(force=True)


async def test_the_log_is_followed_over_a_restart(rig: DockerRig) -> None:
    ref = await rig.runtime.create(spec())
    await rig.runtime.start(ref, secrets())

    async with asyncio.timeout(20), aclosing(rig.runtime.logs(ref, tail=10, follow=True)) as lines:
        assert await anext(lines) == "started"
        await rig.runtime.stop(ref, grace_seconds=5)
        await rig.runtime.start(ref, secrets())
        assert await anext(lines) == "started"
        await rig.runtime.remove(ref, volume=True)
        assert [line async for line in lines] == []
