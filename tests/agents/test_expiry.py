"""A node that expires in Headscale, by hand or as its machine logs out: found, said, and replaced as a deleted one is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from elizacloud.agents.reconcile.diff import Kind
from elizacloud.states import State, Wanted
from elizacloud.store import Record
from tests.agents.test_lifecycle import no_leaks
from tests.agents.world import ANN, World

pytestmark = pytest.mark.looptime

SAID = "its node expired in Headscale"


async def expires(world: World, record: Record) -> None:
    assert record.generation.node_id is not None
    await world.headscale.expire_node(record.generation.node_id)


async def said(world: World, agent_id: str) -> list[str]:
    return [event.reason for event in await world.store.events.after(0, agent_id=agent_id) if event.reason]


def is_another_node(world: World, before: Record, after: Record) -> bool:
    return after.generation.node_id == world.nodes[0].id != before.generation.node_id


async def test_a_ready_agent_comes_back_as_another_node_on_the_same_volume(world: World) -> None:
    async with world.running():
        before = await world.ready()
        await world.passes(90)
        await expires(world, before)
        after = await world.until(before.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY)
        await world.passes(200)
    assert after.generation.number == 1
    assert is_another_node(world, before, after)
    no_leaks(world, agents=1)
    told = await said(world, before.agent.id)
    assert SAID in told
    assert f"{SAID}; a new key is minted" in told


async def test_a_sweep_finds_it_and_says_when_it_was(world: World) -> None:
    async with world.running():
        before = await world.ready()
    await world.passes(10)
    await expires(world, before)
    verdict = await world.lifecycle.sweeper.sweep(dry_run=True)
    (found,) = verdict.repair
    assert (found.kind, found.agent_id, found.about) == (Kind.NODE_EXPIRED, before.agent.id, before.generation.node_id)
    assert found.detail == "it expired at 2026-01-02 00:00:10 UTC"
    await world.lifecycle.sweeper.sweep()
    assert world.lifecycle.metrics.drift.labels("node expired")._value.get() == 1
    explained = await world.lifecycle.oversight.explain(before.agent.id)
    assert [finding.kind for finding in explained.findings.found] == [Kind.NODE_EXPIRED]


async def test_a_paused_agent_is_paused_again_as_another_node(world: World) -> None:
    async with world.running():
        before = await world.ready()
        await world.lifecycle.operations.pause(before.agent.id, ANN)
        await world.until(before.agent.id, State.PAUSED)
        await expires(world, before)
        after = await world.until(before.agent.id, lambda agent: agent.run == 2 and agent.state is State.PAUSED)
        await world.passes(200)
    assert after.agent.wanted is Wanted.PAUSED
    assert is_another_node(world, before, after)
    no_leaks(world, agents=1)


async def test_a_stopped_agent_is_left_alone_and_gets_another_node_at_its_start(world: World) -> None:
    async with world.running():
        before = await world.ready()
        await world.lifecycle.operations.stop(before.agent.id, ANN)
        await world.until(before.agent.id, State.STOPPED)
        await expires(world, before)
        await world.passes(300)
        assert (await world.record(before.agent.id)).agent.state is State.STOPPED
        await world.lifecycle.operations.start(before.agent.id, ANN)
        after = await world.until(before.agent.id, State.READY)
        await world.passes(200)
    assert after.agent.run == 2, "a start was wasted on a node that cannot come back"
    assert is_another_node(world, before, after)
    no_leaks(world, agents=1)


async def test_a_node_is_left_as_it_is_until_the_moment_in_which_it_expires(world: World) -> None:
    async with world.running():
        before = await world.ready()
        assert before.generation.node_id is not None
        await world.headscale.expire_node(before.generation.node_id, world.clock() + timedelta(hours=1))
        await world.passes(3590)
        assert await world.record(before.agent.id) == before
        after = await world.until(before.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY)
    assert is_another_node(world, before, after)


async def test_a_machine_that_logs_out_again_and_again_is_given_keys_ever_more_seldom(world: World) -> None:
    async with world.running():
        record = await world.ready()
        minted = world.calls("create_preauth_key")
        for _ in range(3600):
            await world.passes(1)
            now = await world.record(record.agent.id)
            if now.agent.state is State.READY:
                await expires(world, now)
        failure = (await world.until(record.agent.id, lambda agent: agent.failure is not None)).agent.failure
    assert world.calls("create_preauth_key") - minted <= 30
    assert failure is not None
    assert SAID in failure.reason


async def test_one_started_by_hand_waits_for_whoever_starts_it(world: World) -> None:
    async with world.running():
        made = await world.create(external=True)
        agent_id = made.record.agent.id
        assert made.environment is not None
        node = await world.headscale.join(made.environment["HEADSCALE_AUTH_KEY"])
        world.see(node)
        await world.until(agent_id, State.JOINED)
        await world.headscale.expire_node(node.id)
        after = await world.until(agent_id, State.REQUESTED)
        assert world.nodes == []
        assert (after.generation.node_id, after.generation.preauth_key_id) == (None, None)
        assert (await world.lifecycle.operations.restart(agent_id, ANN)).environment is not None
