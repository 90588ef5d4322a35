"""The units of one Docker host: find them by label, see how they are, end them. Remembers nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress

from aiodocker.containers import DockerContainer
from aiodocker.stream import Stream

from elizacloud.beside import beside
from elizacloud.errors import Error, NotFound, RuntimeRefused
from elizacloud.runtime.docker.engine import CALL_SECONDS, Engine
from elizacloud.runtime.docker.labels import Key, Role, filters, key_in
from elizacloud.runtime.docker.logs import lines_of
from elizacloud.runtime.docker.unit import Container, Unit, container_of, units_of, unstarted_of
from elizacloud.runtime.protocol import Instance

SIDECAR_GRACE_SECONDS = 2
LOOKS_AT_ONCE = 8
LAST_WORDS_LINES = 50
OURS = "[elizacloud] "
"""How container-init begins a line of its own."""


class Units:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def find(self, **wanted: str) -> list[Unit]:
        """Those whose labels are so: installation, agent, generation."""
        async with self._engine.asked("list the instances") as docker:
            listed = await docker.containers.list(all=True, filters=filters(**wanted))
        looking = asyncio.Semaphore(LOOKS_AT_ONCE)
        looks = await beside(*(self._look(found, looking) for found in listed))
        return units_of(container for container in looks if container is not None)

    async def of(self, key: Key) -> list[Unit]:
        return await self.find(agent=key[0], generation=str(key[1]))

    async def get(self, ref: str) -> Unit:
        """Raises NotFound."""
        key = key_in(ref)
        for unit in await self.of(key) if key is not None else ():
            if unit.ref == ref:
                return unit
        raise NotFound(f"there is no instance {ref[:100]}")

    async def seen(self, unit: Unit) -> Instance:
        speaker = unit.tells_why
        return unit.seen(await self._last_words(speaker) if speaker is not None else "")

    async def begin(self, unit: Unit, handed: Mapping[Role, bytes]) -> None:
        """Start the containers, the agent's last, each with what it is given. Raises RuntimeRefused `spawn_failed`, and then
        none runs."""
        try:
            for container in reversed(unit.containers):
                await self._start(container, handed[container.role])
        except RuntimeRefused as error:
            if unit.sidecar is not None and await self._is_over(unit.sidecar):
                return  # it ended by itself before the agent could be started beside it: the unit ran, and is over
            raise RuntimeRefused(str(error), code="spawn_failed") from error

    async def _start(self, container: Container, given: bytes) -> None:
        async def begin() -> None:
            async with self._engine.asked("start the instance"):
                await started.start()

        async def hand_over(stream: Stream, what: bytes) -> None:
            async with self._engine.asked("hand over to the instance"):
                await stream.write_in(what)

        async with self._engine.asked("start the instance", within_seconds=2 * CALL_SECONDS) as docker:
            started = docker.containers.container(container.id)
            async with started.attach(stdin=True) as stream:
                await hand_over(stream, b"")  # which attaches
                # Beside each other: only a container that runs takes more than a socket holds.
                await beside(begin(), hand_over(stream, given))

    async def _is_over(self, sidecar: Container) -> bool:
        """Whether it had ended by itself; else it has ended now."""
        async with self._engine.asked("end the sidecar") as docker:
            shown = container_of(await docker.containers.container(sidecar.id).show())
            if shown is not None and shown.ended and shown.started_at is not None:
                return True
            await docker.containers.container(sidecar.id).stop(t=0)
            return False

    async def thaw(self, unit: Unit) -> None:
        """The sidecar first, as it was frozen last."""
        for container in reversed(unit.containers):
            if container.status == "paused":
                async with self._engine.asked("resume the instance") as docker:
                    await docker.containers.container(container.id).unpause()

    async def end(self, unit: Unit, grace_seconds: float) -> None:
        """The agent, in its grace, and then the sidecar. A no-op for what does not run."""
        graces = dict.fromkeys(Role, math.ceil(grace_seconds)) | {Role.TAILNET: SIDECAR_GRACE_SECONDS}
        for container in unit.containers:
            if container.status in ("running", "paused", "restarting"):
                grace = graces[container.role]
                async with self._engine.asked("stop the instance", within_seconds=CALL_SECONDS + grace) as docker:
                    await docker.containers.container(container.id).stop(t=grace)

    async def end_what_is_left(self, unit: Unit) -> None:
        """Kill the sidecar of an agent that ended by itself; how the unit ended can still be read from that (unit.py)."""
        assert unit.sidecar is not None
        with suppress(NotFound, RuntimeRefused):  # it has ended in the meantime
            async with self._engine.asked("end the sidecar") as docker:
                await docker.containers.container(unit.sidecar.id).kill(signal="SIGKILL")

    async def remove(self, unit: Unit) -> None:
        await beside(*(self._remove(container) for container in unit.containers))

    async def _remove(self, container: Container) -> None:
        with suppress(NotFound):
            async with self._engine.asked("remove the instance") as docker:
                await docker.containers.container(container.id).delete(force=True, v=True)

    async def _look(self, listed: DockerContainer, looking: asyncio.Semaphore) -> Container | None:
        if (unstarted := unstarted_of(listed._container)) is not None:
            return unstarted
        async with looking:
            try:
                async with self._engine.asked("look at an instance") as docker:
                    return container_of(await docker.containers.container(listed.id).show())
            except NotFound:  # it went since the list was made
                return None

    async def _last_words(self, container: Container) -> str:
        """What container-init said last; empty when that cannot be read."""
        try:
            async with self._engine.asked("read container-init's log") as docker:
                pieces = await docker.containers.container(container.id).log(stderr=True, tail=LAST_WORDS_LINES)
        except Error:
            return ""
        said = [line for line in lines_of(pieces) if line.startswith(OURS)]
        return said[-1].removeprefix(OURS) if said else ""
