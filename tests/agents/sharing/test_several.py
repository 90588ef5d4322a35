"""Several control planes on one PostgreSQL: one of them is stopped past its lease in the middle of something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from elizacloud.agents.sharing.shards import SHARED
from elizacloud.model import AgentSpec, ApiToken, Scope, utc_now
from elizacloud.runtime.protocol import Phase
from elizacloud.states import State, Wanted
from elizacloud.store import Record
from tests.agents.sharing.several import WITHIN, ControlPlane, SharedWorld, Stop, a_moment, until
from tests.agents.test_lifecycle import no_leaks
from tests.agents.world import ANN

pytestmark = pytest.mark.postgresql


def stopped_at(*calls: str) -> pytest.MarkDecorator:
    """Before and after each call acted; the fence alone holds as well, without the stopped one's own clock."""
    cases = [(call, after, blind) for call in calls for after in (False, True) for blind in (False, True)]
    # Every call at both moments, and every second one of these by the fence alone.
    chosen = [case for number, case in enumerate(cases) if number % 4 in (0, 3)]
    names = [f"{'after' if after else 'before'} {call}{', blind' * blind}" for call, after, blind in chosen]
    return pytest.mark.parametrize(("call", "after", "blind"), chosen, ids=names)


async def taken_over(world: SharedWorld, start: Callable[..., object], stop: Stop) -> ControlPlane:
    """Another control plane starts, and has everything of the one that is stopped."""
    await stop.reached.wait()
    other = await start()  # type: ignore[misc]
    await other.until_it_holds(len(SHARED))
    assert isinstance(other, ControlPlane)
    return other


async def nothing_more_outside(plane: ControlPlane, stop: Stop) -> None:
    """It goes on from where it was stopped, and has no effect outside by what it was at."""
    before = len(plane.calls)
    stop.goes_on.set()
    await a_moment(0.5)
    acts = {"create_preauth_key", "create", "start", "stop", "remove", "pause", "resume", "delete_node"}
    # The call that it was stopped in cannot be called back; a new one is not begun.
    assert not acts.intersection(plane.calls[before:]), plane.calls[before:]


async def settled(world: SharedWorld, agent_id: str) -> Record:
    record = await world.until(agent_id, State.READY, within=WITHIN)

    def clean() -> bool:
        counts = [len(world.instances), len(world.nodes), len(world.keys), len(world.runtime.volumes)]
        return counts == [1, 1, 1, 1] and not world.live_keys

    await until(clean, "one instance, node, key and volume")
    record = await world.until(agent_id, State.READY, within=WITHIN)
    (instance,) = world.instances
    assert instance.phase is Phase.RUNNING
    assert (instance.labels.generation, instance.labels.run) == (record.agent.generation, record.agent.run)
    assert record.generation.node_id == world.nodes[0].id
    for plane in world.planes:
        if plane.blind:
            continue  # it took what the others wrote for its own
        await until(
            lambda plane=plane: getattr(plane.relays.table.upstreams.get(agent_id), "run", None) == record.agent.run,  # type: ignore[misc]
            f"the relays of {plane.me} know it",
        )
    no_leaks(world, agents=1)
    return record


async def ready_agent(world: SharedWorld, one: ControlPlane) -> str:
    """Made by the one that holds every shard."""
    await one.until_it_holds(len(SHARED))
    agent_id = (await one.lifecycle.operations.create(ANN, "ada", AgentSpec())).record.agent.id
    await world.until(agent_id, State.READY, within=WITHIN)
    return agent_id


@stopped_at("create_preauth_key", "create", "start", "expire_preauth_key", "get_node")
async def test_stopped_while_creating(
    world: SharedWorld, start: Callable[..., object], call: str, after: bool, blind: bool
) -> None:
    stop = Stop(call, after=after)
    one: ControlPlane = await start(stop, blind=blind)  # type: ignore[misc]
    await one.until_it_holds(len(SHARED))
    agent_id = (await one.lifecycle.operations.create(ANN, "ada", AgentSpec())).record.agent.id
    await taken_over(world, start, stop)
    await world.until(agent_id, State.READY, within=WITHIN)
    await nothing_more_outside(one, stop)
    await settled(world, agent_id)


@stopped_at("stop", "delete_node", "delete_preauth_key", "remove")
async def test_stopped_while_deleting(
    world: SharedWorld, start: Callable[..., object], call: str, after: bool, blind: bool
) -> None:
    stop = Stop(call, after=after)
    one: ControlPlane = await start(stop, blind=blind)  # type: ignore[misc]
    agent_id = await ready_agent(world, one)
    await one.lifecycle.operations.delete(agent_id, ANN)
    await taken_over(world, start, stop)
    await world.until(agent_id, State.GONE, within=WITHIN)
    stop.goes_on.set()
    await a_moment(0.5)
    await until(lambda: not (world.instances or world.nodes or world.keys or world.runtime.volumes), "nothing is left")


@stopped_at("pause", "resume")
async def test_stopped_while_pausing(
    world: SharedWorld, start: Callable[..., object], call: str, after: bool, blind: bool
) -> None:
    """What a late pause froze is found, since the agent is to run."""
    stop = Stop(call, after=after)
    one: ControlPlane = await start(stop, blind=blind)  # type: ignore[misc]
    agent_id = await ready_agent(world, one)
    await one.lifecycle.operations.pause(agent_id, ANN)
    if call == "resume":
        await world.until(agent_id, State.PAUSED, within=WITHIN)
        await one.lifecycle.operations.start(agent_id, ANN)
    other = await taken_over(world, start, stop)
    await other.lifecycle.operations.start(agent_id, ANN)
    await world.until(agent_id, State.READY, within=WITHIN)
    stop.goes_on.set()
    await until(lambda: world.instances[0].phase is Phase.RUNNING, "it runs")
    await a_moment(1.5)
    await until(lambda: world.instances[0].phase is Phase.RUNNING, "it runs again")
    await settled(world, agent_id)


async def test_what_an_owner_says_at_one_is_done_by_another(world: SharedWorld, start: Callable[..., object]) -> None:
    one: ControlPlane = await start()  # type: ignore[misc]
    await one.until_it_holds(len(SHARED))  # of two that begin at once, either may get the odd one
    two: ControlPlane = await start()  # type: ignore[misc]
    await two.until_it_holds(8)
    await one.until_it_holds(9)
    here = one.lifecycle.operations
    agent_id = (await here.create(ANN, "ada", AgentSpec(), agent_id=two.an_id())).record.agent.id
    assert world.holder_of(agent_id) == "2"
    async with asyncio.timeout(WITHIN):
        joined = await here.wait_until_joined(agent_id, ANN, within_seconds=WITHIN)
        assert joined.generation.node_id is not None
    await settled(world, agent_id)
    assert "create_preauth_key" not in one.calls
    for verb, state in (("stop", State.STOPPED), ("start", State.READY), ("pause", State.PAUSED)):
        await getattr(here, verb)(agent_id, ANN)
        await world.until(agent_id, state, within=WITHIN)
    one.lifecycle.wake(agent_id)  # a relay of the one that does not drive it
    await world.until(agent_id, State.READY, within=WITHIN)
    await here.delete(agent_id, ANN)
    await world.until(agent_id, State.GONE, within=WITHIN)
    for plane in world.planes:
        table = plane.relays.table
        await until(lambda t=table: agent_id not in {**t.upstreams, **t.agents}, "its relays forget it")  # type: ignore[misc]


async def test_a_pause_waits_for_the_relays_of_all(world: SharedWorld, start: Callable[..., object]) -> None:
    one: ControlPlane = await start()  # type: ignore[misc]
    await one.until_it_holds(len(SHARED))  # of two that begin at once, either may get the odd one
    two: ControlPlane = await start()  # type: ignore[misc]
    await two.until_it_holds(8)
    await one.until_it_holds(9)
    two.relays.idle = False
    agent_id = (await one.lifecycle.operations.create(ANN, "ada", AgentSpec(), agent_id=one.an_id())).record.agent.id
    await world.until(agent_id, State.READY, within=WITHIN)
    await one.lifecycle.operations.pause(agent_id, ANN)
    record = await world.until(agent_id, lambda agent: agent.failure is not None, within=WITHIN)
    assert record.agent.failure is not None
    assert record.agent.failure.code == "busy"
    assert "pause" not in one.calls
    two.relays.idle = True
    await world.until(agent_id, State.PAUSED, within=WITHIN)
    assert (await world.record(agent_id)).agent.wanted is Wanted.PAUSED
    assert agent_id not in two.relays.table.upstreams


async def test_tokens_reach_the_relays_of_all(world: SharedWorld, start: Callable[..., object]) -> None:
    one: ControlPlane = await start()  # type: ignore[misc]
    await one.until_it_holds(len(SHARED))
    two: ControlPlane = await start()  # type: ignore[misc]
    await two.until_it_holds(8)
    token = ApiToken("t1", ANN, "spare", frozenset({Scope.OWNER}), None, "0" * 64, utc_now())
    known = two.relays.table.tokens
    await world.store.tokens.create(token)
    one.shared.say("token", token="t1")
    await until(lambda: token.sha256 in known, "the relays of the other know the token")
    await world.store.tokens.revoke("t1")
    one.shared.revoke_token("t1")
    await until(lambda: token.sha256 not in known, "the relays of the other forget the token")


async def test_a_dead_leader_is_followed_by_another(world: SharedWorld, start: Callable[..., object]) -> None:
    stop = Stop("list_nodes", after=False, number=3)
    one: ControlPlane = await start(stop)  # type: ignore[misc]
    await one.until_it_holds(len(SHARED))
    two: ControlPlane = await start()  # type: ignore[misc]
    await stop.reached.wait()
    async with asyncio.timeout(10):
        await two.leases.leading()
        swept = two.calls.count("list_nodes")
        await until(lambda: two.calls.count("list_nodes") > swept, "it sweeps")
    stop.goes_on.set()
