"""State volumes that are lost, found again or left behind."""

from __future__ import annotations

import pytest

from elizacloud.runtime.protocol import Phase
from elizacloud.states import State
from tests.agents.world import ANN, World

pytestmark = pytest.mark.looptime


async def lose(world: World, agent_id: str, *, volume: bool = True) -> None:
    """The instance is gone, and with it perhaps its state: a container and its volume that somebody pruned."""
    record = await world.record(agent_id)
    assert record.run is not None
    assert record.run.runtime_ref is not None
    world.runtime.forget(record.run.runtime_ref, volume=volume)


async def test_an_agent_that_lost_its_volume_goes_on_as_a_new_generation_with_a_new_key(world: World) -> None:
    async with world.running():
        first = await world.ready()
        agent_id = first.agent.id
        await lose(world, agent_id)
        record = await world.until(agent_id, lambda agent: agent.generation == 2 and agent.state is State.READY)
        await world.passes(300)
    assert record.run is not None
    assert (record.run.generation, record.run.number) == (2, 1)
    assert record.generation.node_id != first.generation.node_id
    assert world.runtime.volumes == {(agent_id, 2)}
    assert [node.id for node in world.nodes] == [record.generation.node_id], "the old node is still there"
    assert world.live_keys == []
    assert any(step == "begin generation" for step, _ in await world.events(agent_id))


async def test_an_agent_that_lost_only_its_instance_keeps_generation_and_node(world: World) -> None:
    async with world.running():
        first = await world.ready()
        await lose(world, first.agent.id, volume=False)
        record = await world.until(first.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY)
    assert record.agent.generation == 1
    assert record.generation.node_id == first.generation.node_id


async def test_a_volume_that_was_lost_while_the_agent_was_stopped_is_noticed_at_its_start(world: World) -> None:
    async with world.running():
        first = await world.ready()
        agent_id = first.agent.id
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED)
        await lose(world, agent_id)
        await world.lifecycle.operations.start(agent_id, ANN)
        record = await world.until(agent_id, State.READY)
    assert record.agent.generation == 2


async def test_an_agent_that_is_stopped_after_it_lost_its_volume_keeps_nothing_of_its_old_node(world: World) -> None:
    async with world.running():
        first = await world.ready()
        agent_id = first.agent.id
        world.join_seconds = 30
        await lose(world, agent_id)
        await world.until(agent_id, lambda agent: agent.generation == 2 and agent.state is State.STARTED)
        await world.lifecycle.operations.stop(agent_id, ANN)
        stopped = await world.until(agent_id, State.STOPPED)
        assert [node.id for node in world.nodes] == [first.generation.node_id]
        await world.passes(300)
        assert world.nodes == []
        assert world.keys == [stopped.generation.preauth_key_id], "the old node's key is still there"
        assert world.live_keys == []
        world.join_seconds = 0.2
        await world.lifecycle.operations.start(agent_id, ANN)
        await world.until(agent_id, State.READY)
        await world.passes(300)
    assert len(world.nodes) == len(world.keys) == 1


async def test_when_no_volume_of_any_agent_is_there_nobody_begins_anew(world: World) -> None:
    async with world.running():
        agents = [(await world.ready(f"agent {number}")).agent.id for number in range(4)]
        volumes, joined = set(world.runtime.volumes), set(world.runtime.joined_volumes)
        owners = dict(world.runtime._volumes_of)
        for agent_id in agents:
            await lose(world, agent_id)
        await world.passes(120)
        records = [await world.record(agent_id) for agent_id in agents]
        assert {record.agent.generation for record in records} == {1}
        failures = [record.agent.failure for record in records]
        assert {failure.code for failure in failures if failure is not None} == {"volumes_missing"}

        world.runtime.volumes |= volumes  # the disk is mounted again
        world.runtime.joined_volumes |= joined
        world.runtime._volumes_of |= owners
        for agent_id in agents:
            assert (await world.until(agent_id, State.READY)).agent.generation == 1


async def test_delete_removes_a_volume_whose_instance_vanished_before_the_store_knew_it(world: World) -> None:
    async with world.running():
        answer = await world.create()
        agent_id = answer.record.agent.id
        await world.until(agent_id, State.KEYED)
        ref = f"{agent_id}.1.1"
        world.runtime.forget(ref, volume=False)
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
    assert world.runtime.volumes == set()


async def test_delete_is_not_through_while_a_volume_is_there(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.TOMBSTONE)
        world.runtime.volumes.add((agent_id, 1))  # a removal that Docker said was done, and was not
        world.runtime._volumes_of[(agent_id, 1)] = "inst1"
        await world.until(agent_id, State.GONE)
    assert world.runtime.volumes == set()
    steps = [step for step, state in await world.events(agent_id) if state == State.DELETING]
    assert "confirm gone" in steps


async def test_the_volume_of_a_later_generation_is_not_taken_for_that_of_an_earlier_one(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await lose(world, agent_id)
        await world.until(agent_id, lambda agent: agent.generation == 2 and agent.state is State.READY)
        await lose(world, agent_id)
        record = await world.until(agent_id, lambda agent: agent.generation == 3 and agent.state is State.READY)
    assert [instance.labels.generation for instance in world.instances if instance.phase is Phase.RUNNING] == [3]
    assert record.run is not None
    assert record.run.number == 1
