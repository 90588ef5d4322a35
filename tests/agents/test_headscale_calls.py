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


async def test_who_waits_for_an_agent_does_not_wait_for_its_key_to_be_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, expire = asyncio.Event(), world.headscale.expire_preauth_key

    async def expire_late(key_id: str) -> None:
        await answers.wait()
        await expire(key_id)

    monkeypatch.setattr(world.headscale, "expire_preauth_key", expire_late)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        assert not (await world.store.agents.record(agent_id)).generation.preauth_key_expired
        answers.set()
        await world.passes(1)
        assert (await world.store.agents.record(agent_id)).generation.preauth_key_expired


async def test_a_used_key_is_expired_also_while_no_relay_can_ask_the_agent(world: World) -> None:
    async with world.running():
        world.relays.linked = False
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, State.JOINED)
        await world.passes(1)
        record = await world.record(agent_id)
    assert (record.agent.state, record.generation.preauth_key_expired) == (State.JOINED, True)


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
