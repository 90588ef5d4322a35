"""A machine on the tailnet whose owner does with its tailscaled what they like: it harms itself and nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.processes import spawn
from elizacloud.states import State
from tests.e2e.callers import TINY_AGENT, Callers
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import READY_SECONDS
from tests.e2e.looking import WITHIN_SECONDS
from tests.e2e.machine import machine
from tests.e2e.raw import nodes_of
from tests.e2e.test_by_hand import cli

ROUNDS = 5


async def tailscale(socket: Path, *arguments: str) -> bool:
    """Run its command line; whether that says that it succeeded."""
    binary = os.environ["ELIZACLOUD_TAILSCALED_BIN"]
    command = spawn(
        [binary, f"--socket={socket}", *arguments],
        name=f"tailscale {arguments[0]}",
        env={"TS_BE_CLI": "1", "PATH": os.environ["PATH"]},
        log=lambda line: print(line.decode(errors="replace")),
    )
    async with command, asyncio.timeout(WITHIN_SECONDS):
        return (await command.wait()).clean


@pytest.fixture
async def victim(cloud: Cloud, client: Client) -> str:
    command = {"command": [sys.executable, "-S", "-E", str(TINY_AGENT)]}
    made = await client.create_agent("victim", options=command)
    await client.wait_until(made.agent_id, {State.READY}, within_seconds=READY_SECONDS)
    return made.agent_id


async def test_it_harms_only_itself(cloud: Cloud, client: Client, victim: str) -> None:
    """It takes another agent's hostname, comes and goes, looks for new endpoints, and registers again with its spent key."""
    (before,) = await nodes_of(cloud, victim)
    created = json.loads(cli(cloud, "agent", "create", "hostile", "--external", "--json"))
    hostile = created["agentId"]
    callers = Callers(lambda: cloud.url, cloud.token)
    key = cloud.data_dir / "spent"
    key.write_text(created["environment"]["HEADSCALE_AUTH_KEY"])
    async with machine(created["environment"]) as socket:
        await client.wait_until(hostile, {State.JOINED}, within_seconds=WITHIN_SECONDS)
        (own,) = await nodes_of(cloud, hostile)
        async with callers.calling([victim]):
            await callers.heard(victim, after_run=0)
            callers.forget_outcomes()
            assert await tailscale(socket, "set", f"--hostname=milaidy-{victim}")
            for _ in range(ROUNDS):
                assert await tailscale(socket, "down")
                assert await tailscale(socket, "up")
                await tailscale(socket, "debug", "rebind")
                await tailscale(socket, "debug", "restun")
            again = ("--force-reauth", f"--auth-key=file:{key}", "--reset", "--timeout=5s")
            server = created["environment"]["HEADSCALE_URL"]
            await tailscale(socket, "up", *again, f"--login-server={server}", f"--hostname=milaidy-{victim}")
            assert set(callers.outcomes[victim]) == {"200"}, callers.outcomes[victim]
            assert callers.wrong == []
        assert len(await nodes_of(cloud, hostile)) <= 1
    assert [node["id"] for node in await nodes_of(cloud, victim)] == [before["id"]]
    operator = (cloud.data_dir / "data" / "operator.token").read_text().strip()
    async with Client(cloud.url, SecretStr(operator)) as overseer:
        assert (await overseer.explain(victim)).findings == ()
        assert (await overseer.explain(hostile)).store.generations[-1].node_id == own["id"]
    assert (await client.get_agent(victim)).status == "ready"
    for agent in (victim, hostile):
        await client.delete_agent(agent)
