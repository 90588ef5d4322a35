"""Agents whose tailscaled does what its owner likes before anybody knows its node: found, said, and held for a person."""

from __future__ import annotations

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from elizacloud.agents.hints import HINTS_PER_MINUTE
from elizacloud.headscale.protocol import Node
from elizacloud.model import Failure, agent_tag
from elizacloud.states import State
from tests.agents.test_lifecycle import no_leaks
from tests.agents.world import ANN, World

pytestmark = pytest.mark.looptime


def key_of_start(world: World, number: int) -> SecretStr:
    """What the instance was given that was started as that one."""
    key = world.runtime.started[number][1].preauth_key
    assert key is not None
    return key


def node_of(world: World, agent_id: str) -> Node:
    (node,) = (node for node in world.nodes if agent_tag(agent_id) in node.tags)
    return node


async def stays_held(world: World, agent_id: str, *, run: int) -> Failure:
    """However long its keys would have lived."""
    await world.passes(6 * world.settings.key_lifetime_seconds)
    held = (await world.record(agent_id)).agent
    assert held.failure is not None
    assert (held.state, held.failure.code, held.run) == (State.STARTED, "node_changed", run)
    return held.failure


async def comes_back_as_another(world: World, agent_id: str, node: Node) -> None:
    after = await world.until(agent_id, State.READY)
    await world.passes(200)
    assert after.generation.node_id != node.id
    no_leaks(world, agents=2)


async def with_anothers_key(world: World) -> tuple[str, Node, SecretStr]:
    """An agent that joined and, before anybody saw its node, registered it again with another agent's spent key; with its own."""
    await world.ready("victim")
    spent = key_of_start(world, 0)
    world.relays_see = False
    agent_id = (await world.create("hostile")).record.agent.id
    await world.until(agent_id, State.STARTED)
    own = key_of_start(world, 1)
    await world.passes(2 * world.join_seconds)
    node = node_of(world, agent_id)
    assert (await world.record(agent_id)).generation.node_id is None
    return agent_id, await world.headscale.join(spent, machine_key=node.machine_key, node_key=node.node_key), own


async def test_one_that_took_anothers_key_before_its_node_was_seen_is_held_and_said(world: World) -> None:
    async with world.running():
        agent_id, node, _ = await with_anothers_key(world)
        minted = world.calls("create_preauth_key")
        failure = await stays_held(world, agent_id, run=1)
        assert "a pre-auth key that was not minted for it" in failure.reason
        assert "restart the agent" in failure.fix
        assert world.calls("create_preauth_key") == minted, "each new key would be another round"
        assert agent_id not in world.relays.table.upstreams

        await world.lifecycle.operations.restart(agent_id, ANN)
        await comes_back_as_another(world, agent_id, node)


async def test_one_that_goes_back_to_its_own_key_joins(world: World) -> None:
    async with world.running():
        agent_id, node, own = await with_anothers_key(world)
        await world.until(agent_id, lambda agent: agent.failure is not None)
        await world.headscale.join(own, machine_key=node.machine_key, node_key=node.node_key)
        after = await world.until(agent_id, State.READY)
    assert (after.generation.node_id, after.agent.failure) == (node.id, None)


async def test_one_that_took_anothers_key_and_vanishes_is_given_another_node(world: World) -> None:
    async with world.running():
        agent_id, node, _ = await with_anothers_key(world)
        run = (await world.record(agent_id)).run
        assert run is not None
        assert run.runtime_ref is not None
        world.relays_see = True
        world.runtime.forget(run.runtime_ref, volume=False)
        await comes_back_as_another(world, agent_id, node)


async def test_a_pinned_one_that_takes_anothers_key_as_it_starts_again_is_held(world: World) -> None:
    async with world.running():
        await world.ready("victim")
        spent = key_of_start(world, 0)
        agent_id = (await world.ready("hostile")).agent.id
        node = node_of(world, agent_id)
        world.relays_see, world.join_seconds = False, 10**6
        await world.lifecycle.operations.restart(agent_id, ANN)
        await world.until(agent_id, State.STARTED)
        await world.headscale.join(spent, machine_key=node.machine_key, node_key=node.node_key)
        await stays_held(world, agent_id, run=2)


async def test_one_that_joins_and_leaves_without_end_is_named_once_and_counted(world: World) -> None:
    async with world.running():
        record = await world.ready()
        (node,) = world.nodes
        await world.passes(100)
        with capture_logs() as logs:
            for number in range(10 * HINTS_PER_MINUTE):
                await world.headscale.set_online(node.id, bool(number % 2))
                world.see(world.headscale._nodes[node.id])
                await world.passes(0.1)
    named = [line["agent"] for line in logs if line["event"].startswith("its machine joins, leaves or reports")]
    assert named == [record.agent.id]
    assert world.lifecycle.metrics.hints_held._value.get() > 0
