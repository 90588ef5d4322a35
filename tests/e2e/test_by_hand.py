"""What people do themselves: start an agent by hand, use the command line, run the parts without a supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import Agent, Client
from elizacloud.processes import LogFile, spawn
from elizacloud.settings import child_environment
from elizacloud.states import State
from elizacloud.tailnet import LocalApi
from tests.e2e.cloud import Cloud
from tests.e2e.machine import machine
from tests.e2e.raw import keys_of, nodes, nodes_of

WITHIN_SECONDS = 40


def cli(cloud: Cloud, *arguments: str, code: int = 0) -> str:
    """Run the command line against the cloud; returns what it prints."""
    done = subprocess.run(
        cloud.command(*arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "ELIZACLOUD_URL": cloud.url, "ELIZACLOUD_TOKEN": cloud.token},
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout if code == 0 else done.stderr


def as_in_a_container(cloud: Cloud) -> dict[str, str]:
    """The image of an agent binds every address of its container; here it is this host's loopback and no more."""
    return {
        "MILADY_STATE_DIR": str(cloud.data_dir / "by-hand"),
        "MILADY_API_BIND": "0.0.0.0",
        "ELIZACLOUD_AGENT_LISTEN": "127.0.0.1:2138",
    }


async def test_an_external_agent_is_started_by_hand(cloud: Cloud, client: Client) -> None:
    created = json.loads(cli(cloud, "agent", "create", "by-hand", "--external", "--json"))
    environment: Mapping[str, str] = created["environment"]
    agent_id = created["agentId"]
    assert environment["CONTAINER_ID"] == agent_id
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", 2138)) == 0:
            pytest.skip("needs port 2138 of this machine, which is in use")
    log = LogFile(cloud.data_dir / "by-hand.log")
    stub = spawn(
        [sys.executable, "-m", "elizacloud.stub_agent"],
        name="agent",
        env={**child_environment(), **environment, **as_in_a_container(cloud)},
        log=log.write,
    )
    async with stub, machine(environment):
        report = f"{environment['ELIZACLOUD_API_URL']}/containers/{agent_id}/networking"
        headers = {"Authorization": f"Bearer {environment['ELIZACLOUD_JOIN_TOKEN']}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            wrong = {"headscaleIp": "100.64.255.254"}
            async with session.post(report, json=wrong) as answer:
                assert answer.status in (202, 409)
            agent = await client.wait_until(agent_id, {State.JOINED, State.READY}, within_seconds=WITHIN_SECONDS)
            async with session.post(report, json=wrong) as answer:
                assert answer.status == 409
            async with session.post(report, json={"headscaleIp": agent.ip}) as answer:
                assert answer.status == 200
        await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        async with client.relay("GET", agent_id, "/api/health") as answer:
            assert answer.status == 200
    await client.delete_agent(agent_id)
    await _until_nothing_is_left(cloud, agent_id)
    log.close()


async def _until_nothing_is_left(cloud: Cloud, agent_id: str) -> None:
    async with asyncio.timeout(WITHIN_SECONDS):
        while await nodes_of(cloud, agent_id) or await keys_of(cloud, agent_id):
            await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=0.1)


async def test_an_agent_cannot_reach_another_one_nor_the_relay(cloud: Cloud, client: Client, agent: Agent) -> None:
    other = await client.create_agent("neighbour")
    await client.wait_until(other.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
    sockets = [path for path in (cloud.data_dir / "data" / "run").rglob("*") if path.is_socket()]
    (mine,) = [path for path in sockets if agent.agent_id in str(path) and "tailscaled" in str(path)]
    (relay,) = [
        node for node in await nodes(cloud) if "tag:relay" in [*node.get("tags", []), *node.get("forcedTags", [])]
    ]
    for address in (other.ip, relay["ipAddresses"][0]):
        assert not await _dials(mine, str(address), 2138), f"{address} answered"
    relays = Path(cloud.run_file["sockets"]["tailscaled"])
    assert await _dials(relays, str(other.ip), 2138), "the relay itself gets through"
    assert not await _dials(relays, str(other.ip), 22), "and only to the one port"
    await client.delete_agent(other.agent_id)


async def _dials(local_api: Path, ip: str, port: int) -> bool:
    """True when a dial through this tailscaled reaches something on the tailnet that speaks HTTP."""
    reader, writer = await asyncio.open_unix_connection(str(local_api))
    writer.write(
        b"POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n"
        + f"Dial-Host: {ip}\r\nDial-Port: {port}\r\n\r\n".encode()
    )
    try:
        async with asyncio.timeout(3):
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                return False
            writer.write(b"GET /api/health HTTP/1.1\r\nHost: x\r\n\r\n")
            return (await reader.read(8)).startswith(b"HTTP/1.1")
    except (TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        writer.close()


async def test_the_command_line_does_the_main_job(cloud: Cloud, tmp_path: Path) -> None:
    agent = json.loads(cli(cloud, "agent", "create", "by-command", "--json"))
    agent_id = agent["agentId"]
    assert agent_id in cli(cloud, "agent", "list")
    assert json.loads(cli(cloud, "agent", "show", agent_id, "--json"))["agentName"] == "by-command"
    assert "await join" in cli(cloud, "agent", "events", agent_id)
    cli(cloud, "agent", "logs", agent_id)
    cli(cloud, "agent", "stop", agent_id)
    cli(cloud, "agent", "start", agent_id)
    token = json.loads(cli(cloud, "token", "create", "spare", "--json"))
    assert "spare" in cli(cloud, "token", "list")
    cli(cloud, "token", "revoke", token["tokenId"])
    cli(cloud, "agent", "delete", agent_id, "--yes")


async def test_doctor_finds_nothing_wrong_with_a_cloud_that_works(cloud: Cloud, agent: Agent) -> None:
    data_dir = str(cloud.data_dir / "data")
    findings = json.loads(cli(cloud, "doctor", "--data-dir", data_dir, "--json"))
    failed = [finding for finding in findings["findings"] if finding["verdict"] == "fail"]
    assert not failed


@asynccontextmanager
async def _parts(cloud: Cloud, directory: Path) -> AsyncIterator[str]:
    """Control plane and relay as two processes of one's own, beside the Headscale and tailscaled of `cloud`."""
    sockets = cloud.run_file["sockets"]
    run = Path("/tmp") / f"ec-{os.getpid()}"
    run.mkdir(mode=0o700, exist_ok=True)
    environment = child_environment(
        {
            "data_dir": str(directory),
            "headscale_api_url": cloud.facts["headscale"]["url"],
            "headscale_api_key": f"file:{cloud.data_dir / 'data' / 'control-server' / 'api.key'}",
            "api_socket": str(run / "api.sock"),
            "link_socket": str(run / "link.sock"),
            "tailscaled_socket": sockets["tailscaled"],
            "process_host_socket": sockets["process_host"],
            "port": "0",
        }
    )
    log = LogFile(directory / "log")
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def hear(line: bytes) -> None:
        log.write(line)
        if b"relay started" in line and not listening.done():
            listening.set_result(json.loads(line)["url"])

    async with (
        spawn(cloud.command("serve"), name="serve", env=environment, log=log.write) as serve,
        spawn(cloud.command("relay"), name="relay", env=environment, log=hear) as relay,
        asyncio.timeout(WITHIN_SECONDS),
    ):
        url = await listening
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{url}/readyz") as answer:
                    if answer.status == 200:
                        break
        yield url
        for child in (relay, serve):
            child.signal(signal.SIGTERM)
            assert (await child.wait()).clean, log.recent()
    log.close()


async def test_serve_and_relay_run_without_a_supervisor(cloud: Cloud, tmp_path: Path) -> None:
    async with _parts(cloud, tmp_path) as url:
        operator = SecretStr((tmp_path / "operator.token").read_text().strip())
        async with Client(url, operator, owner_id="platform-user") as client:
            agent = await client.create_agent("without-a-supervisor")
            await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            async with client.relay("GET", agent.agent_id, "/api/health") as answer:
                assert answer.status == 200
            await client.delete_agent(agent.agent_id)
            await _until_nothing_is_left(cloud, agent.agent_id)


def test_login_keeps_a_context(cloud: Cloud, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    options: dict[str, Any] = {"text": True, "check": True, "capture_output": True, "env": environment, "timeout": 60}
    subprocess.run(cloud.command("login", cloud.url, "--token-stdin"), input=cloud.token, **options)
    (context,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert context.stat().st_mode & 0o777 == 0o600
    listed = subprocess.run(cloud.command("agent", "list", "--json"), **options)
    assert json.loads(listed.stdout) is not None


async def test_errors_of_the_command_line_have_their_exit_code(cloud: Cloud) -> None:
    assert "cannot" in cli(cloud, "agent", "show", "bcdfghjkmnpqrstv", code=3)
    problem = json.loads(cli(cloud, "agent", "show", "bcdfghjkmnpqrstv", "--json", code=3))
    assert problem["code"] == "agent_not_found"


async def test_local_api_sockets_are_in_private_directories(cloud: Cloud, agent: Agent) -> None:
    for path in (cloud.data_dir / "data" / "run").rglob("*.sock"):
        assert path.parent.stat().st_mode & 0o777 == 0o700, path
    api = LocalApi(Path(cloud.run_file["sockets"]["tailscaled"]))
    assert (await api.prefs())["ShieldsUp"] is True
    await api.close()
