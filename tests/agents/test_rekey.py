"""A container that asks for a new key: only when its node is lost, and not often, whatever process it asks."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr

from elizacloud.agents.containers import REKEY_GAP_SECONDS
from elizacloud.errors import Conflict, TooMany
from elizacloud.states import State
from elizacloud.store import Record
from tests.agents.world import World
from tests.fakes.runtime import NeverJoins

pytestmark = pytest.mark.looptime


async def lost(world: World) -> tuple[Record, SecretStr]:
    """A ready agent whose node somebody deleted, and the join token of its run."""
    async with world.running():
        record = await world.ready()
    assert record.generation.node_id is not None
    await world.headscale.delete_node(record.generation.node_id)
    return record, world.runtime.started[-1][1].join_token


async def test_one_who_loses_its_node_again_at_once_has_to_wait_also_after_a_restart(world: World) -> None:
    record, token = await lost(world)
    agent_id = record.agent.id
    first = await world.lifecycle.containers.rekey(agent_id, token)
    assert world.live_keys == [first.key.id]
    node = await world.headscale.join(first.key.value, machine_key="mkey:again")
    async with world.running():
        world.see(node)
        await world.until(agent_id, State.READY)
    await world.headscale.delete_node(node.id)

    world.new_lifecycle()
    with pytest.raises(TooMany) as refused:
        await world.lifecycle.containers.rekey(agent_id, token)
    assert refused.value.reason == "rekeyed_too_soon"
    assert world.live_keys == []

    await world.passes(REKEY_GAP_SECONDS + 1)
    second = await world.lifecycle.containers.rekey(agent_id, token)
    assert world.live_keys == [second.key.id]


async def test_of_two_control_planes_that_are_asked_at_once_one_gives_a_key(world: World) -> None:
    record, token = await lost(world)
    asked = [world.new_lifecycle().containers for _ in range(2)]
    minted = world.calls("create_preauth_key")

    async def ask(number: int) -> bool:
        try:
            await asked[number].rekey(record.agent.id, token)
        except TooMany:
            return False
        return True

    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(ask(number), name=f"ask {number}") for number in range(2)]
    assert sorted(task.result() for task in asking) == [False, True]
    assert world.calls("create_preauth_key") == minted + 1
    assert (await world.record(record.agent.id)).agent.state is State.STARTED


async def test_an_instance_that_ended_before_it_joined_gets_one_only_if_its_key_was_refused(world: World) -> None:
    world.runtime.__class__ = NeverJoins
    async with world.running():
        record = await world.until((await world.create()).record.agent.id, State.STARTED)
    assert record.run is not None
    assert record.run.runtime_ref is not None
    token = world.runtime.started[-1][1].join_token

    world.runtime.exits(record.run.runtime_ref, exit_code=78, reason="agent: exit status 78")
    with pytest.raises(Conflict) as refused:
        await world.lifecycle.containers.rekey(record.agent.id, token)
    assert refused.value.reason == "not_needed"

    world.runtime.exits(record.run.runtime_ref, exit_code=78, reason="tailnet: the pre-auth key was refused")
    given = await world.lifecycle.containers.rekey(record.agent.id, token)
    assert world.live_keys == [given.key.id]
