"""Agents on several hosts: each stays on its own, and a host that is down costs the others' agents nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from elizacloud.agents.sharing.hold import Hold
from elizacloud.agents.steps.volume import volume_is_lost
from elizacloud.errors import Misconfigured, RuntimeUnavailable
from elizacloud.model import DEFAULT_HOST_ID, Agent
from elizacloud.runtime.hosts import Hosts
from elizacloud.runtime.protocol import Instance, Phase
from elizacloud.states import State
from elizacloud.store import Fence, Store
from tests.agents.world import ANN, World
from tests.fakes.runtime import FakeRuntime

pytestmark = pytest.mark.looptime

BIG = "big"


class TwoHosts(World):
    """`runtime` is the first one's."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, FakeRuntime())
        self.big = FakeRuntime(self.node_joins)

    async def with_two(self) -> None:
        self.drive(self.runtime, self.big)
        await self.lifecycle.prepare()

    def drive(self, local: FakeRuntime, big: FakeRuntime) -> None:
        hosts = Hosts({DEFAULT_HOST_ID: local, BIG: big})
        self.new_lifecycle(runtime=hosts, hosts=hosts, host_id=DEFAULT_HOST_ID)

    @property
    def instances(self) -> list[Instance]:
        return super().instances + [held.instance for held in self.big._held.values()]

    async def one_on(self, host_id: str) -> str:
        """A ready agent that lives there."""
        while True:
            record = await self.ready(f"agent {await self.store.agents.count_by_host()}")
            if record.agent.host_id == host_id:
                return record.agent.id


def failed_by(code: str) -> Callable[[Agent], bool]:
    return lambda agent: agent.failure is not None and agent.failure.code == code


@pytest.fixture
async def world(store: Store) -> TwoHosts:
    world = TwoHosts(store)
    await world.with_two()
    return world


async def test_new_agents_are_spread_over_the_hosts_by_their_number(world: TwoHosts) -> None:
    async with world.running():
        records = [await world.ready(f"agent {number}") for number in range(6)]

    assert Counter(record.agent.host_id for record in records) == {DEFAULT_HOST_ID: 3, BIG: 3}
    assert len(world.runtime.volumes) == len(world.big.volumes) == 3


async def test_an_agent_stays_on_its_host_and_leaves_nothing_there(world: TwoHosts) -> None:
    async with world.running():
        agent_id = await world.one_on(BIG)
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED)
        await world.lifecycle.operations.start(agent_id, ANN)
        await world.until(agent_id, State.READY)
        await world.lifecycle.operations.restart(agent_id, ANN)
        record = await world.until(agent_id, lambda agent: agent.run == 3 and agent.state is State.READY)
        assert record.run is not None
        assert record.run.runtime_ref == f"big/{agent_id}.1.3"
        assert record.agent.generation == 1
        await world.passes(600)  # sweeps find nothing odd
        assert (await world.record(agent_id)).run == record.run
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)

    assert world.big.volumes == set()
    assert not any(agent_id in about for _, about in world.runtime.calls), "the other host was asked about it"


async def test_a_host_that_is_down_holds_up_no_other_hosts_agents(world: TwoHosts) -> None:
    async with world.running():
        here, there = await world.one_on(DEFAULT_HOST_ID), await world.one_on(BIG)
        before = await world.record(there)
        world.big.answers = False

        await world.lifecycle.operations.restart(here, ANN)
        await world.until(here, lambda agent: agent.run == 2 and agent.state is State.READY)
        await world.lifecycle.operations.stop(here, ANN)
        await world.until(here, State.STOPPED)
        await world.lifecycle.operations.delete(here, ANN)
        await world.until(here, State.TOMBSTONE)
        await world.passes(600)
        another = [await world.ready(f"another {number}") for number in range(3)]

        assert {record.agent.host_id for record in another} == {DEFAULT_HOST_ID}
        assert {agent_id for agent_id, _ in world.runtime.volumes} == {record.agent.id for record in another}
        after = await world.record(there)
        assert (after.agent.state, after.run, after.generation) == (before.agent.state, before.run, before.generation)
        assert (await world.record(here)).agent.state is State.TOMBSTONE, "gone, and one host was not asked"

        world.big.answers = True
        await world.until(here, State.GONE)
        await world.passes(600)
        assert (await world.record(there)).run == before.run


async def test_agents_of_before_there_was_a_second_host_are_driven_on(store: Store) -> None:
    world = TwoHosts(store)
    world.new_lifecycle(host_id=DEFAULT_HOST_ID)
    await world.lifecycle.prepare()
    async with world.running():
        before = await world.ready()

    await world.with_two()
    async with world.running():
        await world.passes(600)
        assert (await world.record(before.agent.id)).run == before.run
        await world.lifecycle.operations.restart(before.agent.id, ANN)
        after = await world.until(before.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY)

    assert after.agent.host_id == DEFAULT_HOST_ID
    assert after.generation.node_id == before.generation.node_id
    assert world.big.volumes == set()


async def test_no_control_plane_begins_without_a_host_that_agents_live_on(world: TwoHosts) -> None:
    async with world.running():
        agent_id = await world.one_on(BIG)
    both = world.lifecycle
    world.new_lifecycle(host_id=DEFAULT_HOST_ID)

    with pytest.raises(Misconfigured, match=r"the host 'big' \(agents: 1\)"):
        await world.lifecycle.prepare()

    world.lifecycle = both
    async with world.running():
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
    world.new_lifecycle(host_id=DEFAULT_HOST_ID)
    await world.lifecycle.prepare()


async def test_an_operator_sees_where_an_agent_lives_and_which_host_does_not_answer(world: TwoHosts) -> None:
    async with world.running():
        here, there = await world.one_on(DEFAULT_HOST_ID), await world.one_on(BIG)
        assert answers(world) == {DEFAULT_HOST_ID: 1, BIG: 1}
        world.big.answers = False
        shown = {agent_id: await world.lifecycle.oversight.explain(agent_id) for agent_id in (here, there)}

    assert shown[here].record.agent.host_id == DEFAULT_HOST_ID
    assert (len(shown[here].instances.found), len(shown[here].volumes.found)) == (1, 1)
    assert shown[here].instances.error == shown[here].volumes.error == ""
    assert shown[there].record.agent.host_id == BIG
    assert shown[there].instances.error
    assert answers(world) == {DEFAULT_HOST_ID: 1, BIG: 0}


async def test_a_control_plane_that_does_not_know_a_host_says_so_and_leaves_its_agents_alone(world: TwoHosts) -> None:
    async with world.running():
        before = await world.record(await world.one_on(BIG))
    agent_id, hosts = before.agent.id, Hosts({DEFAULT_HOST_ID: world.runtime})
    world.new_lifecycle(runtime=hosts, hosts=hosts, host_id=DEFAULT_HOST_ID)
    async with world.running():
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.passes(600)
        assert "no setting says where it is" in (await world.lifecycle.oversight.explain(agent_id)).instances.error
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.passes(600)
        assert (await world.record(agent_id)).agent.state is State.DELETING
    assert [held.instance.phase for held in world.big._held.values()] == [Phase.RUNNING]


def answers(world: World) -> dict[str, float]:
    [metric] = world.lifecycle.metrics.host_answers.collect()
    return {sample.labels["host"]: sample.value for sample in metric.samples}


async def test_under_a_lease_too_an_agents_own_host_alone_is_asked(world: TwoHosts) -> None:
    async with world.running():
        records = [await world.record(await world.one_on(host_id)) for host_id in (DEFAULT_HOST_ID, BIG)]
    parts = world.lifecycle._parts.under(Hold(Fence("drive", "me", 1), asyncio.get_running_loop().time() + 60))
    world.big.answers = False

    assert not await volume_is_lost(parts, records[0])
    with pytest.raises(RuntimeUnavailable):
        await volume_is_lost(parts, records[1])


async def test_hosts_whose_names_were_exchanged_lose_no_agents_state(world: TwoHosts) -> None:
    async with world.running():
        here, there = await world.one_on(DEFAULT_HOST_ID), await world.one_on(BIG)

    right = world.lifecycle
    world.drive(local=world.big, big=world.runtime)
    async with world.running():
        for agent_id in (here, there):
            await world.until(agent_id, failed_by("volume_elsewhere"))
        await world.passes(600)

    world.lifecycle = right
    async with world.running():
        for agent_id in (here, there):
            await world.lifecycle.operations.restart(agent_id, ANN)
            record = await world.until(agent_id, State.READY)
            assert record.agent.generation == 1
    assert len(world.runtime.volumes) == len(world.big.volumes) == 1


async def test_a_host_that_lost_its_disk_waits_for_a_person_though_another_has_volumes(world: TwoHosts) -> None:
    async with world.running():
        records = [await world.ready(f"agent {number}") for number in range(8)]
        there = [record for record in records if record.agent.host_id == BIG]
        for record in there:
            assert record.run is not None
            world.big.forget((record.run.runtime_ref or "").removeprefix("big/"), volume=True)
        for record in there:
            held = await world.until(record.agent.id, failed_by("volumes_missing"))
            assert held.agent.generation == 1
