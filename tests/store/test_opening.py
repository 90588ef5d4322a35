"""Databases that can be opened, and those that must be refused with one sentence and left as they are."""

import asyncio
import logging
import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from elizacloud.errors import Error, Misconfigured, StoreUnavailable
from elizacloud.store import Cipher, Store, opening, sqlite_url, tables
from elizacloud.store.opening import prepare
from tests.fakes.postgresql import PostgresqlServer
from tests.fakes.store import CELL, HOST, created
from tests.store.conftest import KEY, Open


def sync_engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    driver = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
    return sa.create_engine(parsed.set(drivername=driver), poolclass=sa.NullPool)


def test_migrations_and_tables_agree(url: str) -> None:
    prepare(sa.make_url(url))
    with sync_engine(url).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        # What the comparison does not see: conditions of indexes, names of keys.
        assert _names(connection) == _names_of(tables.metadata, url)


def _names(connection: sa.Connection) -> set[str]:
    inspector = sa.inspect(connection)
    found: set[str] = set()
    for table in inspector.get_table_names():
        if table == "alembic_version":
            continue
        found.add(str(inspector.get_pk_constraint(table)["name"]))
        found |= {str(key["name"]) for key in inspector.get_foreign_keys(table)}
        for index in inspector.get_indexes(table):
            where = {str(text) for text in index.get("dialect_options", {}).values()}
            found.add(f"{index['name']} {sorted(where)}")
        found |= {str(key["name"]) for key in inspector.get_unique_constraints(table)}
    return found


def _names_of(metadata: sa.MetaData, url: str) -> set[str]:
    engine = sync_engine(sqlite_url(Path(":memory:")) if url.startswith("sqlite") else url)
    with engine.connect() as connection:
        if url.startswith("sqlite"):
            metadata.create_all(connection)
            return _names(connection)
        connection.execute(sa.schema.CreateSchema("fresh"))
        connection.execute(sa.text("SET search_path TO fresh"))
        metadata.create_all(connection)
        return _names(connection)


async def test_a_store_is_what_it_was_when_opened_again(open_store: Open, store: Store, url: str) -> None:
    agent = await created(store)
    await store.close()
    assert await (await open_store(url)).agents.get(agent.id) == agent


async def test_many_open_an_empty_database_at_once(open_store: Open, url: str) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(_opened_and_closed(url), name=f"open {number}")
    assert (await (await open_store(url)).installation.marks()).last_event == 0


MIGRATE = """
import sys
from sqlalchemy import make_url
from elizacloud.store.opening import prepare
sys.stdin.read(1)
prepare(make_url(sys.argv[1]))
"""


async def test_many_processes_migrate_an_empty_postgresql_at_once(postgresql_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", MIGRATE, postgresql_url, stdin=asyncio.subprocess.PIPE
        )
        for _ in range(6)
    ]
    async with asyncio.timeout(50):
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(b"x")
        assert [await process.wait() for process in processes] == [0] * 6


def test_a_postgresql_that_another_migrates_is_not_looked_at_before_the_other_is_done(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "MIGRATING_SECONDS", 1)
    engine = sync_engine(postgresql_url)
    with engine.begin() as other:
        other.execute(sa.text(f"SELECT pg_advisory_xact_lock({opening.MIGRATION_LOCK})"))
        other.execute(sa.text("CREATE TABLE half (id integer)"))
        with pytest.raises(StoreUnavailable, match=r"cannot open the database .*lock timeout"):
            prepare(sa.make_url(postgresql_url))
        other.execute(sa.text("DROP TABLE half"))
    prepare(sa.make_url(postgresql_url))


async def _opened_and_closed(url: str) -> None:
    await (await Store.open(url, Cipher(KEY))).close()


async def test_opening_leaves_logging_alone_and_reads_no_alembic_ini(
    open_store: Open, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\nsqlalchemy.url = sqlite:///other.db\n")
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("alembic").level, logging.getLogger("x").disabled)
    await open_store(sqlite_url)
    assert (
        root.level,
        list(root.handlers),
        logging.getLogger("alembic").level,
        logging.getLogger("x").disabled,
    ) == before
    assert not (tmp_path / "other.db").exists()


async def test_the_file_is_private_and_durable(open_store: Open, sqlite_path: Path) -> None:
    os.umask(os.umask(0o022))
    store = await open_store(sqlite_url(sqlite_path))
    await store.owners.ensure("owner-1")
    for name in ("store.db", "store.db-wal", "store.db-shm"):
        assert stat.S_IMODE((sqlite_path.parent / name).stat().st_mode) == 0o600
    async with store._database.write() as connection:
        settings = [
            await connection.scalar(sa.text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert settings == ["wal", 2, 1]


@pytest.mark.parametrize("name", ["with space.db", "per%20cent%.db", "question?mark=1#hash.db", "ünïcode.db"])
async def test_any_path_will_do(open_store: Open, tmp_path: Path, name: str) -> None:
    await open_store(sqlite_url(tmp_path / name))
    assert (tmp_path / name).stat().st_size > 0


async def refused(url: str, kind: type[Error], *words: str) -> None:
    """Opening raises the kind, with these words, and changes nothing."""
    path = Path(sa.make_url(url).database or "")
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(kind) as caught:
        await _opened_and_closed(url)
    for word in words:
        assert word in str(caught.value)
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_store_of_a_newer_version_is_refused(open_store: Open, url: str) -> None:
    await (await open_store(url)).close()
    with sync_engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    await refused(url, Misconfigured, "a newer version of elizacloud wrote it (schema 9999, this one knows 000")


async def test_a_database_of_something_else_is_refused(url: str) -> None:
    with sync_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE recipes (id INTEGER)"))
    await refused(url, Misconfigured, "holds other tables and no store of elizacloud")


async def test_a_migration_that_fails_changes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    for file in ("env.py", "versions/v0001_first_tables.py"):
        (tmp_path / "migrations" / file).write_text((opening.MIGRATIONS / file).read_text())
    (versions / "v0002.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = '0002', '0001'\n"
        "def upgrade() -> None:\n"
        "    op.create_table('half', sa.Column('id', sa.Text))\n"
        "    raise RuntimeError('the power went')\n"
    )
    monkeypatch.setattr(opening, "MIGRATIONS", tmp_path / "migrations")
    with pytest.raises(RuntimeError):
        prepare(sa.make_url(url))
    with sync_engine(url).connect() as connection:
        assert sa.inspect(connection).get_table_names() == []
    monkeypatch.undo()
    prepare(sa.make_url(url))


def _cut(path: Path, keep: float) -> None:
    os.truncate(path, int(path.stat().st_size * keep))


async def test_a_half_written_file_is_refused(open_store: Open, sqlite_path: Path) -> None:
    await (await open_store(sqlite_url(sqlite_path))).close()
    whole = sqlite_path.read_bytes()
    for keep in (0.9, 0.5, 0.05, 0.005):
        sqlite_path.write_bytes(whole[: int(len(whole) * keep)])
        await refused(sqlite_url(sqlite_path), Misconfigured, str(sqlite_path), "restore it from a backup")


@pytest.mark.parametrize("content", [b"not a database", os.urandom(100_000), b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_refused(sqlite_path: Path, content: bytes) -> None:
    sqlite_path.write_bytes(content)
    await refused(sqlite_url(sqlite_path), Misconfigured, str(sqlite_path), "restore it from a backup")


async def test_a_file_with_damage_inside_is_refused(open_store: Open, sqlite_path: Path) -> None:
    store = await open_store(sqlite_url(sqlite_path))
    await created_with_places(store)
    await store.close()
    whole = bytearray(sqlite_path.read_bytes())
    for page in range(8192, len(whole), 4096):
        whole[page : page + 60] = b"\xa5" * 60
    sqlite_path.write_bytes(whole)
    await refused(sqlite_url(sqlite_path), Misconfigured, str(sqlite_path), "restore it from a backup")


async def created_with_places(store: Store) -> None:
    await store.places.ensure_cell(CELL)
    await store.places.ensure_host(HOST)
    await created(store)


async def test_an_empty_file_is_a_new_store(open_store: Open, sqlite_path: Path) -> None:
    sqlite_path.touch()
    await open_store(sqlite_url(sqlite_path))


async def test_rows_that_refer_to_nothing_are_noticed(open_store: Open, sqlite_path: Path) -> None:
    store = await open_store(sqlite_url(sqlite_path))
    await created_with_places(store)
    await store.close()
    with sqlite3.connect(sqlite_path) as connection:
        connection.execute("DELETE FROM cells")
    connection.close()
    await refused(sqlite_url(sqlite_path), Misconfigured, "refer to rows that are missing")


async def test_a_place_that_cannot_hold_a_store_is_refused(tmp_path: Path) -> None:
    await refused(sqlite_url(tmp_path / "missing" / "store.db"), Misconfigured, "No such file or directory")
    (tmp_path / "file").touch()
    await refused(sqlite_url(tmp_path / "file" / "store.db"), Misconfigured, "Not a directory")
    await refused(sqlite_url(tmp_path), Misconfigured, "Is a directory")


async def test_a_network_filesystem_is_refused(sqlite_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "network_filesystem", lambda directory: "nfs4")
    await refused(
        sqlite_url(sqlite_path), Misconfigured, "network filesystem (nfs4)", "use a local disk, or PostgreSQL"
    )
    assert not sqlite_path.exists()


@pytest.mark.parametrize("url", ["", "sqlite://", "mysql://me:secret@host/db", "nonsense", "http://[::1"])
async def test_a_url_that_is_none_is_one_sentence_without_its_text(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        await _opened_and_closed(url)
    assert "secret" not in str(caught.value)


async def test_a_postgresql_that_is_not_there_is_unavailable_and_its_password_is_not_told() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await _opened_and_closed("postgresql://me:secret@127.0.0.1:1/db")
    assert "refused" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_postgresql_database_that_is_not_there_is_said(postgresql_url: str) -> None:
    missing = sa.make_url(postgresql_url).set(database="missing").render_as_string()
    with pytest.raises((StoreUnavailable, Misconfigured), match='"missing" does not exist'):
        await _opened_and_closed(missing)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_postgresql_database_without_unicode_is_refused(
    postgresql_server: PostgresqlServer, encoding: str
) -> None:
    url = postgresql_server.fresh_database(f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")

    await refused(url, Misconfigured, f"its encoding is {encoding}, and the store needs UTF8", "ENCODING 'UTF8'")


async def test_the_usual_spellings_of_a_postgresql_url_are_taken(open_store: Open, postgresql_url: str) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        store = await open_store(postgresql_url.replace("postgresql", scheme, 1))
        await store.ping()
