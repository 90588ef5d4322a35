"""What tests of any runtime need of a real tailnet: a key for an agent, its address, an answer from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio

from elizacloud.errors import Refused
from elizacloud.model import AGENT_PORT, TAG_AGENT, TAG_RELAY, AgentSpec, agent_tag, new_agent_id
from elizacloud.runtime.protocol import InstanceSpec
from elizacloud.tailnet import dial, find_path
from tests.contract.headscale_servers import RealMachine, RealRig, until
from tests.contract.runtimes import labels, spec

ATTEMPT_SECONDS = 5
WITHIN_SECONDS = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relay(server: RealRig) -> AsyncIterator[RealMachine]:
    key = await server.headscale.create_preauth_key(tags=(TAG_RELAY,), lifetime_seconds=60)
    yield await server.join(key, "relay")
    await server.stop_machines()


@pytest.fixture(autouse=True)
def _counted(server: RealRig, record_property: Callable[[str, object], None]) -> None:
    record_property("control_server", server.name)


def agent_on(server: RealRig, agent: AgentSpec | None = None, *, report_url: str | None = None) -> InstanceSpec:
    of = spec(labels(agent_id=new_agent_id()))
    return replace(of, join_url=server.server.join_url, report_url=report_url, agent=agent or AgentSpec())


async def key_for(server: RealRig, of: InstanceSpec) -> str:
    tags = (TAG_AGENT, agent_tag(of.labels.agent_id))
    return (await server.headscale.create_preauth_key(tags=tags, lifetime_seconds=60)).value.get_secret_value()


async def address_of(server: RealRig, of: InstanceSpec) -> tuple[str, str]:
    """The node id and address that the server lists for the agent, once it does."""
    found: list[tuple[str, str]] = []

    async def listed() -> bool:
        nodes = [node for node in await server.headscale.list_nodes() if agent_tag(of.labels.agent_id) in node.tags]
        found.extend((node.id, node.ipv4) for node in nodes if node.ipv4)
        return bool(found)

    await until(listed, within_seconds=WITHIN_SECONDS)
    return found[0]


async def ask(relay: RealMachine, ip: str, *, token: str = "agent-token", path: str = "/api/health") -> str:
    """The first line of the agent's answer, over the tailnet; asked again until it listens."""
    async with asyncio.timeout(WITHIN_SECONDS):
        await find_path(relay.api, ip, within_seconds=WITHIN_SECONDS)
        while True:
            try:
                reader, writer = await dial(relay.tailscaled.socket, ip, AGENT_PORT, within_seconds=WITHIN_SECONDS)
            except Refused:
                continue
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {ip}:{AGENT_PORT}\r\nConnection: close\r\n"
                f"Authorization: Bearer {token}\r\n\r\n".encode()
            )
            answer = b""
            # Refused: nothing listens on the agent's port yet. Silent: the connection was made to the run that just ended.
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    answer = await reader.read()
            writer.close()
            if answer:
                return answer.partition(b"\r\n")[0].decode()


async def way_to(relay: RealMachine, ip: str) -> str:
    """How its tailscaled says that packets go to a node: direct, derp or none."""
    connector = aiohttp.UnixConnector(str(relay.tailscaled.socket))
    url = "http://local-tailscaled.sock/localapi/v0/status"
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        peers = (await answer.json())["Peer"].values()
    (peer,) = (peer for peer in peers if ip in peer["TailscaleIPs"])
    return "direct" if peer["CurAddr"] else "derp" if peer["Relay"] else "none"
