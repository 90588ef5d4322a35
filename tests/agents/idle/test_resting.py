"""Agents that nobody uses, in virtual time: paused, stopped, archived, and back; on the real store and lifecycle."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from elizacloud.agents.idle.decide import Decision
from elizacloud.agents.steps.resting import decision_of, why_of
from elizacloud.errors import Conflict, Invalid, TooMany
from elizacloud.model import AgentSpec
from elizacloud.runtime.protocol import Phase
from elizacloud.states import State, Wanted
from elizacloud.store import Record, Store
from elizacloud.upstreams import Probe
from tests.agents.world import ANN, World
from tests.fakes.runtime import FakeRuntime

pytestmark = pytest.mark.looptime

LONG = 2000
"""Seconds in which anything that could happen has happened: each one of them costs real time, too, in sweeps."""


def resting(store: Store, **settings: Any) -> World:
    return World(store, FakeRuntime(), **({"idle_after_seconds": 60, "stop_after_seconds": 240} | settings))


async def decision(world: World, agent_id: str) -> Decision:
    return await decision_of(world.lifecycle._parts, await world.record(agent_id))


async def policy(world: World, agent_id: str, **policy: Any) -> None:
    def changed(spec: AgentSpec) -> AgentSpec:
        return AgentSpec(idle_policy=policy)

    await world.lifecycle.operations.change(agent_id, ANN, spec=changed)


async def woken(world: World, agent_id: str, state: State) -> Record:
    """It was put to rest, and a request wakes it."""
    await world.until(agent_id, state, within=LONG)
    world.lifecycle.wake(agent_id)
    return await world.until(agent_id, State.READY)


async def test_nobody_used_it(store: Store) -> None:
    world = resting(store)
    async with world.running():
        record = await world.ready()
        agent_id = record.agent.id
        await world.passes(55)
        assert (await world.record(agent_id)).agent.state is State.READY
        paused = await world.until(agent_id, State.PAUSED, within=20)
        assert [instance.phase for instance in world.instances] == [Phase.PAUSED]
        assert world.relays.table.agents[agent_id].wakeable
        assert ("rest", "ready") in await world.events(agent_id)
        assert paused.agent.wanted is Wanted.PAUSED
        asleep = await world.until(agent_id, lambda agent: agent.state is State.STOPPED, within=245)
        assert asleep.agent.wanted is Wanted.ASLEEP
        assert [instance.phase for instance in world.instances] == [Phase.EXITED]
        assert world.relays.table.agents[agent_id].wakeable
        assert world.nodes[0].id == record.generation.node_id
        world.lifecycle.wake(agent_id)
        again = await world.until(agent_id, State.READY)
        assert (again.generation.node_id, again.generation.ipv4) == (record.generation.node_id, record.generation.ipv4)
        assert again.agent.run == 2


async def test_agents_that_nobody_set_a_policy_for_never_rest(store: Store) -> None:
    world = World(store, FakeRuntime())
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.passes(LONG)
        assert (await world.record(agent_id)).agent.state is State.READY


async def test_what_is_used_runs_on(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        for _ in range(10):
            await world.passes(50)
            world.lifecycle.used(agent_id)
        assert (await world.record(agent_id)).agent.state is State.READY
        await world.until(agent_id, State.PAUSED, within=100)


async def test_a_container_that_works_in_silence_is_not_paused(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        busy = world.runtime.started[0][1].busy_token
        for _ in range(4):
            await world.lifecycle.containers.busy(agent_id, busy, 300)
            await world.passes(290)
            assert (await world.record(agent_id)).agent.state is State.READY
        assert "says that it works until" in (await decision(world, agent_id)).why
        await world.until(agent_id, State.PAUSED, within=200)


async def test_a_busy_lease_is_bounded_and_only_the_present_runs(world: World) -> None:
    async with world.running():
        record = await world.ready()
        busy = world.runtime.started[0][1].busy_token
        for seconds in (3601, -1, float("inf"), float("nan")):
            with pytest.raises(Invalid):
                await world.lifecycle.containers.busy(record.agent.id, busy, seconds)
        with pytest.raises(Exception, match="cannot accept this token"):
            await world.lifecycle.containers.busy(record.agent.id, SecretStr("wrong"), 60)


async def test_the_agents_policy_over_its_owners_over_the_settings(store: Store) -> None:
    world = World(store, FakeRuntime())
    async with world.running():
        one, other = (await world.ready("one")).agent.id, (await world.ready("other")).agent.id
        await policy(world, other, idleAfterSeconds="never")
        await world.lifecycle.operations.set_idle_policy(ANN, {"idleAfterSeconds": 30, "stopAfterSeconds": "never"})
        await world.until(one, State.PAUSED, within=60)
        await world.passes(LONG)
        assert (await world.record(one)).agent.state is State.PAUSED, "never stopped"
        assert (await world.record(other)).agent.state is State.READY
        with pytest.raises(Invalid):
            await world.lifecycle.operations.set_idle_policy(ANN, {"idleAfterSeconds": 0})


async def test_a_policy_takes_effect_at_once(store: Store) -> None:
    world = resting(store, idle_after_seconds=LONG)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.passes(100)
        await policy(world, agent_id, idleAfterSeconds=50, stopAfterSeconds=0)
        asleep = await world.until(agent_id, lambda agent: agent.state is State.STOPPED, within=30)
        assert asleep.agent.wanted is Wanted.ASLEEP
        steps = [step for step, _ in await world.events(agent_id)]
        assert "drain and pause" in steps, "it is drained before it is stopped"


async def test_its_schedule_keeps_it_awake_and_wakes_it(store: Store) -> None:
    """The world begins on a Friday, 2026-01-02, at midnight."""
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await policy(world, agent_id, schedule={"timezone": "UTC", "awake": ["fri 00:04-00:09", "fri 00:20-00:25"]})
        await world.until(agent_id, State.PAUSED, within=100)
        await world.until(agent_id, State.READY, within=200)
        await world.passes(290)
        assert (await world.record(agent_id)).agent.state is State.READY
        await world.until(agent_id, State.PAUSED, within=100)
        await world.until(agent_id, lambda agent: agent.state is State.STOPPED, within=300)
        ready = await world.until(agent_id, State.READY, within=600)
        assert ready.agent.run == 2
        reasons = [event.reason for event in await store.events.after(0, agent_id=agent_id) if event.step == "wake"]
        assert reasons == [
            "its schedule says that it is awake until 2026-01-02 00:09:00 UTC",
            "its schedule says that it is awake until 2026-01-02 00:25:00 UTC",
        ]


async def test_what_its_owner_stopped_no_request_wakes(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED)
        assert not world.relays.table.agents[agent_id].wakeable
        world.lifecycle.wake(agent_id)
        await world.passes(60)
        assert (await world.record(agent_id)).agent.state is State.STOPPED
        with pytest.raises(Conflict, match="stopped"):
            await world.lifecycle.operations.pause(agent_id, ANN)


async def test_a_request_that_comes_while_it_is_drained_wins(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        world.relays.idle = False
        world.lifecycle._parts.uses.note(agent_id)
        await world.passes(62)
        record = await world.record(agent_id)
        assert (record.agent.state, record.agent.wanted, record.agent.failure) == (State.READY, Wanted.RUNNING, None)
        assert ("in use", "ready") in await world.events(agent_id)
        await world.passes(50)
        assert (await world.record(agent_id)).agent.wanted is Wanted.RUNNING, "it counts as used"
        world.relays.idle = True
        await world.until(agent_id, State.PAUSED, within=30)


async def test_a_wake_during_the_drain_is_not_held_up_by_it(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        world.relays.idle = False
        await world.lifecycle.operations.pause(agent_id, ANN)
        await world.until(agent_id, State.PAUSING)
        world.lifecycle.wake(agent_id)
        await world.until(agent_id, State.READY, within=5)
        assert (await world.record(agent_id)).agent.failure is None
        assert agent_id in world.relays.table.upstreams


async def test_polls_that_went_on_while_it_came_to_rest_do_not_wake_it(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.until(agent_id, State.PAUSED, within=100)
        world.lifecycle.wake(agent_id, 30.0)
        await world.passes(1)
        assert (await world.record(agent_id)).agent.state is State.PAUSED
        assert [refusal.code for refusal in world.relays.refusals] == ["agent_asleep"]
        world.lifecycle.wake(agent_id, 60.0)
        await world.until(agent_id, State.READY)
        await world.lifecycle.operations.pause(agent_id, ANN)
        await world.until(agent_id, State.PAUSED)
        world.lifecycle.wake(agent_id, 1.0)
        await world.until(agent_id, State.READY)


async def test_its_owner_lets_it_sleep_until_a_request_comes(store: Store) -> None:
    world = World(store, FakeRuntime())
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.sleep(agent_id, ANN)
        asleep = await world.until(agent_id, State.STOPPED)
        assert asleep.agent.wanted is Wanted.ASLEEP
        assert "its owner wants it asleep" in await why_of(world.lifecycle._parts, asleep)
        with pytest.raises(Conflict):
            await world.lifecycle.operations.pause(agent_id, ANN)
        await woken(world, agent_id, State.STOPPED)


async def test_several_workers_wake_it_once(store: Store) -> None:
    world = resting(store, owner_wakes_per_hour=1)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.until(agent_id, State.PAUSED, within=100)
        for _ in range(5):
            world.lifecycle.wake(agent_id)
        await world.until(agent_id, State.READY)
        await world.passes(10)
        for _ in range(5):
            world.lifecycle.wake(agent_id)
        await world.passes(10)
        assert [step for step, _ in await world.events(agent_id)].count("wake") == 1
        assert world.relays.refusals == [], "it cost the budget one wake"


async def test_a_create_that_is_sent_again_finds_its_agent_and_one_with_a_new_key_passes_the_gates(
    store: Store,
) -> None:
    world = resting(store, owner_agents=1, creates_per_minute=1)
    async with world.running():
        first, second = "b" * 16, "c" * 16
        assert (await world.create("one", agent_id=first)).record.agent.id == first
        assert (await world.create("one", agent_id=first)).record.agent.id == first
        await world.passes(61)
        with pytest.raises(TooMany) as caught:
            await world.create("two", agent_id=second)
        assert caught.value.reason == "quota_agents"


async def test_wakes_are_budgeted_and_pass_the_gate_of_create(store: Store) -> None:
    world = resting(store, owner_wakes_per_hour=2, owner_running=2, owner_agents=3)
    async with world.running():
        one, other = (await world.ready("one")).agent.id, (await world.ready("other")).agent.id
        with pytest.raises(TooMany) as caught:
            await world.create("third")
        assert caught.value.reason == "quota_running"
        await world.until(one, State.PAUSED, within=100)
        await world.until(other, State.PAUSED, within=100)
        third = (await world.create("third")).record.agent.id
        with pytest.raises(TooMany) as caught:
            await world.create("fourth")
        assert caught.value.reason == "quota_agents"
        await world.until(third, State.READY)
        world.lifecycle.wake(one)
        await world.until(one, State.READY)
        world.lifecycle.wake(other)
        await world.passes(1)
        assert [(refusal.agent_id, refusal.code) for refusal in world.relays.refusals] == [(other, "quota_running")]
        with pytest.raises(TooMany):
            await world.lifecycle.operations.start(other, ANN)
        await world.lifecycle.operations.stop(third, ANN)
        await woken(world, other, State.PAUSED)
        await world.until(one, State.PAUSED, within=100)
        world.lifecycle.wake(one)
        await world.passes(1)
        assert world.relays.refusals[-1].code == "too_many_wakes"
        await world.passes(1850)
        await woken(world, one, State.STOPPED)


async def test_after_long_disuse_its_node_goes_and_its_state_stays(store: Store) -> None:
    world = resting(store, archive_after_seconds=LONG)
    async with world.running():
        before = await world.ready()
        agent_id = before.agent.id
        await world.until(agent_id, lambda agent: agent.state is State.STOPPED, within=LONG)
        await world.passes(LONG - 100)
        assert len(world.nodes) == 1
        await world.passes(200)
        assert (world.nodes, world.keys) == ([], [])
        assert len(world.runtime.volumes) == 1
        record = await world.record(agent_id)
        assert (record.generation.node_id, record.agent.state) == (None, State.STOPPED)
        assert "comes back with a new one" in await why_of(world.lifecycle._parts, record)
        world.lifecycle.wake(agent_id)
        after = await world.until(agent_id, State.READY)
        assert after.generation.node_id not in (None, before.generation.node_id)
        assert len(world.runtime.volumes) == 1
        assert world.live_keys == []


async def test_a_restart_of_the_control_plane_is_taken_for_a_use(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.passes(50)
    world.new_lifecycle()
    async with world.running():
        await world.passes(50)
        assert (await world.record(agent_id)).agent.state is State.READY
        await world.until(agent_id, State.PAUSED, within=60)
    world.new_lifecycle()
    async with world.running():
        await world.until(agent_id, lambda agent: agent.state is State.STOPPED, within=250)


async def test_it_says_why_it_rests_and_who_said_so(store: Store) -> None:
    world = resting(store)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        parts = world.lifecycle._parts
        assert "rests at" in await why_of(parts, await world.record(agent_id))
        await world.until(agent_id, State.PAUSED, within=100)
        told = await why_of(parts, await world.record(agent_id))
        assert "nobody used it for 1 minute" in told
        assert "a request wakes it" in told
        await world.lifecycle.operations.stop(agent_id, ANN)
        told = await why_of(parts, await world.until(agent_id, State.STOPPED))
        assert "its owner wants it stopped" in told
        assert "its owner has to start it" in told


async def test_an_agent_that_is_not_ready_yet_still_rests(store: Store) -> None:
    world = resting(store)
    world.answers = Probe(200, False)
    async with world.running():
        await world.until((await world.ready()).agent.id, State.PAUSED, within=100)
