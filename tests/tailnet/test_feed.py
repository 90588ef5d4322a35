"""One netmap told to many: the same on both ends, and trusted no longer than its teller is heard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from elizacloud.tailnet import LocalApi, NetmapWatcher, PeerChange
from elizacloud.tailnet.feed import SILENCE_SECONDS, Message, NetmapFeed, NetmapFollower
from tests.tailnet.local_api import END_OF_STREAM, FakeLocalApi
from tests.tailnet.test_netmap import SELF, node, status


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Line:
    """A follower at the end of a wire that a test may cut; `up` is what it sent."""

    clock: Clock
    up: list[Message] = field(default_factory=list)
    told: list[tuple[PeerChange, ...]] = field(default_factory=list)
    cut: bool = False

    def __post_init__(self) -> None:
        self.follower = NetmapFollower(self.up.append, clock=self.clock)
        self.follower.on_change(self.told.append)

    def down(self, message: Message) -> None:
        if not self.cut:
            self.follower.hear(json.loads(json.dumps(message)))

    @property
    def peers(self) -> list[str]:
        return sorted(peer.node_id for peer in self.follower.netmap)

    @property
    def known(self) -> bool:
        return self.follower.netmap.known


class Host:
    """A watched tailscaled and the feed of it; workers subscribe."""

    def __init__(self, fake: FakeLocalApi, api: LocalApi) -> None:
        self.fake = fake
        self.clock = Clock()
        self.watcher = NetmapWatcher(api)
        self.feed = NetmapFeed(self.watcher, clock=self.clock)
        self.bus: asyncio.Queue[dict[str, Any]]

    def line(self) -> Line:
        line = Line(self.clock)
        self.feed.subscribe(line.down)
        return line

    async def follow(self) -> None:
        async with asyncio.timeout(20):
            self.bus = await self.fake.subscriptions.get()

    def tell(self, event: dict[str, Any]) -> None:
        self.bus.put_nowait(event)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def host(fake: FakeLocalApi, api: LocalApi) -> AsyncIterator[Host]:
    fake.first = [status(2)]
    made = Host(fake, api)
    task = asyncio.create_task(made.watcher.run())
    await made.follow()
    await made.watcher.until_known(within_seconds=20)
    yield made
    task.cancel()
    await asyncio.wait([task])


async def test_every_follower_has_the_watchers_netmap(host: Host) -> None:
    early = host.line()
    assert (early.known, early.peers) == (True, ["2"])
    host.tell({"SelfChange": SELF, "PeersChanged": [node(2), node(3)]})
    await until(lambda: early.peers == ["2", "3"])
    late = host.line()
    host.tell({"PeersRemoved": [2]})
    await until(lambda: late.peers == ["3"])
    assert early.peers == ["3"]
    for line in (early, late):
        assert list(line.follower.netmap) == list(host.watcher.netmap)
        assert line.follower.netmap.self_ips == host.watcher.netmap.self_ips
    assert [(change.before, change.after) for change in early.told[-1]] == [(early.told[0][0].after, None)]


async def test_what_is_not_followed_is_known_to_nobody_until_it_is_again(host: Host) -> None:
    line = host.line()
    host.fake.first = []
    host.tell(END_OF_STREAM)
    await until(lambda: not line.known)
    await host.follow()
    host.tell(status(5))
    await until(lambda: line.known)
    assert line.peers == ["5"]


async def test_silence_ends_trust_by_the_clock_alone_and_only_a_whole_netmap_restores_it(host: Host) -> None:
    line = host.line()
    host.clock.now += SILENCE_SECONDS - 1
    line.down({"beat": True})
    host.clock.now += SILENCE_SECONDS - 1
    assert line.known
    host.clock.now += 2
    assert not line.known
    assert line.follower.netmap.peer_at("100.64.0.2") is None

    line.down({"beat": True})
    assert not line.known, "a beat after a silence does not say what was missed"
    assert line.up == [{"again": True}]
    line.down({"self": [], "changes": [[None, ["9", ["100.64.0.9"], [], "k", "h", True]]]})
    assert not line.known

    line.down({"self": [], "peers": []})
    assert (line.known, line.peers) == (True, [])


async def test_a_feeder_that_was_frozen_tells_nobody_what_it_knew_before(host: Host) -> None:
    line = host.line()
    host.clock.now += SILENCE_SECONDS + 1
    host.fake.first = [status(7)]
    host.feed.tell_all(line.down)
    assert not line.known
    await until(lambda: line.known)
    assert line.peers == ["7"]


async def test_who_waits_hears_that_the_netmap_is_known_again_though_nothing_changed(host: Host) -> None:
    line = host.line()
    line.follower.lose("a test")
    line.told.clear()
    host.feed.tell_all(line.down)
    assert line.told == [()]
    async with asyncio.timeout(20):
        await line.follower.until_known()
