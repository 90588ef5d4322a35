"""Keeping a netmap current: callbacks, and what happens when the bus ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from elizacloud.errors import TailnetUnavailable
from elizacloud.tailnet import LocalApi, NetmapWatcher, Peer, PeerChange
from elizacloud.tailnet.bus import Event, Watch
from tests.tailnet.local_api import END_OF_STREAM, FakeLocalApi
from tests.tailnet.test_netmap import SELF, node, status


class Watching:
    """A watcher that runs, the changes it told of, and the bus that it follows now."""

    def __init__(self, fake: FakeLocalApi, api: LocalApi, **pulse: float) -> None:
        self.fake = fake
        self.told: asyncio.Queue[tuple[PeerChange, ...]] = asyncio.Queue()
        self.watcher = NetmapWatcher(api, self.told.put_nowait, **pulse)

    async def bus(self) -> asyncio.Queue[dict[str, Any]]:
        async with asyncio.timeout(20):
            return await self.fake.subscriptions.get()

    async def next_ids(self) -> list[tuple[str | None, str | None]]:
        async with asyncio.timeout(20):
            changes = await self.told.get()
        return [(_id(change.before), _id(change.after)) for change in changes]


def _id(peer: Peer | None) -> str | None:
    return peer.node_id if peer is not None else None


@asynccontextmanager
async def run(watching: Watching) -> AsyncIterator[None]:
    task = asyncio.create_task(watching.watcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def running(fake: FakeLocalApi, api: LocalApi) -> AsyncIterator[Watching]:
    watching = Watching(fake, api)
    async with run(watching):
        yield watching


async def test_each_change_is_told_when_the_netmap_has_it(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.first = [status(2)]
    async with running(fake, api) as watching:
        bus = await watching.bus()
        assert await watching.next_ids() == [(None, "2")]

        bus.put_nowait({"Health": {}})
        bus.put_nowait({"SelfChange": SELF, "PeersChanged": [node(2), node(3)]})

        assert await watching.next_ids() == [(None, "3")]
        assert watching.watcher.netmap.peer_at("100.64.0.3") is not None


async def test_it_ends_when_it_is_told_to_in_the_moment_in_which_tailscaled_goes(api: LocalApi) -> None:
    class Going(LocalApi):
        async def watch(self, mask: Watch) -> AsyncGenerator[Event, None]:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise TailnetUnavailable("tailscaled went") from None
            yield {}

    begun = asyncio.Event()
    going = Going(api.socket)
    task = asyncio.create_task(NetmapWatcher(going).run())
    async with asyncio.timeout(20):
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
    await going.close()

    assert task.cancelled()


async def test_when_the_bus_ends_nobody_is_trusted_until_it_is_followed_again(
    fake: FakeLocalApi, api: LocalApi
) -> None:
    fake.first = [status(2)]
    async with running(fake, api) as watching:
        bus = await watching.bus()
        await watching.watcher.until_known(within_seconds=20)
        fake.first = []

        bus.put_nowait(END_OF_STREAM)
        bus = await watching.bus()
        assert watching.watcher.netmap.peer_at("100.64.0.2") is None
        with pytest.raises(TailnetUnavailable):
            await watching.watcher.until_known(within_seconds=0.01)

        bus.put_nowait(status(3))
        await watching.watcher.until_known(within_seconds=20)
        assert await watching.next_ids() == [(None, "2")]
        assert sorted(await watching.next_ids(), key=str) == [("2", None), (None, "3")]


async def test_the_bus_is_sought_until_tailscaled_is_there(short_dir: Path, fake: FakeLocalApi) -> None:
    later = LocalApi(short_dir / "later.sock")
    try:
        async with running(fake, later) as watching:
            with pytest.raises(TailnetUnavailable):
                await watching.watcher.until_known(within_seconds=0.01)
            (short_dir / "later.sock").symlink_to(short_dir / "t.sock")
            fake.first = [status(2)]
            await watching.watcher.until_known(within_seconds=20)
    finally:
        await later.close()


async def test_a_bus_of_rubbish_is_left_and_sought_again(fake: FakeLocalApi, api: LocalApi) -> None:
    async with running(fake, api) as watching:
        for _ in range(2):
            (await watching.bus()).put_nowait([])  # type: ignore[arg-type]
        (await watching.bus()).put_nowait(status(2))

        await watching.watcher.until_known(within_seconds=20)


async def test_a_second_callback_hears_too(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.first = [status(2)]
    heard: list[tuple[PeerChange, ...]] = []
    async with running(fake, api) as watching:
        watching.watcher.on_change(heard.append)
        await watching.watcher.until_known(within_seconds=20)

    assert len(heard) == 1


async def test_a_tailscaled_that_hangs_is_found_though_its_bus_is_merely_silent(
    fake: FakeLocalApi, api: LocalApi
) -> None:
    fake.first = [status(2)]
    watching = Watching(fake, api, pulse_seconds=0.01, pulse_deadline_seconds=0.05)
    known: asyncio.Queue[bool] = asyncio.Queue()
    watching.watcher.on_known(known.put_nowait)
    async with run(watching), asyncio.timeout(20):
        assert await known.get() is True
        fake.silent["status"] = 1
        assert await known.get() is False
        assert watching.watcher.netmap.peer_at("100.64.0.2") is None
        assert await known.get() is True, "it answers again"
        assert watching.watcher.losses == 1


async def test_who_distrusts_gets_the_whole_netmap_anew(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.first = [status(2)]
    async with running(fake, api) as watching:
        await watching.watcher.until_known(within_seconds=20)
        fake.first = [status(3)]
        watching.watcher.distrust()
        assert not watching.watcher.netmap.known
        await watching.watcher.until_known(within_seconds=20)
        assert [peer.node_id for peer in watching.watcher.netmap] == ["3"]
