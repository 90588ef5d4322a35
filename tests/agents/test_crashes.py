"""A control plane that dies before or after any of its calls, and the next one that takes up its work on the same store.

The call at which it dies never returns, and nothing of the old one runs on. What matters is what is left at the end: one
instance, one node, one key that nobody can use, or nothing at all.
"""

from __future__ import annotations

from typing import Any

import pytest

from elizacloud.states import State
from elizacloud.store import Record
from tests.agents.test_lifecycle import no_leaks
from tests.agents.world import ANN, Stall, World

pytestmark = pytest.mark.looptime

WHEN = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


class StoreThatStalls:
    """The store, whose `agents.save` stops at the n-th call."""

    def __init__(self, store: Any, number: int, *, after: bool) -> None:
        self._store = store
        self.agents = Stall(store.agents, "save", number=number, after=after)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def create_with(world: World, stall: Stall, **replaced: Any) -> str:
    """Create with a control plane that stalls; returns when it has, with the agent's id. It is dead then."""
    world.new_lifecycle(**replaced)
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await stall.reached.wait()
    world.new_lifecycle()
    return agent_id


async def ready_in_the_end(world: World, agent_id: str) -> Record:
    """What the next control plane makes of it, after sweeps enough."""
    await world.lifecycle.tell_relays()
    async with world.running():
        record = await world.until(agent_id, State.READY)
        await world.passes(300)
        record = await world.record(agent_id)
    assert record.agent.state is State.READY
    assert record.generation.preauth_key_expired
    assert record.generation.node_id == world.nodes[0].id
    assert world.relays.table.upstreams[agent_id].node_id == world.nodes[0].id
    assert record.run is not None
    assert world.runtime.started[-1][1].agent_token == record.run.agent_token
    no_leaks(world, agents=1)
    return record


@WHEN
@pytest.mark.parametrize("call", ["create_preauth_key", "get_node", "expire_preauth_key"])
async def test_a_death_at_a_call_to_headscale_while_creating(world: World, call: str, after: bool) -> None:
    stall = Stall(world.headscale, call, after=after)
    agent_id = await create_with(world, stall, headscale=stall)
    await ready_in_the_end(world, agent_id)


@WHEN
@pytest.mark.parametrize("call", ["create", "start", "inspect"])
async def test_a_death_at_a_call_to_the_runtime_while_creating(world: World, call: str, after: bool) -> None:
    stall = Stall(world.runtime, call, after=after)
    agent_id = await create_with(world, stall, runtime=stall)
    await ready_in_the_end(world, agent_id)


@WHEN
@pytest.mark.parametrize("number", range(1, 8))
async def test_a_death_at_a_write_while_creating(world: World, number: int, after: bool) -> None:
    store = StoreThatStalls(world.store, number, after=after)
    agent_id = await create_with(world, store.agents, store=store)
    await ready_in_the_end(world, agent_id)


@WHEN
@pytest.mark.parametrize(
    "call", ["stop", "list", "remove", "delete_node", "delete_preauth_key", "list_nodes", "list_preauth_keys"]
)
async def test_a_death_while_deleting(world: World, call: str, after: bool) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
    owner_of_call = "runtime" if call in ("stop", "list", "remove") else "headscale"
    stall = Stall(getattr(world, owner_of_call), call, number=2 if "list" in call else 1, after=after)
    world.new_lifecycle(**{owner_of_call: stall})
    async with world.running():
        await world.lifecycle.operations.delete(agent_id, ANN)
        await stall.reached.wait()
    world.new_lifecycle()
    async with world.running():
        await world.until(agent_id, State.GONE)
        await world.passes(200)
    no_leaks(world)


@WHEN
@pytest.mark.parametrize("number", [2, 3, 4], ids=["deleting", "tombstone", "gone"])
async def test_a_death_at_a_write_while_deleting(world: World, number: int, after: bool) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
    store = StoreThatStalls(world.store, number, after=after)
    world.new_lifecycle(store=store)
    async with world.running():
        await world.lifecycle.operations.delete(agent_id, ANN)
        await store.agents.reached.wait()
    world.new_lifecycle()
    async with world.running():
        await world.until(agent_id, State.GONE)
        await world.passes(200)
    no_leaks(world)


@WHEN
@pytest.mark.parametrize("call", ["create", "start", "stop", "inspect"])
async def test_a_death_while_restarting(world: World, call: str, after: bool) -> None:
    async with world.running():
        before = await world.ready()
    stall = Stall(world.runtime, call, after=after)
    world.new_lifecycle(runtime=stall)
    async with world.running():
        await world.lifecycle.operations.restart(before.agent.id, ANN)
        await stall.reached.wait()
    world.new_lifecycle()
    record = await ready_in_the_end(world, before.agent.id)
    assert record.generation.node_id == before.generation.node_id
    assert record.agent.run >= 2


async def test_ready_agents_are_told_to_the_relays_again(world: World) -> None:
    async with world.running():
        ready = await world.ready("a")
        stopped = await world.ready("b")
        await world.lifecycle.operations.stop(stopped.agent.id, ANN)
        await world.until(stopped.agent.id, State.STOPPED)
    told = world.relays.table.upstreams[ready.agent.id]
    world.relays.table.upstreams.clear()
    world.relays.table.agents.clear()
    world.new_lifecycle()
    await world.lifecycle.tell_relays()
    assert world.relays.table.upstreams == {ready.agent.id: told}
    assert world.relays.table.agents[stopped.agent.id].state == "stopped"


async def test_an_agent_that_died_while_nobody_looked_is_started_again(world: World) -> None:
    async with world.running():
        before = await world.ready()
    assert before.run is not None
    world.runtime.exits(before.run.runtime_ref or "")
    world.new_lifecycle()
    async with world.running():
        after = await world.until(
            before.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY, within=5
        )
    assert after.generation.node_id == before.generation.node_id


@pytest.mark.parametrize(("wish", "end"), [("stop", State.STOPPED), ("delete", State.GONE)])
async def test_a_wish_that_was_only_written_is_granted_at_once(world: World, wish: str, end: State) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
    await getattr(world.lifecycle.operations, wish)(agent_id, ANN)
    world.new_lifecycle()
    async with world.running():
        await world.until(agent_id, end, within=5)


async def test_a_pause_before_the_next_try_survives_a_restart(world: World) -> None:
    world.headscale.down = True
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, lambda agent: agent.failure is not None and agent.failure.attempts >= 8)
    assert record.agent.failure is not None
    assert record.agent.failure.retry_at is not None
    tries = world.calls("create_preauth_key")
    world.new_lifecycle()
    async with world.running():
        await world.passes(1)
        assert world.calls("create_preauth_key") == tries
        world.headscale.down = False
        await world.until(agent_id, State.READY)
