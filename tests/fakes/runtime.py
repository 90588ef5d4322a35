"""A runtime in memory, verified by the same contract suite as the real ones (tests/contract/test_runtime.py).

`FakeRuntime` behaves; each subclass has one fault, named by it. Tests look at `started` and `volumes`, and let things
happen with `exits` (an instance dies by itself) and `answers = False` (the runtime is down).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from elizacloud.errors import NotFound, RuntimeRefused, RuntimeUnavailable
from elizacloud.model import utc_now
from elizacloud.runtime.protocol import (
    EXIT_KEY_DEAD,
    STOPPED,
    Instance,
    InstanceSecrets,
    InstanceSpec,
    Labels,
    Phase,
    Usage,
    Volume,
)

VolumeName = tuple[str, int]
"""A state volume's name: agent id and generation."""


@dataclass
class _Held:
    instance: Instance
    spec: InstanceSpec
    lines: list[str] = field(default_factory=list)


class FakeRuntime:
    """`joins` is called at each start that would join the tailnet: the place to add the node to a fake Headscale."""

    kind = "fake"
    isolates = True

    def __init__(self, joins: Callable[[InstanceSpec, InstanceSecrets], None] | None = None) -> None:
        self.answers = True
        self.calls: list[tuple[str, str]] = []
        """Every call and the ref (for `create` the agent's id) that it was for."""
        self.volumes: set[VolumeName] = set()
        self.joined_volumes: set[VolumeName] = set()
        """Those that hold a node identity, so that a start needs no pre-auth key."""
        self.started: list[tuple[InstanceSpec, InstanceSecrets]] = []
        self._joins = joins
        self._held: dict[str, _Held] = {}
        self._volumes_of: dict[VolumeName, str] = {}
        self._watchers: list[asyncio.Queue[Instance]] = []
        self._printed = asyncio.Condition()

    async def create(self, spec: InstanceSpec) -> str:
        await self._called("create", spec.labels.agent_id)
        ref = ref_of(spec.labels)
        if ref in self._held:
            return ref
        before = self._of_volume(_volume(spec.labels))
        if before is not None:
            if before.instance.labels.installation_id != spec.labels.installation_id:
                raise RuntimeRefused(
                    "cannot create the instance: the volume is another installation's", code="not_ours"
                )
            if before.instance.labels.run > spec.labels.run:
                raise RuntimeRefused("cannot create the instance: a later run exists", code="later_run_exists")
            if before.instance.phase in (Phase.RUNNING, Phase.PAUSED):
                raise RuntimeRefused("cannot create the instance: an earlier run runs", code="earlier_run_runs")
            del self._held[before.instance.ref]
        self.volumes.add(_volume(spec.labels))
        self._volumes_of.setdefault(_volume(spec.labels), spec.labels.installation_id)
        self._held[ref] = _Held(Instance(ref, spec.labels, Phase.CREATED), spec)
        self._tell(self._held[ref].instance)
        return ref

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        await self._called("start", ref)
        held = self._get(ref)
        if held.instance.phase is Phase.RUNNING:
            return
        if held.instance.phase is Phase.PAUSED:
            raise RuntimeRefused("cannot start the instance: it is paused; resume it", code="paused")
        self.started.append((held.spec, secrets))
        self._move(ref, phase=Phase.RUNNING, exit_code=None, reason="", started_at=utc_now())
        await self.prints(ref, "started")
        self._join(held.spec, secrets)
        self._begun(ref)

    async def pause(self, ref: str) -> None:
        await self._called("pause", ref)
        self._freeze(ref, Phase.RUNNING, Phase.PAUSED)

    async def resume(self, ref: str) -> None:
        await self._called("resume", ref)
        self._freeze(ref, Phase.PAUSED, Phase.RUNNING)

    async def stop(self, ref: str, *, grace_seconds: float) -> None:
        await self._called("stop", ref)
        self._end(ref)

    async def remove(self, ref: str, *, volume: bool) -> None:
        await self._called("remove", ref)
        self._end(ref)
        self._held.pop(ref, None)
        agent_id, generation, _run = ref.split(".")
        name = (agent_id, int(generation))
        if volume and self._of_volume(name) is None:
            self._lose_volume(name)

    async def inspect(self, ref: str) -> Instance | None:
        await self._called("inspect", ref)
        return self._held[ref].instance if ref in self._held else None

    async def list_volumes(self, installation_id: str, *, agent_id: str | None = None) -> list[Volume]:
        await self._called("list_volumes", agent_id or installation_id)
        return [
            Volume(f"{of}.{generation}.0", of, generation)
            for of, generation in sorted(self.volumes)
            if self._volumes_of.get((of, generation)) == installation_id and agent_id in (None, of)
        ]

    async def list(self, installation_id: str) -> list[Instance]:
        await self._called("list", installation_id)
        return [
            held.instance for held in self._held.values() if held.instance.labels.installation_id == installation_id
        ]

    async def logs(self, ref: str, *, tail: int, follow: bool) -> AsyncGenerator[str, None]:
        await self._called("logs", ref)
        lines = self._get(ref).lines
        position = max(0, len(lines) - tail)
        while True:
            for line in lines[position:]:
                yield line
            position = len(lines)
            if not follow:
                return
            async with self._printed:
                await self._printed.wait_for(lambda: len(lines) > position)  # noqa: B023

    async def usage(self, ref: str) -> Usage:
        await self._called("usage", ref)
        phase = self._get(ref).instance.phase
        if phase not in (Phase.RUNNING, Phase.PAUSED):
            raise RuntimeRefused(f"cannot measure the instance: it is {phase}", code="not_running")
        return Usage(1.5, 50_000_000, 1_000_000_000, 1_000, 2_000)

    async def watch(self) -> AsyncGenerator[Instance, None]:
        await self._called("watch", "")
        queue: asyncio.Queue[Instance] = asyncio.Queue()
        for held in self._held.values():
            queue.put_nowait(held.instance)
        self._watchers.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.remove(queue)

    async def close(self) -> None:
        self.answers = False

    # What tests do to it.

    def exits(self, ref: str, *, exit_code: int = 1, reason: str = "exited by itself") -> None:
        """The instance dies without being told to."""
        self._move(ref, phase=Phase.EXITED, exit_code=exit_code, reason=reason)

    async def prints(self, ref: str, line: str) -> None:
        self._held[ref].lines.append(line)
        async with self._printed:
            self._printed.notify_all()

    def forget(self, ref: str, *, volume: bool) -> None:
        """The instance vanishes, as after a disk was lost."""
        held = self._held.pop(ref)
        if volume:
            self._lose_volume(_volume(held.spec.labels))

    # What the faults below change.

    def _lose_volume(self, name: VolumeName) -> None:
        self.volumes.discard(name)
        self.joined_volumes.discard(name)
        self._volumes_of.pop(name, None)

    async def _called(self, call: str, about: str) -> None:
        self.calls.append((call, about))
        await asyncio.sleep(0)
        if not self.answers:
            raise RuntimeUnavailable("cannot reach the runtime: it is down; try again")

    def _join(self, spec: InstanceSpec, secrets: InstanceSecrets) -> None:
        volume = _volume(spec.labels)
        if secrets.preauth_key is None and volume not in self.joined_volumes:
            self.exits(
                ref_of(spec.labels), exit_code=EXIT_KEY_DEAD, reason="tailnet: no pre-auth key and no node identity"
            )
            return
        self.joined_volumes.add(volume)
        if self._joins is not None:
            self._joins(spec, secrets)

    def _begun(self, ref: str) -> None:
        """Called at the end of a start."""

    def _get(self, ref: str) -> _Held:
        if ref not in self._held:
            raise NotFound(f"there is no instance {ref}")
        return self._held[ref]

    def _of_volume(self, volume: VolumeName) -> _Held | None:
        return next((held for held in self._held.values() if _volume(held.spec.labels) == volume), None)

    def _freeze(self, ref: str, before: Phase, after: Phase) -> None:
        phase = self._get(ref).instance.phase
        if phase not in (before, after):
            raise RuntimeRefused(f"cannot make the instance {after}: it is {phase}", code="not_running")
        if phase is before:
            self._move(ref, phase=after)

    def _end(self, ref: str) -> None:
        held = self._held.get(ref)
        if held is not None and held.instance.phase in (Phase.RUNNING, Phase.PAUSED):
            self._move(ref, phase=Phase.EXITED, exit_code=143, reason="stopped")

    def _move(self, ref: str, **facts: object) -> None:
        held = self._get(ref)
        held.instance = replace(held.instance, **facts)  # type: ignore[arg-type]
        self._tell(held.instance)

    def _tell(self, instance: Instance) -> None:
        for queue in self._watchers:
            queue.put_nowait(instance)


class FailsToStart(FakeRuntime):
    """Refuses the first `times` starts, as when an owner's command is not there."""

    def __init__(
        self, joins: Callable[[InstanceSpec, InstanceSecrets], None] | None = None, *, times: int = 1_000_000
    ) -> None:
        super().__init__(joins)
        self.times = times

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        if self.times > 0:
            self.times -= 1
            await self._called("start", ref)
            self._get(ref)
            raise RuntimeRefused("cannot start the instance: no such command", code="spawn_failed")
        await super().start(ref, secrets)


class NeverJoins(FakeRuntime):
    """Instances run, but no node appears on the tailnet."""

    def _join(self, spec: InstanceSpec, secrets: InstanceSecrets) -> None:
        return


class DiesAtOnce(FakeRuntime):
    """The agent exits right after its start, without having joined."""

    exit_code = 1
    reason = "agent: exit status 1"

    def _join(self, spec: InstanceSpec, secrets: InstanceSecrets) -> None:
        return

    def _begun(self, ref: str) -> None:
        self.exits(ref, exit_code=self.exit_code, reason=self.reason)


class KeyIsDead(DiesAtOnce):
    """The pre-auth key is refused at the join."""

    exit_code = EXIT_KEY_DEAD
    reason = "tailnet: the pre-auth key was refused"


class StopsAtOnce(DiesAtOnce):
    """The agent makes its end look like a stop of its host."""

    exit_code = 0
    reason = STOPPED


class DiesAfterJoin(FakeRuntime):
    """The node joins, then the agent exits."""

    def _begun(self, ref: str) -> None:
        self.exits(ref, exit_code=1, reason="agent: exit status 1")


class LosesAnswers(FakeRuntime):
    """Does what it is told, but the answers of the calls named in `lost` never arrive (each once)."""

    def __init__(
        self, joins: Callable[[InstanceSpec, InstanceSecrets], None] | None = None, *, lost: tuple[str, ...] = ()
    ) -> None:
        super().__init__(joins)
        self.lost = [*lost]

    async def create(self, spec: InstanceSpec) -> str:
        ref = await super().create(spec)
        self._lose("create")
        return ref

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        await super().start(ref, secrets)
        self._lose("start")

    async def stop(self, ref: str, *, grace_seconds: float) -> None:
        await super().stop(ref, grace_seconds=grace_seconds)
        self._lose("stop")

    async def remove(self, ref: str, *, volume: bool) -> None:
        await super().remove(ref, volume=volume)
        self._lose("remove")

    def _lose(self, call: str) -> None:
        if call in self.lost:
            self.lost.remove(call)
            raise RuntimeUnavailable(f"cannot tell whether the runtime did {call}: it did not answer; look again")


def ref_of(labels: Labels) -> str:
    return f"{labels.agent_id}.{labels.generation}.{labels.run}"


def _volume(labels: Labels) -> VolumeName:
    return (labels.agent_id, labels.generation)
