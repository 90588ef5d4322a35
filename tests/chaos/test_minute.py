"""Each part of a cloud is gone, or stands still, for a minute, while clients call three agents all the time.

Agents that are ready stay reachable while the control plane or the control server is away; without the relay or its
tailscaled nobody gets through, and both say so. Afterwards everything is as before, and nobody has to do anything.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.errors import Error
from elizacloud.states import State
from tests.chaos.matrix import EVERY_SEAM
from tests.e2e.callers import TINY_AGENT, Callers
from tests.e2e.looking import WITHIN_SECONDS, a_moment
from tests.e2e.parts import Parts

STOPPED_SECONDS = 60
REPAIRED_WITHIN_SECONDS = 30
GAP_SECONDS = 0.2
SERVED_WITHOUT = ("control plane", "control server")

pytestmark = pytest.mark.skipif(not EVERY_SEAM, reason="told by `make chaos`: it takes a minute each")


@asynccontextmanager
async def killed(parts: Parts, part: str) -> AsyncIterator[None]:
    await parts.kill(part)
    yield
    await parts.start(part)


@asynccontextmanager
async def frozen(parts: Parts, part: str) -> AsyncIterator[None]:
    """Stopped in the middle of what it does; its connections stay, and nobody answers on them."""
    child = parts.child(part)
    child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.signal(signal.SIGCONT)


async def create(client: Client, name: str) -> str:
    command = {"command": [sys.executable, "-S", "-E", str(TINY_AGENT)]}
    agent = await client.create_agent(name, options=command)
    await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
    return agent.agent_id


async def creates_again(parts: Parts) -> None:
    """Everything that an owner may do works again."""
    async with Client(parts.url, SecretStr(parts.operator_token)) as client, asyncio.timeout(REPAIRED_WITHIN_SECONDS):
        while True:
            try:
                await create(client, "afterwards")
            except Error:
                await a_moment(0.2)
            else:
                return


@pytest.mark.parametrize("how", [killed, frozen], ids=lambda how: how.__name__)
@pytest.mark.parametrize("part", ["control plane", "control server", "relay", "tailscaled"])
async def test_a_part_is_away_for_a_minute(headscale: str, part: str, how: type) -> None:
    async with Parts(headscale) as parts:
        async with Client(parts.url, SecretStr(parts.operator_token)) as client:
            agents = [await create(client, f"agent-{number}") for number in range(3)]
            nodes = {agent: (await client.get_agent(agent)).ip for agent in agents}
        callers = Callers(lambda: parts.url, parts.operator_token, gap_seconds=GAP_SECONDS)
        async with callers.calling(agents):
            for agent in agents:
                await callers.heard(agent, after_run=0)
            callers.forget_outcomes()
            async with how(parts, part):
                await a_moment(STOPPED_SECONDS)
                meanwhile = sum(callers.outcomes.values(), Counter())
            if part in SERVED_WITHOUT:
                assert set(meanwhile) == {"200"}, meanwhile
                assert meanwhile["200"] > 3 * STOPPED_SECONDS / GAP_SECONDS / 4
            await parts.until_ready()
            callers.forget_outcomes()
            async with asyncio.timeout(REPAIRED_WITHIN_SECONDS):
                while any(callers.outcomes.get(agent, Counter())["200"] < 5 for agent in agents):
                    await a_moment(0.1)
            await creates_again(parts)
            assert callers.wrong == []
            assert {who.run for who in callers.last.values()} == {1}, "no agent was started again"
        async with Client(parts.url, SecretStr(parts.operator_token)) as client:
            assert {agent: (await client.get_agent(agent)).ip for agent in agents} == nodes
