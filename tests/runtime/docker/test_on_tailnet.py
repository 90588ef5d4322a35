"""Agents in containers on a real tailnet: they join, are reached by a relay's node and by nobody else, and come back."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiodocker import Docker
from aiohttp import web
from pydantic import SecretStr

from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.model import TAG_AGENT, AgentSpec
from elizacloud.runtime.docker.building import wrap
from elizacloud.runtime.docker.labels import Role, name_of
from elizacloud.runtime.protocol import EXIT_KEY_DEAD, STOPPED, Instance, InstanceSpec, Phase
from tests.contract.docker_runtime import DockerRig, docker_rig
from tests.contract.headscale_servers import RealMachine, RealRig, parameters, rig_of
from tests.contract.runtimes import secrets
from tests.docker_engine import AGENT_IMAGE, DockerEngine
from tests.runtime.tailnet import WITHIN_SECONDS, address_of, agent_on, ask, key_for
from tests.runtime.tailnet import _counted as _counted
from tests.runtime.tailnet import relay as relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = "HTTP/1.1 200 OK"


@pytest.fixture(scope="module")
def gateway(docker_engine: DockerEngine) -> str:
    """An address of this machine that containers reach, too."""
    return str(docker_engine.get("/networks/bridge")["IPAM"]["Config"][0]["Gateway"])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=parameters()[1:])
async def server(request: pytest.FixtureRequest, gateway: str) -> AsyncIterator[RealRig]:
    async with rig_of(request.param, listen_host=gateway) as rig:
        assert isinstance(rig, RealRig)
        await ensure_policy(rig.headscale)
        yield rig


@pytest_asyncio.fixture(loop_scope="module")
async def rig(docker_engine: DockerEngine) -> AsyncIterator[DockerRig]:
    async with docker_rig(docker_engine) as made:
        yield made


async def started(server: RealRig, rig: DockerRig, of: InstanceSpec) -> str:
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    return ref


async def ended(rig: DockerRig, ref: str) -> Instance:
    async with asyncio.timeout(WITHIN_SECONDS):
        async for instance in rig.runtime.watch():
            if instance.ref == ref and instance.phase is Phase.EXITED:
                return instance
    raise AssertionError("watch() ended")


async def kill(rig: DockerRig, of: InstanceSpec, role: Role) -> None:
    """As somebody on the host would."""
    async with Docker(rig.engine.url) as docker:
        name = name_of((of.labels.agent_id, of.labels.generation), role)
        await docker.containers.container(name).kill(signal="SIGKILL")


async def test_an_image_that_knows_nothing_of_a_tailnet_is_reached_through_it(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    of = agent_on(server)

    await started(server, rig, of)

    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK


async def test_an_agent_on_another_port_is_reached_on_the_same_one(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    command = ("/bin/httpd", "-f", "-p", "127.0.0.1:3000", "-h", "/www")
    of = agent_on(server, AgentSpec(command=command, port=3000))

    await started(server, rig, of)

    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK


async def test_it_comes_back_as_the_same_node_without_a_key(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await rig.runtime.stop(ref, grace_seconds=5)
    await rig.runtime.start(ref, secrets(preauth_key=None))
    assert await ask(relay, ip) == OK

    await rig.runtime.stop(ref, grace_seconds=5)
    ref = await rig.runtime.create(replace(of, labels=replace(of.labels, run=2)))
    await rig.runtime.start(ref, secrets(preauth_key=None))
    assert await ask(relay, ip) == OK
    assert await address_of(server, of) == (node_id, ip)


async def test_a_frozen_agent_is_there_again_when_it_is_thawed(
    server: RealRig, relay: RealMachine, rig: DockerRig
) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await rig.runtime.pause(ref)
    await rig.runtime.resume(ref)

    assert await ask(relay, ip) == OK


@pytest.mark.parametrize("role", list(Role))
async def test_both_containers_end_when_one_is_killed_and_both_come_back(
    server: RealRig, relay: RealMachine, rig: DockerRig, role: Role
) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await kill(rig, of, role)
    instance = await ended(rig, ref)
    assert instance.exit_code == 137
    assert instance.reason != STOPPED
    await rig.runtime.start(ref, secrets(preauth_key=None))

    assert await ask(relay, ip) == OK
    assert await address_of(server, of) == (node_id, ip)


async def test_a_dead_key_is_the_exit_code_that_asks_for_a_new_one(server: RealRig, rig: DockerRig) -> None:
    of = agent_on(server)
    minted = await server.headscale.create_preauth_key(tags=(TAG_AGENT,), lifetime_seconds=60)
    await server.headscale.expire_preauth_key(minted.id)
    ref = await rig.runtime.create(of)
    await rig.runtime.start(ref, secrets(preauth_key=minted.value.get_secret_value()))

    instance = await ended(rig, ref)
    assert instance.exit_code == EXIT_KEY_DEAD
    assert "mint a new pre-auth key" in instance.reason

    await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
    await address_of(server, of)


async def test_a_node_that_was_deleted_asks_for_a_new_key(server: RealRig, relay: RealMachine, rig: DockerRig) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK
    await rig.runtime.stop(ref, grace_seconds=5)
    await server.headscale.delete_node(node_id)

    await rig.runtime.start(ref, secrets(preauth_key=None))

    instance = await ended(rig, ref)
    assert instance.exit_code == EXIT_KEY_DEAD
    assert "mint a new pre-auth key" in instance.reason


async def test_it_reports_the_address_that_the_server_lists(server: RealRig, rig: DockerRig, gateway: str) -> None:
    reported: asyncio.Future[tuple[str, str, str]] = asyncio.get_running_loop().create_future()

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        reported.set_result((request.match_info["agent"], request.headers["Authorization"], body["headscaleIp"]))
        return web.Response(status=200)

    app = web.Application()
    app.router.add_post("/containers/{agent}/networking", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, gateway, 0).start()
    try:
        of = agent_on(server, report_url=f"http://{gateway}:{runner.addresses[0][1]}")
        ref = await rig.runtime.create(of)
        given = replace(secrets(preauth_key=await key_for(server, of)), join_token=SecretStr("jt"))
        await rig.runtime.start(ref, given)
        async with asyncio.timeout(WITHIN_SECONDS):
            agent_id, authorization, ip = await reported
    finally:
        await runner.cleanup()

    assert (agent_id, authorization) == (of.labels.agent_id, "Bearer jt")
    assert (await address_of(server, of))[1] == ip


async def test_delete_leaves_nothing(server: RealRig, relay: RealMachine, rig: DockerRig) -> None:
    of = agent_on(server)
    ref = await started(server, rig, of)
    _node_id, ip = await address_of(server, of)
    assert await ask(relay, ip) == OK

    await rig.runtime.remove(ref, volume=True)

    for kind in ("containers", "volumes"):
        assert [name for name in rig.engine.names(kind) if of.labels.agent_id in name] == []


async def test_a_wrapped_image_is_an_agent_by_itself(
    server: RealRig, relay: RealMachine, docker_engine: DockerEngine
) -> None:
    """The seed's way, as `docker run -e` would start it; it comes back as the same node though its key is spent."""
    of = agent_on(server)
    wrapped = "elizacloud-test/wrapped"
    busybox, tailscaled = shutil.which("busybox"), os.environ["ELIZACLOUD_TAILSCALED_BIN"]
    assert busybox is not None
    await wrap(docker_engine.url, AGENT_IMAGE, wrapped, busybox=Path(busybox), tailscaled=Path(tailscaled).resolve())
    environment = {
        "HEADSCALE_URL": of.join_url,
        "HEADSCALE_AUTH_KEY": await key_for(server, of),
        "CONTAINER_ID": of.labels.agent_id,
    }
    config: dict[str, Any] = {
        "Image": wrapped,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "HostConfig": {"CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"]},
    }
    async with Docker(docker_engine.url) as docker:
        container = await docker.containers.create(config)
        try:
            await container.start()
            node_id, ip = await address_of(server, of)
            assert await ask(relay, ip) == OK

            await container.stop(t=10)
            assert (await container.show())["State"]["ExitCode"] == 143, "the agent got the signal itself"
            await container.start()

            assert await ask(relay, ip) == OK
            assert await address_of(server, of) == (node_id, ip)
        finally:
            await container.delete(force=True, v=True)
