"""What may come between an agent that is to rest and its freeze."""

from __future__ import annotations

import pytest

from elizacloud.runtime.protocol import Phase
from elizacloud.states import State, Wanted
from tests.agents.world import ANN, World, now
from tests.fakes.relays import FakeRelays

pytestmark = pytest.mark.looptime

WORKS_SECONDS = 60.0


class RelaysThatDrain(FakeRelays):
    """The first withdrawal of an agent finds requests in flight; when they are through, its container works on."""

    def __init__(self, world: World) -> None:
        super().__init__(world.reach)
        self._world = world
        self.drains = 0

    async def withdraw(self, agent_id: str, *, within_seconds: float) -> bool:
        idle = await super().withdraw(agent_id, within_seconds=within_seconds)
        self.drains += 1
        if self.drains == 1:
            await self._world.passes(0.2)
            token = self._world.runtime.started[0][1].busy_token
            await self._world.lifecycle.containers.busy(agent_id, token, WORKS_SECONDS)
        return idle


async def test_a_container_that_begins_to_work_while_it_drains_is_not_frozen(world: World) -> None:
    world.relays = relays = RelaysThatDrain(world)
    world.new_lifecycle()
    async with world.running():
        agent_id = (await world.ready()).agent.id
        await world.lifecycle.operations.pause(agent_id, ANN)
        held = await world.until(agent_id, lambda agent: agent.failure is not None or agent.state is State.PAUSED)
        assert (held.agent.state, held.agent.wanted) == (State.READY, Wanted.PAUSED)
        assert held.agent.failure is not None
        assert (held.agent.failure.code, held.agent.failure.reason) == ("busy", "its container says that it is working")
        assert [instance.phase for instance in world.instances] == [Phase.RUNNING]
        assert agent_id in world.relays.table.upstreams
        begun_at = now()
        await world.until(agent_id, State.PAUSED)
        assert (now() - begun_at).total_seconds() >= WORKS_SECONDS - 1
    assert relays.drains == 2
    assert [instance.phase for instance in world.instances] == [Phase.PAUSED]
