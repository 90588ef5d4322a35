"""DockerRuntime: the calls of runtime/protocol.py on one Docker host. Remembers nothing: all that is, is found by label.

Calls about one generation happen one after the other in this process; between processes, Docker's own names, of which
there is one each, keep two from making the same container.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from weakref import WeakValueDictionary

from elizacloud.errors import Error, NotFound, RuntimeRefused
from elizacloud.runtime.docker.cgroups import Cgroups
from elizacloud.runtime.docker.configs import DockerOptions, given_by_owner, our_secrets
from elizacloud.runtime.docker.engine import Engine
from elizacloud.runtime.docker.handed import for_agent, for_container_init
from elizacloud.runtime.docker.images import Images
from elizacloud.runtime.docker.labels import Keeps, Key, Role, checked, key_in, ref_of
from elizacloud.runtime.docker.logs import follow as follow_log
from elizacloud.runtime.docker.logs import lines_of
from elizacloud.runtime.docker.making import Maker
from elizacloud.runtime.docker.unit import Unit
from elizacloud.runtime.docker.units import Units
from elizacloud.runtime.docker.usage import usage_of
from elizacloud.runtime.docker.watching import Watch
from elizacloud.runtime.protocol import Instance, InstanceSecrets, InstanceSpec, Labels, Phase, Usage, Volume


class DockerRuntime:
    """Implements runtime/protocol.py. Made without I/O; `close` when done."""

    kind = "docker"
    isolates = True

    def __init__(self, url: str, options: DockerOptions) -> None:
        """`url` is a Docker host's, as DOCKER_HOST has it."""
        self._engine = Engine(url)
        self._images = Images(self._engine, options.pull_policy)
        self._units = Units(self._engine)
        self._cgroups = Cgroups(self._engine)
        self._maker = Maker(self._engine, self._images, options)
        self._given: dict[str, bytes] = {}
        """By ref: what an owner gave, for each start. One after a restart of ours relies on what an earlier one has written."""
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    async def close(self) -> None:
        await self._images.close()
        await self._engine.close()

    async def create(self, spec: InstanceSpec) -> str:
        """What was not started yet is made anew, so that what its owner changed is in it."""
        labels = checked(spec.labels)
        key = (labels.agent_id, labels.generation)
        async with self._changing(key):
            for unit in await self._units.of(key):
                _check_succession(unit, labels)
                if unit.labels == labels and unit.agent is not None and unit.phase is not Phase.CREATED:
                    self._given[unit.ref] = given_by_owner(spec)
                    return unit.ref
                await self._units.remove(unit)
                self._given.pop(unit.ref, None)
            given = given_by_owner(spec)
            await self._maker.make(spec)
            self._given[ref_of(labels)] = given
        return ref_of(labels)

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        async with self._changing_by(ref) as unit:
            if unit.phase is Phase.RUNNING:
                return
            if unit.phase is Phase.PAUSED:
                raise RuntimeRefused("cannot start the instance: it is paused; resume it", code="paused")
            if unit.agent is None or not unit.whole:
                raise NotFound(f"the instance {ref} is not whole: create it again")
            if unit.agent.started_at is None and ref not in self._given:
                raise RuntimeRefused(
                    "cannot start the instance: its owner's secrets were lost with an earlier control plane; create it again",
                    code="secrets_lost",
                )
            await self._units.end(unit, grace_seconds=0)  # all start as one, and one may have been left
            await self._maker.check_command(unit.agent)
            await self._units.begin(unit, self._handed(unit, secrets))

    def _handed(self, unit: Unit, secrets: InstanceSecrets) -> dict[Role, bytes]:
        """What each container is to be given."""
        key = secrets.preauth_key.get_secret_value() if secrets.preauth_key else None
        join_token, busy_token = (token.get_secret_value() for token in (secrets.join_token, secrets.busy_token))
        owners = self._given.get(unit.ref, b"")
        for_init = for_container_init(auth_key=key, join_token=join_token)
        script = for_agent(owners=owners, secrets=our_secrets(secrets), busy_token=busy_token)
        return {Role.TAILNET: for_init, Role.AGENT: script, Role.WHOLE: for_init + script}

    async def pause(self, ref: str) -> None:
        async with self._changing_by(ref) as unit:
            _check_runs(unit, "pause")
            await self._cgroups.check_freezes()
            for container in unit.containers:
                if container.status == "running":
                    async with self._engine.asked("pause the instance") as docker:
                        await docker.containers.container(container.id).pause()

    async def resume(self, ref: str) -> None:
        async with self._changing_by(ref) as unit:
            _check_runs(unit, "resume")
            await self._units.thaw(unit)

    async def stop(self, ref: str, *, grace_seconds: float) -> None:
        with suppress(NotFound):
            async with self._changing_by(ref) as unit:
                await self._units.thaw(unit)
                await self._units.end(unit, grace_seconds)

    async def remove(self, ref: str, *, volume: bool) -> None:
        key = key_in(ref)
        if key is None:
            return
        async with self._changing(key):
            self._given.pop(ref, None)
            units = await self._units.of(key)
            for unit in units:
                if unit.ref == ref:
                    await self._units.remove(unit)
            if all(unit.ref == ref for unit in units):  # else a later run has the volumes now
                await self._maker.remove_volumes(key, *(Keeps if volume else (Keeps.TOOLS,)))

    async def inspect(self, ref: str) -> Instance | None:
        """One whose creation was not finished is none: `create` makes it anew."""
        try:
            unit = await self._units.get(ref)
        except NotFound:
            return None
        return await self._units.seen(unit) if unit.whole else None

    async def list_volumes(self, installation_id: str, *, agent_id: str | None = None) -> list[Volume]:
        return await self._maker.volumes(installation_id, agent_id)

    async def list(self, installation_id: str) -> list[Instance]:
        return [await self._units.seen(unit) for unit in await self._units.find(installation=installation_id)]

    async def logs(self, ref: str, *, tail: int, follow: bool) -> AsyncGenerator[str, None]:
        """The agent's own output. Following ends when the instance is removed."""
        agent = (await self._units.get(ref)).agent
        if agent is None:
            raise NotFound(f"there is no instance {ref[:100]}")
        if follow:
            async with aclosing(follow_log(self._engine, agent.id, tail)) as lines:
                async for line in lines:
                    yield line
            return
        async with self._engine.asked("read the log") as docker:
            pieces = await docker.containers.container(agent.id).log(stdout=True, stderr=True, tail=tail)
        for line in lines_of(pieces):
            yield line

    async def usage(self, ref: str) -> Usage:
        unit = await self._units.get(ref)
        _check_runs(unit, "measure")
        await self._cgroups.check_counts()
        return await usage_of(self._engine, unit)

    async def watch(self) -> AsyncGenerator[Instance, None]:
        with suppress(Error):
            await self._cgroups.look()
        async with aclosing(Watch(self._engine, self._units, self._docker_restarted).changes()) as changes:
            async for instance in changes:
                yield instance

    def _docker_restarted(self) -> None:
        """What is kept of the host has to be looked at again."""
        self._maker.docker_restarted()
        self._cgroups.forget()

    @asynccontextmanager
    async def _changing(self, key: Key) -> AsyncIterator[None]:
        """Alone with one generation."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield

    @asynccontextmanager
    async def _changing_by(self, ref: str) -> AsyncIterator[Unit]:
        """Raises NotFound."""
        key = key_in(ref)
        if key is None:
            raise NotFound(f"there is no instance {ref[:100]}")
        async with self._changing(key):
            yield await self._units.get(ref)


def _check_succession(unit: Unit, labels: Labels) -> None:
    """Refuse what would take the volumes from another installation, a later run, or one that still runs."""
    if unit.labels.installation_id != labels.installation_id:
        raise RuntimeRefused("cannot create the instance: its volume is not ours", code="not_ours")
    if unit.labels.run > labels.run:
        raise RuntimeRefused("cannot create the instance: a later run exists", code="later_run_exists")
    if unit.labels.run < labels.run and unit.phase in (Phase.RUNNING, Phase.PAUSED):
        raise RuntimeRefused("cannot create the instance: an earlier run runs", code="earlier_run_runs")


def _check_runs(unit: Unit, what: str) -> None:
    if unit.phase not in (Phase.RUNNING, Phase.PAUSED):
        raise RuntimeRefused(f"cannot {what} the instance: it is {unit.phase}", code="not_running")
