"""A database of the first release, frozen in dumps/ as its own code wrote it, is migrated forward and loses nothing."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import SecretStr

from elizacloud.errors import Misconfigured
from elizacloud.model import Scope
from elizacloud.states import State
from elizacloud.store import Cipher, Outcome, Store, tables
from tests.store.conftest import Clock, Open
from tests.store.test_opening import _names, _names_of, sync_engine

DUMPS = Path(__file__).parent / "dumps"
KEY = SecretStr("Zmlyc3QgcmVsZWFzZSdzIGtleSwgb2YgMzIgYnl0ZXM=")
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
READY, FAILED, GONE = "b" * 16, "c" * 16, "d" * 16


@pytest.fixture
def old(url: str) -> str:
    """The URL of a database as the first release left it."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with sqlite3.connect(str(parsed.database)) as connection:
            connection.executescript((DUMPS / "first-release.sqlite.sql").read_text())
        connection.close()
    else:
        with psycopg.connect(url, autocommit=True) as server:
            server.execute((DUMPS / "first-release.postgresql.sql").read_bytes())
    return url


async def test_nothing_is_lost(open_store: Open, old: str, clock: Clock) -> None:
    clock.now = AT.replace(hour=3, minute=5)
    store = await open_store(old, Cipher(KEY))
    record = await store.agents.record(READY)
    agent, generation, run = record.agent, record.generation, record.run
    assert (agent.state, agent.owner_id, agent.agent_ready, agent.revision) == (State.READY, "ann", True, 5)
    assert agent.spec.secrets["K"].get_secret_value() == "s3cret"
    assert (agent.spec.command, agent.spec.config) == (("run", "--x"), {"theme": "dark", "n": 1.5})
    assert (generation.node_id, generation.ipv4, generation.preauth_key_expired) == ("7", "100.64.0.7", True)
    assert run is not None
    assert run.agent_token is not None
    assert (run.agent_token.get_secret_value(), run.ready_at, run.busy_until) == ("eca_token", AT, None)
    failure = (await store.agents.get(FAILED)).failure
    assert failure is not None
    assert (failure.attempts, failure.retry_at, failure.fix) == (3, AT, "Look at its logs.")
    assert (await store.agents.get(GONE)).state is State.GONE
    assert [(event.sequence, event.state_to) for event in await store.events.after(0, agent_id=READY)] == [
        (number, state)
        for number, state in enumerate(
            (State.REQUESTED, State.KEYED, State.STARTED, State.JOINED, State.READY), start=1
        )
    ]
    (token,) = await store.tokens.list("ann")
    assert (token.id, token.scopes, token.parent_id) == ("t1", frozenset({Scope.OWNER}), None)
    claim = await store.idempotency.claim("ann", "key-1", "c" * 64, agent_id="x")
    assert (claim.outcome, claim.status, claim.body) == (Outcome.REPLAY, 201, b'{"agentId":"b"}')
    assert (await store.sessions.take("d" * 64)) is not None
    assert await store.installation.present() == "inst1"
    assert (await store.installation.marks()).epoch == 2


async def test_what_came_since_works_on_it(open_store: Open, old: str) -> None:
    store = await open_store(old, Cipher(KEY))
    run = (await store.agents.record(READY)).run
    assert run is not None
    await store.agents.busy(run, AT)
    after = (await store.agents.record(READY)).run
    assert after is not None
    assert after.busy_until == AT
    assert await store.leases.take("sweeps", "3", 60) is not None
    assert await store.installation.next_epoch() == 3
    assert await store.installation.headscale_key(first="mkey:one") == "mkey:one"
    assert await store.installation.relays(first=("relay",)) == ("relay",)
    assert (await store.installation.marks()).accepted == 0
    await store.installation.accept(("relay",))
    assert (await store.installation.marks()).accepted > 0


async def test_it_has_the_tables_and_keys_of_a_new_one_and_each_key_holds(open_store: Open, old: str) -> None:
    await (await open_store(old, Cipher(KEY))).close()
    engine = sync_engine(old)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        assert _names(connection) == _names_of(tables.metadata, old)
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            assert connection.execute(sa.text("PRAGMA foreign_key_check")).all() == []
            connection.execute(sa.text("PRAGMA foreign_keys = ON"))
        else:
            unchecked = sa.text("SELECT conname FROM pg_constraint WHERE contype = 'f' AND NOT convalidated")
            assert connection.execute(unchecked).all() == []
        for table in ("owners", "cells", "hosts", "agents", "generations"):
            with pytest.raises(sa.exc.IntegrityError):
                connection.execute(sa.delete(sa.table(table)))
            connection.rollback()
            if engine.dialect.name == "sqlite":
                connection.execute(sa.text("PRAGMA foreign_keys = ON"))


async def test_rows_that_refer_to_nothing_stop_the_migration_and_nothing_changes(
    open_store: Open, sqlite_url: str, sqlite_path: Path
) -> None:
    """PostgreSQL never lets such rows in."""
    with sqlite3.connect(sqlite_path) as connection:
        connection.executescript((DUMPS / "first-release.sqlite.sql").read_text())
        connection.execute("DELETE FROM generations WHERE agent_id = ?", (READY,))
    connection.close()
    with pytest.raises(Misconfigured, match="rows refer to rows that are missing"):
        await Store.open(sqlite_url, Cipher(KEY))
    with sqlite3.connect(sqlite_path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
    connection.close()
