"""Every store test runs on SQLite and on a real PostgreSQL, each time on a fresh database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from elizacloud.store import Cipher, Store, new_secret_key, sqlite_url
from tests.fakes.postgresql import PostgresqlServer
from tests.fakes.store import CELL, HOST

KEY = new_secret_key()


@dataclass
class Clock:
    """A clock that stands still until told."""

    now: datetime = field(default_factory=lambda: datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))

    def __call__(self) -> datetime:
        return self.now

    def pass_seconds(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture(name="sqlite_url")
def url_of_sqlite(sqlite_path: Path) -> str:
    return sqlite_url(sqlite_path)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request: pytest.FixtureRequest, sqlite_path: Path) -> str:
    """The URL of an empty database, once on each kind."""
    if request.param == "sqlite":
        return sqlite_url(sqlite_path)
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    return server.fresh_database()


Open = Callable[..., Awaitable[Store]]


@pytest.fixture
async def open_store(clock: Clock) -> AsyncIterator[Open]:
    """Opens stores that are closed at the end of the test."""
    async with AsyncExitStack() as stack:

        async def open_one(url: str, cipher: Cipher | None = None) -> Store:
            return await stack.enter_async_context(await Store.open(url, cipher or Cipher(KEY), clock=clock))

        yield open_one


@pytest.fixture
async def store(open_store: Open, url: str) -> Store:
    opened = await open_store(url)
    await opened.places.ensure_cell(CELL)
    await opened.places.ensure_host(HOST)
    return opened
