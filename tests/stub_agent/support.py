"""A stub agent in the test's own event loop, and a client of it that carries its token."""

import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from elizacloud.stub_agent.config import Config, Faults, TcpAddress, UnixAddress
from elizacloud.stub_agent.server import running

TOKEN = "agent-token"
root = Path()
"""Where sockets and state lie: set, and removed at the end, by conftest.py."""


def cloud_config(**changes: Any) -> Config:
    """As a cloud starts it: on a unix socket, provisioned, with a token."""
    directory = Path(tempfile.mkdtemp(dir=root))
    config = Config(
        listen=UnixAddress(str(directory / "agent.sock")),
        bind_host="0.0.0.0",
        state_dir=directory / "state",
        api_token=TOKEN,
        cloud_provisioned=True,
        identity={"agentId": "a", "generation": "2", "run": "3"},
        faults=Faults(),
    )
    return dataclasses.replace(config, **changes)


def local_config(**changes: Any) -> Config:
    """As a developer starts it: on a loopback port, with a token, not provisioned."""
    return cloud_config(
        **{"listen": TcpAddress("127.0.0.1", 0), "bind_host": "127.0.0.1", "cloud_provisioned": False} | changes
    )


@contextlib.asynccontextmanager
async def agent_client(
    config: Config, *, token: str | None = TOKEN, exit_process: Callable[[int], object] = lambda code: None
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session whose relative URLs reach the agent; to a unix socket it says Host 100.64.0.9:2138, as a relay does."""
    async with running(config, exit_process) as address:
        if isinstance(address, UnixAddress):
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(address.path)
            base = "http://100.64.0.9:2138"
        else:
            connector, base = aiohttp.TCPConnector(), f"http://{address}"
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession(base, connector=connector, headers=headers) as session:
            yield session
