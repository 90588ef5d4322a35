"""Instances that end at the worst moments: joined and not seen yet, while they are being paused, while they are frozen;
and one that does not, because nobody knows that it began."""

from __future__ import annotations

import pytest

from elizacloud.model import TAG_AGENT, agent_tag, installation_tag
from elizacloud.runtime.protocol import Phase
from elizacloud.states import State
from elizacloud.store import Record, Store
from tests.agents.test_lifecycle import no_leaks
from tests.agents.world import ANN, INSTALLATION, World
from tests.fakes.runtime import FakeRuntime, LosesAnswers, NeverJoins

pytestmark = pytest.mark.looptime


def ref_of(record: Record) -> str:
    assert record.run is not None
    assert record.run.runtime_ref is not None
    return record.run.runtime_ref


async def test_one_that_joined_unseen_comes_back_as_the_node_that_its_volume_holds(world: World) -> None:
    world.relays_see = False
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, State.STARTED)
        await world.passes(world.join_seconds * 2)
        (node,) = world.nodes
        record = await world.record(agent_id)
        assert record.agent.state is State.STARTED
        world.runtime.exits(ref_of(record))
        after = await world.until(agent_id, State.READY)
        await world.passes(200)
    assert after.generation.node_id == node.id
    assert world.calls("create_preauth_key") == 1
    no_leaks(world, agents=1)


async def test_one_that_ends_while_it_is_being_paused_is_started_and_paused(world: World) -> None:
    async with world.running():
        before = await world.ready()
        world.relays.idle = False
        await world.lifecycle.operations.pause(before.agent.id, ANN)
        await world.until(before.agent.id, State.PAUSING)
        world.runtime.exits(ref_of(before))
        world.relays.idle = True
        after = await world.until(before.agent.id, State.PAUSED, within=60)
    assert after.agent.run == before.agent.run + 1


async def test_one_that_ends_frozen_is_started_when_it_is_to_run(world: World) -> None:
    async with world.running():
        before = await world.ready()
        await world.lifecycle.operations.pause(before.agent.id, ANN)
        await world.until(before.agent.id, State.PAUSED)
    world.runtime.exits(ref_of(before))
    world.new_lifecycle()
    await world.lifecycle.operations.start(before.agent.id, ANN)
    async with world.running():
        after = await world.until(before.agent.id, State.READY, within=60)
    assert after.agent.run == before.agent.run + 1


async def test_one_that_is_stopped_before_its_node_was_seen_keeps_that_node(world: World) -> None:
    world.relays_see = False
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, State.STARTED)
        await world.passes(world.join_seconds * 2)
        await world.lifecycle.operations.stop(agent_id, ANN)
        stopped = await world.until(agent_id, State.STOPPED)
    assert stopped.generation.node_id == world.nodes[0].id
    assert world.live_keys == []


@pytest.mark.parametrize("reason", ["agent: exit status 78", "tailnet: the server does not know this node any more"])
async def test_one_that_ends_with_the_code_for_a_dead_key_comes_back_while_its_node_lives(
    world: World, reason: str
) -> None:
    async with world.running():
        before = await world.ready()
        world.runtime.exits(ref_of(before), exit_code=78, reason=reason)
        after = await world.until(before.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY)
        await world.passes(200)
    refused = reason.startswith("tailnet")
    assert (after.generation.node_id == before.generation.node_id) is not refused
    assert world.calls("create_preauth_key") == (2 if refused else 1)
    no_leaks(world, agents=1)


async def test_one_whose_volume_holds_a_node_of_a_key_before_is_given_another(world: World) -> None:
    """So an earlier version left agents behind: their key waited for a node, and their tailscaled came back as the old one."""
    world.runtime.__class__ = NeverJoins
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, State.STARTED)
        nodes = []
        for installation, machine in ((INSTALLATION, f"mkey:{agent_id}/1"), ("another", "mkey:theirs")):
            tags = (TAG_AGENT, agent_tag(agent_id), installation_tag(installation))
            key = await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)
            nodes.append(await world.headscale.join(key.value, machine_key=machine))
        world.runtime.__class__ = FakeRuntime
        after = await world.until(agent_id, State.READY, within=2 * world.settings.key_lifetime_seconds)
    assert after.generation.node_id not in {node.id for node in nodes}
    assert {node.id for node in world.nodes} == {after.generation.node_id, nodes[1].id}


async def test_what_a_failed_step_left_is_gone_long_before_the_next_full_sweep(world: World) -> None:
    async with world.running():
        await world.passes(10)
        world.headscale.fail("create_preauth_key", after_acting=True)
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, State.READY)
        await world.passes(20)
    no_leaks(world, agents=1)


@pytest.mark.parametrize("answers", [True, False])
async def test_one_that_is_stopped_while_nobody_knows_whether_it_started_does_not_run_on(
    store: Store, answers: bool
) -> None:
    """The runtime started it and its answer was lost; it may even be down when its owner changes their mind."""
    runtime = LosesAnswers()
    world = World(store, runtime)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED)
        runtime.lost.append("start")
        await world.lifecycle.operations.start(agent_id, ANN)
        await world.until(agent_id, lambda agent: agent.failure is not None)
        assert [instance.phase for instance in world.instances] == [Phase.RUNNING]
        runtime.answers = answers
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.passes(60)
        runtime.answers = True
        await world.passes(120)
        record = await world.record(agent_id)
        assert [instance.phase for instance in world.instances] == [Phase.EXITED]
        assert (record.agent.state, record.agent.failure) == (State.STOPPED, None)
        assert record.run is not None
        assert record.run.ended_at is not None

        await world.lifecycle.operations.start(agent_id, ANN)
        assert (await world.until(agent_id, State.READY)).agent.run == 3
