"""The agent's HTTP/1.1, byte by byte."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from elizacloud.stub_agent.config import UnixAddress
from elizacloud.stub_agent.server import running
from tests.stub_agent.support import TOKEN, cloud_config

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
AUTH = f"Host: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Streams]:
    async with running(cloud_config()) as address:
        assert isinstance(address, UnixAddress)
        reader, writer = await asyncio.open_unix_connection(address.path)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()


async def answer_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return head, await reader.readexactly(int(length.partition(b":")[2]))


async def test_requests_in_one_write_are_answered_in_order() -> None:
    async with connected() as (reader, writer):
        one = b"GET /api/echo/1 HTTP/1.1\r\n" + AUTH + b"\r\n"
        two = b"POST /api/echo/2 HTTP/1.1\r\nContent-Length: 2\r\n" + AUTH + b"\r\nhi"
        writer.write(one + two + one)
        seen = [json.loads((await answer_of(reader))[1]) for _ in range(3)]
    assert [(echo["target"], echo["requestOnConnection"]) for echo in seen] == [
        ("/api/echo/1", 1),
        ("/api/echo/2", 2),
        ("/api/echo/1", 3),
    ]


async def test_trailers_are_told_apart_from_headers() -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST /api/echo/t HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n" + AUTH + b"\r\n")
        writer.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-End: yes\r\n\r\n")
        echo = json.loads((await answer_of(reader))[1])
    assert (echo["bodyBytes"], echo["trailers"]) == (5, [["X-End", "yes"]])
    assert ["X-End", "yes"] not in echo["headers"]


async def test_a_client_that_expects_100_gets_it_before_it_sends() -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST /api/echo/e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n" + AUTH + b"\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert json.loads((await answer_of(reader))[1])["bodyBytes"] == 2


async def test_a_client_that_expects_100_without_a_token_gets_401_at_once() -> None:
    async with connected() as (reader, writer):
        writer.write(b"POST /api/echo/e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await answer_of(reader))[0].startswith(b"HTTP/1.1 401 ")


async def test_head_has_the_head_of_get_and_no_body() -> None:
    async with connected() as (reader, writer):
        writer.write(b"HEAD /api/agent/export?bytes=5000 HTTP/1.1\r\n" + AUTH + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /api/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        rest = await reader.read()
    assert b"Content-Length: 5000\r\n" in head
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_http_1_0_gets_its_answer_up_to_the_end_of_the_connection() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET /api/agent/export?bytes=70000&chunked=1 HTTP/1.0\r\n" + AUTH + b"\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    assert len(body) == 70000
    assert b"Transfer-Encoding" not in head


async def test_bad_requests_are_refused() -> None:
    for bad in (
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ):
        async with connected() as (reader, writer):
            writer.write(bad)
            assert (await reader.read()).startswith(b"HTTP/1.1 400 "), bad


async def test_an_upgrade_of_something_else_is_404() -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET /api/echo/u HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + AUTH + b"\r\n")
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\nConnection: close\r\n")


async def test_an_answer_before_a_large_body_leaves_the_connection_usable() -> None:
    size = 2_000_000
    async with connected() as (reader, writer):
        writer.write(b"POST /api/echo/1?early=1 HTTP/1.1\r\nContent-Length: %d\r\n" % size + AUTH + b"\r\n")
        assert json.loads((await answer_of(reader))[1])["bodyBytes"] is None
        writer.write(b"x" * size)
        writer.write(b"GET /api/echo/2 HTTP/1.1\r\n" + AUTH + b"\r\n")
        assert json.loads((await answer_of(reader))[1])["target"] == "/api/echo/2"


async def test_a_body_that_is_not_read_is_not_taken_in_either() -> None:
    sent = 0
    async with connected() as (_, writer):
        writer.write(
            b"POST /api/echo/1?early=1&delayMs=60000 HTTP/1.1\r\nContent-Length: 99999999\r\n" + AUTH + b"\r\n"
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while sent < 50_000_000:
                    writer.write(b"x" * 100_000)
                    sent += 100_000
                    await writer.drain()
        writer.transport.abort()
    assert sent < 10_000_000
