"""Old events and agents long gone are forgotten in batches; what is alive, or young, is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elizacloud.errors import NotFound
from elizacloud.model import Agent, ApiToken, Run, Scope
from elizacloud.states import State, Wanted
from elizacloud.store import Store, pruning
from tests.fakes.store import an_agent, created
from tests.store.conftest import Clock

DAY = 86_400.0


async def gone(store: Store, name: str) -> Agent:
    """An agent that had a run and a token, and is gone."""
    agent = await created(store, an_agent(name))
    token = ApiToken(f"t-{name}", agent.owner_id, name, frozenset({Scope.RELAY}), agent.id, name * 8, agent.created_at)
    await store.tokens.create(token)
    agent = replace(agent, wanted=Wanted.DELETED, run=1)
    agent = await store.agents.save(agent, step="run", run=Run(agent.id, 1, 1))
    for state in (State.DELETING, State.TOMBSTONE, State.GONE):
        agent = await store.agents.save(replace(agent, state=state), step="delete")
    return agent


async def test_an_agent_that_is_long_gone_is_forgotten_with_all_that_was_told_of_it(store: Store, clock: Clock) -> None:
    old = await gone(store, "old")
    living = await created(store, an_agent("living"))
    clock.pass_seconds(2 * DAY)
    young = await gone(store, "young")
    clock.pass_seconds(0.5 * DAY)

    assert not await store.pruning.forget_gone(older_than_seconds=DAY)

    with pytest.raises(NotFound):
        await store.agents.get(old.id)
    assert await store.events.after(0, agent_id=old.id) == []
    assert await store.agents.generations(old.id) == []
    assert {token.agent_id for token in await store.tokens.list("owner-1")} <= {young.id, None}
    assert (await store.agents.get(young.id)).state is State.GONE
    assert (await store.agents.get(living.id)).state is State.REQUESTED


async def test_old_events_are_forgotten_and_the_sequence_goes_on(store: Store, clock: Clock) -> None:
    agent = await created(store)
    for _ in range(3):
        agent = await store.agents.save(agent, step="note", reason="long ago")
    clock.pass_seconds(2 * DAY)
    await store.agents.save(agent, step="note", reason="today")

    assert not await store.pruning.forget_events(older_than_seconds=DAY)

    assert [(event.sequence, event.reason) for event in await store.events.after(0)] == [(5, "today")]
    assert await store.events.last_sequence() == 5
    assert (await store.agents.get(agent.id)).state is State.REQUESTED
    assert not await store.pruning.forget_events(older_than_seconds=DAY)


async def test_it_goes_in_batches(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "EVENTS_AT_ONCE", 3)
    monkeypatch.setattr(pruning, "AGENTS_AT_ONCE", 1)
    for name in ("a", "b"):
        await gone(store, name)
    clock.pass_seconds(2 * DAY)
    assert await store.pruning.forget_events(older_than_seconds=DAY)
    assert len(await store.events.after(0)) == 5
    assert await store.pruning.forget_gone(older_than_seconds=DAY)
    assert await store.pruning.forget_gone(older_than_seconds=DAY)
    assert not await store.pruning.forget_gone(older_than_seconds=DAY)
    assert await store.events.after(0) == []


async def test_a_clock_that_went_back_between_events_forgets_no_young_one(store: Store, clock: Clock) -> None:
    agent = await created(store)
    clock.pass_seconds(5 * DAY)
    agent = await store.agents.save(agent, step="note", reason="by a clock that was ahead")
    clock.pass_seconds(-4 * DAY)
    await store.agents.save(agent, step="note", reason="put right")
    clock.pass_seconds(1.5 * DAY)
    await store.pruning.forget_events(older_than_seconds=DAY)
    assert [event.reason for event in await store.events.after(0)] == ["by a clock that was ahead"]
