"""A cloud for random tests: everything that may happen to it as one call each, and an audit of what must hold.

The control plane calls out through a line; when it is killed the line is cut, so that nothing it does afterwards has an
effect, as after kill -9. The audit looks at the fakes themselves and at the store, never at what the reconciler says.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, TypeVar

import looptime
import pytest

from elizacloud.agents import operations
from elizacloud.agents.lifecycle import Lifecycle
from elizacloud.errors import Conflict
from elizacloud.headscale.protocol import Node
from elizacloud.model import TAG_AGENT, AgentSpec, agent_tag, installation_tag
from elizacloud.runtime.protocol import Instance, InstanceSecrets, InstanceSpec, Labels, Phase
from elizacloud.states import State, Wanted
from elizacloud.store import Record
from tests.agents.world import INSTALLATION, START, World
from tests.fakes.headscale import JoinRefused
from tests.fakes.inline_sqlite import use_inline_sqlite
from tests.fakes.runtime import FakeRuntime
from tests.fakes.store import open_memory_store
from tests.virtual_time import pass_seconds

T = TypeVar("T")

SETTLED_SECONDS = 900.0
_STRANGER = "another"
_PLACES = {Wanted.RUNNING: State.READY, Wanted.PAUSED: State.PAUSED, Wanted.STOPPED: State.STOPPED}


class Line:
    """A control plane's line to one thing outside of it. Once it is `cut` no call arrives and no answer comes back."""

    def __init__(
        self,
        target: Any,
        cut: asyncio.Event,
        called: Callable[[str, Any, Any], None] = lambda *_: None,
        takes_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._target = target
        self._cut = cut
        self._called = called
        self._takes_seconds = takes_seconds

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if inspect.iscoroutinefunction(attribute):
            return lambda *positional, **named: self._call(name, attribute, *positional, **named)
        if type(attribute).__module__.startswith("elizacloud.store."):
            return Line(attribute, self._cut, self._called)
        return attribute

    async def _call(self, name: str, call: Any, *positional: Any, **named: Any) -> Any:
        if self._cut.is_set():
            await asyncio.get_running_loop().create_future()
        if seconds := self._takes_seconds():
            await pass_seconds(seconds)
            if self._cut.is_set():
                await asyncio.get_running_loop().create_future()
        self._called(name, positional, named)
        answer = await call(*positional, **named)
        if self._cut.is_set():
            await asyncio.get_running_loop().create_future()
        return answer

    async def watch(self) -> AsyncIterator[Instance]:
        async for instance in self._target.watch():
            if self._cut.is_set():
                await asyncio.get_running_loop().create_future()
            yield instance


class RandomCloud:
    """`wanted` is the model: what each agent's owner asked for last. Everything else is the real thing, on fakes."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        use_inline_sqlite(self._patch)
        # Random ones would put sets, and so what happens at once, in another order each time that a story is told.
        self._ids = ("b" * 13 + "".join(last) for last in product("bcdfghjkmn", repeat=3))
        self._patch.setattr(operations, "new_agent_id", lambda: next(self._ids))
        self.loop = looptime.new_event_loop(start=0.0)
        self.wanted: dict[str, Wanted] = {}
        self.owner_of: dict[str, str] = {}
        self.orphans = 0
        self.hostile = 0
        self.headscale_seconds = 0.0
        """How long each call to Headscale takes."""
        self._strangers: set[str] = set()
        self._sweeps: list[set[str]] = []
        """What was there when each sweep of this control plane had ended."""
        self._violations: list[str] = []
        self._clock_offset = timedelta()
        self._stack = AsyncExitStack()
        self.world: World
        self._cut = asyncio.Event()
        self._task: asyncio.Task[None]
        self.run(self._begin())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _begin(self) -> None:
        store = await self._stack.enter_async_context(open_memory_store(clock=self._now))
        runtime = FakeRuntime()
        self.world = World(store, runtime, clock=self._now)
        joins = runtime._joins
        assert joins is not None

        def started(spec: InstanceSpec, secrets: InstanceSecrets) -> None:
            self.audit()
            joins(spec, secrets)

        runtime._joins = started
        self._start_control_plane()

    def close(self) -> None:
        self.run(self._kill())
        self.run(self._stack.aclose())
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run(asyncio.sleep(0))
        self.loop.close()
        self._patch.undo()

    def _now(self) -> datetime:
        return START + timedelta(seconds=self.loop.time()) + self._clock_offset

    # The control plane.

    def _start_control_plane(self) -> None:
        self._cut = cut = asyncio.Event()
        world = self.world
        lifecycle: Lifecycle = world.new_lifecycle(
            store=Line(world.store, cut, self._audit_pin),
            headscale=Line(world.headscale, cut, self._audit_removal, lambda: self.headscale_seconds),
            runtime=Line(world.runtime, cut, self._audit_removal),
        )
        self._sweeps, sweep = [], lifecycle.sweeper.sweep

        async def noted(**arguments: Any) -> Any:
            verdict = await sweep(**arguments)
            self._sweeps.append(self._there())
            return verdict

        lifecycle.sweeper.sweep = noted  # type: ignore[method-assign]
        self._task = asyncio.get_running_loop().create_task(lifecycle.run(), name="lifecycle")

    async def _kill(self) -> None:
        self._cut.set()
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=0)

    def crash(self) -> None:
        async def crashed() -> None:
            await self._kill()
            self._start_control_plane()

        self.run(crashed())

    # What owners do.

    def create(self, owner_id: str, name: str) -> str:
        agent = self.run(self.world.lifecycle.operations.create(owner_id, name, AgentSpec())).record.agent
        self.wanted[agent.id], self.owner_of[agent.id] = Wanted.RUNNING, owner_id
        return agent.id

    def want(self, agent_id: str, verb: str, wanted: Wanted) -> None:
        """What the owner asks is what is wanted from then on, unless they said before that it is to be deleted; that they can
        say at any time."""
        try:
            self.run(getattr(self.world.lifecycle.operations, verb)(agent_id, self.owner_of[agent_id]))
        except Conflict as conflict:
            if wanted is Wanted.DELETED:
                raise AssertionError(f"a delete was refused: {conflict}") from conflict
            raise
        self.wanted[agent_id] = wanted

    # What happens to it.

    def passes(self, seconds: float) -> None:
        self.run(self.world.passes(seconds))

    def jump(self, seconds: float) -> None:
        self._clock_offset += timedelta(seconds=seconds)

    def instance_dies(self, instance: Instance) -> None:
        self.run(self._on_loop(lambda: self.world.runtime.exits(instance.ref, exit_code=1)))

    def instance_vanishes(self, instance: Instance, *, volume: bool) -> None:
        self.world.runtime.forget(instance.ref, volume=volume)
        if volume:
            self.world._machines.pop(f"{instance.labels.agent_id}/{instance.labels.generation}", None)

    def node_deleted(self, node: Node) -> None:
        self.world.headscale._nodes.pop(node.id)

    def node_changed(self, node: Node, **changes: Any) -> None:
        self.world.headscale._nodes[node.id] = replace(node, **changes)

    def key_used_by(self, attacker: Node) -> None:
        """A hostile agent got hold of a key that is still unused, and registers its own node again with it."""
        for stored in list(self.world.headscale._keys.values()):
            if not stored.key.used and agent_tag(_agent_of(attacker.tags)) not in stored.key.tags:
                self.hostile += 1
                joining = self.world.headscale.join(
                    stored.value, machine_key=attacker.machine_key, node_key=attacker.node_key
                )
                with suppress(JoinRefused):
                    self.run(joining)
                return

    def leave_behind(self, installation: str) -> None:
        """An instance, a node and a key of an agent that nobody knows: a leftover of ours, or somebody else's."""
        agent_id = next(self._ids)
        tags = (TAG_AGENT, agent_tag(agent_id), installation_tag(installation))
        labels = Labels(installation, agent_id, 1, 1)
        spec = InstanceSpec(labels, "h", "https://hs.test", None, AgentSpec())

        async def make() -> None:
            headscale, runtime = self.world.headscale, self.world.runtime
            faults, headscale._faults = headscale._faults, {}
            down, headscale.down, answers, runtime.answers = headscale.down, False, runtime.answers, True
            ref = await runtime.create(spec)
            key = await headscale.create_preauth_key(tags=tags, lifetime_seconds=10**6)
            node = await headscale.join(key.value)
            headscale._faults, headscale.down, runtime.answers = faults, down, answers
            if installation != INSTALLATION:
                self._strangers |= {ref, f"node {node.id}", f"key {key.id}"}

        self.run(make())

    def stranger(self) -> None:
        self.leave_behind(_STRANGER)

    def heal(self) -> None:
        """Every fault is over, and the operator has settled what was held for them."""
        world = self.world
        world.headscale.down, world.runtime.answers, world.relays.linked, world.relays_see = False, True, True, True
        world.headscale._faults.clear()
        self.headscale_seconds = 0.0
        self.passes(SETTLED_SECONDS)
        for record in self.records():
            failure = record.agent.failure
            is_held = failure is not None and failure.code == "node_changed"
            if is_held and record.agent.wanted in (Wanted.RUNNING, Wanted.PAUSED):
                self.want(record.agent.id, "restart", Wanted.RUNNING)
        self.passes(SETTLED_SECONDS)
        self.run(world.lifecycle.sweeper.sweep(accept=True))
        self.passes(SETTLED_SECONDS)
        if self.run(world.lifecycle.sweeper.sweep(dry_run=True)).held:
            # A volume is looked at once the instance on it is gone, which the operator may just have accepted.
            self.run(world.lifecycle.sweeper.sweep(accept=True))
            self.passes(SETTLED_SECONDS)

    # What must hold.

    @property
    def running(self) -> list[Instance]:
        return [instance for instance in self.ours if instance.phase is Phase.RUNNING]

    @property
    def ours(self) -> list[Instance]:
        return [instance for instance in self.world.instances if instance.labels.installation_id == INSTALLATION]

    @property
    def nodes(self) -> list[Node]:
        return [node for node in self.world.nodes if installation_tag(INSTALLATION) in node.tags]

    @property
    def known(self) -> list[Instance]:
        """Instances whose ref the store has: a runtime lists no volume, so that of another one could not be found."""
        begun = [instance for instance in self.ours if instance.phase is not Phase.CREATED]
        return [instance for instance in begun if instance.labels.agent_id in self.wanted]

    def records(self) -> list[Record]:
        return list(self.run(self.world.store.agents.records()))

    def audit(self) -> None:
        """At any moment, whatever goes wrong."""
        assert not self._violations, self._violations
        alive = [(instance.labels.agent_id) for instance in self.running]
        assert len(alive) == len(set(alive)), f"two runs of one agent are alive: {alive}"
        owner_of_machine = {machine: volume for volume, (machine, _) in self.world._machines.items()}
        for upstream in self.world.relays.table.upstreams.values():
            node = self.world.headscale._nodes.get(upstream.node_id)
            if node is not None:
                volume = owner_of_machine.get(node.machine_key, "")
                assert volume.split("/")[0] in ("", upstream.agent_id), f"{upstream.agent_id} leads to {volume}"
        lost = self._strangers - self._there()
        assert not lost, f"another installation lost {lost}"

    def audit_pins(self) -> None:
        """Whatever went wrong, no agent was ever given another one's node."""
        for record in self.records():
            node = self.world.headscale._nodes.get(record.generation.node_id or "")
            if node is not None:
                assert _is_of(node, record.agent.id), f"{record.agent.id} got {node}"

    def _there(self) -> set[str]:
        """Everything outside, whosever it is."""
        there = {instance.ref for instance in self.world.instances}
        there |= {f"{agent_id}.{generation}.0" for agent_id, generation in self.world.runtime.volumes}
        return there | {f"node {node.id}" for node in self.world.nodes} | {f"key {key}" for key in self.world.keys}

    def _audit_pin(self, call: str, about: tuple[Any, ...], also: dict[str, Any]) -> None:
        """No agent is given another one's node, not even for the moment until its own tailscaled finds its key used."""
        generation = also.get("generation")
        if call != "save" or generation is None:
            return
        node = self.world.headscale._nodes.get(generation.node_id or "")
        if node is not None and not _is_of(node, generation.agent_id):
            self._violations.append(f"{generation.agent_id} is given {node}")

    def _audit_removal(self, call: str, about: tuple[Any, ...], _: dict[str, Any]) -> None:
        """What belongs to no agent that we know of goes only after two sweeps in a row have seen it."""
        if call not in ("remove", "delete_node"):
            return
        before = self._sweeps[-1] if self._sweeps else set()
        if call == "remove":
            thing, agent_id = about[0], about[0].split(".")[0]
        else:
            node = self.world.headscale._nodes.get(about[0])
            thing, agent_id = f"node {about[0]}", _agent_of(node.tags) if node is not None else ""
        if agent_id and agent_id not in self.wanted and thing not in before:
            self._violations.append(f"{thing} was removed at first sight")

    def audit_settled(self) -> None:
        """When all is healed: what owners want is what is there, and nothing else."""
        self.audit()
        self.audit_pins()
        records = {record.agent.id: record for record in self.records()}
        for agent_id, wanted in self.wanted.items():
            if wanted is Wanted.DELETED:
                assert agent_id not in records, records[agent_id].agent
            else:
                self._audit_agent(records[agent_id], wanted)
        living = {agent_id for agent_id, wanted in self.wanted.items() if wanted is not Wanted.DELETED}
        assert {instance.labels.agent_id for instance in self.ours} <= living
        assert {_agent_of(node.tags) for node in self.nodes} <= living
        assert len(self.nodes) == len({_agent_of(node.tags) for node in self.nodes}), "an agent has two nodes"
        pinned = {record.generation.preauth_key_id for record in records.values()}
        # A key stays as long as a node, also if that is another agent's which took it and rests since.
        pinned |= {node.preauth_key_id for node in self.nodes}
        foreign = {thing.removeprefix("key ") for thing in self._strangers}
        assert set(self.world.keys) - foreign <= pinned, "a key is left over"
        assert set(self.world.live_keys) <= foreign, "a key is alive after the join"
        assert {agent_id for agent_id, _ in self.world.runtime.volumes} - _strangers(self.world) <= living

    def _audit_agent(self, record: Record, wanted: Wanted) -> None:
        agent, generation = record.agent, record.generation
        if wanted is Wanted.PAUSED and agent.wanted is Wanted.ASLEEP:
            wanted = Wanted.STOPPED  # by its idle policy, after an hour's pause
        assert agent.state is _PLACES[wanted], f"{agent.id} is {agent.state}, not {wanted}: {agent.failure}"
        theirs = [instance for instance in self.ours if instance.labels.agent_id == agent.id]
        upstream = self.world.relays.table.upstreams.get(agent.id)
        if wanted is Wanted.STOPPED:
            assert all(instance.phase is not Phase.RUNNING for instance in theirs)
            assert upstream is None
            return
        assert [(instance.labels.generation, instance.labels.run) for instance in theirs] == [
            (agent.generation, agent.run)
        ]
        assert theirs[0].phase is (Phase.RUNNING if wanted is Wanted.RUNNING else Phase.PAUSED)
        node = self.world.headscale._nodes[generation.node_id or ""]
        assert node.machine_key == f"mkey:{agent.id}/{agent.generation}"
        assert agent_tag(agent.id) in node.tags
        if wanted is Wanted.RUNNING:
            assert upstream is not None
            assert (upstream.node_id, upstream.ip, upstream.run) == (node.id, node.ipv4, agent.run)

    async def _on_loop(self, act: Any) -> None:
        act()


def _agent_of(tags: tuple[str, ...]) -> str:
    return next((tag.removeprefix("tag:a-") for tag in tags if tag.startswith("tag:a-")), "")


def _is_of(node: Node, agent_id: str) -> bool:
    """Whether it is a machine of the agent's own, whatever the node's tags and key say."""
    return node.machine_key.startswith(f"mkey:{agent_id}/")


def _strangers(world: World) -> set[str]:
    return {instance.labels.agent_id for instance in world.instances if instance.labels.installation_id != INSTALLATION}
