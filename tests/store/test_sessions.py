import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from elizacloud.errors import Conflict, NotFound
from elizacloud.store import CliSession, Store
from tests.store.conftest import Clock


@pytest.fixture
async def session(store: Store, clock: Clock) -> CliSession:
    opened = CliSession("a" * 64, "BCDF-GHJK", clock(), clock() + timedelta(minutes=10))
    await store.sessions.create(opened)
    return opened


async def test_a_session_is_approved_by_its_code_and_taken_once(
    store: Store, clock: Clock, session: CliSession
) -> None:
    assert await store.sessions.get(session.sha256) == session
    assert await store.sessions.by_user_code(session.user_code) == session
    assert await store.sessions.take(session.sha256) is None
    approved = await store.sessions.approve(session.user_code, "owner-1")
    assert approved == replace(session, owner_id="owner-1", approved_at=clock())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(store.sessions.take(session.sha256), name=f"{number}") for number in range(8)]
    taken = [task.result() for task in tasks if task.result() is not None]
    assert taken == [replace(approved, taken_at=clock())]
    assert await store.sessions.get(session.sha256) == taken[0]


async def test_a_session_is_approved_once(store: Store, session: CliSession) -> None:
    await store.sessions.approve(session.user_code, "owner-1")
    with pytest.raises(Conflict):
        await store.sessions.approve(session.user_code, "owner-2")
    taken = await store.sessions.take(session.sha256)
    assert taken is not None
    assert taken.owner_id == "owner-1"


async def test_an_expired_session_is_neither_approved_nor_taken(
    store: Store, clock: Clock, session: CliSession
) -> None:
    late = replace(session, sha256="b" * 64, user_code="XXXX-XXXX")
    await store.sessions.create(late)
    await store.sessions.approve(session.user_code, "owner-1")
    clock.pass_seconds(600)
    assert await store.sessions.take(session.sha256) is None
    with pytest.raises(NotFound):
        await store.sessions.approve(late.user_code, "owner-1")
    assert await store.sessions.sweep() == 2
    with pytest.raises(NotFound):
        await store.sessions.get(session.sha256)


async def test_what_is_unknown_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.sessions.get("nothing")
    with pytest.raises(NotFound):
        await store.sessions.by_user_code("nothing")
    with pytest.raises(NotFound):
        await store.sessions.approve("nothing", "owner-1")
    assert await store.sessions.take("nothing") is None


async def test_a_user_code_that_is_in_use_is_refused(store: Store, session: CliSession) -> None:
    with pytest.raises(Conflict):
        await store.sessions.create(replace(session, sha256="b" * 64))
