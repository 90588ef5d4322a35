"""`/ws`, as the stock UI uses it."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from elizacloud.stub_agent import websocket as module
from elizacloud.stub_agent.agent import REPLAYED_EVENTS
from tests.stub_agent.support import TOKEN, agent_client, cloud_config, local_config


@contextlib.asynccontextmanager
async def opened(client: aiohttp.ClientSession, path: str = "/ws") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with client.ws_connect(path) as socket:
        yield socket


async def test_status_comes_first_and_ping_is_answered() -> None:
    async with agent_client(cloud_config()) as client, opened(client, "/ws?clientId=c") as socket:
        status = await socket.receive_json()
        await socket.send_json({"type": "ping"})
        assert (status["type"], status["state"]) == ("status", "running")
        assert await socket.receive_json() == {"type": "pong"}


async def test_status_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STATUS_SECONDS", 0.01)
    async with agent_client(cloud_config()) as client, opened(client) as socket:
        assert [(await socket.receive_json())["type"] for _ in range(4)] == ["status"] * 4


async def test_the_last_events_are_replayed_and_then_live_ones_follow() -> None:
    async with agent_client(cloud_config()) as client:
        async with client.post("/api/stub/events", json={"count": REPLAYED_EVENTS + 30}):
            pass
        async with opened(client) as socket:
            assert (await socket.receive_json())["type"] == "status"
            replay = [await socket.receive_json() for _ in range(REPLAYED_EVENTS)]
            assert [event["payload"]["number"] for event in replay] == list(range(30, REPLAYED_EVENTS + 30))
            async with client.post("/api/connectors", json={"name": "x", "config": {"a": 1}}):
                pass
            live: dict[str, Any] = await socket.receive_json()
    assert (live["stream"], live["eventId"]) == ("connector", f"evt-{REPLAYED_EVENTS + 31}")


async def test_messages_up_to_64_kib_arrive_whole_and_larger_ones_end_the_socket() -> None:
    async with agent_client(cloud_config()) as client, opened(client) as socket:
        await socket.receive_json()
        message = {"type": "echo", "text": "x" * 65_000}
        await socket.send_json(message)
        assert await socket.receive_json() == message
        await socket.send_str("not json")
        await socket.send_str("x" * 65_537)
        assert (await socket.receive()).data == 1009


async def test_a_cloud_agent_wants_the_token_in_the_handshake() -> None:
    async with agent_client(cloud_config(), token=None) as client:
        for path in ("/ws", "/ws?token=wrong", f"/ws?token={TOKEN}"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.ws_connect(path)
            assert refused.value.status == 401, path


async def test_a_token_in_the_query_needs_the_switch() -> None:
    async with agent_client(cloud_config(allow_ws_query_token=True), token=None) as client:
        async with opened(client, f"/ws?token={TOKEN}") as socket:
            assert (await socket.receive_json())["type"] == "status"
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect("/ws?token=wrong")


async def test_a_local_agent_takes_the_token_in_the_first_message() -> None:
    async with agent_client(local_config(), token=None) as client:
        async with opened(client) as socket:
            await socket.send_json({"type": "auth", "token": TOKEN})
            assert [(await socket.receive_json())["type"] for _ in range(2)] == ["auth-ok", "status"]
        async with opened(client) as socket:
            await socket.send_json({"type": "ping"})
            assert (await socket.receive()).data == 1008


async def test_a_foreign_origin_and_another_path_are_refused() -> None:
    async with agent_client(local_config()) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/ws", headers={"Origin": "https://evil.example"})
        assert refused.value.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/api/ws")
        assert refused.value.status == 404


async def test_a_close_is_answered_with_a_close() -> None:
    async with agent_client(cloud_config()) as client, opened(client) as socket:
        await socket.receive_json()
        await socket.close(code=4001, message=b"bye")
        assert socket.close_code == 4001
        assert json.dumps(socket.exception()) == "null"
