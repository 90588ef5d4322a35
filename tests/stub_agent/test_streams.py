"""Bodies that flow through the agent, in both directions."""

import hashlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from elizacloud.stub_agent.streams import EXPORT_BLOCK
from tests.stub_agent.support import agent_client, cloud_config


def frames(text: str) -> list[dict[str, object]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line.startswith("data: ")]


@pytest.mark.parametrize("path", ["/api/chat/stream", "/api/conversations/c1/messages/stream"])
async def test_chat_streams_tokens_and_then_done(path: str) -> None:
    async with (
        agent_client(cloud_config()) as client,
        client.post(f"{path}?intervalMs=0", json={"text": "good morning"}) as answer,
    ):
        assert answer.content_type == "text/event-stream"
        seen = frames(await answer.text())
    assert [frame["type"] for frame in seen] == ["token"] * 4 + ["done"]
    assert seen[-1]["fullText"] == "You said: good morning"


async def test_chat_frames_come_one_by_one() -> None:
    async with (
        agent_client(cloud_config()) as client,
        client.post("/api/chat/stream?tokens=3&intervalMs=60000", json={"text": "x"}) as answer,
    ):
        first = await answer.content.readuntil(b"\n\n")
    assert frames(first.decode())[0]["type"] == "token"


async def test_chat_can_fail_or_break_off() -> None:
    async with agent_client(cloud_config()) as client:
        async with client.post("/api/chat/stream?tokens=5&failAfter=2&intervalMs=0", json={}) as answer:
            assert [frame["type"] for frame in frames(await answer.text())] == ["token", "token", "error"]
        async with client.post("/api/chat/stream?tokens=5&cutAfter=2&intervalMs=0", json={}) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()


async def test_an_upload_larger_than_any_buffer_arrives_whole() -> None:
    block, count = bytes(range(256)) * 4096, 24

    async def body() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield block

    async with agent_client(cloud_config()) as client, client.post("/api/agent/import", data=body()) as answer:
        seen = await answer.json()
    assert seen == {"success": True, "bytes": len(block) * count, "sha256": hashlib.sha256(block * count).hexdigest()}


@pytest.mark.parametrize("chunked", ["", "&chunked=1"])
@pytest.mark.parametrize("size", [0, 1, len(EXPORT_BLOCK), 3_000_001])
async def test_an_export_has_the_size_that_was_asked_for(size: int, chunked: str) -> None:
    async with agent_client(cloud_config()) as client, client.get(f"/api/agent/export?bytes={size}{chunked}") as answer:
        body = await answer.read()
        assert ("Content-Length" in answer.headers) is not bool(chunked)
    assert body == (EXPORT_BLOCK * (size // len(EXPORT_BLOCK) + 1))[:size]


async def test_a_client_that_goes_away_does_not_harm_the_agent() -> None:
    async with agent_client(cloud_config()) as client:
        async with client.get("/api/agent/export?bytes=1000000000") as answer:
            await answer.content.readexactly(1000)
            answer.close()
        async with client.get("/api/health") as answer:
            assert answer.status == 200


async def test_an_early_answer_comes_before_the_body_is_read() -> None:
    async with agent_client(cloud_config()) as client:
        async with client.post("/api/echo/x?early=1&status=409", data=b"x" * 100) as answer:
            assert (answer.status, (await answer.json())["bodyBytes"]) == (409, None)
        async with client.post("/api/echo/x", data=b"y") as answer:
            assert (await answer.json())["bodyBytes"] == 1
