"""The Docker runtime for the contract suite and tests/runtime/docker: a real engine, behind a socket that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from aiodocker import Docker
from aiodocker.exceptions import DockerError

from elizacloud.runtime.docker import DockerOptions, DockerRuntime
from elizacloud.runtime.docker.labels import Keeps, Role, name_of, network_name
from elizacloud.runtime.protocol import Labels, Runtime
from tests.docker_engine import AGENT_IMAGE, SIDECAR_IMAGE, DockerEngine

INSTALLATIONS = ("one", "two")


class DockerRig:
    def __init__(self, engine: DockerEngine, socket: Path, options: DockerOptions) -> None:
        self.engine = engine
        self.options = options
        self.runtime = DockerRuntime(f"unix://{socket}", options)
        self._socket = socket
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._pass_on, self._socket)

    async def close(self) -> None:
        await self.runtime.close()
        await self.takes_down()

    def dying(self, *, exit_code: int) -> Runtime:
        return self.runtime

    def failing_to_start(self) -> Runtime:
        return self.runtime

    def has_volume(self, of: Labels) -> bool:
        name = name_of((of.agent_id, of.generation), Keeps.NODE)
        return self.engine.get(f"/volumes/{name}") is not None

    async def takes_down(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._connections:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    def shown(self, of: Labels, role: Role) -> dict[str, object]:
        """What `docker inspect` shows of a container."""
        found = self.engine.get(f"/containers/{name_of((of.agent_id, of.generation), role)}/json")
        assert isinstance(found, dict)
        return found

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(self.engine.socket)
        self._connections |= {writer, there_writer}
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, there_writer), name="to docker")
                tasks.create_task(_pump(there_reader, writer), name="from docker")
        finally:
            self._connections -= {writer, there_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def docker_rig(engine: DockerEngine, **options: object) -> AsyncIterator[DockerRig]:
    """Everything that was made is removed in the end."""
    chosen = replace(DockerOptions(sidecar_image=SIDECAR_IMAGE, agent_image=AGENT_IMAGE), **options)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        rig = DockerRig(engine, Path(directory) / "docker.sock", chosen)
        await rig.start()
        try:
            yield rig
        finally:
            await rig.close()
            await _remove_everything(engine)


async def _remove_everything(engine: DockerEngine) -> None:
    async with Docker(engine.url) as docker:
        for installation in INSTALLATIONS:
            label = [f"elizacloud.installation={installation}"]
            for container in await docker.containers.list(all=True, filters={"label": label}):
                with contextlib.suppress(DockerError):
                    await container.delete(force=True, v=True)
            for volume in (await docker.volumes.list(filters={"label": label}))["Volumes"] or []:
                with contextlib.suppress(DockerError):
                    await (await docker.volumes.get(volume["Name"])).delete()
            with contextlib.suppress(DockerError):
                await (await docker.networks.get(network_name(installation))).delete()
