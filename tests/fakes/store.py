"""A store for tests: the real one, on SQLite in a temporary directory, opened and closed in some 10 milliseconds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sqlalchemy import make_url

from elizacloud.model import Agent, AgentSpec, Cell, Generation, Host, new_agent_id, utc_now
from elizacloud.states import State, Wanted
from elizacloud.store import Cipher, Store, new_secret_key, sqlite_url
from elizacloud.store.opening import prepare

INSTALLATION = "inst1"
CELL = Cell("cell-1", "first cell")
HOST = Host("host-1", "first host", "process")


_CIPHER = Cipher(new_secret_key())


@cache
def _empty_store() -> bytes:
    """The file of a store that was just migrated: a copy of it opens five times faster than a new one."""
    with tempfile.TemporaryDirectory(prefix="ec-store-") as directory:
        file = Path(directory) / "store.db"
        prepare(make_url(sqlite_url(file)))
        return file.read_bytes()


@asynccontextmanager
async def open_memory_store(*, clock: Callable[[], datetime] = utc_now) -> AsyncIterator[Store]:
    """An empty store of INSTALLATION that knows CELL and HOST; its file is gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="ec-store-"))
    try:
        (directory / "store.db").write_bytes(_empty_store())
        async with await Store.open(sqlite_url(directory / "store.db"), _CIPHER, clock=clock) as store:
            await store.installation.ensure(INSTALLATION)
            await store.places.ensure_cell(CELL)
            await store.places.ensure_host(HOST)
            yield store
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def an_agent(
    name: str = "ada",
    *,
    owner_id: str = "owner-1",
    spec: AgentSpec | None = None,
    wanted: Wanted = Wanted.RUNNING,
    at: datetime | None = None,
) -> Agent:
    """An agent as a create call makes it, in CELL and on HOST."""
    at = at or datetime(2026, 1, 2, tzinfo=UTC)
    return Agent(
        id=new_agent_id(),
        owner_id=owner_id,
        name=name,
        spec=spec or AgentSpec(),
        wanted=wanted,
        state=State.REQUESTED,
        cell_id=CELL.id,
        host_id=HOST.id,
        created_at=at,
        updated_at=at,
    )


async def created(store: Store, agent: Agent | None = None) -> Agent:
    """The agent, or one of default, stored with its first generation."""
    agent = agent or an_agent()
    return await store.agents.create(agent, Generation(agent.id, 1, created_at=agent.created_at))
