"""The whole deployment: compose's commands as processes, a join and a conversation through Caddy, and what the internet sees."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from elizacloud.headscale.remembered import Binary, Kind
from elizacloud.states import State
from tests.contract.headscale_servers import parameters
from tests.deploy.stack import WITHIN_SECONDS, Stack, brought_up
from tests.deploy.test_caddyfile import INSIDE, Front
from tests.e2e.looking import a_moment

pytestmark = [pytest.mark.e2e, pytest.mark.postgresql, pytest.mark.timeout(240)]


class Here(AbstractResolver):
    """Every name leads to this machine."""

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(params=parameters()[1:])
async def stack(
    request: pytest.FixtureRequest, postgresql_url: str, record_property: Callable[[str, object], None]
) -> AsyncIterator[Stack]:
    binary = request.param
    assert isinstance(binary, Binary)
    record_property("control_server", binary.path.name)
    async with brought_up(binary, postgresql_url) as made:
        yield made


async def test_an_agent_is_reached_through_caddy(stack: Stack) -> None:
    trusted = ssl.create_default_context(cafile=stack.authority)
    token = (stack.directory / "secrets" / "operator_token").read_text().strip()
    platform = {"Authorization": f"Bearer {token}", "Elizacloud-Owner": "platform-user"}
    async with (
        asyncio.timeout(WITHIN_SECONDS),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted, resolver=Here())) as session,
    ):
        agents = f"{stack.cloud_url}/api/v1/agents"
        async with session.post(agents, headers=platform, json={"agentName": "deployed"}) as answer:
            assert answer.status == 201, await answer.text()
            agent = await answer.json()
        agent_id = agent["agentId"]
        while agent["status"] != State.READY:
            await a_moment(0.1)
            async with session.get(f"{agents}/{agent_id}", headers=platform) as answer:
                agent = await answer.json()

        async with session.post(f"{agents}/{agent_id}/tokens", headers=platform, json={}) as answer:
            scoped = {"Authorization": f"Bearer {(await answer.json())['token']}"}
        await it_streams(session, f"{stack.cloud_url}/api/relay/{agent_id}", scoped)
        await it_streams(session, f"https://{agent_id}.agents.test:{stack.https}", scoped)
        await the_tailnet_went_through_derp(stack, agent["headscaleIp"])
        await asyncio.to_thread(headscale_shows_nothing_else, stack, trusted)
        assert "is on the tailnet" in await stack.finish("join-relay")

        async with session.delete(f"{agents}/{agent_id}", headers=platform) as answer:
            assert answer.status == 202


async def it_streams(session: aiohttp.ClientSession, agent: str, scoped: Mapping[str, str]) -> None:
    """HTTP, events as they come, and a WebSocket, at either front."""
    async with session.get(f"{agent}/api/health", headers=scoped) as answer:
        assert answer.status == 200
    async with session.get(f"{agent}/api/health", headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 401
    events = f"{agent}/api/chat/stream?tokens=4&intervalMs=200"
    async with session.post(events, headers=scoped, json={"text": "hi"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        arrived = [chunk async for chunk in answer.content.iter_any()]
    assert len(arrived) >= 4, "the events were held back"
    assert b'"done"' in arrived[-1]
    async with session.ws_connect(f"{agent}/ws", headers=scoped) as conversation:
        await conversation.send_json({"type": "ping"})
        while (await conversation.receive_json())["type"] != "pong":
            pass


async def the_tailnet_went_through_derp(stack: Stack, ip: str | None) -> None:
    """The relay's tailscaled was told to send that way alone; it did reach the agent."""
    status = json.loads(await stack.tailscale("status", "--json"))
    (peer,) = (peer for peer in status["Peer"].values() if ip in peer["TailscaleIPs"])
    assert peer["RxBytes"] > 0
    assert peer["Relay"] == ("elizacloud" if stack.binary.kind is Kind.HEADSCALE else "dev")
    assert not status["Health"], status["Health"]


def headscale_shows_nothing_else(stack: Stack, trusted: ssl.SSLContext) -> None:
    front = Front(stack.https, stack.http, trusted)
    for path in INSIDE:
        assert front.get("localhost", path) == (404, ""), path
    assert "publicKey" in front.get("localhost", "/key?v=130")[1]
    assert front.get("localhost", "/derp/probe")[0] == 200
    key = (stack.directory / "secrets" / "headscale_api_key").read_text().strip()
    assert front.get("localhost", "/api/v1/node", Authorization=f"Bearer {key}") == (404, "")
