import asyncio
from collections.abc import Callable

import pytest

from elizacloud.relay.dialling.pool import Pool
from elizacloud.relay.upstream import UpstreamConnection


class Transport(asyncio.Transport):
    """A transport that only knows whether it was closed, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = ""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"


class Dialled:
    """Dials at will."""

    def __init__(self) -> None:
        self.count = 0
        self.before_it_connects: Callable[[], None] = lambda: None

    async def __call__(self) -> UpstreamConnection:
        self.count += 1
        connection = UpstreamConnection()
        connection.connection_made(Transport())
        self.before_it_connects()
        return connection


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    return [0.0]


@pytest.fixture
async def pool(now: list[float]) -> Pool:
    pool = Pool(Dialled())
    pool._now = lambda: now[0]
    return pool


async def used(pool: Pool) -> UpstreamConnection:
    connection = await pool.connect()
    connection.keep_alive = True
    return connection


async def test_the_last_one_used_is_lent_first(pool: Pool) -> None:
    assert pool.lease() is None
    one, two = await used(pool), await used(pool)
    pool.give_back(one)
    pool.give_back(two)
    assert pool.lease() is two
    assert pool.lease() is one
    assert pool.lease() is None


async def test_one_that_may_not_be_used_again_is_closed(pool: Pool) -> None:
    connection = await used(pool)
    connection.keep_alive = False
    pool.give_back(connection)
    assert connection.closed
    assert pool.lease() is None


async def test_idle_ones_are_not_lent_after_their_time(pool: Pool, now: list[float]) -> None:
    one, two = await used(pool), await used(pool)
    two.idle_within = 30.0
    pool.give_back(one)
    pool.give_back(two)
    now[0] = 4.0
    pool.sweep()
    assert one.closed
    now[0] = 28.9
    assert pool.lease() is two
    pool.give_back(two)
    now[0] = 58.0
    assert pool.lease() is None
    assert two.closed


async def test_what_is_retired_finishes_and_is_not_lent_again(pool: Pool) -> None:
    idle, busy = await used(pool), await used(pool)
    pool.give_back(idle)
    pool.retire()
    assert idle.closed
    assert not busy.closed
    pool.give_back(busy)
    assert busy.closed


async def test_what_is_killed_ends_at_once(pool: Pool) -> None:
    idle, busy = await used(pool), await used(pool)
    pool.give_back(idle)
    pool.kill("moved")
    assert idle.closed
    assert busy.closed
    assert pool.lease() is None


async def test_a_dial_that_began_before_is_of_the_old_epoch(pool: Pool) -> None:
    dialled = pool._dial
    assert isinstance(dialled, Dialled)
    dialled.before_it_connects = lambda: pool.kill("moved")
    connection = await used(pool)
    assert connection.epoch != pool.epoch
    pool.give_back(connection)
    assert connection.closed


async def test_a_lost_one_is_forgotten(pool: Pool) -> None:
    connection = await used(pool)
    pool.give_back(connection)
    connection.connection_lost(None)
    assert pool.lease() is None
    assert pool.empty


async def test_one_that_was_lost_before_the_pool_knew_it_is_not_counted() -> None:
    async def dial() -> UpstreamConnection:
        connection, transport = UpstreamConnection(), Transport()
        connection.connection_made(transport)
        transport.close()
        connection.connection_lost(None)
        return connection

    pool = Pool(dial)
    assert (await pool.connect()).closed
    assert pool.connections() == (0, 0)
    assert pool.empty
