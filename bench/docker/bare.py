"""What agents are measured beside: mint a key, run a container that is as confined, ask until 200. No record, no checks.

`Script` is what a person writes: `docker run` of an image that joins by itself, its key from the environment. `Least` is
the least that can be done: it talks to the Engine API itself, without a process for the docker command.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiodocker import Docker

from elizacloud.errors import Error
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.model import AGENT_PORT, TAG_AGENT
from elizacloud.runtime.docker.configs import LOG, TMPFS
from elizacloud.runtime.docker.handed import NODE_DIRECTORY
from elizacloud.tailnet import LocalApi, dial, find_path

WITHIN_SECONDS = 60.0
LOOK_SECONDS = 0.02


@dataclass
class Least:
    """What every round of it uses."""

    docker: Docker
    headscale: HeadscaleClient
    join_url: str
    image: str
    relay_socket: Path
    network: str

    async def create(self) -> tuple[float, str]:
        """Seconds from nothing to an answer through the tailnet, and the container's id."""
        began = time.monotonic()
        name = f"bare-{secrets.token_hex(4)}"
        key = await self.headscale.create_preauth_key(tags=(TAG_AGENT,), lifetime_seconds=300)
        environment = {
            "HEADSCALE_URL": self.join_url,
            "HEADSCALE_AUTH_KEY": key.value.get_secret_value(),
            "CONTAINER_ID": name,
            "TS_SOCKET": "/run/tailscaled.sock",
        }
        container_id = await self._run(name, environment)
        ip = await self._address_of(key.id)
        await self._until_it_answers(ip)
        return time.monotonic() - began, container_id

    async def remove(self, container_id: str) -> None:
        await self.docker.containers.container(container_id).delete(force=True, v=True)

    async def _run(self, name: str, environment: dict[str, str]) -> str:
        config: dict[str, Any] = {
            "Image": self.image,
            "Env": [f"{variable}={value}" for variable, value in environment.items()],
            "HostConfig": {
                "NetworkMode": self.network,
                "CapDrop": ["ALL"],
                "SecurityOpt": ["no-new-privileges"],
                "ReadonlyRootfs": True,
                "Tmpfs": TMPFS,
                "LogConfig": LOG,
                "Mounts": [{"Type": "volume", "Target": NODE_DIRECTORY}],
            },
        }
        container = await self.docker.containers.create(config, name=name)
        await container.start()
        return str(container.id)

    async def _address_of(self, key_id: str) -> str:
        async with asyncio.timeout(WITHIN_SECONDS):
            while True:
                for node in await self.headscale.list_nodes():
                    if node.preauth_key_id == key_id and node.ipv4:
                        return node.ipv4
                await asyncio.sleep(LOOK_SECONDS)

    async def _until_it_answers(self, ip: str) -> None:
        api = LocalApi(self.relay_socket)
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                while not await self._answers(api, ip):
                    await asyncio.sleep(LOOK_SECONDS)
        finally:
            await api.close()

    async def _answers(self, api: LocalApi, ip: str) -> bool:
        with contextlib.suppress(Error, OSError):
            await find_path(api, ip, within_seconds=WITHIN_SECONDS)
            reader, writer = await dial(self.relay_socket, ip, AGENT_PORT, within_seconds=5)
            try:
                writer.write(b"GET /api/health HTTP/1.0\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
        return False


@dataclass
class Script(Least):
    """The bare script."""

    program: str
    """The docker command."""
    docker_host: str

    async def _run(self, name: str, environment: dict[str, str]) -> str:
        """Confined as above."""
        log: dict[str, Any] = LOG
        flags = ["--name", name, "--network", self.network, "--read-only"]
        flags += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        flags += ["--mount", f"type=volume,target={NODE_DIRECTORY}"]
        for path, options in TMPFS.items():
            flags += ["--tmpfs", f"{path}:{options}"]
        flags += ["--log-driver", log["Type"]]
        for option, value in log["Config"].items():
            flags += ["--log-opt", f"{option}={value}"]
        for variable in environment:
            flags += ["--env", variable]  # the value comes from its environment
        process = await asyncio.create_subprocess_exec(
            *(self.program, "run", "--detach", *flags, self.image),
            env={**os.environ, **environment, "DOCKER_HOST": self.docker_host},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        printed, said = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"docker run ended with {process.returncode}: {said.decode()}")
        return printed.decode().strip()
