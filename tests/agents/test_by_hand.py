"""Agents that their owner starts by hand: whoever asked for the environment and went is waited for no longer."""

from __future__ import annotations

import asyncio

import pytest

from elizacloud.errors import StoreUnavailable, TooMany
from elizacloud.states import State
from elizacloud.store import Store
from tests.agents.world import ANN, World
from tests.fakes.runtime import FakeRuntime

pytestmark = pytest.mark.looptime


def is_waited_for(world: World) -> bool:
    return bool(world.lifecycle._parts.handover._awaited)


async def test_the_environment_comes_with_the_answer(world: World) -> None:
    async with world.running():
        made = await world.create(external=True)
    assert made.environment is not None
    assert "HEADSCALE_AUTH_KEY" in made.environment
    assert not is_waited_for(world)


async def test_nobody_is_waited_for_after_a_create_that_was_refused(store: Store) -> None:
    world = World(store, FakeRuntime(), creates_per_minute=1)
    await world.create()
    for _ in range(3):
        with pytest.raises(TooMany):
            await world.create("another", external=True)
    assert not is_waited_for(world)


@pytest.mark.parametrize("verb", ["start", "restart"])
async def test_nobody_is_waited_for_after_a_write_that_failed(
    world: World, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        agent_id = (await world.create(external=True)).record.agent.id
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED)

    async def fails(*_: object, **__: object) -> None:
        raise StoreUnavailable("cannot write: the disk is full")

    monkeypatch.setattr(world.store.agents, "save", fails)
    with pytest.raises(StoreUnavailable):
        await getattr(world.lifecycle.operations, verb)(agent_id, ANN)
    assert not is_waited_for(world)


async def test_who_goes_while_waiting_is_waited_for_no_longer_and_who_stays_is_served(world: World) -> None:
    async with world.running():
        agent_id = (await world.create(external=True)).record.agent.id
        await world.until(agent_id, State.STARTED)
    restart = world.lifecycle.operations.restart
    goes = asyncio.create_task(restart(agent_id, ANN), name="goes")
    await world.passes(1)
    stays = asyncio.create_task(restart(agent_id, ANN), name="stays")
    await world.passes(1)  # nobody drives the agent meanwhile, so both wait
    goes.cancel()
    with pytest.raises(asyncio.CancelledError):
        await goes
    assert is_waited_for(world)
    async with world.running():
        answer = await stays
    assert answer.environment is not None
    assert not is_waited_for(world)
