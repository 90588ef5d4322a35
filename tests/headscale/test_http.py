"""Deadlines, bounded concurrency, no redirects, and errors that name what to change."""

from __future__ import annotations

import asyncio
import socket
import traceback

import pytest
from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable
from elizacloud.headscale.answers import error_of
from elizacloud.headscale.http import CONCURRENT_CALLS, HeadscaleHttp
from tests.headscale.scripted import Scripted, serving

API_KEY = "hskey-api-0123456789ab-secret"


def http(url: str, *, deadline_seconds: float = 5) -> HeadscaleHttp:
    return HeadscaleHttp(url, SecretStr(API_KEY), deadline_seconds=deadline_seconds)


async def test_a_stalled_server_is_unavailable_at_the_deadline(scripted: Scripted) -> None:
    scripted.stall("GET", "/slow")
    calls = http(scripted.url, deadline_seconds=0.05)
    with pytest.raises(HeadscaleUnavailable, match=r"cannot look: .* did not answer within 0\.05 s"):
        async with asyncio.timeout(20):
            await calls.call("GET", "/slow", doing="look")
    await calls.close()


async def test_a_body_that_never_ends_is_unavailable_at_the_deadline() -> None:
    release = asyncio.Event()

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"nodes"')
        await release.wait()
        writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    calls = http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", deadline_seconds=0.05)
    with pytest.raises(HeadscaleUnavailable, match="did not answer"):
        async with asyncio.timeout(20):
            await calls.call("GET", "/", doing="look")
    release.set()
    await calls.close()
    server.close()
    await server.wait_closed()


async def test_a_cut_answer_is_unavailable_and_no_short_list() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"nodes":[]}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    calls = http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    with pytest.raises(HeadscaleUnavailable, match="cannot be reached"):
        await calls.call("GET", "/", doing="look")
    await calls.close()
    server.close()
    await server.wait_closed()


async def test_nobody_there_is_unavailable_and_the_sentence_names_the_setting() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    calls = http(f"http://127.0.0.1:{port}")
    with pytest.raises(HeadscaleUnavailable, match="ELIZACLOUD_HEADSCALE_API_URL") as unavailable:
        await calls.call("GET", "/", doing="look")
    assert API_KEY not in "".join(traceback.format_exception(unavailable.value))
    await calls.close()


async def test_plain_http_on_a_tls_url_is_an_error_of_ours(scripted: Scripted) -> None:
    calls = http(scripted.url.replace("http://", "https://"))
    with pytest.raises((HeadscaleRefused, HeadscaleUnavailable)):
        await calls.call("GET", "/", doing="look")
    await calls.close()


async def test_a_redirect_is_not_followed_and_the_key_not_sent_there(scripted: Scripted) -> None:
    async with serving() as elsewhere:
        elsewhere.on("GET", "/api/v1/node", {"nodes": []})
        scripted.on("GET", "/api/v1/node", status=302, headers={"Location": elsewhere.url + "/api/v1/node"})
        calls = http(scripted.url)
        answer = await calls.call("GET", "/api/v1/node", doing="list the nodes")
        assert answer.status == 302
        assert "redirects" in str(error_of(answer, "list the nodes", scripted.url))
        assert elsewhere.asked == []
        await calls.close()


async def test_waiting_for_a_turn_counts_for_the_deadline(scripted: Scripted) -> None:
    gate = scripted.stall("GET", "/slow")
    scripted.on("GET", "/quick", {})
    patient, calls = http(scripted.url), http(scripted.url, deadline_seconds=0.2)
    async with asyncio.TaskGroup() as group:
        waiting = [
            group.create_task(_outcome(calls, "/slow" if number < CONCURRENT_CALLS else "/quick"), name="call")
            for number in range(CONCURRENT_CALLS + 1)
        ]
        async with asyncio.timeout(20):
            await asyncio.wait(waiting)
    assert [task.result() for task in waiting[:CONCURRENT_CALLS]] == ["unavailable"] * CONCURRENT_CALLS
    gate.set()
    assert await _outcome(patient, "/quick") == "answered"
    assert await _outcome(calls, "/quick") == "answered"
    for each in (patient, calls):
        await each.close()


async def _outcome(calls: HeadscaleHttp, path: str) -> str:
    try:
        await calls.call("GET", path, doing="look")
    except HeadscaleUnavailable:
        return "unavailable"
    return "answered"


async def test_only_a_few_calls_run_at_once_on_as_many_connections(scripted: Scripted) -> None:
    gate = scripted.stall("GET", "/busy")
    calls = http(scripted.url)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(calls.call("GET", "/busy", doing="look"), name="call")
        async with asyncio.timeout(20):
            while scripted.at_once < CONCURRENT_CALLS:
                await asyncio.sleep(0)
        gate.set()
    assert scripted.most_at_once == CONCURRENT_CALLS
    assert len(scripted.asked) == 20
    await calls.close()


async def test_the_date_of_the_server_is_read(scripted: Scripted) -> None:
    scripted.on("GET", "/health", {"status": "pass"})
    calls = http(scripted.url)
    assert (await calls.call("GET", "/health", doing="look")).server_time is not None
    await calls.close()
