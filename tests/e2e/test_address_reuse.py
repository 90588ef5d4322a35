"""A control server that hands the addresses of deleted nodes to other agents at once, while clients call them all.

Two halves of the agents take turns. The nodes of one half are deleted behind our back, so that the relays still have its
addresses, and the server allocates from the lowest one again; then the other half is started anew, as new nodes, and gets
them. Whoever routes by address now sends one agent's requests to another.

`make test` sees some twenty re-uses, `make chaos` more than 150.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.states import State
from tests.chaos.audit import agent_of, agents_in
from tests.e2e.callers import TINY_AGENT, Callers
from tests.e2e.looking import a_moment
from tests.e2e.parts import Parts
from tests.e2e.test_static_stability import frozen

MANY = os.environ.get("CHAOS") == "all"
REUSES = 150 if MANY else 20
HALF = 5
RESTARTS_EVERY = 4
"""So many rounds apart the server is killed and started; in between a switch makes it forget where it was in its pool."""
WITHIN_SECONDS = 90
"""Half of all agents start at the same time, on a machine that may be busy."""
FROZEN_SECONDS = 6.0
"""Longer than a relay believes a tailscaled that is silent."""


class ReuseParts(Parts):
    """With a relay that checks whom it dials, or one that does not."""

    pinned = True

    def _command(self, name: str) -> tuple[list[str | Path], Mapping[str, str]]:
        argv, environment = super()._command(name)
        if name == "relay" and not self.pinned:
            argv[argv.index("elizacloud")] = "tests.e2e.unpinned"
            environment = {**environment, "PYTHONPATH": str(Path(__file__).parents[2])}
        return argv, environment


class Churn:
    def __init__(self, parts: ReuseParts, callers: Callers, agents: list[str]) -> None:
        self.parts = parts
        self.callers = callers
        self.halves = agents[:HALF], agents[HALF:]
        self.reuses = 0
        self.rounds = 0
        self._holders: dict[str, str] = {}
        """By address: the agent whose good answer came from there last."""

    async def round(self, *, hold_relay: bool = False) -> None:
        """One half loses its nodes, and the other half gets their addresses."""
        losing, getting = self.halves[self.rounds % 2], self.halves[1 - self.rounds % 2]
        before = {agent: row["run"] for agent, row in self._rows().items()}
        await self._note(losing)
        async with self._relay_held() if hold_relay else nothing():
            await self._delete_nodes(losing)
            await self._allocate_from_the_lowest()
            async with own_client(self.parts) as client:
                for agent in getting:
                    await client.restart_agent(agent)
            if hold_relay:
                await self._until_joined(getting, before)
        for agent in getting:
            await self.callers.heard_or_misled(agent, after_run=before[agent], within_seconds=WITHIN_SECONDS)
        await self._note(getting)
        self.rounds += 1

    async def _note(self, agents: list[str]) -> None:
        """Count the addresses at which somebody else answered before."""
        rows = self._rows()
        for agent in agents:
            who, address = self.callers.last[agent], rows[agent]["ipv4"]
            if (who.generation, who.run) != (rows[agent]["generation"], rows[agent]["run"]):
                continue  # it is on its way to yet another run
            self.reuses += self._holders.get(address, agent) != agent
            self._holders[address] = agent

    async def _delete_nodes(self, agents: list[str]) -> None:
        for node in (await self._headscale("GET", "/api/v1/node"))["nodes"]:
            if agent_of(node) in agents:
                await self._headscale("DELETE", f"/api/v1/node/{node['id']}")

    async def _allocate_from_the_lowest(self) -> None:
        if self.rounds % RESTARTS_EVERY == 1:
            await self.parts.kill("control server")
            await self.parts.start("control server")
            return
        connector = aiohttp.UnixConnector(str(self.parts.fault_switches))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post("http://devcontrol/addresses/restart") as answer,
        ):
            assert answer.status == 200, await answer.text()

    @asynccontextmanager
    async def _relay_held(self) -> AsyncIterator[None]:
        """The relay's tailscaled stands still, so that its netmap is an old one when it goes on."""
        async with frozen(self.parts.child("tailscaled").pid):
            began = asyncio.get_running_loop().time()
            yield
            await a_moment(max(0.0, began + FROZEN_SECONDS - asyncio.get_running_loop().time()))

    async def _headscale(self, method: str, path: str) -> Any:
        key = (self.parts.data.control_server / "api.key").read_text().strip()
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.request(method, self.parts.headscale_url + path) as answer,
        ):
            assert answer.status == 200, await answer.text()
            return await answer.json(content_type=None)

    def _rows(self) -> dict[str, dict[str, Any]]:
        return agents_in(self.parts.data.database)

    async def _until_joined(self, agents: list[str], run_before: Mapping[str, int]) -> None:
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                rows = self._rows()
                if all(rows[one]["run"] > run_before[one] and rows[one]["state"] == State.JOINED for one in agents):
                    return
                await a_moment(0.2)


def own_client(parts: Parts) -> Client:
    return Client(parts.url, SecretStr(parts.operator_token))


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    yield


async def make_agents(client: Client) -> list[str]:
    command = {"command": [sys.executable, "-S", "-E", str(TINY_AGENT)]}
    made = [
        (await client.create_agent(f"agent-{number}", wait_seconds=0, options=command)).agent_id
        for number in range(2 * HALF)
    ]
    for agent in made:
        await client.wait_until(agent, {State.READY}, within_seconds=WITHIN_SECONDS)
    return made


@pytest.mark.timeout(1800 if MANY else 600)
async def test_no_address_ever_leads_to_the_wrong_agent_and_without_the_pin_it_does() -> None:
    parts = ReuseParts("devcontrol")
    async with parts:
        async with own_client(parts) as client:
            agents = await make_agents(client)
        callers = Callers(lambda: parts.url, parts.operator_token)
        async with callers.calling(agents):
            for agent in agents:
                await callers.heard(agent, after_run=0, within_seconds=WITHIN_SECONDS)
            churn = Churn(parts, callers, agents)
            while churn.reuses < REUSES:
                await churn.round(hold_relay=churn.rounds % 8 == 2)
            assert callers.wrong == []
            print(f"{churn.reuses} re-uses in {churn.rounds} rounds; {dict(callers.outcomes[agents[0]])}")

            await parts.kill("relay")
            parts.pinned = False
            await parts.start("relay")
            async with asyncio.timeout(2 * WITHIN_SECONDS):
                while not callers.wrong:
                    await churn.round()
            asked, answered = callers.wrong[0]
            assert answered.agent != asked
