import asyncio
from pathlib import Path

from elizacloud.relay.link import messages
from elizacloud.relay.link.hub import Hub
from elizacloud.relay.link.snapshot import SnapshotFile
from elizacloud.upstreams import Change, Snapshot, UpstreamTable
from tests.relay.link.conftest import CIPHER, Following, Heard
from tests.relay.link.test_messages import TOKEN, UPSTREAM


async def test_a_worker_started_in_an_outage_serves_from_disk(run_dir: Path, following: Following) -> None:
    hub = Hub("e1", Heard())
    hub.load([UPSTREAM], [], [TOKEN])
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        await saved(run_dir / "table", revision=1)
    async with following() as (client, worker):
        await worker.until(lambda: client.table.revision == 1)
        assert client.table.upstreams == {UPSTREAM.agent_id: UPSTREAM}
        assert client.tokens_honoured
        assert not client.linked


async def test_a_revocation_reaches_the_disk_too(run_dir: Path, following: Following) -> None:
    hub = Hub("e1", Heard())
    hub.load([], [], [TOKEN])
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        hub.revoke_token(TOKEN.token_id)
        await saved(run_dir / "table", revision=2)
    loaded = SnapshotFile(run_dir / "table", CIPHER).load()
    assert loaded is not None
    assert loaded[0].tokens == ()


async def test_without_a_table_nothing_is_known(following: Following) -> None:
    async with following() as (client, _):
        assert client.table == UpstreamTable()
        assert not client.tokens_honoured


async def test_tokens_are_honoured_for_the_grace_and_no_longer(run_dir: Path, following: Following) -> None:
    now = [1_000.0]
    hub = Hub("e1", Heard())
    async with following(grace=60.0, clock=lambda: now[0]) as (client, worker):
        async with hub.serve(run_dir / "link"):
            await worker.until(lambda: client.linked)
        now[0] = 1_060.0
        assert client.tokens_honoured
        now[0] = 1_061.0
        assert not client.tokens_honoured
        async with hub.serve(run_dir / "link"):
            await worker.until(lambda: client.tokens_honoured)


async def test_a_silent_control_plane_is_left_and_tried_again(run_dir: Path, following: Following) -> None:
    links = 0
    twice = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal links
        links += 1
        if links == 2:
            twice.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(say_nothing, run_dir / "link"), following(silence_seconds=0.05):
        async with asyncio.timeout(20):
            await twice.wait()


async def test_a_control_plane_that_is_only_alive_keeps_its_link_and_ages(run_dir: Path, following: Following) -> None:
    now = [1_000.0]
    later, left = asyncio.Event(), asyncio.Event()

    async def lose_the_database(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(messages.encode(messages.Table(Snapshot("e1", 0), read_seconds_ago=10.0)))
        await later.wait()
        writer.write(messages.encode(messages.Alive()) + messages.encode(messages.Changed(Change(1))))
        while await reader.read(1000):
            pass
        writer.close()
        left.set()

    async with await asyncio.start_unix_server(lose_the_database, run_dir / "link"):
        async with following(clock=lambda: now[0]) as (client, worker):
            await worker.until(lambda: client.linked)
            assert client.silent_seconds == 10.0
            now[0] = 1_020.0
            later.set()
            await worker.until(lambda: client.table.revision == 1)
            assert client.silent_seconds == 30.0
            assert worker.links == 1
        async with asyncio.timeout(20):
            await left.wait()


async def test_rubbish_from_the_other_end_is_no_crash(run_dir: Path, following: Following) -> None:
    async def talk_rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\xff\n")
        await reader.read()
        writer.close()

    async with following() as (client, worker):
        async with await asyncio.start_unix_server(talk_rubbish, run_dir / "link") as server:
            server.close()
        (run_dir / "link").unlink(missing_ok=True)
        async with Hub("e1", Heard()).serve(run_dir / "link"):
            await worker.until(lambda: client.linked)


async def saved(path: Path, *, revision: int) -> None:
    """The table is written by a thread, so this looks until the deadline of the test."""
    async with asyncio.timeout(20):
        while (loaded := SnapshotFile(path, CIPHER).load()) is None or loaded[0].revision != revision:
            await asyncio.to_thread(lambda: None)
