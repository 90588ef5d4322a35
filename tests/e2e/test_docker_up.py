"""`elizacloud up` with Docker, in one command, seen from outside: agents, their logs and figures, faults, secrets, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiodocker import Docker
from aiodocker.exceptions import DockerError
from pydantic import SecretStr

from elizacloud.client import Agent, Client
from elizacloud.errors import Unavailable
from elizacloud.runtime.docker.labels import Role, name_of
from elizacloud.runtime.docker.usage import USAGE_UNKNOWN
from elizacloud.states import State
from tests.conftest import CONTROL_SERVER
from tests.docker_engine import AGENT_IMAGE, DockerEngine, lift_filters
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import SERVERS, server_name
from tests.e2e.test_docker import answers, until_nothing_is_left
from tests.e2e.test_secrets import SHAPES, canary

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHIN_SECONDS = 60
SIDECAR = "elizacloud-test/sidecar-of-up"
CANARY = canary()
KEPT = "/var/lib/elizacloud/agent/state/kept"


@pytest.fixture(scope="module", params=SERVERS, ids=server_name)
def cloud(request: pytest.FixtureRequest, docker_engine: DockerEngine) -> Iterator[Cloud]:
    """Where the sidecar's image is not there yet."""
    settings = {
        "ELIZACLOUD_RUNTIME": "docker",
        "ELIZACLOUD_DOCKER_URL": docker_engine.url,
        "ELIZACLOUD_DOCKER_SIDECAR_IMAGE": SIDECAR,
        "ELIZACLOUD_DOCKER_AGENT_IMAGE": AGENT_IMAGE,
    }
    if docker_engine.rootless:
        settings["ELIZACLOUD_DOCKER_HOST_ADDRESS"] = docker_engine.gateway
    cloud = Cloud(request.param, environment=settings)
    networks = docker_engine.names("networks")
    try:
        yield cloud.start()
    finally:
        cloud.remove()
        asyncio.run(_tidy(docker_engine, networks))


@pytest_asyncio.fixture(loop_scope="module")
async def client(cloud: Cloud, record_property: Callable[[str, object], None]) -> AsyncIterator[Client]:
    record_property(CONTROL_SERVER, server_name(cloud.headscale))
    async with Client(cloud.url, SecretStr(cloud.token)) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(cloud: Cloud, docker_engine: DockerEngine) -> Agent:
    """One with secrets, and with a file in its state."""
    async with Client(cloud.url, SecretStr(cloud.token)) as made:
        created = await made.create_agent(
            "in-containers", config={"password": CANARY}, options={"secrets": {"DISCORD_TOKEN": CANARY}}
        )
        ready = await made.wait_until(created.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
    await _inside(docker_engine, ready, f"echo kept >{KEPT}")
    return ready


async def test_an_agent_is_reached(client: Client, agent: Agent) -> None:
    assert await answers(client, agent.agent_id)


async def test_what_an_agent_uses_is_told_by_api_and_command_line(cloud: Cloud, client: Client, agent: Agent) -> None:
    try:
        used = await client.stats(agent.agent_id)
    except Unavailable as error:
        if error.reason != USAGE_UNKNOWN:
            raise
        pytest.skip("this Docker counts nothing: something on this machine mounted cgroups that it does not see")
    assert used.memory_bytes > 1_000_000
    assert used.cpu_seconds > 0
    assert used.memory_limit_bytes == 1024**3
    assert used.received_bytes
    assert "received" in _cli(cloud, "agent", "stats", agent.agent_id)


async def test_its_output_is_read_and_followed_by_api_and_command_line(
    cloud: Cloud, client: Client, docker_engine: DockerEngine
) -> None:
    # Its first process cannot be told to say more, so that what it says is in its command.
    script = (
        "echo one; echo two; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo three; exec httpd -f -p 127.0.0.1:2138"
    )
    made = await client.create_agent("talker", options={"command": ["/bin/sh", "-c", script]})
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            async with contextlib.aclosing(client.logs(made.agent_id, following=True)) as lines:
                assert [await anext(lines), await anext(lines)] == ["one", "two"]
            async with contextlib.aclosing(client.logs(made.agent_id, tail=1, following=True)) as lines:
                assert await anext(lines) == "two"
                await _inside(docker_engine, made, "touch /tmp/go")
                assert await anext(lines) == "three"
        assert [line async for line in client.logs(made.agent_id, tail=2)] == ["two", "three"]
        assert _cli(cloud, "agent", "logs", made.agent_id).splitlines() == ["one", "two", "three"]
    finally:
        await client.delete_agent(made.agent_id)
        await until_nothing_is_left(docker_engine, made.agent_id)


async def test_doctor_looks_at_docker(cloud: Cloud, agent: Agent) -> None:
    findings = json.loads(_cli(cloud, "doctor", "--data-dir", str(cloud.data_dir / "data"), "--json"))["findings"]

    seen = {finding["check"]: finding["verdict"] for finding in findings}
    assert seen["docker"] == "ok", findings
    assert seen["sidecar's image"] == "ok"
    assert "fail" not in seen.values(), findings


@pytest.mark.parametrize("victim", ["agent", "sidecar", "tailscaled"])
async def test_what_is_killed_comes_back_with_its_state_and_address(
    client: Client, agent: Agent, docker_engine: DockerEngine, victim: str
) -> None:
    before, last = await client.get_agent(agent.agent_id), await _last_event(client, agent)
    role = Role.AGENT if victim == "agent" else Role.TAILNET
    async with Docker(docker_engine.url) as docker:
        container = docker.containers.container(name_of((agent.agent_id, 1), role))
        if victim == "tailscaled":
            os.kill(_child((await container.show())["State"]["Pid"], "tailscaled"), signal.SIGKILL)
        else:
            await container.kill(signal="SIGKILL")

    await _is_back(client, docker_engine, before, last)


async def test_agents_come_back_after_docker_was_killed(
    client: Client, agent: Agent, docker_engine: DockerEngine
) -> None:
    if docker_engine.daemon is None:
        pytest.skip("this engine is the machine's own, which no test kills")
    before, last = await client.get_agent(agent.agent_id), await _last_event(client, agent)

    docker_engine.daemon.kill()
    await asyncio.to_thread(docker_engine.daemon.start)

    await _is_back(client, docker_engine, before, last)


async def test_agents_come_back_after_docker_was_stopped_in_good_order(
    client: Client, agent: Agent, docker_engine: DockerEngine
) -> None:
    if docker_engine.daemon is None:
        pytest.skip("this engine is the machine's own, which no test stops")
    before, last = await client.get_agent(agent.agent_id), await _last_event(client, agent)

    await asyncio.to_thread(docker_engine.daemon.stop)
    await asyncio.to_thread(docker_engine.daemon.start)

    await _is_back(client, docker_engine, before, last)


async def test_no_secret_is_in_anything_that_docker_shows(agent: Agent, docker_engine: DockerEngine) -> None:
    shown = [docker_engine.get(f"/{kind}") for kind in ("volumes", "networks", "images/json", "info")]
    for container in docker_engine.get("/containers/json?all=1"):
        shown.append(docker_engine.get(f"/containers/{container['Id']}/json"))
        shown.append(
            docker_engine.get(f"/containers/{container['Id']}/top") if container["State"] == "running" else None
        )
    text = json.dumps(shown)

    assert agent.agent_id in text
    assert CANARY not in text
    for shape in SHAPES:
        assert shape.pattern.search(text.encode()) is None, shape.name


async def test_ctrl_c_ends_the_containers_and_the_next_start_brings_them_back(
    cloud: Cloud, agent: Agent, docker_engine: DockerEngine
) -> None:
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        before, last = await client.get_agent(agent.agent_id), await _last_event(client, agent)
    assert await asyncio.to_thread(cloud.stop) == 0
    assert _running(docker_engine, agent) == []

    await asyncio.to_thread(cloud.start)

    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        await _is_back(client, docker_engine, before, last)


async def test_agents_outlive_up_that_is_killed_and_are_found_again(
    cloud: Cloud, agent: Agent, docker_engine: DockerEngine
) -> None:
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        before = await client.get_agent(agent.agent_id)
    started = [container["Id"] for container in _running(docker_engine, agent)]
    assert len(started) == 2
    await asyncio.to_thread(cloud.kill)

    await asyncio.to_thread(cloud.start)

    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        again = await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        assert await answers(client, agent.agent_id)
        assert again.ip == before.ip
        assert [container["Id"] for container in _running(docker_engine, agent)] == started

        await client.delete_agent(agent.agent_id)
        await until_nothing_is_left(docker_engine, agent.agent_id)


async def _last_event(client: Client, agent: Agent) -> int:
    return max([event.sequence async for event in client.events(agent.agent_id, following=False)])


async def _is_back(client: Client, engine: DockerEngine, before: Agent, after: int) -> None:
    """Ready anew after that event, with its address and its files, and nothing beside it."""
    again = await client.wait_until(
        before.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS, after=after, anew=True
    )
    assert again.ip == before.ip
    assert await answers(client, before.agent_id)
    assert await _inside(engine, again, f"cat {KEPT}") == "kept\n"
    assert len([name for name in engine.names("containers") if before.agent_id in name]) == 2
    assert len([name for name in engine.names("volumes") if before.agent_id in name]) == 3


async def _inside(engine: DockerEngine, agent: Agent, script: str) -> str:
    async with Docker(engine.url) as docker:
        container = docker.containers.container(name_of((agent.agent_id, 1), Role.AGENT))
        run = await container.exec(["/bin/sh", "-c", script])
        printed = b""
        async with asyncio.timeout(WITHIN_SECONDS), run.start(detach=False) as stream:
            while (message := await stream.read_out()) is not None:
                printed += message.data
        return printed.decode()


def _running(engine: DockerEngine, agent: Agent) -> list[Any]:
    return [found for found in engine.get("/containers/json") if any(agent.agent_id in name for name in found["Names"])]


def _child(pid: int, command: str) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = (int(child) for child in children if Path(f"/proc/{child}/comm").read_text().strip() == command)
    return found


def _cli(cloud: Cloud, *arguments: str) -> str:
    access = {"ELIZACLOUD_URL": cloud.url, "ELIZACLOUD_TOKEN": cloud.token}
    environment = {**os.environ, **cloud.environment, **access}
    environment.pop("ELIZACLOUD_HEADSCALE_BIN", None)
    done = subprocess.run(
        cloud.command(*arguments), env=environment, text=True, capture_output=True, timeout=WITHIN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def _tidy(engine: DockerEngine, networks: list[str]) -> None:
    async with Docker(engine.url) as docker:
        for name in engine.names("networks"):
            if name not in networks:
                lift_filters(engine.bridge_of(name))
                await (await docker.networks.get(name)).delete()
        with contextlib.suppress(DockerError):
            await docker.images.delete(SIDECAR, force=True)
