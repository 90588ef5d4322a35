"""The bare script that agents are measured beside: mint a key, run a container that is as confined, ask until 200.

It talks to the Engine API itself, which is less than `docker run` does, keeps no record, and checks nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
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
class Bare:
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
        container = await self.docker.containers.create(self._config(name, key.value.get_secret_value()), name=name)
        await container.start()
        ip = await self._address_of(key.id)
        await self._until_it_answers(ip)
        return time.monotonic() - began, str(container.id)

    async def remove(self, container_id: str) -> None:
        await self.docker.containers.container(container_id).delete(force=True, v=True)

    def _config(self, name: str, key: str) -> dict[str, Any]:
        environment = {
            "HEADSCALE_URL": self.join_url,
            "HEADSCALE_AUTH_KEY": key,
            "CONTAINER_ID": name,
            "TS_SOCKET": "/run/tailscaled.sock",
        }
        return {
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
