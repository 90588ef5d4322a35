"""The cloud with agents on Docker: created through the API, reached through the relay, killed, stopped, deleted."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiodocker import Docker
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.model import TAG_RELAY
from elizacloud.processes import LogFile, spawn
from elizacloud.runtime.docker.labels import Role, name_of
from elizacloud.settings import child_environment
from elizacloud.states import State
from tests.contract.headscale_servers import RealRig, parameters, rig_of
from tests.docker_engine import AGENT_IMAGE, SIDECAR_IMAGE, DockerEngine, lift_filters
from tests.e2e.cloud import Cloud

WITHIN_SECONDS = 60


@pytest.fixture(params=parameters()[1:])
async def server(
    request: pytest.FixtureRequest, docker_engine: DockerEngine, record_property: Callable[[str, object], None]
) -> AsyncIterator[RealRig]:
    """A control server at an address that containers reach."""
    gateway = docker_engine.gateway
    async with rig_of(request.param, listen_host=gateway) as rig:
        assert isinstance(rig, RealRig)
        record_property("control_server", rig.name)
        await ensure_policy(rig.headscale)
        yield rig


@asynccontextmanager
async def cloud_on(server: RealRig, engine: DockerEngine, **settings: str) -> AsyncIterator[Client]:
    """Control plane and relay, as a person would start them beside a Headscale of their own."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_remove_networks, engine, but=engine.names("networks"))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp")))
        relay_node = await server.join(
            await server.headscale.create_preauth_key(tags=(TAG_RELAY,), lifetime_seconds=60), "relay"
        )
        environment = child_environment(
            {
                "data_dir": str(directory / "data"),
                "headscale_api_url": server.server.url,
                "headscale_join_url": server.server.join_url,
                "headscale_api_key": f"file:{server.server.directory / 'api.key'}",
                "tailscaled_socket": str(relay_node.tailscaled.socket),
                "port": "0",
                "runtime": "docker",
                "docker_url": engine.url,
                "docker_sidecar_image": SIDECAR_IMAGE,
                "docker_agent_image": AGENT_IMAGE,
                **settings,
            }
        )
        log = LogFile(directory / "log")
        stack.callback(log.close)
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def hear(line: bytes) -> None:
            log.write(line)
            if b"relay started" in line and not listening.done():
                listening.set_result(json.loads(line)["url"])

        command = Cloud("devcontrol", data_dir=directory).command
        await stack.enter_async_context(spawn(command("serve"), name="serve", env=environment, log=log.write))
        await stack.enter_async_context(spawn(command("relay"), name="relay", env=environment, log=hear))
        async with asyncio.timeout(WITHIN_SECONDS):
            url = await listening
            async with aiohttp.ClientSession() as session:
                while True:
                    async with session.get(f"{url}/readyz") as answer:
                        if answer.status == 200:
                            break
        token = SecretStr((directory / "data" / "operator.token").read_text().strip())
        yield await stack.enter_async_context(Client(url, token, owner_id="platform-user"))


async def _remove_networks(engine: DockerEngine, *, but: list[str]) -> None:
    """An installation keeps its bridge for as long as it lives."""
    async with Docker(engine.url) as docker:
        for name in engine.names("networks"):
            if name not in but:
                lift_filters(engine.bridge_of(name))
                await (await docker.networks.get(name)).delete()


async def until_nothing_is_left(engine: DockerEngine, agent_id: str) -> None:
    async with asyncio.timeout(WITHIN_SECONDS), Docker(engine.url) as docker:
        events = docker.events.subscribe(since="0")
        while any(agent_id in name for kind in ("containers", "volumes") for name in engine.names(kind)):
            await events.get()


async def answers(client: Client, agent_id: str) -> bool:
    async with client.relay("GET", agent_id, "/api/health") as answer:
        return answer.status == 200 and json.loads(await answer.read()) == {"ready": True}


async def test_an_agent_lives_in_containers(server: RealRig, docker_engine: DockerEngine) -> None:
    async with cloud_on(server, docker_engine) as client:
        created = await client.create_agent("in-containers")
        agent_id = created.agent_id
        try:
            ready = await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            assert await answers(client, agent_id)

            await client.stop_agent(agent_id)
            await client.wait_until(agent_id, {State.STOPPED}, within_seconds=WITHIN_SECONDS)
            await client.start_agent(agent_id)
            again = await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            assert again.ip == ready.ip
            assert await answers(client, agent_id)

            async with Docker(docker_engine.url) as docker:
                await docker.containers.container(name_of((agent_id, 1), Role.TAILNET)).kill(signal="SIGKILL")
            await client.wait_until(agent_id, {State.STARTED, State.JOINED}, within_seconds=WITHIN_SECONDS)
            back = await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            assert back.ip == ready.ip
            assert await answers(client, agent_id)
        finally:
            await client.delete_agent(agent_id)
            await until_nothing_is_left(docker_engine, agent_id)


async def test_a_host_that_is_down_holds_up_no_agent_of_another(server: RealRig, docker_engine: DockerEngine) -> None:
    async with cloud_on(server, docker_engine, docker_hosts="down=unix:///tmp/nothing-listens-here") as client:
        agent_id = (await client.create_agent("on-local")).agent_id
        try:
            await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            assert await answers(client, agent_id)
            assert (await client.explain(agent_id)).runtime.host_id == "local"
        finally:
            await client.delete_agent(agent_id)
            await until_nothing_is_left(docker_engine, agent_id)
