"""A database or a Headscale that went back in time, another Headscale, a relay nobody knows: found, said, never guessed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from elizacloud.agents.reconcile.diff import Kind
from elizacloud.agents.reconcile.past import Memory, Past, Remembered
from elizacloud.errors import HeadscaleRefused
from elizacloud.model import agent_tag, installation_tag
from elizacloud.runtime.protocol import Instance, Labels, Phase
from elizacloud.states import State
from elizacloud.store import Marks
from tests.agents.reconcile.test_sweep import STRANGER, leave_behind
from tests.agents.world import ANN, INSTALLATION, World

pytestmark = pytest.mark.looptime


async def a_relay_joins(world: World, machine_key: str, *, installation: str = INSTALLATION) -> str:
    tags = ("tag:relay", installation_tag(installation))
    key = await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)
    node = await world.headscale.join(key.value, hostname="relay", machine_key=machine_key)
    await world.headscale.expire_preauth_key(key.id)
    return node.id


def kinds(findings: Any) -> set[Kind]:
    return {finding.kind for finding in findings}


async def test_a_database_from_yesterday_removes_nothing_until_the_operator_accepts_it(world: World) -> None:
    world.past.past = Past(Marks(epoch=0, last_event=1_000))
    world.new_lifecycle()
    await world.lifecycle.prepare()
    await leave_behind(world)
    async with world.running():
        await world.passes(300)
    assert (len(world.instances), len(world.nodes)) == (1, 1)

    world.new_lifecycle()  # a restart does not make one forget, however far the database has come since
    await world.lifecycle.prepare()
    sweeper = world.lifecycle.sweeper
    await sweeper.sweep()
    await world.passes(10)
    verdict = await sweeper.sweep(dry_run=True)
    assert "backup" in verdict.why
    assert Kind.ORPHAN_NODE in kinds(verdict.held)

    await sweeper.sweep(accept=True)
    async with world.running():
        await world.passes(300)
    assert (world.instances, world.nodes, world.keys) == ([], [], [])
    assert world.past.past.suspicion == ""


async def test_a_database_that_went_on_is_trusted(world: World) -> None:
    async with world.running():
        await world.ready()
        await world.passes(120)
    seen = world.past.past.marks
    assert seen.last_event > 0
    world.new_lifecycle()
    await world.lifecycle.prepare()
    assert world.lifecycle.memory.suspicion == ""


async def test_runs_that_the_database_does_not_know_are_ended_once_it_is_accepted(world: World) -> None:
    async with world.running():
        ready = await world.ready()
        agent_id = ready.agent.id
        held = world.runtime._held.pop(f"{agent_id}.1.1")
        ref = f"{agent_id}.1.9"
        later = Instance(ref, Labels(INSTALLATION, agent_id, 1, 9), Phase.EXITED)
        world.runtime._held[ref] = type(held)(later, replace(held.spec, labels=later.labels))
        await world.passes(300)
        assert [instance.ref for instance in world.instances] == [ref]
        await world.lifecycle.sweeper.sweep(accept=True)
        record = await world.until(agent_id, State.READY)
    assert record.agent.generation == 1
    assert world.runtime.volumes == {(agent_id, 1)}


async def test_another_headscale_at_the_same_address_is_refused_until_it_is_accepted(world: World) -> None:
    async with world.running():
        ready = await world.ready()
        agent_id = ready.agent.id
        await world.passes(120)
        ours, world.headscale._nodes = world.headscale._nodes, {}
        world.headscale.key = "mkey:another"
        with pytest.raises(HeadscaleRefused, match="not the one") as refused:
            await world.lifecycle.sweeper.sweep()
        assert refused.value.reason == "headscale_changed"
        with pytest.raises(HeadscaleRefused):
            await world.lifecycle.checks["headscale"]()
        world.lifecycle._driver.wake(agent_id, suspected=True)
        await world.passes(300)
        assert (await world.record(agent_id)).generation.node_id == ready.generation.node_id, "it was given up"

        world.headscale._nodes, world.headscale.key = ours, "mkey:fake"
        await world.passes(120)
        await world.lifecycle.checks["headscale"]()
        assert (await world.until(agent_id, State.READY)).agent.run == 1

        world.headscale._nodes, world.headscale.key = {}, "mkey:another"
        await world.lifecycle.sweeper.sweep(accept=True)
        await world.passes(120)
        assert (await world.until(agent_id, State.READY)).generation.node_id != ready.generation.node_id


async def test_what_is_accepted_at_one_control_plane_is_right_for_all_others(world: World) -> None:
    here, behind = world.lifecycle.memory, Remembered()
    behind.past = Past(Marks(epoch=0, last_event=1_000))
    there = Memory(behind, world.store, world.headscale)
    await there.check_store()
    assert "backup" in there.suspicion
    for memory in (here, there):
        await memory.check_headscale()
    world.headscale.key = "mkey:another"
    for memory in (here, there):
        with pytest.raises(HeadscaleRefused):
            await memory.check_headscale()
    await a_relay_joins(world, "relay")
    await world.lifecycle.sweeper.sweep(accept=True)
    await there.check_store()
    assert there.suspicion == ""
    await there.check_headscale()
    assert there.refusal == ""
    assert await there.relays(("relay", "new"), learn=True) == ("relay",)


async def test_what_a_file_says_of_before_the_database_held_it_is_not_forgotten(world: World) -> None:
    before = Remembered()
    before.past = Past(headscale_key="mkey:before", relays=("relay",))
    memory = Memory(before, world.store, world.headscale)
    with pytest.raises(HeadscaleRefused):
        await memory.check_headscale()
    assert await memory.relays(("new",), learn=False) == ("relay",)
    await memory.accept_headscale()
    await memory.accept(("new",))
    await Memory(before, world.store, world.headscale).check_headscale()
    assert await memory.relays(("newer",), learn=False) == ("new",)


async def test_a_sweep_that_only_says_what_it_would_do_takes_no_relay_for_granted(world: World) -> None:
    await a_relay_joins(world, "first")
    await world.lifecycle.sweeper.sweep(dry_run=True)
    assert await world.store.installation.relays() == ()


async def test_a_server_that_does_not_tell_its_key_is_not_refused(world: World) -> None:
    memory = Memory(Remembered(), world.store, world.headscale)
    await memory.check_headscale()
    world.headscale.key = None  # type: ignore[assignment]
    await memory.check_headscale()


async def test_a_relay_that_nobody_knows_is_told_and_left_alone(world: World) -> None:
    await a_relay_joins(world, "first")
    sweeper = world.lifecycle.sweeper
    await sweeper.sweep()
    assert await world.store.installation.relays() == ("first",)
    new = await a_relay_joins(world, "second")
    await a_relay_joins(world, "theirs", installation="inst2")
    async with world.running():
        await world.passes(300)
        verdict = await sweeper.sweep()
    assert [(finding.kind, finding.about) for finding in verdict.alarms] == [(Kind.UNKNOWN_RELAY, new)]
    assert len(world.nodes) == 3
    assert world.lifecycle.metrics.drift.labels(Kind.UNKNOWN_RELAY.value)._value.get() == 1

    await world.passes(10)
    await sweeper.sweep(accept=True)
    assert set(await world.store.installation.relays()) == {"first", "second"}
    await world.passes(10)
    assert (await sweeper.sweep()).alarms == ()


async def test_a_headscale_from_yesterday_gets_its_agents_back_and_gives_nobody_anothers_node(world: World) -> None:
    """Its ids go back: two agents that it forgot are followed by one that gets a node id and a key id of theirs."""
    async with world.running():
        await a_relay_joins(world, "relay")
        await world.ready("before")
        backup = dict(world.headscale._nodes), dict(world.headscale._keys)
        counters = world.headscale._last_node_id, world.headscale._last_key_id
        forgotten = (await world.ready("forgotten")).agent.id
        world.headscale._nodes, world.headscale._keys = dict(backup[0]), dict(backup[1])
        world.headscale._last_node_id, world.headscale._last_key_id = counters
        newcomer = (await world.ready("newcomer")).agent.id
        old, new = await world.record(forgotten), await world.record(newcomer)
        assert old.generation.node_id == new.generation.node_id
        await world.passes(300)
        verdict = await world.lifecycle.sweeper.sweep()
        assert kinds(verdict.alarms) == {Kind.ID_TWICE}
        failure = (await world.record(forgotten)).agent.failure
        assert failure is not None
        assert failure.code == "node_changed"

        await world.lifecycle.operations.delete(forgotten, ANN)
        await world.until(forgotten, State.GONE)
        assert new.generation.node_id in {node.id for node in world.nodes}, "another agent's node was deleted"
        assert new.generation.preauth_key_id in world.keys, "another agent's key was deleted"
        assert (await world.record(newcomer)).agent.state is State.READY


async def test_a_hostname_and_an_address_prove_nothing(world: World) -> None:
    async with world.running():
        ready = await world.ready()
        name = f"milaidy-{ready.agent.id}"
        tags = ("tag:agent", agent_tag(STRANGER), installation_tag("inst2"))
        key = await world.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)
        await world.headscale.join(key.value, hostname=name)
        await world.passes(300)
        record = await world.record(ready.agent.id)
    assert record.agent.state is State.READY
    assert record.generation == replace(ready.generation, preauth_key_expired=True)
    assert len(world.nodes) == 2


async def test_what_a_runtime_lists_that_we_never_made_is_ignored(world: World) -> None:
    ours = world.runtime.list

    async def lists_all(installation_id: str) -> list[Instance]:
        strange = [Labels("inst2", STRANGER, 1, 1), Labels(INSTALLATION, "../etc", 1, 1), Labels("", "", 0, 0)]
        return [*(await ours(installation_id)), *(Instance(f"strange {of}", of, Phase.RUNNING) for of in strange)]

    world.runtime.list = lists_all  # type: ignore[method-assign]
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.passes(300)
        assert (await world.lifecycle.sweeper.sweep()).repair == ()
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
    assert not [about for call, about in world.runtime.calls if call in ("stop", "remove") and "strange" in about]


async def test_a_second_sweep_at_once_confirms_nothing(world: World) -> None:
    await leave_behind(world)
    sweeper = world.lifecycle.sweeper
    for _ in range(4):
        await sweeper.sweep()  # an operator who is in a hurry
    assert (len(world.instances), len(world.nodes)) == (1, 1)
    await world.passes(10)
    await sweeper.sweep()
    assert (len(world.instances), len(world.nodes)) == (0, 0)
