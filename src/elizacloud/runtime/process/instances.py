"""All instances of one process host. Every call is idempotent; calls about one volume happen one after the other.

A generation has one volume and at most one instance: `create` for a later run takes the place of an earlier one that has
ended. What is running is known from memory alone, since nothing that this process started can outlive it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

import structlog

from elizacloud.errors import Misconfigured, NotFound, RuntimeRefused, RuntimeUnavailable
from elizacloud.model import utc_now
from elizacloud.processes import LogFile, SpawnFailed
from elizacloud.runtime.environment import Listen
from elizacloud.runtime.process.unit import Machine, Unit, begin_unit
from elizacloud.runtime.process.volume import Record, Volume, name_in, name_of, record_of, ref_of, volumes_in
from elizacloud.runtime.protocol import Instance, InstanceSecrets, InstanceSpec, Phase, Usage
from elizacloud.runtime.protocol import Volume as SeenVolume

HOST_ENDED = "the process host ended"
END_SECONDS = 5.0

log = structlog.get_logger()


@dataclass
class Held:
    """One instance: its record as on disk (plus the owner's secrets), and its unit while it runs."""

    ref: str
    volume: Volume
    record: Record
    log: LogFile
    phase: Phase
    unit: Unit | None = None
    over: asyncio.Task[None] | None = None
    """Done when the unit's end is on record."""

    def seen(self) -> Instance:
        record = self.record
        labels = record.spec.labels
        return Instance(self.ref, labels, self.phase, record.exit_code, record.reason, record.started_at)


class Instances:
    """`volumes` and `sockets` are 0700 directories of this host alone. Units run as tasks of `tasks`."""

    def __init__(self, machine: Machine, *, volumes: Path, sockets: Path, tasks: asyncio.TaskGroup) -> None:
        self._machine = machine
        self._volumes = volumes
        self._sockets = sockets
        self._tasks = tasks
        self._held: dict[str, Held] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._watchers: set[asyncio.Queue[Instance]] = set()
        self._ending = False

    def load(self) -> None:
        """Find what an earlier host left. Raises Misconfigured when a record is damaged."""
        for path in sorted(self._volumes.glob("*/*/instance.json")):
            name = f"{path.parent.parent.name}/{path.parent.name}"
            volume = self._volume(name)
            record = volume.load()
            if record is None or name_of(record.spec.labels) != name:
                raise Misconfigured(f"cannot use {path}: it is not about {name}; delete it to forget the instance")
            phase = Phase.EXITED if record.started_at else Phase.CREATED
            if record.started_at and not record.reason:
                record = replace(record, reason=HOST_ENDED)
            volume.claim(record.spec.labels.installation_id)
            self._held[name] = Held(ref_of(record.spec.labels), volume, record, LogFile(volume.agent_log), phase)

    async def create(self, spec: InstanceSpec) -> str:
        """Repeating it with the same labels renews what a start needs (the owner's secrets), unless it runs."""
        name, ref = name_of(spec.labels), ref_of(spec.labels)
        async with self._changing(name):
            held = self._held.get(name)
            if held is not None:
                _check_succession(held, spec)
                if held.ref == ref and held.unit is not None:
                    return ref
            volume = self._volume(name)
            volume.claim(spec.labels.installation_id)
            volume.write(volume.places.config, json.dumps(dict(spec.agent.config)).encode())
            if held is not None and held.ref == ref:
                held.record = replace(held.record, spec=spec, secret_names=tuple(spec.agent.secrets))
                volume.save(held.record)
                return ref
            record = record_of(spec)
            volume.save(record)
            kept_log = held.log if held is not None else LogFile(volume.agent_log)
            self._held[name] = Held(ref, volume, record, kept_log, Phase.CREATED)
            self._tell(self._held[name])
        return ref

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        async with self._changing_by(ref) as held:
            if held.phase is Phase.RUNNING:
                return
            if held.phase is Phase.PAUSED:
                raise RuntimeRefused("cannot start the instance: it is paused; resume it", code="paused")
            if self._ending:
                raise RuntimeUnavailable("cannot start the instance: the process host is ending; try again")
            record = held.record
            if record.secrets_lost:
                raise RuntimeRefused(
                    "cannot start the instance: its owner's secrets were lost with an earlier process host; create it again",
                    code="secrets_lost",
                )
            record = replace(record, started_at=utc_now(), exit_code=None, reason="")
            # Before it runs: nobody would look for one that, as its record says, was never started.
            held.volume.save(record)
            unit, listen = await begin_unit(record.spec, secrets, held.volume, held.log, self._machine)
            held.record, held.unit, held.phase = record, unit, Phase.RUNNING
            held.over = self._tasks.create_task(self._live(held, unit, secrets, listen), name=f"unit {ref}")
            self._tell(held)

    async def pause(self, ref: str) -> None:
        await self._freeze(ref, Phase.RUNNING, Phase.PAUSED)

    async def resume(self, ref: str) -> None:
        await self._freeze(ref, Phase.PAUSED, Phase.RUNNING)

    async def stop(self, ref: str, grace_seconds: float) -> None:
        name = name_in(ref)
        if name is not None:
            async with self._changing(name):
                held = self._held.get(name)
                if held is not None and held.ref == ref:
                    await _end(held, grace_seconds)

    async def remove(self, ref: str, *, delete_volume: bool) -> None:
        name = name_in(ref)
        if name is None:
            return
        async with self._changing(name):
            held = self._held.get(name)
            if held is not None and held.ref != ref:
                return  # a later run has the volume now
            if held is not None:
                await _end(held, grace_seconds=0)
                held.log.close()
                del self._held[name]
            volume = self._volume(name)
            await asyncio.to_thread(volume.delete if delete_volume else volume.forget)

    def inspect(self, ref: str) -> Instance | None:
        held = self._find(ref)
        return held.seen() if held is not None else None

    def list(self, installation_id: str) -> tuple[Instance, ...]:
        return tuple(
            held.seen() for held in self._held.values() if held.record.spec.labels.installation_id == installation_id
        )

    async def volumes(self, installation_id: str, *, agent_id: str | None) -> tuple[SeenVolume, ...]:
        try:
            return await asyncio.to_thread(volumes_in, self._volumes, installation_id, agent_id)
        except OSError as error:
            raise RuntimeUnavailable(f"cannot list the volumes: {error}; look at the disk") from error

    def log_of(self, ref: str) -> LogFile:
        return self._get(ref).log

    def usage(self, ref: str) -> Usage:
        held = self._get(ref)
        if held.unit is None:
            raise RuntimeRefused(f"cannot measure the instance: it is {held.phase}", code="not_running")
        return held.unit.usage()

    async def watch(self) -> AsyncGenerator[Instance, None]:
        """Every instance as it is, then every change."""
        queue: asyncio.Queue[Instance] = asyncio.Queue()
        for held in self._held.values():
            queue.put_nowait(held.seen())
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    async def end_all(self, grace_seconds: float) -> None:
        """Stop every instance, all at the same time, and start none any more; kills what takes too long."""
        self._ending = True
        running = [held for held in self._held.values() if held.unit is not None]
        for held in running:
            assert held.unit is not None
            held.unit.ask_to_stop(grace_seconds)
        ends = [held.over for held in running if held.over is not None]
        if ends:
            _done, late = await asyncio.wait(ends, timeout=grace_seconds + END_SECONDS)
            for end in late:
                end.cancel()

    async def _live(self, held: Held, unit: Unit, secrets: InstanceSecrets, listen: Listen) -> None:
        ended = await unit.run(held.record.spec, secrets, listen, self._machine)
        held.unit, held.phase = None, Phase.EXITED
        held.record = replace(held.record, exit_code=ended.exit_code, reason=ended.reason)
        log.info("instance ended", ref=held.ref, exit_code=ended.exit_code, reason=ended.reason)
        try:
            held.volume.save(held.record)
        except OSError as error:
            log.warning("cannot write a record", ref=held.ref, reason=str(error))
        self._tell(held)

    async def _freeze(self, ref: str, before: Phase, after: Phase) -> None:
        async with self._changing_by(ref) as held:
            if held.unit is None:
                raise RuntimeRefused(f"cannot make the instance {after}: it is {held.phase}", code="not_running")
            if held.phase is before:
                held.unit.freeze() if after is Phase.PAUSED else held.unit.thaw()
                held.phase = after
                self._tell(held)

    @asynccontextmanager
    async def _changing(self, name: str) -> AsyncIterator[None]:
        """Alone with one volume; trouble with files and programs becomes RuntimeRefused."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            try:
                yield
            except SpawnFailed as error:
                raise RuntimeRefused(str(error), code="spawn_failed") from error
            except (OSError, Misconfigured) as error:
                raise RuntimeRefused(f"cannot use the volume {name}: {error}", code="volume_unusable") from error

    @asynccontextmanager
    async def _changing_by(self, ref: str) -> AsyncIterator[Held]:
        async with self._changing(name_in(ref) or ""):
            yield self._get(ref)

    def _find(self, ref: str) -> Held | None:
        held = self._held.get(name_in(ref) or "")
        return held if held is not None and held.ref == ref else None

    def _get(self, ref: str) -> Held:
        held = self._find(ref)
        if held is None:
            raise NotFound(f"there is no instance {ref[:100]}")
        return held

    def _volume(self, name: str) -> Volume:
        return Volume(self._volumes / name, self._sockets / name.replace("/", "-"))

    def _tell(self, held: Held) -> None:
        for queue in self._watchers:
            queue.put_nowait(held.seen())


def _check_succession(held: Held, spec: InstanceSpec) -> None:
    """Refuse what would take the volume from another installation, a later run, or one that still runs."""
    present, wanted = held.record.spec.labels, spec.labels
    if present.installation_id != wanted.installation_id:
        raise RuntimeRefused("cannot create the instance: its volume is not ours", code="not_ours")
    if present.run > wanted.run:
        raise RuntimeRefused("cannot create the instance: a later run exists", code="later_run_exists")
    if present.run < wanted.run and held.unit is not None:
        raise RuntimeRefused("cannot create the instance: an earlier run runs", code="earlier_run_runs")


async def _end(held: Held, grace_seconds: float) -> None:
    if held.unit is not None and held.over is not None:
        held.unit.ask_to_stop(grace_seconds)
        await asyncio.shield(held.over)
