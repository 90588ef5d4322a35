"""What goes wrong under a running store: each becomes one of our errors, nothing half is kept, and it heals."""

import asyncio
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from elizacloud.errors import StoreUnavailable
from elizacloud.model import AgentSpec, Run
from elizacloud.store import Outcome, Store, database, listen, sqlite_url
from elizacloud.store.bell import Bell
from tests.fakes.store import CELL, HOST, an_agent, created
from tests.store.conftest import KEY, Open

BIG = AgentSpec(config={"text": "x" * 200_000})


async def with_places(store: Store) -> Store:
    await store.places.ensure_cell(CELL)
    await store.places.ensure_host(HOST)
    return store


async def test_a_full_disk_is_said_and_loses_nothing(open_store: Open, sqlite_url: str) -> None:
    store = await with_places(await open_store(sqlite_url))
    kept = await created(store)
    async with store._database.write() as connection:
        pages = int(await connection.scalar(sa.text("PRAGMA page_count")) or 0)
        await connection.execute(sa.text(f"PRAGMA max_page_count = {pages + 10}"))
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="disk is full; free some space") as caught:
            await created(store, an_agent("big", spec=BIG))
        assert caught.value.retry_after_seconds
    assert [record.agent for record in (await store.agents.list("owner-1")).items] == [kept]
    assert await store.events.last_sequence() == 1
    async with store._database.write() as connection:
        await connection.execute(sa.text("PRAGMA max_page_count = 1000000"))
    await created(store, an_agent("big", spec=BIG))
    assert await store.events.last_sequence() == 2


async def test_a_file_size_limit_is_said_and_loses_nothing(open_store: Open, sqlite_url: str) -> None:
    resource = pytest.importorskip("resource", reason="no resource limits on this system")
    store = await with_places(await open_store(sqlite_url))
    kept = await created(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(StoreUnavailable, match=r"check the disk|disk is full"):
            for number in range(20):
                await created(store, an_agent(f"big {number}", spec=BIG))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await created(store, an_agent("after"))
    names = [agent.name for agent in await store.agents.list_all()]
    assert kept.name in names
    assert "after" in names
    assert await store.events.last_sequence() == len(names)


async def test_another_process_that_holds_the_database_is_said(
    open_store: Open, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_SECONDS", 0.05)
    store = await with_places(await open_store(sqlite_url(sqlite_path)))
    kept = await created(store)
    other = sqlite3.connect(sqlite_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="another process holds it"):
        await created(store, an_agent("bob"))
    assert await store.agents.get(kept.id) == kept
    other.rollback()
    other.close()
    await created(store, an_agent("bob"))


async def test_a_write_that_waits_too_long_for_its_turn_is_unavailable(
    open_store: Open, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await with_places(await open_store(url))
    agent = await created(store)
    async with store._database.write() as connection:
        await connection.execute(sa.text("UPDATE agents SET revision = revision"))
        monkeypatch.setattr(database, "_TRANSACTION_SECONDS", 0.3)
        with pytest.raises(StoreUnavailable, match="too slow or too busy"):
            await store.agents.save(agent, step="s", reason="r")
    assert (await store.agents.save(agent, step="s", reason="r")).revision == 2


async def test_writers_of_one_process_take_turns_without_trying(
    open_store: Open, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_TIMEOUT_SECONDS", 0)
    store = await with_places(await open_store(sqlite_url))
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(created(store, an_agent(f"agent {number}")), name=f"create {number}")
    assert await store.events.last_sequence() == 20


async def test_two_stores_on_one_database_take_turns(open_store: Open, url: str) -> None:
    """As two control planes on PostgreSQL do, and on SQLite a tool beside the control plane."""
    stores = [await with_places(await open_store(url)) for _ in range(2)]

    async def write(store: Store, name: str) -> None:
        agent = await created(store, an_agent(name))
        for turn in range(10):
            agent = await store.agents.save(agent, step="turn", reason=str(turn))

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(write(stores[number % 2], f"agent {number}"), name=f"writer {number}")
    assert [event.sequence for event in await stores[0].events.after(0)] == list(range(1, 67))


async def test_readers_do_not_wait_for_a_writer(store: Store) -> None:
    agent = await created(store)
    async with asyncio.timeout(10), store._database.write() as connection:
        await connection.execute(sa.text("UPDATE agents SET name = 'not yet'"))
        assert await store.agents.get(agent.id) == agent


async def test_a_read_transaction_on_sqlite_cannot_write(open_store: Open, sqlite_url: str) -> None:
    store = await open_store(sqlite_url)
    with pytest.raises(StoreUnavailable):
        async with store._database.read() as connection:
            await connection.execute(sa.text("DELETE FROM owners"))


async def test_errors_tell_no_values(store: Store) -> None:
    agent = await created(store, an_agent("canary-name", spec=AgentSpec(environment={"A": "canary-env"})))
    for bad in (an_agent("canary-name", spec=agent.spec), an_agent("canary-\ud800")):
        with pytest.raises(Exception, match="cannot store") as caught:
            await created(store, bad)
        assert "canary" not in str(caught.value)
        assert "canary-env" not in repr(caught.value.__cause__)


async def test_no_secret_is_found_in_any_file(open_store: Open, sqlite_path: Path) -> None:
    store = await with_places(await open_store(sqlite_url(sqlite_path)))
    spec = AgentSpec(
        environment={"A": "hidden-1"},
        secrets={"B": SecretStr("hidden-2")},
        config={"c": ["hidden-3", {"d": "hidden-4"}]},
    )
    agent = await created(store, an_agent(spec=spec))
    await store.agents.save(agent, step="s", run=Run(agent.id, 1, 1, agent_token=SecretStr("hidden-5")))
    claim = await store.idempotency.claim("o", "key", "sha", agent_id=agent.id)
    assert claim.outcome is Outcome.NEW
    await store.idempotency.finish(claim, status=201, body=b"hidden-6")
    files = [path.read_bytes() for path in sqlite_path.parent.iterdir() if path.is_file()]
    assert any(agent.id.encode() in content for content in files)
    assert not any(b"hidden-" in content for content in files)


# PostgreSQL


@contextmanager
def admin(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


CUT_OTHERS = b"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'"""


async def test_a_read_takes_no_transaction_and_a_write_on_the_same_connection_does(
    open_store: Open, postgresql_url: str
) -> None:
    store = await open_store(postgresql_url)
    found = []
    for begin in (store._database.read, store._database.write, store._database.read, store._database.write):
        async with begin() as connection:
            await connection.execute(sa.select(sa.literal(1)))
            driver = (await connection.get_raw_connection()).driver_connection
            assert isinstance(driver, psycopg.AsyncConnection)
            found.append((driver.info.backend_pid, driver.info.transaction_status.name))
    (pid,) = {pid for pid, _ in found}
    assert found == [(pid, "IDLE"), (pid, "INTRANS")] * 2


async def test_connections_that_are_cut_are_made_again(open_store: Open, postgresql_url: str) -> None:
    store = await with_places(await open_store(postgresql_url))
    agent = await created(store)
    for _ in range(3):
        with admin(postgresql_url) as server:
            server.execute(CUT_OTHERS)
        assert await store.agents.get(agent.id) == agent
        agent = await store.agents.save(agent, step="s", reason="r")


async def test_a_connection_that_is_cut_in_a_transaction_is_unavailable_and_keeps_nothing(
    open_store: Open, postgresql_url: str
) -> None:
    store = await with_places(await open_store(postgresql_url))
    with pytest.raises(StoreUnavailable, match="check that it runs") as caught:
        async with store._database.write() as connection:
            await connection.execute(sa.text("UPDATE cells SET name = 'half'"))
            with admin(postgresql_url) as server:
                server.execute(CUT_OTHERS)
            await connection.execute(sa.text("UPDATE hosts SET name = 'half'"))
    assert caught.value.retry_after_seconds
    assert (await store.places.cells(), await store.places.hosts()) == ([CELL], [HOST])


async def test_a_server_that_hangs_is_unavailable_within_the_deadline(
    open_store: Open, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await with_places(await open_store(postgresql_url))
    async with store._database.read() as connection:
        pid = int(await connection.scalar(sa.text("SELECT pg_backend_pid()")) or 0)
    monkeypatch.setattr(database, "_TRANSACTION_SECONDS", 0.3)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="too slow"):
            async with asyncio.timeout(20):
                await store.ping()
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.undo()
    await store.ping()


async def test_what_was_written_while_the_listener_was_cut_is_heard_when_it_is_back(
    open_store: Open, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "_AGAIN_SECONDS", 0.05)
    ours, theirs = await open_store(postgresql_url), await with_places(await open_store(postgresql_url))
    listeners = b"pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()"
    async with asyncio.timeout(30), aclosing(ours.events.subscribe(0, poll_seconds=1000)) as events:
        first = await created(theirs)
        assert (await anext(events)).agent_id == first.id
        with admin(postgresql_url) as server:
            while len(server.execute(b"SELECT " + listeners).fetchall()) < 2:
                await asyncio.sleep(0)
            monkeypatch.setattr(Bell, "CHANNEL", "a_channel_that_nobody_hears_yet")
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(anext(events), name="next event")
                second = await created(theirs, an_agent("bob"))
                server.execute(b"SELECT pg_terminate_backend(pid), " + listeners)
    assert waiting.result().agent_id == second.id


# A control plane that is killed in the middle of writing

WRITER = """
import asyncio, sys
from pydantic import SecretStr
from elizacloud.store import Cipher, Store
from tests.fakes.store import CELL, HOST, an_agent, created

async def main(url, key):
    store = await Store.open(url, Cipher(SecretStr(key)))
    await store.places.ensure_cell(CELL)
    await store.places.ensure_host(HOST)

    async def write(worker):
        for number in range(100_000):
            agent = await created(store, an_agent(f"{worker}-{number}"))
            agent = await store.agents.save(agent, step="s", reason="r")
            print(agent.id, flush=True)

    async with asyncio.TaskGroup() as group:
        for worker in range(3):
            group.create_task(write(f"{sys.argv[3]}-{worker}"), name=f"writer {worker}")

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def acknowledged_before_the_kill(url: str, life: int, lines: int) -> set[str]:
    """Run the writer until it has acknowledged that many agents, kill it, and return all that it acknowledged."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, KEY.get_secret_value(), str(life)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None
    with writer, writer.stdout as output:
        printed = b""
        while printed.count(b"\n") < lines:
            assert select.select([output], [], [], 30)[0], "the writer is stuck"
            printed += os.read(output.fileno(), 4096)
        writer.kill()
        printed += output.read()
    return set(re.findall(r"^(\w{16})\n", printed.decode(), re.MULTILINE))


async def test_what_was_acknowledged_survives_a_kill(open_store: Open, url: str) -> None:
    acknowledged: set[str] = set()
    for life in range(3):
        acknowledged |= acknowledged_before_the_kill(url, life, 10 + 7 * life)
    assert len(acknowledged) >= 10 + 17 + 24
    store = await open_store(url)
    agents = await store.agents.list_all()
    assert acknowledged <= {agent.id for agent in agents if agent.revision == 2}
    # Whatever else was written was written whole: an event for every revision, and a generation for every agent.
    events = await store.events.after(0, limit=100_000)
    assert [event.sequence for event in events] == list(range(1, sum(agent.revision for agent in agents) + 1))
    assert len(await store.agents.records()) == len(agents)
