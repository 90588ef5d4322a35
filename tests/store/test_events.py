import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from elizacloud.model import Agent, Event
from elizacloud.states import State
from elizacloud.store import Store
from tests.fakes.store import CELL, HOST, an_agent, created
from tests.store.conftest import Open


async def take(store: Store, after: int, count: int, *, agent_id: str | None = None) -> list[Event]:
    """The first events of a subscription that never polls again within the test."""
    found: list[Event] = []
    async with (
        asyncio.timeout(30),
        aclosing(store.events.subscribe(after, agent_id=agent_id, poll_seconds=1000)) as all_,
    ):
        async for event in all_:
            found.append(event)
            if len(found) == count:
                break
    return found


async def note(store: Store, agent: Agent, *reasons: str) -> Agent:
    for reason in reasons:
        agent = await store.agents.save(agent, step="note", reason=reason)
    return agent


async def test_events_are_read_in_order_after_a_sequence(store: Store) -> None:
    assert await store.events.last_sequence() == 0
    assert await store.events.after(0) == []
    ada, bob = await created(store, an_agent("ada")), await created(store, an_agent("bob"))
    await note(store, ada, "a", "b")
    everything = await store.events.after(0)
    assert [event.sequence for event in everything] == [1, 2, 3, 4]
    assert [event.agent_id for event in everything] == [ada.id, bob.id, ada.id, ada.id]
    assert (everything[0].step, everything[0].state_from, everything[0].state_to) == ("create", None, State.REQUESTED)
    assert await store.events.after(1, limit=2) == everything[1:3]
    assert await store.events.after(1, agent_id=ada.id) == everything[2:]
    assert await store.events.after(4) == []
    assert await store.events.last_sequence() == 4


@pytest.mark.parametrize("sequence", [-1, -(10**30)])
async def test_a_sequence_before_the_first_gives_everything(store: Store, sequence: int) -> None:
    await created(store)
    assert len(await store.events.after(sequence)) == 1


async def test_a_sequence_beyond_every_number_gives_nothing(store: Store) -> None:
    await created(store)
    assert await store.events.after(10**30) == []


async def test_a_subscriber_gets_what_was_and_what_comes(store: Store) -> None:
    agent = await created(store)
    async with asyncio.TaskGroup() as group:
        everything = group.create_task(take(store, 0, 4), name="all")
        late = group.create_task(take(store, 2, 2), name="after 2")
        for reason in "abc":
            agent = await note(store, agent, reason)
            await asyncio.sleep(0)
    assert [event.sequence for event in everything.result()] == [1, 2, 3, 4]
    assert [event.reason for event in late.result()] == ["b", "c"]


async def test_a_subscriber_to_an_agent_gets_only_its_events(store: Store) -> None:
    ada, bob = await created(store, an_agent("ada")), await created(store, an_agent("bob"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(take(store, 2, 2, agent_id=bob.id), name="bob's")
        await note(store, ada, "x", "y")
        await note(store, bob, "1", "2")
    assert [event.reason for event in task.result()] == ["1", "2"]


async def test_an_event_between_a_look_and_the_wait_is_not_missed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await created(store)
    look = store.events.after

    async def look_and_then_something_happens(sequence: int, *, agent_id: str | None = None) -> Sequence[Event]:
        found = await look(sequence, agent_id=agent_id)
        if sequence == 1 and not found:
            await note(store, agent, "just now")
        return found

    monkeypatch.setattr(store.events, "after", look_and_then_something_happens)
    assert [event.reason for event in await take(store, 1, 1)] == ["just now"]


async def test_a_long_history_is_read_to_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = await created(store)
    await note(store, agent, *map(str, range(7)))
    monkeypatch.setattr(type(store.events).after, "__kwdefaults__", {"agent_id": None, "limit": 3})
    assert [event.sequence for event in await take(store, 0, 8)] == list(range(1, 9))


async def test_a_reader_never_sees_a_sequence_before_its_predecessor(store: Store) -> None:
    agents = [await created(store, an_agent(f"agent {number}")) for number in range(8)]
    first = await store.events.last_sequence()
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(take(store, first, 80), name=f"reader {number}") for number in range(3)]
        for agent in agents:
            group.create_task(note(store, agent, *map(str, range(10))), name=f"writer of {agent.name}")
    for reader in readers:
        assert [event.sequence for event in reader.result()] == list(range(first + 1, first + 81))


async def test_a_failed_write_leaves_no_hole(store: Store) -> None:
    agent = await created(store)
    moved = await note(store, agent, "one")
    for _ in range(3):
        with pytest.raises(Exception, match="changed meanwhile"):
            await note(store, agent, "stale")
    await note(store, moved, "two")
    assert [event.sequence for event in await store.events.after(0)] == [1, 2, 3]


async def test_what_another_control_plane_writes_is_heard(open_store: Open, postgresql_url: str) -> None:
    ours, theirs = await open_store(postgresql_url), await open_store(postgresql_url)
    await theirs.places.ensure_cell(CELL)
    await theirs.places.ensure_host(HOST)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(take(ours, 0, 2), name="ours")
        agent = await created(theirs)
        await theirs.agents.save(replace(agent, state=State.DELETING), step="delete")
    assert [event.step for event in task.result()] == ["create", "delete"]
