"""Whatever is killed comes back, with the same agents, and nothing is left running at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.errors import Error
from elizacloud.states import State
from tests.e2e.cloud import STOP_SECONDS, Cloud
from tests.e2e.raw import nodes_of

WITHIN_SECONDS = 40


async def reached(cloud: Cloud, agent_id: str) -> None:
    """Return when the agent answers through the relay; the test's own deadline bounds the wait."""
    async with aiohttp.ClientSession(headers=cloud.headers) as session, asyncio.timeout(WITHIN_SECONDS):
        while True:
            try:
                async with session.get(f"{cloud.url}/api/relay/{agent_id}/api/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass


async def ready_agent(cloud: Cloud) -> str:
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        agent = await client.create_agent("survivor")
        await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        return agent.agent_id


async def test_the_same_agents_come_back_after_ctrl_c_and_after_kill_9(own_cloud: Cloud) -> None:
    own_cloud.start()
    agent_id = await ready_agent(own_cloud)
    (node,) = await nodes_of(own_cloud, agent_id)
    first_token = own_cloud.token

    assert own_cloud.stop() == 0
    assert not own_cloud.processes()
    own_cloud.start()
    await reached(own_cloud, agent_id)

    own_cloud.kill()
    own_cloud.start()
    await reached(own_cloud, agent_id)
    (after,) = await nodes_of(own_cloud, agent_id)
    assert (after["id"], after["ipAddresses"]) == (node["id"], node["ipAddresses"])
    async with Client(own_cloud.url, SecretStr(first_token)) as client:
        assert (await client.get_agent(agent_id)).agent_id == agent_id, "a token of the first start stays valid"


async def test_kill_9_of_up_leaves_no_process(own_cloud: Cloud) -> None:
    own_cloud.start()
    await ready_agent(own_cloud)
    pidfds = {pid: os.pidfd_open(pid) for pid in own_cloud.processes()}
    own_cloud.kill()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(STOP_SECONDS):
        for pidfd in pidfds.values():
            ended = asyncio.Event()
            loop.add_reader(pidfd, ended.set)
            await ended.wait()
            loop.remove_reader(pidfd)
            os.close(pidfd)
    assert not own_cloud.processes()


async def test_agents_outlive_the_control_plane_and_stay_reachable_without_it(own_cloud: Cloud) -> None:
    own_cloud.start()
    agent_id = await ready_agent(own_cloud)
    before = own_cloud.pid_of("elizacloud serve")
    agents = {pid for pid, line in own_cloud.processes().items() if agent_id in line}
    os.kill(before, signal.SIGKILL)
    async with (
        aiohttp.ClientSession(headers=own_cloud.headers) as session,
        session.get(f"{own_cloud.url}/api/relay/{agent_id}/api/health") as answer,
    ):
        assert answer.status == 200
    async with Client(own_cloud.url, SecretStr(own_cloud.token)) as client, asyncio.timeout(WITHIN_SECONDS):
        while True:
            try:
                assert (await client.get_agent(agent_id)).status == "ready"
                break
            except Error:
                continue
    assert own_cloud.pid_of("elizacloud serve") != before
    assert {pid for pid, line in own_cloud.processes().items() if agent_id in line} == agents


@pytest.mark.parametrize(
    "victim", ["elizacloud relay", "relay_worker", "runtime.process.host", "control-server", "relay/tailscaled"]
)
async def test_a_child_that_is_killed_comes_back(own_cloud: Cloud, victim: str) -> None:
    own_cloud.start()
    agent_id = await ready_agent(own_cloud)
    pid = own_cloud.pid_of(victim)
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    await asyncio.wait_for(ended.wait(), WITHIN_SECONDS)
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    await reached(own_cloud, agent_id)
    assert own_cloud.stop() == 0
    assert not own_cloud.processes()


def refused(cloud: Cloud, *arguments: str) -> str:
    """Run `up` where it cannot start; returns what it says."""
    command = cloud.command(
        "up", "--data-dir", str(cloud.data_dir / "data"), "--headscale", cloud.headscale, *arguments
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done
    return done.stderr


async def test_a_second_up_on_the_same_data_dir_is_refused_and_harms_nothing(cloud: Cloud) -> None:
    assert "another elizacloud up holds it" in refused(cloud, "--port", "0")
    async with aiohttp.ClientSession() as session, session.get(f"{cloud.url}/readyz") as answer:
        assert answer.status == 200


async def test_a_port_in_use_is_refused(own_cloud: Cloud) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(own_cloud, "--port", str(taken.getsockname()[1]))
    assert "another program has that port" in said
    assert not own_cloud.processes()


async def test_an_address_that_others_reach_is_refused(own_cloud: Cloud) -> None:
    assert "stays on loopback" in refused(own_cloud, "--host", "0.0.0.0", "--port", "0")


async def test_a_data_dir_of_another_kind_of_server_is_refused(own_cloud: Cloud) -> None:
    own_cloud.start()
    own_cloud.stop()
    if own_cloud.headscale == "devcontrol":
        said = refused(own_cloud, "--port", "0", "--headscale", "https://headscale.example.com")
    else:
        said = refused(own_cloud, "--port", "0", "--headscale", "devcontrol")
    assert "cannot" in said
    assert "data dir" in said
