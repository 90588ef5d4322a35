"""What may be done so often in a minute, and no more: agents that an owner creates, and starts that cost a key as well."""

from __future__ import annotations

import pytest

from elizacloud.agents.budget import Budget
from elizacloud.errors import Conflict, TooMany
from elizacloud.states import State
from elizacloud.store import Store
from tests.agents.world import ANN, World
from tests.fakes.runtime import FakeRuntime, NeverJoins
from tests.virtual_time import pass_seconds

pytestmark = pytest.mark.looptime


async def test_a_minutes_worth_at_once_and_then_as_time_passes() -> None:
    budget = Budget(6, within_seconds=60)
    for _ in range(6):
        assert budget.wait_seconds(ANN) == 0
        budget.spend(ANN)
    assert budget.wait_seconds(ANN) == 10
    assert budget.wait_seconds("bob") == 0
    await pass_seconds(10)
    assert budget.wait_seconds(ANN) == 0
    budget.spend(ANN)
    assert budget.wait_seconds(ANN) == 10
    await pass_seconds(3600)
    budget.spend("bob")
    assert list(budget._used) == ["bob"], "who has all of it again is forgotten"


@pytest.mark.parametrize("none", [None, 0])
async def test_none_is_no_limit(none: int | None) -> None:
    budget = Budget(none, within_seconds=60)
    for _ in range(1000):
        assert budget.wait_seconds(ANN) == 0
        budget.spend(ANN)
    assert not budget._used


async def test_each_agent_counts_and_what_was_refused_does_not(store: Store) -> None:
    world = World(store, FakeRuntime(), creates_per_minute=2)
    async with world.running():
        await world.ready("a")
        for _ in range(3):
            with pytest.raises(Conflict):
                await world.create("a")
        await world.ready("b")
        with pytest.raises(TooMany) as refused:
            await world.create("c")
        assert refused.value.reason == "too_many_creates"
        assert refused.value.retry_after_seconds is not None
        minted = world.calls("create_preauth_key")
        assert minted == 2
        await world.ready("c", owner_id="bob")
        await world.passes(refused.value.retry_after_seconds)
        await world.ready("c")


async def test_an_agent_that_never_joins_is_not_restarted_without_end(store: Store) -> None:
    world = World(store, NeverJoins(), creates_per_minute=3)
    operations = world.lifecycle.operations
    async with world.running():
        agent_id = (await world.create("a")).record.agent.id
        first = await world.until(agent_id, State.STARTED)
        await operations.restart(agent_id, ANN)
        await world.until(agent_id, lambda agent: agent.state is State.STARTED and agent.run > first.agent.run)
        await operations.stop(agent_id, ANN)
        await world.until(agent_id, State.STOPPED)
        await operations.start(agent_id, ANN)
        await world.until(agent_id, State.STARTED)
        for _ in range(3):
            with pytest.raises(TooMany) as refused:
                await operations.restart(agent_id, ANN)
        with pytest.raises(TooMany):
            await world.create("b")
        assert refused.value.retry_after_seconds == pytest.approx(20, abs=1)
        assert world.calls("create_preauth_key") == 3
        await world.passes(20)
        await operations.restart(agent_id, ANN)


async def test_a_restart_of_an_agent_that_joined_costs_no_key(store: Store) -> None:
    world = World(store, FakeRuntime(), creates_per_minute=1)
    async with world.running():
        record = await world.ready("a")
        for run in range(2, 4):
            await world.lifecycle.operations.restart(record.agent.id, ANN)
            await world.until(record.agent.id, lambda agent, run=run: (agent.state, agent.run) == (State.READY, run))  # type: ignore[misc]
        assert world.calls("create_preauth_key") == 1
