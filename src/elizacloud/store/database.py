"""Connections and transactions: `read` and `write` blocks that are the same on SQLite and on PostgreSQL.

SQLite lets one connection write at a time, so there is one writer and whoever else wants to write waits for it here, in
order, instead of running into "database is locked". Readers have connections of their own and never wait (WAL).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from elizacloud.errors import Misconfigured
from elizacloud.store import tables
from elizacloud.store.failures import mapped

_READERS = 4
_CONNECTIONS = 10
_BUSY_TIMEOUT_SECONDS = 5
_TRANSACTION_SECONDS = 30
"""The longest time a transaction may take, waiting for its turn included."""

_POSTGRESQL_OPTIONS = (
    "-c timezone=UTC -c lock_timeout=10s -c statement_timeout=20s"
    # Short: a control plane that is stopped in the middle of a transaction holds rows that all others need.
    " -c idle_in_transaction_session_timeout=4s"
)


class Database:
    """The engines of one store, and its fence."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.fence: int | None = None
        """The epoch of this control plane once it has one; on SQLite a write under an older one is refused."""
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._writer = _sqlite_engine(url, writes=True) if self.is_sqlite else _postgresql_engine(url)
        self._reader = (
            _sqlite_engine(url, writes=False)
            if self.is_sqlite
            # At READ COMMITTED each statement sees its own moment anyway; BEGIN and ROLLBACK around one cost as much as it does.
            else self._writer.execution_options(isolation_level="AUTOCOMMIT")
        )

    async def close(self) -> None:
        with mapped():
            await self._reader.dispose()
            await self._writer.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """For statements that only read: on SQLite all see one moment, on PostgreSQL each its own. Raises StoreUnavailable."""
        with mapped():
            async with asyncio.timeout(_TRANSACTION_SECONDS), self._reader.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is committed at the end of the block, and rolled back if the block raises."""
        with mapped():
            async with asyncio.timeout(_TRANSACTION_SECONDS), self._writer.begin() as connection:
                await self._check_fence(connection)
                yield connection

    async def _check_fence(self, connection: AsyncConnection) -> None:
        if self.fence is None or not self.is_sqlite:
            return
        epoch = await connection.scalar(sa.select(tables.counters.c.value).where(tables.counters.c.name == "epoch"))
        if epoch != self.fence:
            raise Misconfigured(
                "cannot write to the store: another control plane was started on it; stop this one", code="fenced"
            )


async def insert_or_ignore(connection: AsyncConnection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Insert the row unless one with its key is there; True when it was inserted. Safe against another transaction."""
    # The two databases share the SQL but SQLAlchemy keeps it in two classes.
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(values).on_conflict_do_nothing().returning(sa.literal(1))
    return await connection.scalar(statement) is not None


async def upsert(connection: AsyncConnection, table: sa.Table, values: dict[str, Any]) -> None:
    """Update the row with that primary key, or insert it. The caller's transaction already holds the agent's row."""
    key = sa.and_(*(column == values[column.name] for column in table.primary_key))
    result = await connection.execute(sa.update(table).where(key).values(values))
    if result.rowcount == 0:
        await connection.execute(sa.insert(table).values(values))


async def advance(connection: AsyncConnection, counter: str) -> int:
    """The counter's next value. Its row stays locked until the transaction ends."""
    value = await connection.scalar(
        sa.update(tables.counters)
        .where(tables.counters.c.name == counter)
        .values(value=tables.counters.c.value + 1)
        .returning(tables.counters.c.value)
    )
    if value is None:
        raise Misconfigured(f"cannot use the store: its counter {counter!r} is missing; restore it from a backup")
    return int(value)


def _sqlite_engine(url: URL, *, writes: bool) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        connect_args={"timeout": _BUSY_TIMEOUT_SECONDS, "isolation_level": None},
        pool_size=1 if writes else _READERS,
        max_overflow=0,
        pool_timeout=_TRANSACTION_SECONDS,
        hide_parameters=True,
    )

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # FULL: a commit has reached the disk, by one fsync. With NORMAL a power cut takes back the last ones: ids of keys and
        # nodes that are out there, revocations and deletions that were answered with yes, event sequences that clients go on
        # from; and what is kept beside the store would take it for one restored from a backup, and hold all removals.
        cursor.execute("PRAGMA synchronous = FULL")
        if not writes:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # IMMEDIATE: a transaction that reads first and then finds the database changed could not be retried in place.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgresql_engine(url: URL) -> AsyncEngine:
    return create_async_engine(
        url.set(drivername="postgresql+psycopg"),
        isolation_level="READ COMMITTED",
        pool_size=_CONNECTIONS,
        max_overflow=0,
        pool_timeout=_TRANSACTION_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "connect_timeout": 5,
            "options": _POSTGRESQL_OPTIONS,
            "application_name": f"elizacloud-{os.getpid()}",
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 25_000,
        },
    )
