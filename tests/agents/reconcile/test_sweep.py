"""Whole sweeps over a world with leftovers: what goes, when, and what is never touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elizacloud.agents.reconcile import diff, sweep
from elizacloud.agents.reconcile.diff import Finding, Kind
from elizacloud.agents.reconcile.repair import repair
from elizacloud.errors import HeadscaleUnavailable
from elizacloud.model import AgentSpec
from elizacloud.runtime.protocol import InstanceSpec, Labels
from elizacloud.states import State
from tests.agents.world import ANN, INSTALLATION, World
from tests.loop_turns import calls_by_turn

pytestmark = pytest.mark.looptime

STRANGER = "zzzzzzzzzzzzzzzz"


async def leave_behind(world: World, *, installation: str = INSTALLATION, agent_id: str = STRANGER) -> None:
    """An instance, a node and a key of an agent that no store knows."""
    spec = InstanceSpec(Labels(installation, agent_id, 1, 1), "milaidy-x", "https://hs.test", None, AgentSpec())
    await world.runtime.create(spec)
    tags = ("tag:agent", f"tag:a-{agent_id}", f"tag:i-{installation}")
    key = await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)
    await world.headscale.join(key.value)
    await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)


async def test_what_no_agent_owns_goes_after_two_sweeps(world: World) -> None:
    async with world.running():
        ready = await world.ready()
        await leave_behind(world)
        first = await world.lifecycle.sweeper.sweep()
        assert first.repair == ()
        assert len(world.nodes) == 2
        await world.passes(300)
    assert [instance.labels.agent_id for instance in world.instances] == [ready.agent.id]
    assert [node.id for node in world.nodes] == [ready.generation.node_id]
    assert world.keys == [ready.generation.preauth_key_id]


async def test_state_of_an_agent_that_the_store_never_knew_is_kept_until_it_is_accepted(world: World) -> None:
    await leave_behind(world)
    async with world.running():
        await world.passes(300)
        assert (world.instances, world.nodes) == ([], [])
        assert world.runtime.volumes == {(STRANGER, 1)}, "what an agent made is lost"
        await world.lifecycle.sweeper.sweep(accept=True)
    assert world.runtime.volumes == set()


async def test_state_that_comes_back_after_its_agent_is_gone_goes(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
        world.runtime.volumes.add((agent_id, 1))
        world.runtime._volumes_of[(agent_id, 1)] = INSTALLATION
        await world.passes(300)
    assert world.runtime.volumes == set()


async def test_another_installations_things_are_never_touched(world: World) -> None:
    await leave_behind(world, installation="inst2")
    async with world.running():
        await world.passes(600)
    assert (len(world.instances), len(world.nodes), len(world.keys)) == (1, 1, 2)


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(world: World) -> None:
    await leave_behind(world)
    sweeper = world.lifecycle.sweeper
    await sweeper.sweep()
    calls = len(world.headscale.calls)
    await world.passes(10)
    verdict = await sweeper.sweep(dry_run=True)
    assert {finding.kind for finding in verdict.repair} == {Kind.ORPHAN_INSTANCE, Kind.ORPHAN_NODE, Kind.ORPHAN_KEY}
    assert (len(world.instances), len(world.nodes), len(world.keys)) == (1, 1, 2)
    assert set(world.headscale.calls[calls:]) == {"list_nodes", "list_preauth_keys", "public_key"}


async def test_a_headscale_that_does_not_answer_is_not_an_empty_one(world: World) -> None:
    async with world.running():
        ready = await world.ready()
    world.headscale.down = True
    await world.passes(10)
    with pytest.raises(HeadscaleUnavailable):
        await world.lifecycle.sweeper.sweep()
    world.headscale.down = False
    await world.passes(10)
    assert (await world.lifecycle.sweeper.sweep()).repair == ()
    assert [node.id for node in world.nodes] == [ready.generation.node_id]


@pytest.mark.parametrize(
    "kind", [Kind.ORPHAN_INSTANCE, Kind.ORPHAN_NODE, Kind.EXTRA_NODE, Kind.ORPHAN_KEY, Kind.OLD_RUN]
)
async def test_what_belongs_to_an_agent_by_now_is_not_removed(world: World, kind: Kind) -> None:
    async with world.running():
        ready = await world.ready()
    assert ready.run is not None
    about = {
        Kind.ORPHAN_INSTANCE: ready.run.runtime_ref,
        Kind.OLD_RUN: ready.run.runtime_ref,
        Kind.ORPHAN_KEY: ready.generation.preauth_key_id,
    }.get(kind, ready.generation.node_id)
    woken: list[str] = []
    await repair(world.lifecycle._parts, Finding(kind, ready.agent.id, str(about)), wake=woken.append)
    assert (len(world.instances), len(world.nodes), len(world.keys), woken) == (1, 1, 1, [])


async def test_an_old_run_that_still_lives_is_removed_and_its_volume_stays(world: World) -> None:
    async with world.running():
        ready = await world.ready()
        agent_id = ready.agent.id
        old = Labels(INSTALLATION, agent_id, 1, 0)
        held = next(iter(world.runtime._held.values()))
        world.runtime._held[f"{agent_id}.1.0"] = type(held)(
            type(held.instance)(f"{agent_id}.1.0", old, held.instance.phase), held.spec
        )
        await world.passes(300)
    assert [instance.labels.run for instance in world.instances] == [1]
    assert world.runtime.volumes == {(agent_id, 1)}


async def test_a_second_node_of_one_agent_goes_and_the_one_that_joined_stays(world: World) -> None:
    async with world.running():
        ready = await world.ready()
        tags = next(node for node in world.nodes).tags
        key = await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)
        await world.headscale.join(key.value, hostname=f"milaidy-{ready.agent.id}")
        assert len(world.nodes) == 2
        await world.passes(300)
        record = await world.record(ready.agent.id)
    assert [node.id for node in world.nodes] == [ready.generation.node_id]
    assert world.keys == [ready.generation.preauth_key_id]
    assert (record.agent.state, record.agent.run) == (State.READY, 1)


async def test_who_registers_again_with_anothers_spent_key_is_held_and_harms_nobody(world: World) -> None:
    async with world.running():
        victim = await world.ready("victim")
        spent = world.runtime.started[0][1].preauth_key
        assert spent is not None
        hostile = await world.ready("hostile")
        node = next(node for node in world.nodes if node.id == hostile.generation.node_id)
        again = await world.headscale.join(spent, machine_key=node.machine_key, node_key=node.node_key)
        assert (again.id, again.preauth_key_id) == (node.id, victim.generation.preauth_key_id)
        world.see(again)
        await world.passes(300)
        held, safe = await world.record(hostile.agent.id), await world.record(victim.agent.id)
        assert held.agent.failure is not None
        assert held.agent.failure.code == "node_changed"
        assert (safe.agent.state, safe.agent.run, safe.generation.node_id) == (
            State.READY,
            1,
            victim.generation.node_id,
        )
        assert set(world.relays.table.upstreams) == {victim.agent.id}

        await world.lifecycle.operations.restart(hostile.agent.id, ANN)
        await world.until(hostile.agent.id, State.READY)
        await world.passes(300)
    assert (len(world.nodes), len(world.keys), world.live_keys) == (2, 2, [])


async def test_a_machine_that_was_moved_into_an_agents_node_is_held(world: World) -> None:
    """The node's id and key are as before, but another machine has it."""
    async with world.running():
        ready = await world.ready()
        (node,) = world.nodes
        world.headscale._nodes[node.id] = replace(node, machine_key="mkey:another", node_key="nodekey:another")
        held = await world.until(ready.agent.id, lambda agent: agent.failure is not None)
        assert held.agent.failure is not None
        assert "another machine" in held.agent.failure.reason
        assert world.relays.table.upstreams == {}
        world.headscale._nodes[node.id] = node  # whoever did it undoes it
        await world.until(ready.agent.id, State.READY)


async def test_keys_that_a_bad_hour_left_behind_go_however_many_they_are(world: World) -> None:
    """Each try minted one, and neither could its id be written nor could it be expired."""
    async with world.running():
        ready = await world.ready()
        tags = next(node for node in world.nodes).tags
        for _ in range(9):
            await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=600)
        await world.passes(130)
    assert world.keys == [ready.generation.preauth_key_id]


async def test_what_a_removal_leaves_is_found_long_before_the_next_full_sweep(world: World) -> None:
    async with world.running():
        ready = await world.ready()
        await world.passes(65)
        tags = next(node for node in world.nodes).tags
        key = await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)
        await world.headscale.join(key.value)
        world.lifecycle._parts.untidy.set()
        await world.passes(30)
        assert len(world.nodes) == 1
        assert world.keys == [ready.generation.preauth_key_id], "the key of the node that went"


async def test_a_removal_that_fails_each_time_does_not_make_sweeps_more_frequent(world: World) -> None:
    await leave_behind(world)
    async with world.running():
        await world.passes(65)
        await leave_behind(world, agent_id="yyyyyyyyyyyyyyyy")
        world.headscale.fail("delete_node", times=10_000)
        await world.passes(65)
        swept = world.calls("list_preauth_keys")
        await world.passes(600)
        assert world.calls("list_preauth_keys") - swept <= 15


async def test_a_comparison_of_many_lets_others_have_their_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.running():
        for number in range(5):
            await world.ready(f"agent {number}")
    monkeypatch.setattr(sweep, "PIECES_AT_ONCE", 2)
    async with calls_by_turn(monkeypatch, diff, "_of_record") as in_turn:
        assert (await world.lifecycle.sweeper.sweep()).repair == ()
    assert in_turn.total() == 5
    assert max(in_turn.values()) <= 2
