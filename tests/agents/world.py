"""A whole cloud in memory and in virtual time: the real store and the real lifecycle on fakes that play the outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from elizacloud.agents.identity import is_expired
from elizacloud.agents.lifecycle import Lifecycle
from elizacloud.agents.operations import Answer
from elizacloud.agents.place import Place
from elizacloud.agents.reconcile.past import Remembered
from elizacloud.headscale.protocol import Node
from elizacloud.model import Agent, AgentSpec
from elizacloud.runtime.protocol import Instance, InstanceSecrets, InstanceSpec, Labels, Phase
from elizacloud.settings import Settings
from elizacloud.states import State
from elizacloud.store import Record, Store
from elizacloud.upstreams import PeerSeen, Probe, Upstream
from tests.fakes.headscale import FakeHeadscale, JoinRefused
from tests.fakes.relays import FakeRelays
from tests.fakes.runtime import FakeRuntime, ref_of
from tests.fakes.store import CELL, HOST
from tests.fakes.store import INSTALLATION as INSTALLATION

START = datetime(2026, 1, 2, tzinfo=UTC)
JOIN_SECONDS = 0.2
ANN = "ann"


class World:
    """`node_joins` plays the instance's tailscaled. `relays_see` can be switched off, to leave only the slow poll."""

    def __init__(
        self, store: Store, runtime: FakeRuntime, *, clock: Callable[[], datetime] | None = None, **settings: Any
    ) -> None:
        self.store = store
        self.clock = clock or now
        self.headscale = FakeHeadscale(clock=self.clock)
        self.runtime = runtime
        runtime._joins = self.node_joins
        self.relays = FakeRelays(self.reach)
        self.relays_see = True
        self.join_seconds = JOIN_SECONDS
        self.answers = Probe(200, True)
        self.settings = Settings(**settings)
        self.past = Remembered()
        """What a control plane keeps outside the database."""
        self.lifecycle = self.new_lifecycle()
        self._joining: set[asyncio.Task[None]] = set()
        self._machines: dict[str, tuple[str, str]] = {}

    def new_lifecycle(self, **replaced: Any) -> Lifecycle:
        """Another control plane on the same store and outside; the memory of the one before is lost."""
        place = Place(
            INSTALLATION, CELL.id, HOST.id, self.headscale, self.runtime, "https://hs.test", "http://api.test"
        )
        self.lifecycle = Lifecycle(
            replaced.pop("store", self.store),
            replace(place, **replaced),
            self.relays,
            self.settings,
            now=self.clock,
            random=Random(1),
            past=self.past,
        )
        return self.lifecycle

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Lifecycle]:
        """The lifecycle drives inside the block, and is cut off at its end."""
        task = asyncio.create_task(self.lifecycle.run(), name="lifecycle")
        try:
            yield self.lifecycle
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    # What tests do and see.

    async def create(self, name: str = "ada", *, owner_id: str = ANN, **arguments: Any) -> Answer:
        return await self.lifecycle.operations.create(owner_id, name, AgentSpec(), **arguments)

    async def record(self, agent_id: str) -> Record:
        return await self.store.agents.record(agent_id)

    async def until(self, agent_id: str, state: State | Callable[[Agent], bool], *, within: float = 600) -> Record:
        """The agent once it is there; fails with what it is when the virtual time is up."""
        met = (lambda agent: agent.state is state) if isinstance(state, State) else state
        try:
            async with asyncio.timeout(within):
                while True:
                    written = self.store._bell.waiter(agent_id)
                    record = await self.record(agent_id)
                    if met(record.agent):
                        return record
                    await written.wait(within)
        except TimeoutError:
            record = await self.record(agent_id)
            raise AssertionError(f"it is {record.agent.state} ({record.agent.failure}) after {within} s") from None

    async def ready(self, name: str = "ada", **arguments: Any) -> Record:
        return await self.until((await self.create(name, **arguments)).record.agent.id, State.READY)

    async def passes(self, seconds: float) -> None:
        await _pass(seconds)

    @property
    def instances(self) -> list[Instance]:
        return [held.instance for held in self.runtime._held.values()]

    @property
    def nodes(self) -> list[Node]:
        return list(self.headscale._nodes.values())

    @property
    def live_keys(self) -> list[str]:
        """Ids of keys that somebody could still join with."""
        stored = self.headscale._keys.values()
        return [held.key.id for held in stored if held.key.expires_at is None or held.key.expires_at > self.clock()]

    @property
    def keys(self) -> list[str]:
        return list(self.headscale._keys)

    async def events(self, agent_id: str) -> list[tuple[str, str]]:
        return [(event.step, event.state_to) for event in await self.store.events.after(0, agent_id=agent_id)]

    def calls(self, method: str) -> int:
        return self.headscale.calls.count(method)

    # The outside.

    def node_joins(self, spec: InstanceSpec, secrets: InstanceSecrets) -> None:
        task = asyncio.get_running_loop().create_task(self._join(spec, secrets))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, spec: InstanceSpec, secrets: InstanceSecrets) -> None:
        await _pass(self.join_seconds)
        instance = next((i for i in self.instances if i.labels == spec.labels), None)
        if instance is None or instance.phase is not Phase.RUNNING:
            return
        volume = f"{spec.labels.agent_id}/{spec.labels.generation}"
        machine, node_key = self._machines.setdefault(volume, (f"mkey:{volume}", f"nodekey:{volume}"))
        node = next((node for node in self.nodes if node.machine_key == machine), None)
        if node is not None and not is_expired(node, self.clock()):
            # As long as its node is there, tailscaled comes back as that, and no key that it is given is looked at.
            await self.headscale.set_online(node.id, True)
            node = self.headscale._nodes[node.id]
        else:
            try:
                if secrets.preauth_key is None:
                    raise JoinRefused("no such node")
                node = await self.headscale.join(
                    secrets.preauth_key, hostname=spec.hostname, machine_key=machine, node_key=node_key
                )
            except JoinRefused as refused:
                self.runtime.exits(instance.ref, exit_code=78, reason=f"tailnet: {refused}")
                return
        self.see(node)

    def see(self, node: Node) -> None:
        """A relay's netmap shows the node."""
        if self.relays_see:
            self.lifecycle.peer_seen(
                PeerSeen(CELL.id, node.id, tuple(ip for ip in (node.ipv4, node.ipv6) if ip), node.tags, node.online)
            )

    def reach(self, upstream: Upstream) -> Probe:
        """Checks the identity as a relay does, then lets the agent answer."""
        node = self.headscale._nodes.get(upstream.node_id)
        if node is None or node.ipv4 != upstream.ip or f"tag:a-{upstream.agent_id}" not in node.tags:
            return Probe(None, error="agent_unroutable")
        if is_expired(node, self.clock()):
            return Probe(None, error="agent_unroutable")
        run = Labels(INSTALLATION, upstream.agent_id, upstream.generation, upstream.run)
        held = self.runtime._held.get(ref_of(run))
        # A world of several hosts has others; here there may be ten thousand, too many to look at all of them.
        instances = self.instances if held is None else [held.instance]
        if not any(i.labels == run and i.phase is Phase.RUNNING for i in instances):
            return Probe(None, error="agent_refused")
        return self.answers


def now() -> datetime:
    return START + timedelta(seconds=asyncio.get_running_loop().time())


async def _pass(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    loop.call_later(seconds, done.set_result, None)
    await done


class Stall:
    """Stops a caller for ever at the n-th call of a method, before or after it acted: the moment of a crash."""

    def __init__(self, target: Any, method: str, *, number: int = 1, after: bool) -> None:
        self._target, self._method, self._number, self._after = target, method, number, after
        self.reached = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if name != self._method:
            return attribute

        async def call(*positional: Any, **named: Any) -> Any:
            self._number -= 1
            if self._number != 0:
                return await attribute(*positional, **named)
            if self._after:
                await attribute(*positional, **named)
            self.reached.set()
            return await asyncio.get_running_loop().create_future()

        return call
