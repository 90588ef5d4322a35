"""The life of an agent from end to end, in virtual time, on the real store and on fakes of everything outside."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from elizacloud.agents.backoff import STOPPED_BY_US
from elizacloud.errors import Conflict, RuntimeRefused, StoreUnavailable, Unauthenticated
from elizacloud.model import AgentSpec
from elizacloud.runtime.protocol import STOPPED
from elizacloud.states import State, Wanted
from elizacloud.store import Store
from elizacloud.upstreams import Probe
from tests.agents.world import ANN, World, now
from tests.fakes.runtime import (
    DiesAfterJoin,
    DiesAtOnce,
    FailsToStart,
    FakeRuntime,
    KeyIsDead,
    LosesAnswers,
    NeverJoins,
    StopsAtOnce,
)

pytestmark = pytest.mark.looptime


def no_leaks(world: World, *, agents: int = 0) -> None:
    """What is outside is what `agents` ready ones need, and nothing could still join."""
    assert len(world.instances) == agents
    assert len(world.nodes) == agents
    assert world.live_keys == []
    assert len(world.keys) == agents
    assert len(world.runtime.volumes) == agents


async def test_an_agent_becomes_ready_and_its_key_is_expired(world: World) -> None:
    async with world.running():
        record = await world.ready()
    generation = record.generation
    assert generation.node_id == world.nodes[0].id
    assert generation.ipv4 == world.nodes[0].ipv4
    assert generation.preauth_key_expired
    assert world.relays.table.upstreams[record.agent.id].routable
    assert await world.events(record.agent.id) == [
        ("create", "requested"),
        ("mint key and create instance", "keyed"),
        ("start instance", "started"),
        ("await join", "joined"),
        ("await ready", "ready"),
    ]
    no_leaks(world, agents=1)


async def test_a_key_that_could_not_be_expired_is_soon(world: World) -> None:
    async with world.running():
        await world.passes(1)  # the first sweep
        world.headscale.fail("expire_preauth_key", times=3)
        await world.ready()
        assert world.live_keys
        await world.passes(20)
        assert not world.live_keys
    no_leaks(world, agents=1)


async def test_a_create_costs_headscale_three_calls(world: World) -> None:
    async with world.running():
        await world.passes(1)  # the first sweep
        world.headscale.calls.clear()
        await world.ready()
    assert world.headscale.calls == ["create_preauth_key", "get_node", "expire_preauth_key"]


async def test_without_hints_the_slow_poll_finds_all_joins_with_few_lists(world: World) -> None:
    world.relays_see = False
    async with world.running():
        created = [await world.create(f"a{number}") for number in range(20)]
        for answer in created:
            await world.until(answer.record.agent.id, State.READY)
    assert world.calls("list_nodes") <= 4
    no_leaks(world, agents=20)


async def test_a_containers_report_is_a_hint_to_look(world: World, looptime: Any) -> None:
    world.relays_see = False
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, State.STARTED)
        await world.passes(0.3)
        token = world.runtime.started[0][1].join_token
        assert not await world.lifecycle.containers.report_address(agent_id, token, "100.64.0.1")
        await world.until(agent_id, State.READY)
        assert looptime < 2


async def test_stop_keeps_the_node_and_start_brings_it_back_without_a_key(world: World) -> None:
    async with world.running():
        before = await world.ready()
        agent_id = before.agent.id
        await world.lifecycle.operations.stop(agent_id, ANN)
        stopped = await world.until(agent_id, State.STOPPED)
        assert stopped.generation.node_id == before.generation.node_id
        assert world.relays.table.upstreams == {}
        assert world.relays.table.agents[agent_id].state == "stopped"
        await world.headscale.set_online(world.nodes[0].id, False)
        await world.lifecycle.operations.start(agent_id, ANN)
        after = await world.until(agent_id, State.READY)
    assert (after.generation.node_id, after.agent.run) == (before.generation.node_id, 2)
    assert world.runtime.started[1][1].preauth_key is None
    assert world.calls("create_preauth_key") == 1
    assert world.relays.table.upstreams[agent_id].pool_key == (agent_id, 1, 2)
    assert before.run is not None
    assert after.run is not None
    assert before.run.agent_token != after.run.agent_token
    no_leaks(world, agents=1)


async def test_restart_gives_a_new_run(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.restart(agent_id, ANN)
        record = await world.until(agent_id, lambda agent: agent.run == 2 and agent.state is State.READY)
        before = await world.store.agents.run(agent_id, 1, 1)
    assert record.agent.failure is None
    assert before is not None
    assert (before.end_reason or "").startswith(STOPPED_BY_US)
    no_leaks(world, agents=1)


async def test_delete_leaves_nothing_and_frees_the_name(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
        no_leaks(world)
        assert agent_id not in world.relays.table.upstreams
        assert agent_id not in world.relays.table.agents
        again = await world.ready()
        assert again.agent.id != agent_id
    order = [call for call in world.headscale.calls if call.startswith("delete")]
    assert order == ["delete_node", "delete_preauth_key"]


@pytest.mark.parametrize("after_seconds", [0.0, 0.05, 0.15, 0.25])
async def test_delete_while_creating(world: World, after_seconds: float) -> None:
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.passes(after_seconds)
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
        await world.passes(200)
    no_leaks(world)


@pytest.mark.parametrize("stopped", [State.REQUESTED, State.KEYED, State.STARTED, State.JOINED])
async def test_stop_while_creating_and_start_again(world: World, stopped: State) -> None:
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, stopped)
        await world.lifecycle.operations.stop(agent_id, ANN)
        record = await world.until(agent_id, State.STOPPED)
        assert world.live_keys == []
        assert record.agent.wanted is Wanted.STOPPED
        await world.lifecycle.operations.start(agent_id, ANN)
        await world.until(agent_id, State.READY)
        await world.passes(200)
    no_leaks(world, agents=1)


async def test_pause_waits_until_nothing_is_in_flight(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        world.relays.idle = False
        await world.lifecycle.operations.pause(agent_id, ANN)
        held = await world.until(agent_id, lambda agent: agent.failure is not None)
        assert held.agent.failure is not None
        assert held.agent.failure.code == "busy"
        assert agent_id in world.relays.table.upstreams
        world.relays.idle = True
        await world.until(agent_id, State.PAUSED)
        assert world.relays.table.agents[agent_id].wakeable
        world.lifecycle.wake(agent_id)
        await world.until(agent_id, State.READY)
    assert agent_id in world.relays.table.upstreams


async def test_a_busy_container_is_not_paused(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        busy = world.runtime.started[0][1].busy_token
        until = await world.lifecycle.containers.busy(agent_id, busy, 60)
        await world.lifecycle.operations.pause(agent_id, ANN)
        await world.until(agent_id, State.PAUSED)
        assert now() >= until


async def test_agent_ready_follows_what_the_agent_says(world: World) -> None:
    world.answers = Probe(200, False)
    async with world.running():
        record = await world.ready()
        assert record.agent.agent_ready is False
        await world.passes(10)
        world.answers = Probe(401)
        await world.until(record.agent.id, lambda agent: agent.agent_ready is None)
        world.answers = Probe(200, True)
        await world.until(record.agent.id, lambda agent: agent.agent_ready is True)
        world.answers = Probe(None, error="agent_timeout")
        silent = await world.until(record.agent.id, lambda agent: agent.agent_ready is False, within=700)
        assert silent.agent.state is State.READY
        assert record.agent.id in world.relays.table.upstreams


# What goes wrong.


async def test_an_agent_that_never_joins_says_so_and_is_tried_again_with_a_new_key(store: Store) -> None:
    world = World(store, NeverJoins(), key_lifetime_seconds=300)
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, lambda agent: agent.failure is not None)
        assert record.agent.failure is not None
        assert record.agent.failure.code == "join_timeout"
        assert "await join" in (await world.lifecycle.operations.get(agent_id, ANN)).agent.failure.step  # type: ignore[union-attr]
        again = await world.until(agent_id, lambda agent: agent.run == 2 and agent.state is State.STARTED)
        assert again.generation.preauth_key_id != record.generation.preauth_key_id
        assert len(world.live_keys) == 1
        world.runtime.__class__ = FakeRuntime
        await world.until(agent_id, State.READY)
        await world.passes(200)
    no_leaks(world, agents=1)


async def test_an_agent_that_never_gets_ready_says_why_and_is_asked_on(world: World) -> None:
    world.answers = Probe(500)
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, lambda agent: agent.failure is not None)
        assert record.agent.failure is not None
        assert (record.agent.failure.code, record.agent.state) == ("ready_timeout", State.JOINED)
        assert "status 500" in record.agent.failure.reason
        assert world.relays.table.agents[agent_id].message.endswith("200 or 401.")
        world.answers = Probe(200, True)
        ready = await world.until(agent_id, State.READY)
    assert ready.agent.failure is None


async def test_an_agent_whose_process_dies_at_once_is_started_more_and_more_seldom(store: Store, looptime: Any) -> None:
    world = World(store, DiesAtOnce())
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, lambda agent: agent.failure is not None and agent.failure.attempts >= 6)
        assert record.agent.failure is not None
        assert record.agent.failure.code == "instance_died"
        assert "agent: exit status 1" in record.agent.failure.reason
        assert record.agent.failure.retry_at is not None
        begun = len(world.runtime.started)
        assert begun == 6
        assert looptime > 10
        await world.passes(3600)
        assert len(world.runtime.started) - begun <= 3600 / 300 + 6
        assert len(world.live_keys) <= 1
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
        await world.passes(200)
    no_leaks(world)


async def test_an_instance_that_its_host_stopped_is_started_again_and_did_not_die(world: World, store: Store) -> None:
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, State.READY)
        assert record.run is not None
        assert record.run.runtime_ref is not None
        world.runtime.exits(record.run.runtime_ref, exit_code=0, reason=STOPPED)
        await world.until(agent_id, lambda agent: agent.run == 2 and agent.state is State.READY)
        told = [event.reason for event in await store.events.after(0, agent_id=agent_id, limit=100)]
    assert "stopped: its host was" in told
    assert not [reason for reason in told if "ended soon" in reason]


async def test_an_agent_that_ends_as_if_its_host_had_stopped_it_is_started_more_and_more_seldom(store: Store) -> None:
    world = World(store, StopsAtOnce())
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, lambda agent: agent.failure is not None and agent.failure.attempts >= 5)
    assert record.agent.failure is not None
    assert record.agent.failure.code == "instance_died"
    assert len(world.runtime.started) == 6, "the first one is started again at once"


async def test_a_refused_key_is_replaced(store: Store) -> None:
    world = World(store, KeyIsDead())
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, lambda agent: agent.run == 2)
        world.runtime.__class__ = FakeRuntime
        record = await world.until(agent_id, State.READY)
        await world.passes(200)
    assert record.agent.generation == 1
    no_leaks(world, agents=1)


async def test_a_ready_agent_that_dies_is_started_again_on_its_node(world: World) -> None:
    async with world.running():
        before = await world.ready()
        assert before.run is not None
        assert before.run.runtime_ref is not None
        await world.passes(100)
        world.runtime.exits(before.run.runtime_ref)
        after = await world.until(before.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY)
    assert after.generation.node_id == before.generation.node_id
    assert world.calls("create_preauth_key") == 1
    no_leaks(world, agents=1)


async def test_a_crash_loop_after_the_join_backs_off_and_says_so(store: Store) -> None:
    world = World(store, DiesAfterJoin())
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, lambda agent: agent.failure is not None and agent.failure.attempts >= 5)
        assert world.relays.table.upstreams == {}
        world.runtime.__class__ = FakeRuntime
        await world.until(agent_id, State.READY)
        await world.passes(200)
    no_leaks(world, agents=1)


async def test_a_start_that_fails_is_tried_again_with_the_same_key(store: Store) -> None:
    world = World(store, FailsToStart(times=3))
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, lambda agent: agent.failure is not None)
        assert record.agent.failure is not None
        assert record.agent.failure.code == "spawn_failed"
        await world.until(agent_id, State.READY)
    assert world.calls("create_preauth_key") == 1
    no_leaks(world, agents=1)


@pytest.mark.parametrize("call", ["create", "start", "stop", "remove"])
async def test_a_runtime_that_acts_but_loses_its_answer(store: Store, call: str) -> None:
    world = World(store, LosesAnswers(lost=(call,)))
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.passes(200)
        no_leaks(world, agents=1)
        await world.lifecycle.operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED)
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
        await world.passes(200)
    no_leaks(world)


@pytest.mark.parametrize("after_acting", [False, True])
@pytest.mark.parametrize(
    "method",
    ["create_preauth_key", "get_node", "expire_preauth_key", "delete_node", "delete_preauth_key", "list_nodes"],
)
async def test_a_headscale_that_fails_once_anywhere(world: World, method: str, after_acting: bool) -> None:
    world.headscale.fail(method, times=2, after_acting=after_acting)
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.passes(200)
        no_leaks(world, agents=1)
        await world.lifecycle.operations.delete(agent_id, ANN)
        await world.until(agent_id, State.GONE)
        await world.passes(200)
    no_leaks(world)


async def test_delete_is_paid_later_when_nothing_answers_and_is_shown_meanwhile(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        world.headscale.down, world.runtime.answers = True, False
        await world.lifecycle.operations.delete(agent_id, ANN)
        record = await world.until(agent_id, lambda agent: agent.failure is not None)
        assert record.agent.state is State.DELETING
        assert agent_id not in world.relays.table.upstreams
        await world.passes(3600)
        world.runtime.answers = True
        world.headscale.down = False
        await world.until(agent_id, State.GONE)
    no_leaks(world)


async def test_an_agent_that_is_ready_stays_reachable_while_all_else_is_down(world: World) -> None:
    async with world.running():
        record = await world.ready()
        world.headscale.down, world.runtime.answers = True, False
        await world.passes(3600)
        assert (await world.record(record.agent.id)).agent.state is State.READY
        assert world.relays.table.upstreams[record.agent.id].routable
        world.headscale.down, world.runtime.answers = False, True
        await world.passes(600)
        assert (await world.record(record.agent.id)).agent.failure is None


async def test_a_look_that_takes_too_long_is_no_failure_of_a_ready_agent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: str) -> None:
        await asyncio.get_running_loop().create_future()

    async with world.running():
        agent_id = (await world.ready()).agent.id
        monkeypatch.setattr(world.runtime, "inspect", never)
        world.lifecycle._driver.wake(agent_id)
        await world.passes(3600)
        agent = (await world.record(agent_id)).agent
    assert (agent.state, agent.failure) == (State.READY, None)


async def test_a_failed_look_at_a_ready_agent_is_taken_back_by_a_good_one_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(_: str) -> None:
        raise RuntimeRefused("cannot look at the instance: the disk is full")

    async with world.running():
        agent_id = (await world.ready()).agent.id
        with monkeypatch.context() as patch:
            patch.setattr(world.runtime, "inspect", refuses)
            world.lifecycle._driver.wake(agent_id)
            await world.until(agent_id, lambda agent: agent.failure is not None)
        world.headscale.down = True
        await world.passes(3600)
        assert (await world.record(agent_id)).agent.failure is not None, "its node could not be looked at"
        world.headscale.down = False
        agent = (await world.until(agent_id, lambda agent: agent.failure is None)).agent
    assert (agent.state, agent.run) == (State.READY, 1)


async def test_a_paused_agent_whose_node_changed_says_so_until_it_is_undone(world: World) -> None:
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.pause(agent_id, ANN)
        await world.until(agent_id, State.PAUSED)
        node = world.nodes[0]
        world.headscale._nodes[node.id] = replace(node, preauth_key_id="999")
        await world.until(agent_id, lambda agent: agent.failure is not None)
        for _ in range(100):
            await world.passes(5)
            assert (await world.record(agent_id)).agent.failure is not None
        world.headscale._nodes[node.id] = node
        agent = (await world.until(agent_id, lambda agent: agent.failure is None)).agent
    assert (agent.state, agent.run) == (State.PAUSED, 1)


async def test_a_node_that_was_deleted_behind_our_back_is_replaced_on_the_same_volume(world: World) -> None:
    async with world.running():
        before = await world.ready()
        await world.headscale.delete_node(before.generation.node_id or "")
        after = await world.until(before.agent.id, lambda agent: agent.run == 2 and agent.state is State.READY)
        await world.passes(200)
    assert after.generation.number == 1
    assert after.generation.node_id == world.nodes[0].id != before.generation.node_id
    no_leaks(world, agents=1)


async def test_a_node_that_changed_is_held_for_a_person(world: World) -> None:
    async with world.running():
        before = await world.ready()
        node = world.nodes[0]
        world.headscale._nodes[node.id] = replace(node, preauth_key_id="999")
        held = await world.until(before.agent.id, lambda agent: agent.failure is not None)
        assert held.agent.failure is not None
        assert (held.agent.failure.code, held.agent.state) == ("node_changed", State.JOINED)
        assert world.relays.table.upstreams == {}
        await world.passes(300)
        assert (await world.record(before.agent.id)).agent.state is State.JOINED
        await world.lifecycle.operations.restart(before.agent.id, ANN)
        after = await world.until(before.agent.id, State.READY)
        await world.passes(200)
    assert after.generation.preauth_key_id == world.nodes[0].preauth_key_id
    assert after.generation.node_id != node.id, "its tailscaled would come back as the node that it was"
    no_leaks(world, agents=1)


async def test_a_new_address_is_followed(world: World) -> None:
    async with world.running():
        before = await world.ready()
        world.headscale._nodes[world.nodes[0].id] = replace(world.nodes[0], ipv4="100.64.7.7")
        await world.passes(100)
    assert (await world.record(before.agent.id)).generation.ipv4 == "100.64.7.7"
    assert world.relays.table.upstreams[before.agent.id].ip == "100.64.7.7"


async def test_a_node_with_our_hostname_but_another_key_or_tag_never_joins(world: World) -> None:
    world.runtime.__class__ = NeverJoins
    async with world.running():
        first = (await world.create("ada")).record.agent.id
        record = await world.until(first, State.STARTED)
        alien = await world.headscale.create_preauth_key(
            tags=("tag:agent", "tag:a-zzzzzzzzzzzzzzzz"), lifetime_seconds=60
        )
        node = await world.headscale.join(alien.value, hostname=f"milaidy-{first}")
        world.headscale._nodes[node.id] = replace(node, preauth_key_id=record.generation.preauth_key_id)
        world.see(replace(node, tags=(f"tag:a-{first}",)))
        await world.passes(100)
        assert (await world.record(first)).agent.state is State.STARTED
        tagged = replace(node, preauth_key_id=alien.id, tags=(f"tag:a-{first}",))
        world.headscale._nodes[node.id] = tagged
        world.see(tagged)
        await world.passes(100)
        assert (await world.record(first)).agent.state is State.STARTED


async def test_a_relay_that_is_not_linked_delays_ready_and_loses_nothing(world: World) -> None:
    world.relays.linked = False
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        record = await world.until(agent_id, lambda agent: agent.failure is not None)
        assert record.agent.failure is not None
        assert record.agent.failure.code == "tailnet_unavailable"
        await world.passes(60)
        world.relays.linked = True
        await world.until(agent_id, State.READY)


@pytest.mark.parametrize("owners", [1, 5], ids=["one owner", "five owners"])
async def test_a_burst_of_agents_that_hang_does_not_hold_up_another_owners(
    store: Store, looptime: Any, owners: int
) -> None:
    class HangsForSome(FakeRuntime):
        async def start(self, ref: str, secrets: Any) -> None:
            if self._get(ref).spec.agent.command == ("hangs",):
                await asyncio.get_running_loop().create_future()
            await super().start(ref, secrets)

    world = World(store, HangsForSome())
    async with world.running():
        for number in range(50):
            owner = f"hanging {number % owners}"
            await world.lifecycle.operations.create(owner, f"bad{number}", AgentSpec(command=("hangs",)))
        before = float(looptime)
        await world.ready("good", owner_id="bob")
        assert looptime < before + 1


async def test_many_at_once_all_become_ready_and_then_go(world: World) -> None:
    async with world.running():
        ids = [(await world.create(f"a{number}")).record.agent.id for number in range(60)]
        for agent_id in ids:
            await world.until(agent_id, State.READY)
        no_leaks(world, agents=60)
        for agent_id in ids:
            await world.lifecycle.operations.delete(agent_id, ANN)
        for agent_id in ids:
            await world.until(agent_id, State.GONE)
    no_leaks(world)


async def test_nothing_is_kept_of_agents_that_are_gone_or_never_were(world: World) -> None:
    driver, containers = world.lifecycle._driver, world.lifecycle.containers
    async with world.running():
        for number in range(3):
            record = await world.ready(f"agent-{number}")
            reporting = containers.report_address(
                record.agent.id, world.runtime.started[-1][1].join_token, "100.64.9.9"
            )
            with pytest.raises(Conflict):
                await reporting
            await world.lifecycle.operations.delete(record.agent.id, ANN)
            await world.until(record.agent.id, State.GONE)
            with pytest.raises(Unauthenticated):
                await containers.rekey(f"nobody-{number}", SecretStr("a guess"))
            await world.passes(60)
    gc.collect()
    assert not driver._places
    assert not driver._turns
    assert not driver._timers
    assert len(containers._looked_at) == 1, "those of before went when the last one came"


async def test_a_write_that_is_overtaken_without_end_is_tried_again_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, left = world.store.agents.save, 10

    async def overtaken(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise Conflict("cannot write the agent: it was changed meanwhile", code="stale")
        return await save(*arguments, **named)

    monkeypatch.setattr(world.store.agents, "save", overtaken)
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        agent = (await world.until(agent_id, State.READY, within=10)).agent
    assert agent.failure is None
    assert left == 0


async def test_the_driver_survives_a_store_that_fails_for_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("cannot use the store: its disk is full")

    async with world.running():
        agent_id = (await world.create()).record.agent.id
        with monkeypatch.context() as patch:
            patch.setattr(world.store.agents, "save", fails)
            await world.passes(60)
        await world.until(agent_id, State.READY)
        await world.passes(200)
    no_leaks(world, agents=1)
