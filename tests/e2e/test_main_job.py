"""The main job on real daemons: create, join, reach through the relay, delete with nothing left."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import Agent, Client
from elizacloud.errors import Conflict, NotFound, Unauthenticated
from elizacloud.model import is_agent_id
from elizacloud.states import State
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import READY_SECONDS
from tests.e2e.raw import keys_left, keys_of, nodes_of

WITHIN_SECONDS = 40


async def test_create_answers_as_the_seed_says(cloud: Cloud) -> None:
    async with (
        aiohttp.ClientSession(headers=cloud.headers) as session,
        session.post(f"{cloud.url}/api/v1/agents", json={"agentName": "seed", "agentConfig": {"theme": "x"}}) as answer,
    ):
        body = await answer.json()
        assert answer.status == 201, body
    assert is_agent_id(body["agentId"])
    assert body["agentName"] == "seed"
    assert body["networking"] == {"headscaleIp": body["headscaleIp"]}
    (node,) = await nodes_of(cloud, body["agentId"])
    assert body["headscaleIp"] in node["ipAddresses"]
    async with Client(cloud.url, SecretStr(cloud.token)) as client:
        await client.delete_agent(body["agentId"])


async def test_its_key_was_single_use_and_is_expired_once_it_joined(cloud: Cloud, agent: Agent) -> None:
    (key,) = await keys_of(cloud, agent.agent_id)
    assert key["used"]
    assert not key.get("reusable")
    assert key["expiration"] <= key["createdAt"] or key["expiration"] < "2100"
    assert "***" in key["key"] or len(key["key"]) < 60 or key["used"]


async def test_health_connectors_and_query_pass_the_tailnet(client: Client, agent: Agent) -> None:
    async with client.relay("GET", agent.agent_id, "/api/health") as answer:
        assert (await answer.json())["ready"] is True
    body = {"name": "discord", "config": {"botToken": "t"}}
    async with client.relay("POST", agent.agent_id, "/api/connectors", body=body) as answer:
        assert answer.status in (200, 201)
    async with client.relay("GET", agent.agent_id, "/api/echo/a%2Fb?x=1&y=%20") as answer:
        seen = await answer.json()
    assert seen["target"] == "/api/echo/a%2Fb?x=1&y=%20"
    sent = {name.lower(): value for name, value in seen["headers"]}
    assert sent["host"].endswith(":2138")


async def test_large_bodies_stream_both_ways_unchanged(cloud: Cloud, agent: Agent) -> None:
    payload = bytes(range(256)) * (16 * 1024)  # 4 MiB
    async with aiohttp.ClientSession(headers=cloud.headers) as session:
        base = f"{cloud.url}/api/relay/{agent.agent_id}"
        async with session.put(f"{base}/api/echo/upload", data=io.BytesIO(payload)) as answer:
            seen = await answer.json()
    assert seen["method"] == "PUT"
    body = json.dumps(seen)
    assert hashlib.sha256(payload).hexdigest() in body


async def test_server_sent_events_are_not_held_back(client: Client, agent: Agent) -> None:
    kinds = []
    async with client.relay("POST", agent.agent_id, "/api/chat/stream", body={"text": "hello there"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.content:
            if line.startswith(b"data: "):
                kinds.append(json.loads(line[6:])["type"])
    assert kinds[-1] == "done"
    assert "token" in kinds


async def test_a_websocket_passes(cloud: Cloud, agent: Agent) -> None:
    async with (
        aiohttp.ClientSession(headers=cloud.headers) as session,
        session.ws_connect(f"{cloud.url}/api/relay/{agent.agent_id}/ws") as socket,
    ):
        await socket.send_json({"type": "ping"})
        async with asyncio.timeout(WITHIN_SECONDS):
            while (await socket.receive_json())["type"] != "pong":
                pass


async def test_events_tell_the_way_in_order(client: Client, agent: Agent) -> None:
    walked = [event.state_to async for event in client.events(agent.agent_id, following=False)]
    way = ["requested", "keyed", "started", "joined", "ready"]
    assert [state for state in walked if state in way][:5] == way


async def test_logs_are_the_agents_own(client: Client, agent: Agent) -> None:
    assert [line async for line in client.logs(agent.agent_id, tail=50)]


async def test_stop_keeps_the_node_and_start_brings_the_same_one_back(
    cloud: Cloud, client: Client, agent: Agent
) -> None:
    (before,) = await nodes_of(cloud, agent.agent_id)
    await client.stop_agent(agent.agent_id)
    await client.wait_until(agent.agent_id, {State.STOPPED}, within_seconds=WITHIN_SECONDS)
    assert not [line for line in cloud.processes().values() if agent.agent_id in line and "tailscaled" in line]
    await client.start_agent(agent.agent_id)
    await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
    (after,) = await nodes_of(cloud, agent.agent_id)
    assert (after["id"], after["ipAddresses"]) == (before["id"], before["ipAddresses"])
    async with client.relay("GET", agent.agent_id, "/api/health") as answer:
        assert answer.status == 200


async def test_delete_leaves_nothing(cloud: Cloud, client: Client) -> None:
    agent = await client.create_agent("short-lived")
    await client.wait_until(agent.agent_id, {State.READY}, within_seconds=READY_SECONDS)
    assert any(agent.agent_id in line for line in cloud.processes().values())
    await client.delete_agent(agent.agent_id)
    with pytest.raises(NotFound):
        await client.wait_until(agent.agent_id, {State.GONE}, within_seconds=WITHIN_SECONDS)
        await client.get_agent(agent.agent_id)
        raise NotFound("gone")
    assert not [line for line in cloud.processes().values() if agent.agent_id in line]
    assert not await nodes_of(cloud, agent.agent_id)
    assert not await keys_left(cloud, agent.agent_id)
    assert not list(Path(cloud.data_dir).rglob(f"*{agent.agent_id}*"))


async def test_delete_while_it_comes_up(cloud: Cloud, client: Client) -> None:
    agent = await client.create_agent("hasty", wait_seconds=0)
    await client.delete_agent(agent.agent_id)
    with pytest.raises(NotFound):
        await client.wait_until(agent.agent_id, {State.GONE}, within_seconds=WITHIN_SECONDS)
        raise NotFound("gone")
    assert not await nodes_of(cloud, agent.agent_id)
    assert not await keys_left(cloud, agent.agent_id)


async def test_without_a_token_or_with_a_wrong_one_nothing_is_reached(cloud: Cloud, agent: Agent) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/api/v1/agents", f"/api/relay/{agent.agent_id}/api/health"):
            for headers in ({}, {"Authorization": "Bearer ec_wrong"}, {"Cookie": f"token={cloud.token}"}):
                async with session.get(cloud.url + path, headers=headers) as answer:
                    assert answer.status == 401, (path, headers)
                    assert answer.content_type == "application/problem+json"


async def test_an_id_that_is_nobodys_is_404_everywhere(client: Client) -> None:
    unknown = "bcdfghjkmnpqrstv"
    with pytest.raises(NotFound):
        await client.get_agent(unknown)
    with pytest.raises(NotFound):
        async with client.relay("GET", unknown, "/api/health"):
            pass


async def test_a_token_for_one_agent_reaches_it_and_nothing_else(cloud: Cloud, client: Client, agent: Agent) -> None:
    other = await client.create_agent("other")
    token = await client.create_token("one", agent_id=agent.agent_id)
    async with Client(cloud.url, token.token) as bound:
        async with bound.relay("GET", agent.agent_id, "/api/health") as answer:
            assert answer.status == 200
        with pytest.raises(NotFound):
            async with bound.relay("GET", other.agent_id, "/api/health"):
                pass
    await client.revoke_token(token.token_id)
    async with Client(cloud.url, token.token) as revoked:
        with pytest.raises(Unauthenticated):
            async with revoked.relay("GET", agent.agent_id, "/api/health"):
                pass
    await client.delete_agent(other.agent_id)


async def test_the_process_runtime_refuses_a_second_owner(cloud: Cloud, agent: Agent) -> None:
    operator = SecretStr((cloud.data_dir / "data" / "operator.token").read_text().strip())
    async with Client(cloud.url, operator, owner_id="stranger") as stranger:
        with pytest.raises(NotFound):
            await stranger.get_agent(agent.agent_id)
        with pytest.raises(NotFound):
            async with stranger.relay("GET", agent.agent_id, "/api/health"):
                pass
        with pytest.raises(Conflict, match="owner"):
            await stranger.create_agent("intruder")
