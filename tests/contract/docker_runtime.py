"""The Docker runtime for the contract suite and tests/runtime/docker: a real engine, behind a socket that can be cut.

Packet filters are off unless a test asks for them: setting them costs each new network half a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from elizacloud.errors import RuntimeRefused
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.model import TAG_AGENT
from elizacloud.runtime.docker import DockerOptions, DockerRuntime
from elizacloud.runtime.docker.labels import Keeps, Role, name_of, network_name
from elizacloud.runtime.protocol import InstanceSecrets, InstanceSpec, Labels, Runtime
from tests.contract.headscale_servers import RealRig, devcontrol, rig_of
from tests.docker_engine import AGENT_IMAGE, EMBEDDED_IMAGE, SIDECAR_IMAGE, DockerEngine
from tests.ports import free_port
from tests.sshd import Sshd

INSTALLATIONS = ("one", "two")
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Door:
    """What is between a runtime and its engine, so that it can be shut."""

    def __init__(self, behind: Callable[[], Awaitable[Connection]]) -> None:
        self._behind = behind
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    async def open_at(self, socket: Path) -> None:
        self._server = await asyncio.start_unix_server(self._pass_on, socket)

    async def open_on_loopback(self, port: int) -> None:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", port)

    async def shut(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._connections:
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)  # first, so that one that comes as this is taken down is cut, too
        there_reader, there_writer = await self._behind()
        self._connections.add(there_writer)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pump(reader, there_writer), name="to docker")
                tasks.create_task(_pump(there_reader, writer), name="from docker")
        finally:
            self._connections -= {writer, there_writer}


class DockerRig:
    def __init__(
        self, engine: DockerEngine, runtime: DockerRuntime, door: Door, opens: Callable[[], Awaitable[None]]
    ) -> None:
        self.engine = engine
        self.runtime = runtime
        self._door = door
        self.start = opens

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
        await self._door.shut()

    def shown(self, of: Labels, role: Role) -> dict[str, object]:
        """What `docker inspect` shows of a container."""
        found = self.engine.get(f"/containers/{name_of((of.agent_id, of.generation), role)}/json")
        assert isinstance(found, dict)
        return found


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(64 * 1024):
            writer.write(data)
            await writer.drain()
    writer.close()


class JoiningRuntime(DockerRuntime):
    """Agents that run only on a tailnet, for tests that know of none: each joins a real control server with a real key."""

    def __init__(self, url: str, options: DockerOptions, server: RealRig) -> None:
        super().__init__(url, options)
        self._server = server

    async def create(self, spec: InstanceSpec) -> str:
        return await super().create(replace(spec, join_url=self._server.server.join_url))

    async def start(self, ref: str, secrets: InstanceSecrets) -> None:
        key = await self._server.headscale.create_preauth_key(tags=(TAG_AGENT,), lifetime_seconds=60)
        await super().start(ref, replace(secrets, preauth_key=key.value))


class WithoutCgroups(DockerRuntime):
    """Of a Docker that freezes nothing, for tests that freeze: they go no further."""

    async def pause(self, ref: str) -> None:
        try:
            await super().pause(ref)
        except RuntimeRefused as refused:
            if refused.reason != "cannot_freeze":
                raise
            pytest.skip("this Docker has no cgroups, and freezes nothing")


def options_of(**chosen: object) -> DockerOptions:
    options = DockerOptions(sidecar_image=SIDECAR_IMAGE, agent_image=AGENT_IMAGE, firewall=False)
    return replace(options, **chosen)  # type: ignore[arg-type]


EMBEDDED = {"agent_image": EMBEDDED_IMAGE, "embedded_images": (EMBEDDED_IMAGE,)}
"""Options of a runtime whose agents join by themselves."""


@asynccontextmanager
async def docker_rig(engine: DockerEngine, **options: object) -> AsyncIterator[DockerRig]:
    """Everything that was made is removed in the end."""
    async with _rig(engine, lambda url: DockerRuntime(url, options_of(**options))) as rig:
        yield rig


@asynccontextmanager
async def embedded_rig(engine: DockerEngine) -> AsyncIterator[DockerRig]:
    gateway = engine.gateway
    async with rig_of(devcontrol(), listen_host=gateway) as server:
        assert isinstance(server, RealRig)
        await ensure_policy(server.headscale)
        async with _rig(engine, lambda url: JoiningRuntime(url, options_of(**EMBEDDED), server)) as rig:
            yield rig


@asynccontextmanager
async def rootless_rig(engine: DockerEngine) -> AsyncIterator[DockerRig]:
    async with _rig(engine, lambda url: WithoutCgroups(url, options_of())) as rig:
        yield rig


@asynccontextmanager
async def ssh_rig(engine: DockerEngine, sshd: Sshd) -> AsyncIterator[DockerRig]:
    """The door is before the sshd."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        home = sshd.home(Path(directory), port=port)
        with patch.dict(os.environ, {"HOME": str(home)}):
            door = Door(lambda: asyncio.open_connection("127.0.0.1", sshd.port))
            runtime = DockerRuntime(sshd.url(port=port), options_of())
            async with _kept(DockerRig(engine, runtime, door, lambda: door.open_on_loopback(port))) as rig:
                yield rig


@asynccontextmanager
async def _rig(engine: DockerEngine, make: Callable[[str], DockerRuntime]) -> AsyncIterator[DockerRig]:
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        socket = Path(directory) / "docker.sock"
        door = Door(lambda: asyncio.open_unix_connection(engine.socket))
        runtime = make(f"unix://{socket}")
        async with _kept(DockerRig(engine, runtime, door, lambda: door.open_at(socket))) as rig:
            yield rig


@asynccontextmanager
async def _kept(rig: DockerRig) -> AsyncIterator[DockerRig]:
    await rig.start()
    try:
        yield rig
    finally:
        await rig.close()
        await _remove_everything(rig.engine)


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
