import asyncio
import contextlib
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured, TailnetUnavailable
from elizacloud.relay.link import linked, messages
from elizacloud.relay.link.hub import Hub
from elizacloud.upstreams import KnownAgent, PeerSeen, Probe, Snapshot, WakeRefusal
from tests.relay.link.conftest import FakeWorker, Following, Heard
from tests.relay.link.test_messages import AGENT, TOKEN, UPSTREAM


def hub_with(epoch: str = "e1", heard: Heard | None = None, **options: float) -> Hub:
    return Hub(epoch, heard or Heard(), heartbeat_seconds=options.get("heartbeat_seconds", 0.05))


async def test_a_worker_gets_the_table_and_then_each_change(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    hub.load([UPSTREAM], [], [TOKEN])
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        assert client.table.upstreams == {UPSTREAM.agent_id: UPSTREAM}
        assert client.table.tokens == {TOKEN.sha256: TOKEN}
        hub.publish(moved := replace(UPSTREAM, run=3, ip="100.64.0.9"))
        hub.describe([AGENT])
        hub.revoke_token(TOKEN.token_id)
        await worker.until(lambda: client.table.revision == 4)
        assert client.table.upstreams == {UPSTREAM.agent_id: moved}
        assert client.table.agents == {AGENT.agent_id: AGENT}
        assert client.table.tokens == {}


async def test_workers_forget_what_has_expired(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    kept = replace(TOKEN, token_id="t2", sha256="cd" * 32, expires_at=None)
    hub.load([], [], [TOKEN, kept])
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: len(client.table.tokens) == 2)
        assert TOKEN.expires_at is not None
        hub.forget_expired(TOKEN.expires_at)
        await worker.until(lambda: len(client.table.tokens) == 1)
        assert list(client.table.token_ids) == ["t2"]
        hub.forget_expired(TOKEN.expires_at)
        assert hub.snapshot().revision == client.table.revision


async def test_only_our_own_user_can_link(run_dir: Path) -> None:
    async with hub_with().serve(run_dir / "link"):
        assert stat.S_IMODE((run_dir / "link").stat().st_mode) == 0o600
    assert not (run_dir / "link").exists()


async def test_a_socket_left_by_a_crash_is_replaced(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"):
        os.link(run_dir / "link", run_dir / "left")
    os.rename(run_dir / "left", run_dir / "link")
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)


async def test_a_path_that_cannot_be_bound_is_said(run_dir: Path) -> None:
    with pytest.raises(Misconfigured, match="choose another link_socket"):
        async with hub_with().serve(run_dir / "absent" / "link"):
            pass


async def test_a_new_epoch_replaces_the_table(run_dir: Path, following: Following) -> None:
    async with following() as (client, worker):
        first = hub_with("e1")
        first.load([UPSTREAM], [], [TOKEN])
        async with first.serve(run_dir / "link"):
            await worker.until(lambda: client.table.epoch == "e1")
        assert client.table.upstreams  # kept while nobody is there
        async with hub_with("e2").serve(run_dir / "link"):
            await worker.until(lambda: client.table.epoch == "e2")
            assert client.table.upstreams == {}


async def test_a_gap_is_mended_by_a_snapshot(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        client.table.revision -= 1
        hub.publish(UPSTREAM)
        await worker.until(lambda: bool(client.table.upstreams))
        assert client.table.revision == 1


async def test_withdrawn_means_gone_and_idle_everywhere(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    hub.publish(UPSTREAM)
    async with hub.serve(run_dir / "link"), following("w0") as (one, worker), following("w1") as (two, other):
        await worker.until(lambda: one.linked)
        await other.until(lambda: two.linked)
        other.idle.clear()
        asked = asyncio.create_task(hub.withdraw(UPSTREAM.agent_id, within_seconds=10))
        await worker.until(lambda: not one.table.upstreams)
        await other.until(lambda: not two.table.upstreams)
        assert not asked.done()
        other.idle.set()
        assert await asked is True


async def test_a_worker_that_stays_busy_is_a_veto(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        worker.idle.clear()
        assert await hub.withdraw(UPSTREAM.agent_id, within_seconds=0.05) is False


async def test_a_lost_worker_whose_process_lives_is_a_veto_until_it_is_back(
    run_dir: Path, following: Following
) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"):
        async with following() as (client, worker):
            await worker.until(lambda: client.linked)
        assert await hub.withdraw(UPSTREAM.agent_id, within_seconds=0.05) is False
        asked = asyncio.create_task(hub.withdraw(UPSTREAM.agent_id, within_seconds=10))
        async with following() as (client, worker):
            assert await asked is True


async def test_a_worker_that_said_goodbye_is_no_veto(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"):
        async with following() as (client, worker):
            await worker.until(lambda: client.linked)
            client.say_goodbye()
        assert await hub.withdraw(UPSTREAM.agent_id, within_seconds=20) is True


async def test_a_lost_worker_whose_process_is_gone_is_no_veto(run_dir: Path) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"):
        hello = messages.encode(messages.Hello("w9")).decode().strip()
        script = (
            f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(run_dir / 'link')!r});"
            f"s.send({hello!r}.encode() + b'\n'); s.recv(1)"
        )
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
        await child.wait()
        assert await hub.withdraw(UPSTREAM.agent_id, within_seconds=20) is True


async def test_a_lost_worker_whose_process_cannot_be_seen_is_a_veto_for_half_a_minute(
    run_dir: Path, following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linked, "_peer_pid", lambda connection: 0)  # so the kernel says of another container's
    now = 0.0
    hub = Hub("e1", Heard(), heartbeat_seconds=0.05, clock=lambda: now)
    async with hub.serve(run_dir / "link"):
        async with following() as (client, worker):
            await worker.until(lambda: client.linked)
        async with hub._changed:
            await hub._changed.wait_for(lambda: not hub.workers)
        now = 29.0
        assert await hub.withdraw(UPSTREAM.agent_id, within_seconds=0.05) is False
        now = 30.0
        assert await hub.withdraw(UPSTREAM.agent_id, within_seconds=20) is True


async def test_withdraw_keeps_the_reason_why_an_agent_sleeps_but_not_of_one_that_goes(run_dir: Path) -> None:
    hub = hub_with()
    hub.describe([AGENT, KnownAgent("kagent0000000003", "owner", "deleting", "going")])
    await hub.withdraw(AGENT.agent_id, within_seconds=1)
    await hub.withdraw("kagent0000000003", within_seconds=1)
    assert list(hub.snapshot().agents) == [AGENT]


async def test_a_probe_is_answered_by_a_worker(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        worker.answer = Probe(401, None)
        assert await hub.probe(UPSTREAM, within_seconds=1) == Probe(401, None)
        assert worker.probed == [UPSTREAM]


async def test_a_probe_without_a_worker_is_an_error_not_an_answer() -> None:
    with pytest.raises(TailnetUnavailable, match="no relay worker"):
        await hub_with().probe(UPSTREAM, within_seconds=1)


async def test_a_probe_whose_worker_is_lost_is_an_error(run_dir: Path, following: Following) -> None:
    class Stuck(FakeWorker):
        async def probe(self, upstream: object, *, within_seconds: float) -> Probe:
            self.probed.append(UPSTREAM)
            asking.set()
            await asyncio.Event().wait()
            raise AssertionError

    asking = asyncio.Event()
    hub = hub_with()
    async with hub.serve(run_dir / "link"):
        async with following(worker=Stuck()) as (client, worker):
            await worker.until(lambda: client.linked)
            asked = asyncio.create_task(hub.probe(UPSTREAM, within_seconds=10))
            await asking.wait()
        with pytest.raises(TailnetUnavailable, match="broke"):
            await asked


async def test_what_workers_see_and_do_reaches_the_listener(run_dir: Path, following: Following) -> None:
    heard = Heard()
    hub = hub_with(heard=heard)
    peer = PeerSeen("cell", "7", ("100.64.0.7",), ("tag:agent",), True)
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        client.tell_peer(peer)
        client.tell_wake("a")
        client.tell_uses(("a",))
        async with asyncio.timeout(20):
            while not heard.uses:
                heard.any.clear()
                await heard.any.wait()
    assert (heard.peers, heard.wakes) == ([peer], ["a"])


async def test_a_refused_wake_reaches_every_worker_and_a_new_link_is_told(run_dir: Path, following: Following) -> None:
    hub = hub_with()
    refusal = WakeRefusal("a", "cannot wake the agent: no room", "quota_running", 60.0)
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        assert worker.links == 1
        hub.refuse_wake(refusal)
        await worker.until(lambda: bool(worker.refusals))
        assert worker.refusals == [refusal]
        next(iter(hub._workers.values())).cut("outage")
        await worker.until(lambda: worker.links == 2)


@pytest.mark.parametrize("sent", [b"rubbish\n", b"\n", b'{"kind":"heartbeat"}\n', b"x" * (messages.MAX_UP_BYTES + 2)])
async def test_a_stranger_is_cut_off_and_others_stay(run_dir: Path, following: Following, sent: bytes) -> None:
    hub = hub_with()
    async with hub.serve(run_dir / "link"), following() as (client, worker):
        await worker.until(lambda: client.linked)
        reader, writer = await asyncio.open_unix_connection(run_dir / "link")
        writer.write(sent)
        async with asyncio.timeout(20):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        assert hub.workers == ("w0",)


class Database:
    """What a hub checks: well, not well, or without an answer."""

    def __init__(self, *, well: bool = True) -> None:
        self.well = well
        self.answers = asyncio.Event()
        self.answers.set()
        self.checks = 0
        self._checked = asyncio.Condition()

    async def check(self) -> None:
        await self.answers.wait()
        async with self._checked:
            self.checks += 1
            self._checked.notify_all()
        if not self.well:
            raise TailnetUnavailable("the database is down")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Asked at each check."""
        async with asyncio.timeout(20), self._checked:
            await self._checked.wait_for(condition)

    async def checked(self, times: int) -> None:
        most = self.checks + times
        await self.until(lambda: self.checks >= most)


async def test_heartbeats_follow_a_good_check_only(run_dir: Path, following: Following) -> None:
    now = [100.0]
    database = Database(well=False)
    hub = Hub("e1", Heard(), check=database.check, heartbeat_seconds=0.01, clock=lambda: now[0])
    hub.load([], [], [])
    async with hub.serve(run_dir / "link"), following(clock=lambda: now[0]) as (client, worker):
        await worker.until(lambda: client.linked)
        now[0] = 130.0
        await database.checked(3)
        assert client.silent_seconds == 30.0
        database.well = True
        await database.until(lambda: client.silent_seconds == 0.0)


async def test_links_that_come_again_do_not_lengthen_the_grace_without_the_database(
    run_dir: Path, following: Following
) -> None:
    now = [100.0]
    database = Database()
    hub = Hub("e1", Heard(), check=database.check, heartbeat_seconds=0.01, clock=lambda: now[0])
    hub.load([], [], [TOKEN])
    async with hub.serve(run_dir / "link"), following(grace=60.0, clock=lambda: now[0]) as (client, worker):
        await worker.until(lambda: client.tokens_honoured)
        database.well = False
        await database.checked(2)
        hub.describe([AGENT])
        await worker.until(lambda: bool(client.table.agents))  # so all heartbeats before it have come, too
        now[0] += 61.0
        assert not client.tokens_honoured
        next(iter(hub._workers.values())).cut("outage")
        await worker.until(lambda: worker.links == 2)
        assert not client.tokens_honoured
        client.table.revision -= 1
        hub.publish(UPSTREAM)
        await worker.until(lambda: bool(client.table.upstreams))
        assert not client.tokens_honoured
        database.well = True
        await database.until(lambda: client.tokens_honoured)


@pytest.mark.parametrize("answers", [True, False], ids=["down", "silent"])
async def test_a_link_stays_while_the_database_is(run_dir: Path, answers: bool) -> None:
    database = Database(well=False)
    if not answers:
        database.answers.clear()
    async with Hub("e1", Heard(), check=database.check, heartbeat_seconds=0.01).serve(run_dir / "link"):
        reader, writer = await asyncio.open_unix_connection(run_dir / "link")
        writer.write(messages.encode(messages.Hello("w0")))
        async with asyncio.timeout(20):
            said = [messages.decode_down(await reader.readuntil(b"\n")) for _ in range(3)]
        writer.close()
    assert said == [messages.Table(Snapshot("e1", 0)), messages.Alive(), messages.Alive()]
