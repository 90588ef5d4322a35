"""An agent as clients see it: behind one of the relay's two fronts, in a cloud that dials in one of two ways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from bench.netns import namespace_with_a_way_out, why_not
from pydantic import SecretStr

from elizacloud.client import Client
from elizacloud.states import State
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import READY_SECONDS, SERVERS, server_name
from tests.relay.conftest import Answer, RawClient

WAYS = [
    pytest.param((mode, server), id=f"{mode} {server_name(server)}")
    for server in SERVERS
    for mode in ("userspace", "tun")
]
"""How a relay dials, and on which control server the tailnet is."""
WITHIN_SECONDS = 60


@dataclass
class Place:
    """One agent in one cloud."""

    host: str
    port: int
    token: str
    agent_id: str
    worker_pid: int
    server: str
    """The control server's name."""


@dataclass
class Door:
    """The agent by one of the two fronts."""

    place: Place
    by_host: bool
    clients: list[RawClient] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.place.host}:{self.place.port}" + self.prefix

    @property
    def prefix(self) -> str:
        return "" if self.by_host else f"/api/relay/{self.place.agent_id}"

    @property
    def headers(self) -> dict[str, str]:
        host = f"{self.place.agent_id}.localhost" if self.by_host else "relay.example"
        return {"Host": host, "Authorization": f"Bearer {self.place.token}"}

    def head(self, method: str, path: str, *fields: str, version: str = "1.1") -> bytes:
        lines = [
            f"{method} {self.prefix}{path} HTTP/{version}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            *fields,
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def client(self) -> RawClient:
        reader, writer = await asyncio.open_connection(self.place.host, self.place.port, limit=1 << 20)
        self.clients.append(RawClient(reader, writer))
        return self.clients[-1]

    async def ask(self, method: str, path: str, *fields: str, body: bytes = b"") -> Answer:
        client = await self.client()
        async with asyncio.timeout(WITHIN_SECONDS):
            return await client.ask(self.head(method, path, *fields) + body, head_only=method == "HEAD")

    async def seen(self, method: str, path: str, *fields: str, body: bytes = b"") -> dict[str, Any]:
        """What the agent says that it got."""
        answer = await self.ask(method, path, *fields, body=body)
        assert answer.status == 200, answer
        return dict(json.loads(answer.body))


@contextlib.contextmanager
def agent_dialled(
    mode: str, program: str, environment: Mapping[str, str] | None = None, *, headscale: str = "devcontrol"
) -> Iterator[Place]:
    """A program as the one agent of a cloud that dials in this mode. In TUN mode this thread stays in the cloud's network."""
    with contextlib.ExitStack() as stack:
        if mode == "tun":
            if reason := why_not():
                pytest.skip(reason)
            inside, _ = stack.enter_context(namespace_with_a_way_out())
            stack.enter_context(inside.entered())
        cloud = Cloud(headscale, environment={"ELIZACLOUD_TAILNET_MODE": mode, **(environment or {})})
        stack.callback(cloud.remove)
        cloud.start()
        address = urlsplit(cloud.url)
        assert address.hostname
        assert address.port
        agent_id = asyncio.run(_created(cloud, program))
        worker = cloud.pid_of("elizacloud.app.relay_worker")
        yield Place(address.hostname, address.port, cloud.token, agent_id, worker, server_name(headscale))


async def _created(cloud: Cloud, program: str) -> str:
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        command = [sys.executable, str(Path(program))]
        created = await client.create_agent("of the test", options={"command": command})
        await client.wait_until(created.agent_id, {State.READY}, within_seconds=READY_SECONDS)
        return created.agent_id
