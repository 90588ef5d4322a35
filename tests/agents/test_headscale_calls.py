"""What agents cost Headscale: each call costs it a bcrypt, and a list of all nodes grows with everybody's agents."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from elizacloud.states import State
from tests.agents.world import World

pytestmark = pytest.mark.looptime

AGENTS = 40
SWEEPS_A_MINUTE = 2
"""At most, while nothing is left behind."""


async def settled(world: World) -> None:
    """After the sweeps of the start; what is counted comes after it."""
    await world.passes(130)
    world.headscale.calls.clear()


async def test_a_create_costs_three_calls_however_many_agents_there_are(world: World) -> None:
    async with world.running():
        await settled(world)
        began = asyncio.get_running_loop().time()
        for number in range(AGENTS):
            await world.ready(f"agent-{number}", owner_id=f"owner-{number}")
        calls, sweeps = (
            Counter(world.headscale.calls),
            1 + SWEEPS_A_MINUTE * (asyncio.get_running_loop().time() - began) / 60,
        )
    for call in ("create_preauth_key", "get_node", "expire_preauth_key"):
        assert calls.pop(call) == AGENTS
    assert max(calls.values(), default=0) <= sweeps, calls


async def test_a_crowd_that_is_deleted_shares_its_looks(world: World) -> None:
    async with world.running():
        ids = [(await world.ready(f"agent-{number}", owner_id=f"owner-{number}")).agent.id for number in range(AGENTS)]
        await settled(world)
        for number, agent_id in enumerate(ids):
            await world.lifecycle.operations.delete(agent_id, f"owner-{number}")
        for agent_id in ids:
            await world.until(agent_id, State.GONE)
        calls = Counter(world.headscale.calls)
    assert calls["list_nodes"] < AGENTS / 2
    assert calls["get_node"] <= AGENTS
