"""What is long gone is forgotten by the sweeps, in virtual time."""

from __future__ import annotations

import pytest

from elizacloud.errors import NotFound
from elizacloud.states import State
from tests.agents.world import ANN, World

pytestmark = pytest.mark.looptime

DAY = 86_400.0


async def test_an_agent_is_forgotten_some_time_after_it_is_gone_and_a_living_one_keeps_what_is_young(
    world: World,
) -> None:
    async with world.running():
        gone = (await world.ready("gone")).agent.id
        living = (await world.ready("living")).agent.id
        await world.lifecycle.operations.delete(gone, ANN)
        await world.until(gone, State.GONE)
    await world.passes(20 * DAY)
    async with world.running():
        await world.lifecycle.operations.restart(living, ANN)
        await world.until(living, State.READY)
        await world.passes(120)
    assert (await world.record(gone)).agent.state is State.GONE

    await world.passes(15 * DAY)
    async with world.running():
        await world.passes(120)
    with pytest.raises(NotFound):
        await world.record(gone)
    steps = [step for step, _ in await world.events(living)]
    assert steps[0] == "restart", "the events of its first start are older than that"
    assert (await world.record(living)).agent.state is State.READY
