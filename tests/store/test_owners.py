"""What is kept of owners, and counted of their agents."""

from __future__ import annotations

from dataclasses import replace

from elizacloud.states import Wanted
from elizacloud.store import Store
from tests.fakes.store import an_agent, created

POLICY = {"idleAfterSeconds": 900, "schedule": {"timezone": "UTC", "awake": ["mon 08:00-18:00"]}}


async def test_an_owners_idle_policy(store: Store) -> None:
    assert await store.owners.idle_policy("nobody") == {}
    await store.owners.set_idle_policy("ann", POLICY)
    assert await store.owners.idle_policy("ann") == POLICY
    assert await store.owners.idle_policy("bob") == {}
    await store.owners.ensure("ann")
    assert await store.owners.idle_policy("ann") == POLICY
    await store.owners.set_idle_policy("ann", {})
    assert await store.owners.idle_policy("ann") == {}


async def test_agents_are_counted_by_what_is_wanted_of_them(store: Store) -> None:
    one = await created(store)
    await created(store, replace(an_agent(), id="k" * 16, name="two"))
    await store.agents.save(replace(one, wanted=Wanted.ASLEEP), step="rest", reason="unused")
    assert await store.agents.count_by_wanted(one.owner_id) == {Wanted.RUNNING: 1, Wanted.ASLEEP: 1}
    assert await store.agents.count_by_wanted("somebody else") == {}
