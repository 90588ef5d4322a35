"""Agents that nobody uses, where the relays of one control plane reach what another one drives."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from elizacloud.model import AgentSpec
from elizacloud.states import State
from tests.agents.sharing.several import WITHIN, ControlPlane, SharedWorld, until
from tests.agents.world import ANN

pytestmark = pytest.mark.postgresql


async def two_and_an_agent_of_one(
    world: SharedWorld, start: Callable[..., object]
) -> tuple[ControlPlane, ControlPlane, str]:
    """The agent is ready."""
    one: ControlPlane = await start()  # type: ignore[misc]
    two: ControlPlane = await start()  # type: ignore[misc]
    await until(lambda: bool(one.leases.held) and len(two.leases.held) >= 8, "both drive agents")
    agent_id = (await one.lifecycle.operations.create(ANN, "ada", AgentSpec(), agent_id=one.an_id())).record.agent.id
    await world.until(agent_id, State.READY, within=WITHIN)
    return one, two, agent_id


async def test_uses_and_wakes_at_one_reach_whoever_drives_the_agent(
    world: SharedWorld, start: Callable[..., object]
) -> None:
    one, two, agent_id = await two_and_an_agent_of_one(world, start)
    uses = one.lifecycle._parts.uses
    known = uses.last(agent_id)
    two.lifecycle.used(agent_id)
    await until(lambda: uses.last(agent_id) > known, "who drives it knows that it is used")
    await one.lifecycle.operations.pause(agent_id, ANN)
    await world.until(agent_id, State.PAUSED, within=WITHIN)
    await until(lambda: two.relays.table.agents[agent_id].wakeable, "the relays of the other may have it woken")
    two.lifecycle.wake(agent_id)
    await world.until(agent_id, State.READY, within=WITHIN)
    await until(lambda: agent_id in two.relays.table.upstreams, "and reach it then")


async def test_of_an_agent_that_is_gone_nothing_is_kept_where_others_used_it(
    world: SharedWorld, start: Callable[..., object]
) -> None:
    one, two, agent_id = await two_and_an_agent_of_one(world, start)
    two.lifecycle.used(agent_id)
    await one.lifecycle.operations.delete(agent_id, ANN)
    await world.until(agent_id, State.GONE, within=WITHIN)
    parts = two.lifecycle._parts
    await until(lambda: agent_id not in parts.uses._last, "the uses of an agent that is gone are forgotten")
    await until(lambda: agent_id not in parts.lookout._hints, "and what was seen of its node")
