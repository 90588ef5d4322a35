"""Several control planes in one process, in real time, on one real PostgreSQL and one outside of fakes.

Each has its own connections, its own relays and its own line to the outside. A line that stalls plays a process that was
stopped in the middle of a call: meanwhile it renews no lease, and it goes on from there when it is let go.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any

from elizacloud.agents.lifecycle import Lifecycle
from elizacloud.agents.place import Place
from elizacloud.agents.reconcile.past import Remembered
from elizacloud.agents.sharing.leases import Leases
from elizacloud.agents.sharing.relays import SharedRelays
from elizacloud.agents.sharing.shards import shard_of
from elizacloud.auth.following import TokenFollower
from elizacloud.headscale.protocol import Node
from elizacloud.model import new_agent_id, utc_now
from elizacloud.store import Cipher, Fence, Store, new_secret_key
from elizacloud.upstreams import PeerSeen, Snapshot
from tests.agents.world import World
from tests.fakes.relays import FakeRelays
from tests.fakes.runtime import FakeRuntime
from tests.fakes.store import CELL, HOST, INSTALLATION

LEASE_SECONDS = 2.0
BEAT_SECONDS = 0.1
WITHIN = 30.0


class Relays(FakeRelays):
    def snapshot(self) -> Snapshot:
        return self.table.snapshot()


class Stop:
    """`before` or after the n-th call of `method` acted the process stops; `goes_on` lets it go on from there."""

    def __init__(self, method: str, *, after: bool, number: int = 1) -> None:
        self.method, self.after, self.number = method, after, number
        self.reached = asyncio.Event()
        self.goes_on = asyncio.Event()

    @property
    def stopped(self) -> bool:
        return self.reached.is_set() and not self.goes_on.is_set()

    async def here(self) -> None:
        self.reached.set()
        await self.goes_on.wait()


class Line:
    """To something outside: no call passes while the process is stopped, and one of them stops it."""

    def __init__(self, target: Any, stop: Stop | None, called: Callable[[str], None] = lambda _: None) -> None:
        self._target, self._stop, self._called = target, stop, called

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*positional: Any, **named: Any) -> Any:
            stop = self._stop
            self._called(name)
            if stop is not None and stop.stopped:
                await stop.goes_on.wait()
            meant = False
            if stop is not None and name == stop.method:
                stop.number -= 1
                meant = stop.number == 0
            if meant and stop is not None and not stop.after:
                await stop.here()
            answer = await attribute(*positional, **named)
            if meant and stop is not None and stop.after:
                await stop.here()
            return answer

        return call


class BlindLeases:
    """To the stored leases, for a control plane whose own clock tells it nothing: only the database's fence is left."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    async def renew(self, holder: str, seconds: float) -> list[Fence]:
        return list(await self._target.renew(holder, LEASE_SECONDS))

    async def take(self, name: str, holder: str, seconds: float) -> Fence | None:
        found: Fence | None = await self._target.take(name, holder, LEASE_SECONDS)
        return found


class ControlPlane:
    def __init__(self, me: str, store: Store, world: SharedWorld, stop: Stop | None, *, blind: bool) -> None:
        self.me = me
        self.blind = blind
        self.store = store
        self.relays = Relays(world.reach)
        self.calls: list[str] = []
        """What it began to do outside, by name, in order."""
        stored = Line(store.leases, stop)
        seconds = 1e6 if blind else LEASE_SECONDS
        self.leases = Leases(
            BlindLeases(stored) if blind else stored,  # type: ignore[arg-type]
            me,
            lease_seconds=seconds,
            beat_seconds=BEAT_SECONDS,
            needed_seconds=LEASE_SECONDS / 3,
        )
        self.shared = SharedRelays(self.relays, store.hints, self.leases.seen_members, me)
        self.tokens = TokenFollower(store, self.relays, me)
        self.lifecycle = Lifecycle(
            store,
            Place(
                INSTALLATION,
                CELL.id,
                HOST.id,
                Line(world.headscale, stop, self.calls.append),
                Line(world.runtime, stop, self.calls.append),
                "https://hs.test",
                "http://api.test",
            ),
            self.shared,
            world.settings,
            now=utc_now,
            random=Random(1),
            past=Remembered(),
            leases=self.leases,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ControlPlane]:
        await self.lifecycle.tell_relays()
        tasks = [asyncio.create_task(self.lifecycle.run(), name=f"lifecycle {self.me}")]
        tasks.append(asyncio.create_task(self.tokens.run(), name=f"tokens {self.me}"))
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    def an_id(self) -> str:
        """A new agent's id, of a shard that it holds."""
        while self.leases.of(agent_id := new_agent_id()) is None:
            pass
        return agent_id

    async def until_it_holds(self, count: int, *, within: float = 60) -> None:
        async with asyncio.timeout(within):
            while len(self.leases.held) != count:
                await a_moment()


class SharedWorld(World):
    """`add` control planes; `self.store` is for what tests read."""

    def __init__(self, store: Store, url: str, cipher: Cipher) -> None:
        self.planes: list[ControlPlane] = []
        self._url, self._cipher = url, cipher
        super().__init__(store, FakeRuntime(), clock=utc_now, poll_seconds=0.3)
        self.join_seconds = 0.05

    @asynccontextmanager
    async def control_plane(self, stop: Stop | None = None, *, blind: bool = False) -> AsyncIterator[ControlPlane]:
        async with await Store.open(self._url, self._cipher) as store:
            plane = ControlPlane(str(len(self.planes) + 1), store, self, stop, blind=blind)
            self.planes.append(plane)
            async with plane.running():
                try:
                    yield plane
                finally:
                    if stop is not None:
                        stop.goes_on.set()  # a test that failed left it stopped, and it could not even end

    def see(self, node: Node) -> None:
        """The relays of every control plane see it."""
        for plane in self.planes:
            plane.lifecycle.peer_seen(
                PeerSeen(CELL.id, node.id, tuple(ip for ip in (node.ipv4, node.ipv6) if ip), node.tags, node.online)
            )

    def holder_of(self, agent_id: str) -> str:
        (name,) = [plane.me for plane in self.planes if shard_of(agent_id) in plane.leases.held]
        return name


@asynccontextmanager
async def shared_world(url: str) -> AsyncIterator[SharedWorld]:
    cipher = Cipher(new_secret_key())
    async with await Store.open(url, cipher) as store:
        await store.installation.ensure(INSTALLATION)
        await store.places.ensure_cell(CELL)
        await store.places.ensure_host(HOST)
        yield SharedWorld(store, url, cipher)


async def a_moment(seconds: float = 0.05) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_future()


async def until(met: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(WITHIN):
            while not met():
                await a_moment()
    except TimeoutError:
        raise AssertionError(f"not within {WITHIN} s: {what}") from None
