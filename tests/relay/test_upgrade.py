"""WebSocket and any other upgrade, as a transparent pipe: two client libraries, and raw bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, unix_serve

from tests.relay.conftest import AGENT, TOKEN, Cloud, RawAgent, request, soon, to_unix, until

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
RAW_UPGRADE = request("/pipe", headers="Connection: Upgrade\r\nUpgrade: ts-dial\r\n")


@asynccontextmanager
async def echo(cloud: Cloud) -> AsyncIterator[list[ServerConnection]]:
    """An agent that says every message again; closes with 4001 "told to" when asked. Yields its connections."""
    connections: list[ServerConnection] = []

    async def serve(connection: ServerConnection) -> None:
        connections.append(connection)
        async for message in connection:
            if message == "close":
                await connection.close(4001, "told to")
            else:
                await connection.send(message)

    path = cloud.run_dir / "agent"
    async with unix_serve(serve, str(path), max_size=None, compression=None):
        cloud.agent(to_unix(path))
        yield connections


def ws(cloud: Cloud, path: str = "/ws") -> str:
    return f"ws://127.0.0.1:{cloud.port}/api/relay/{AGENT}{path}"


def messages() -> Iterator[str | bytes]:
    yield ""
    yield "grüß"
    yield b""
    yield bytes(range(256))
    for size in (125, 126, 127, 65535, 65536, 3_000_000):  # 7-bit, 16-bit and 64-bit lengths
        yield b"x" * size


async def test_with_the_websockets_library(cloud: Cloud) -> None:
    async with (
        echo(cloud) as connections,
        connect(ws(cloud), additional_headers=HEADERS, max_size=None, compression=None) as client,
    ):
        for message in messages():
            await client.send(message)
            assert await soon(client.recv()) == message
        assert await soon(await client.ping()) >= 0
        await client.send("close")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await soon(client.recv())
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "told to")
        assert connections[0].request is not None
        assert connections[0].request.headers["Authorization"] == "Bearer eca_agentsowntoken"
        assert connections[0].request.path == "/ws"


async def test_with_aiohttp(cloud: Cloud) -> None:
    async with (
        echo(cloud),
        aiohttp.ClientSession() as session,
        session.ws_connect(ws(cloud), headers=HEADERS, max_msg_size=0) as client,
    ):
        for message in messages():
            await (client.send_str(message) if isinstance(message, str) else client.send_bytes(message))
            assert (await soon(client.receive())).data == message
        await client.send_str("close")
        last = await soon(client.receive())
        assert (last.data, last.extra) == (4001, "told to")


async def test_the_clients_close_code_reaches_the_agent(cloud: Cloud) -> None:
    async with echo(cloud) as connections:
        async with connect(ws(cloud), additional_headers=HEADERS) as client:
            await client.close(4321, "bye")
        await soon(connections[0].wait_closed())
        assert (connections[0].close_code, connections[0].close_reason) == (4321, "bye")


async def test_compression_is_between_client_and_agent(cloud: Cloud) -> None:
    async def serve(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    path = cloud.run_dir / "agent"
    async with unix_serve(serve, str(path)):
        cloud.agent(to_unix(path))
        async with connect(ws(cloud), additional_headers=HEADERS) as client:
            assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
            await client.send("x" * 100_000)
            assert await soon(client.recv()) == "x" * 100_000


async def test_an_agent_that_declines_answers_as_usual(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    cloud.agent(agent)
    with pytest.raises(websockets.InvalidStatus) as declined:
        await connect(ws(cloud), additional_headers=HEADERS)
    assert declined.value.response.status_code == 403


async def test_any_upgrade_is_a_pipe_of_bytes(cloud: Cloud) -> None:
    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nConnection: Upgrade\r\nUpgrade: ts-dial\r\n" in head
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: ts-dial\r\nX-Say: hi\r\n\r\nat once")
        while data := await reader.read(65536):
            writer.write(data[::-1])
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    answer = await soon(client.ask(RAW_UPGRADE))
    assert answer.head.startswith(b"HTTP/1.1 101 Go\r\n")
    assert (answer.header("Upgrade"), answer.header("Connection"), answer.header("X-Say")) == (
        "ts-dial",
        "Upgrade",
        "hi",
    )
    assert await soon(client.reader.readexactly(7)) == b"at once"
    client.send(b"GET / HTTP/1.1\r\n\r\n\x00\xff")
    assert await soon(client.reader.readexactly(20)) == b"GET / HTTP/1.1\r\n\r\n\x00\xff"[::-1]


async def test_what_the_client_sends_too_early_waits_for_the_switch(cloud: Cloud) -> None:
    go_on = asyncio.Event()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                raise AssertionError(await reader.read())
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: ts-dial\r\n\r\n")
        writer.write(await reader.readexactly(5))
        await go_on.wait()

    cloud.agent(agent)
    client = await cloud.client()
    client.send(RAW_UPGRADE + b"early")
    assert (await soon(client.answer())).status == 101
    assert await soon(client.reader.readexactly(5)) == b"early"
    go_on.set()


@pytest.mark.parametrize("who", ["client", "agent"])
async def test_either_end_ends_both(cloud: Cloud, who: str) -> None:
    ended = asyncio.Event()
    end = asyncio.Event()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: ts-dial\r\n\r\n")
        if who == "client":
            assert await reader.read() == b"last words"
        else:
            await end.wait()
            writer.write(b"last words")
        writer.close()
        ended.set()

    cloud.agent(agent)
    client = await cloud.client()
    assert (await soon(client.ask(RAW_UPGRADE))).status == 101
    if who == "client":
        client.send(b"last words")
        client.close()
    else:
        end.set()
        assert await soon(client.reader.read()) == b"last words"
    await soon(ended.wait())
    await until(lambda: cloud.metrics.in_flight == 0)
    assert cloud.metrics.requests["agent", "upgraded"] == 1


async def test_a_pipe_holds_back_a_fast_agent(cloud: Cloud) -> None:
    stuck = asyncio.Event()
    size = 60_000_000

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: ts-dial\r\n\r\n")
        for _ in range(size // 100_000):
            writer.write(b"x" * 100_000)
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    await soon(client.ask(RAW_UPGRADE))
    await soon(stuck.wait())
    assert cloud.metrics.bytes_out < 30_000_000
    left = size
    while left:
        left -= len(await soon(client.reader.read(1 << 20)))
    assert await client.at_end()


async def test_http_2_is_never_switched_to(cloud: Cloud) -> None:
    """Inside it, nobody would clean the client's headers (h2c smuggling)."""
    agent = RawAgent()
    cloud.agent(agent)
    answer = await cloud.ask(
        request(headers="Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n")
    )
    assert answer.status == 200
    assert not any(word in agent.heads[0].lower() for word in (b"upgrade", b"h2c", b"http2"))


async def test_the_apis_upgrades_pass_too(cloud: Cloud) -> None:
    cloud.api.answer = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    answer = await cloud.ask(b"GET /ws HTTP/1.1\r\nHost: cloud.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    assert answer.status == 101
