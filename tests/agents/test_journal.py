"""Writing a change while others write: facts are kept, moves are made only from where the step began."""

from __future__ import annotations

from dataclasses import replace

import pytest

from elizacloud.agents.journal import Journal, Overtaken
from elizacloud.agents.metrics import Metrics
from elizacloud.errors import Conflict
from elizacloud.states import State, Wanted
from elizacloud.store import Store
from tests.fakes.relays import FakeRelays
from tests.fakes.store import created


@pytest.fixture
def relays() -> FakeRelays:
    return FakeRelays()


@pytest.fixture
def journal(store: Store, relays: FakeRelays) -> Journal:
    return Journal(store, relays, Metrics())


async def test_a_new_wish_meanwhile_does_not_stop_the_move(store: Store, journal: Journal) -> None:
    record = await journal.load((await created(store)).id)
    await store.agents.save(replace(record.agent, wanted=Wanted.DELETED, name="new"), step="delete")
    after = await journal.save(record, step="mint", to=State.KEYED)
    assert (after.agent.state, after.agent.wanted, after.agent.name) == (State.KEYED, Wanted.DELETED, "new")


async def test_a_fact_is_written_although_the_agent_was_moved_meanwhile(store: Store, journal: Journal) -> None:
    record = await journal.load((await created(store)).id)
    await store.agents.save(replace(record.agent, state=State.STOPPING), step="stop")
    with pytest.raises(Overtaken):
        generation = replace(record.generation, preauth_key_id="7")
        await journal.save(record, step="mint", to=State.KEYED, generation=generation)
    after = await journal.load(record.agent.id)
    assert (after.agent.state, after.generation.preauth_key_id) == (State.STOPPING, "7")


async def test_a_move_that_the_table_forbids_is_refused(store: Store, journal: Journal) -> None:
    record = await journal.load((await created(store)).id)
    with pytest.raises(Conflict) as caught:
        await journal.save(record, step="x", to=State.READY)
    assert caught.value.reason == "illegal_move"


async def test_relays_hear_of_each_change_once(store: Store, journal: Journal, relays: FakeRelays) -> None:
    record = await journal.load((await created(store)).id)
    journal.tell(record)
    revision = relays.table.revision
    journal.tell(record)
    assert relays.table.revision == revision
    after = await journal.save(record, step="mint", to=State.KEYED)
    assert relays.table.agents[record.agent.id].state == "keyed"
    gone = replace(after, agent=replace(after.agent, state=State.DELETING))
    assert await journal.withdraw(gone, within_seconds=1)
    assert relays.table.agents == {}
