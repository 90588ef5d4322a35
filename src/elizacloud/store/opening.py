"""Before the first query: is this a database that we can use? Then bring its schema up to date.

Runs in a thread with a synchronous connection of its own, because Alembic keeps its context in module globals. All
migrations that are due happen in one transaction, so that a crash in the middle leaves the schema as it was.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL

from elizacloud.errors import Misconfigured, StoreUnavailable
from elizacloud.store.failures import mapped
from elizacloud.store.filesystem import network_filesystem

MIGRATIONS = Path(__file__).parent / "migrations"

MIGRATION_LOCK = 0x656C697A61
"""The key of the advisory lock under which control planes that start at once migrate a PostgreSQL one after the other."""
MIGRATING_SECONDS = 60
"""For so long one waits for another that migrates."""

# Alembic's `op` and `context` are one per process: stores that open at once take turns.
_turn = threading.Lock()


def prepare(url: URL) -> None:
    """Check the database and migrate it. Raises Misconfigured or StoreUnavailable, with nothing changed."""
    with _turn:
        if url.get_backend_name() == "sqlite":
            _prepare_sqlite(url)
        else:
            _prepare_postgresql(url)


def _prepare_sqlite(url: URL) -> None:
    path = Path(url.database or "")
    if kind := network_filesystem(path.parent):
        raise Misconfigured(
            f"cannot keep the store in {path.parent}: it is on a network filesystem ({kind}), where SQLite loses data; "
            "use a local disk, or PostgreSQL by database_url"
        )
    try:
        # Made here and not by SQLite, so that nobody else can read it; its -wal and -shm files get the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise Misconfigured(
            f"cannot open the store {path}: {error.strerror}; choose another data dir or correct its permissions"
        ) from error
    engine = sa.create_engine(
        url.set(drivername="sqlite"), poolclass=sa.NullPool, connect_args={"timeout": 5, "isolation_level": None}
    )
    try:
        with mapped(), engine.connect() as connection:
            _check_sqlite(connection, path)
            # Off, since a migration may have to rebuild a table that others refer to; checked before the commit.
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _migrate(connection, f"the store {path}")
            if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
                raise Misconfigured(
                    f"cannot use the store {path}: rows refer to rows that are missing; restore it from a backup"
                )
            connection.commit()
            if connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar() != "wal":
                raise Misconfigured(
                    f"cannot open the store {path}: its filesystem does not allow a write-ahead log; use a local disk"
                )
    except Misconfigured as error:
        if str(path) in str(error):
            raise
        raise Misconfigured(
            f"cannot open the store {path}: it is damaged or was written only in part; restore it from a backup"
        ) from error
    finally:
        engine.dispose()


def _check_sqlite(connection: sa.Connection, path: Path) -> None:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise Misconfigured(
            f"cannot open the store {path}: it is damaged or was written only in part; restore it from a backup"
        )


def _prepare_postgresql(url: URL) -> None:
    shown = url.render_as_string(hide_password=True)
    try:
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            poolclass=sa.NullPool,
            isolation_level="READ COMMITTED",
            # Also from a database in another encoding, so that it can say which.
            connect_args={"connect_timeout": 5, "client_encoding": "utf8"},
        )
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"cannot use {shown}: its driver is not installed; install elizacloud[postgresql]"
        ) from error
    try:
        _migrate_postgresql(engine, shown)
    except StoreUnavailable as error:
        detail = str(error.__cause__.orig if isinstance(error.__cause__, sa.exc.DBAPIError) else error)
        raise StoreUnavailable(f"cannot open the database {shown}: {detail.strip().splitlines()[0]}") from error
    finally:
        engine.dispose()


def _migrate_postgresql(engine: sa.Engine, shown: str) -> None:
    with mapped(), engine.begin() as connection:
        _check_postgresql(connection, shown)
        # Until the transaction ends, so that who comes second sees all of the first one's work or nothing of it.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{MIGRATING_SECONDS}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        _migrate(connection, f"the database {shown}")


def _check_postgresql(connection: sa.Connection, shown: str) -> None:
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        raise Misconfigured(
            f"cannot use the database {shown}: its encoding is {encoding}, and the store needs UTF8; make another one, "
            "by CREATE DATABASE with ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0"
        )


def _migrate(connection: sa.Connection, what: str) -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    present = set(MigrationContext.configure(connection).get_current_heads())
    newest = set(script.get_heads())
    if present == newest:
        return
    known = {revision.revision for revision in script.walk_revisions()}
    if present - known:
        raise Misconfigured(
            f"cannot use {what}: a newer version of elizacloud wrote it (schema {', '.join(sorted(present - known))}, "
            f"this one knows {', '.join(sorted(newest))}); start that version, or restore a backup made before it"
        )
    if not present and sa.inspect(connection).get_table_names():
        raise Misconfigured(
            f"cannot use {what}: it holds other tables and no store of elizacloud; give it an empty one"
        )
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "heads")
