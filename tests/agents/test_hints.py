"""An agent whose tailscaled comes and goes, or reports without end, costs a bounded number of looks."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from elizacloud.agents.hints import HINTS_PER_MINUTE, Hints
from elizacloud.states import State
from tests.agents.world import World

pytestmark = pytest.mark.looptime


async def test_what_goes_beyond_the_budget_is_one_look_later(world: World) -> None:
    woken: list[str] = []
    hints = Hints(woken.append)
    for _ in range(1000):
        hints.hint("a")
        hints.hint("b")
    assert len(woken) == 2 * HINTS_PER_MINUTE
    await world.passes(60 / HINTS_PER_MINUTE + 0.01)
    assert len(woken) == 2 * HINTS_PER_MINUTE + 2, "the last hint is not lost"
    await world.passes(600)
    assert len(woken) == 2 * HINTS_PER_MINUTE + 2


async def test_a_tailscaled_that_joins_and_leaves_in_a_loop_costs_little_and_changes_nothing(world: World) -> None:
    async with world.running():
        victim = await world.ready("victim")
        hostile = await world.ready("hostile")
        node = next(node for node in world.nodes if node.id == hostile.generation.node_id)
        await world.passes(100)
        probed, calls = len(world.relays.probed), len(world.headscale.calls)
        for number in range(1000):
            await world.headscale.set_online(node.id, bool(number % 2))
            world.see(world.headscale._nodes[node.id])
            await world.passes(0.01)
        assert len(world.relays.probed) - probed <= 2 * HINTS_PER_MINUTE
        assert len(world.headscale.calls) - calls <= 10, "but for the sweeps' own"
        for record in (victim, hostile):
            now = await world.record(record.agent.id)
            assert (now.agent.state, now.run, now.generation.node_id) == (
                State.READY,
                record.run,
                record.generation.node_id,
            )


async def test_a_container_that_reports_without_end_costs_headscale_a_look_now_and_then(world: World) -> None:
    world.relays_see, world.join_seconds = False, 30
    async with world.running():
        agent_id = (await world.create()).record.agent.id
        await world.until(agent_id, State.STARTED)
        token: SecretStr = world.runtime.started[0][1].join_token
        calls = len(world.headscale.calls)
        for _ in range(400):
            assert not await world.lifecycle.containers.report_address(agent_id, token, "100.64.0.1")
            await world.passes(0.01)
        assert len(world.headscale.calls) - calls <= 2 * HINTS_PER_MINUTE
        await world.until(agent_id, State.READY)
