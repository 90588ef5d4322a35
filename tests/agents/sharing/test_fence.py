"""A driver that knows nothing of the time that passed: what it writes is refused by the database alone.

Nobody else writes the agent meanwhile, so that no revision tells it either: with the fence switched off each of these fails.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from elizacloud.agents.drive import Driver
from elizacloud.agents.operations import Operations
from elizacloud.agents.sharing.hold import Alone, Hold, Holds
from elizacloud.model import AgentSpec, Event, utc_now
from elizacloud.states import State
from elizacloud.store import Cipher, Record, Store, new_secret_key, sqlite_url
from tests.agents.sharing.several import WITHIN, Line, Stop, a_moment
from tests.agents.world import ANN, World
from tests.fakes.postgresql import PostgresqlServer
from tests.fakes.runtime import FakeRuntime
from tests.fakes.store import CELL, HOST

LEASE, LONG = "agents", 600.0
CALLS = ("create_preauth_key", "create", "start", "get_node", "stop", "delete_node")


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "store.db")
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    return server.fresh_database()


@pytest.fixture
def cipher() -> Cipher:
    return Cipher(new_secret_key())


@pytest.fixture
async def store(url: str, cipher: Cipher) -> AsyncIterator[Store]:
    async with await Store.open(url, cipher) as store:
        await store.places.ensure_cell(CELL)
        await store.places.ensure_host(HOST)
        yield store


class Blind(Alone):
    """Holds everything under one lease, whose end it never notices."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold


class Plane:
    """One control plane's driver over a world, whose process stops in the middle of a call outside."""

    def __init__(self, store: Store, stop: Stop, holds: Holds) -> None:
        self.world = World(store, FakeRuntime(), clock=utc_now)
        self.world.new_lifecycle(
            headscale=Line(self.world.headscale, stop), runtime=Line(self.world.runtime, stop), store=store
        )
        self.parts = self.world.lifecycle._parts
        self.driver = self.world.lifecycle._driver = Driver(self.parts, holds=holds)
        self.operations = Operations(self.parts, self.driver)
        self.stop = stop

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.driver.run(), name="drive agents")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def stopped_in_the_middle(self) -> str:
        """The agent that it was at when it stopped."""
        agent_id = (await self.operations.create(ANN, "ada", AgentSpec())).record.agent.id
        if self.stop.method in ("stop", "delete_node"):
            await self.world.until(agent_id, State.READY, within=WITHIN)
            await self.operations.delete(agent_id, ANN)
        async with asyncio.timeout(WITHIN):
            await self.stop.reached.wait()
        return agent_id

    async def writes_nothing(self, store: Store, agent_id: str) -> None:
        """It goes on from where it stopped until it finds out; then it says that something may be left outside."""
        before = await all_of(store, agent_id)
        self.parts.untidy.clear()
        self.stop.goes_on.set()
        async with asyncio.timeout(WITHIN):
            while not self.parts.untidy.is_set() and await all_of(store, agent_id) == before:
                await a_moment()
        assert await all_of(store, agent_id) == before


async def all_of(store: Store, agent_id: str) -> tuple[Record, list[Event]]:
    return await store.agents.record(agent_id), list(await store.events.after(0, agent_id=agent_id))


@pytest.mark.parametrize("call", CALLS)
async def test_what_is_done_under_a_lease_that_was_lost_is_not_written(store: Store, call: str) -> None:
    fence = await store.leases.take(LEASE, "1", LONG)
    plane = Plane(store, Stop(call, after=True), Blind(Hold(fence, math.inf)))
    async with plane.running():
        agent_id = await plane.stopped_in_the_middle()
        await store.leases.give_up([LEASE], "1")
        assert await store.leases.take(LEASE, "2", LONG) is not None
        await plane.writes_nothing(store, agent_id)


@pytest.mark.parametrize("call", CALLS)
async def test_on_sqlite_what_is_done_by_an_earlier_start_is_not_written(
    tmp_path: Path, cipher: Cipher, call: str
) -> None:
    url = sqlite_url(tmp_path / "store.db")
    async with await Store.open(url, cipher) as store, await Store.open(url, cipher) as later:
        await store.places.ensure_cell(CELL)
        await store.places.ensure_host(HOST)
        await store.installation.next_epoch()
        plane = Plane(store, Stop(call, after=True), Alone())
        async with plane.running():
            agent_id = await plane.stopped_in_the_middle()
            await later.installation.next_epoch()
            await plane.writes_nothing(later, agent_id)
