"""Leases by compare-and-set on the database's own time, and writes that are made under one."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa

from elizacloud.errors import LeaseLost
from elizacloud.states import State
from elizacloud.store import Fence, Lease, Store
from elizacloud.store.clock import DatabaseTime
from elizacloud.store.leases import check
from tests.fakes.store import created
from tests.store.conftest import Clock, Open

LONG = 600.0
OVER = -1.0
"""A lease that is over as soon as it is taken."""


async def test_one_of_many_takes_it(store: Store) -> None:
    async with asyncio.TaskGroup() as tasks:
        taking = [tasks.create_task(store.leases.take("sweeps", f"cp-{n}", LONG)) for n in range(5)]
    (fence,) = [task.result() for task in taking if task.result() is not None]
    assert fence is not None
    assert fence.epoch == 1
    assert list(await store.leases.look()) == [Lease("sweeps", fence.holder, 1)]


async def test_what_is_held_is_kept_and_cannot_be_taken(store: Store) -> None:
    first = await store.leases.take("sweeps", "cp-1", LONG)
    assert await store.leases.take("sweeps", "cp-2", LONG) is None
    assert list(await store.leases.renew("cp-1", LONG)) == [first]
    assert list(await store.leases.renew("cp-2", LONG)) == []


async def test_what_is_over_is_another_ones_and_is_not_revived(store: Store) -> None:
    await store.leases.take("sweeps", "cp-1", OVER)
    assert list(await store.leases.look()) == [Lease("sweeps", None, 1)]
    assert list(await store.leases.renew("cp-1", LONG)) == []
    assert await store.leases.take("sweeps", "cp-2", LONG) == Fence("sweeps", "cp-2", 2)


async def test_what_is_given_up_is_free_at_once(store: Store) -> None:
    for name in ("a", "b"):
        await store.leases.take(name, "cp-1", LONG)
    await store.leases.give_up(["a", "b"], "cp-2")
    assert await store.leases.take("a", "cp-2", LONG) is None
    await store.leases.give_up(["a"], "cp-1")
    assert await store.leases.take("a", "cp-2", LONG) == Fence("a", "cp-2", 2)
    assert await store.leases.take("b", "cp-2", LONG) is None


async def test_old_ones_are_forgotten_by_prefix(store: Store) -> None:
    await store.leases.take("member 1", "1", -4000.0)
    await store.leases.take("member 2", "2", OVER)
    await store.leases.take("sweeps", "1", -4000.0)
    await store.leases.forget("member ")
    assert [lease.name for lease in await store.leases.look()] == ["member 2", "sweeps"]


async def test_a_write_under_a_lease_that_is_held(store: Store) -> None:
    fence = await store.leases.take("agents 0", "cp-1", LONG)
    saved = await store.agents.save(replace(await created(store), state=State.KEYED), step="t", fence=fence)
    assert saved.revision == 2


@pytest.mark.parametrize("how", ["over", "taken", "taken again by the same", "given up", "never held"])
async def test_a_write_under_a_lease_that_was_lost_changes_nothing(store: Store, how: str) -> None:
    agent = await created(store)
    fence: Fence | None = Fence("agents 0", "cp-1", 1)
    if how != "never held":
        fence = await store.leases.take("agents 0", "cp-1", LONG if how == "given up" else OVER)
    if how.startswith("taken"):
        await store.leases.take("agents 0", "cp-1" if "same" in how else "cp-2", LONG)
    if how == "given up":
        await store.leases.give_up(["agents 0"], "cp-1")
    with pytest.raises(LeaseLost):
        await store.agents.save(replace(agent, state=State.KEYED), step="t", reason="late", fence=fence)
    assert await store.agents.get(agent.id) == agent
    assert [event.step for event in await store.events.after(0)] == ["create"]


async def test_the_clocks_of_control_planes_do_not_count(store: Store, clock: Clock) -> None:
    fence = await store.leases.take("agents 0", "cp-1", LONG)
    clock.pass_seconds(1e6)
    assert await store.leases.take("agents 0", "cp-2", LONG) is None
    await store.agents.save(replace(await created(store), state=State.KEYED), step="t", fence=fence)


async def test_the_time_of_a_database_is_a_time(store: Store) -> None:
    async with store._database.read() as connection:
        now, later = (await connection.execute(sa.select(DatabaseTime(), DatabaseTime(90.5)))).one()
    assert now.utcoffset().total_seconds() == 0
    assert 90 < (later - now).total_seconds() < 95


@pytest.mark.postgresql
async def test_a_hint_reaches_every_control_plane(open_store: Open, postgresql_url: str) -> None:
    one, other = await open_store(postgresql_url), await open_store(postgresql_url)
    heard: asyncio.Queue[object] = asyncio.Queue()
    other.hints.listen(heard.put_nowait)
    async with asyncio.timeout(20):
        while heard.empty():
            await one.hints.send({"kind": "tried"})  # LISTEN may not have begun yet
            with suppress(TimeoutError):
                assert await asyncio.wait_for(heard.get(), 0.2) == {"kind": "tried"}
                return


@pytest.mark.postgresql
async def test_nobody_takes_a_lease_while_something_is_written_under_it(open_store: Open, postgresql_url: str) -> None:
    one, other = await open_store(postgresql_url), await open_store(postgresql_url)
    fence = await one.leases.take("agents 0", "cp-1", 0.2)
    async with one._database.write() as connection:
        await check(connection, fence)
        while (await other.leases.look())[0].holder is not None:
            pass
        # Over, and still nobody else's: the row is locked.
        taking = asyncio.create_task(other.leases.take("agents 0", "cp-2", LONG), name="take")
        assert not (await asyncio.wait({taking}, timeout=0.3))[0]
    assert await taking == Fence("agents 0", "cp-2", 2)
