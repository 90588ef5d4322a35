"""A worker that drains: nobody who follows HTTP loses a request, wherever in a connection's life the drain begins."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from elizacloud.relay.tls import ServerCertificate
from tests.relay.conftest import Cloud, RawAgent, request, soon, until
from tests.relay.test_tls import running, write_pair

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@asynccontextmanager
async def draining(cloud: Cloud) -> AsyncIterator[asyncio.Task[bool]]:
    """The drain has begun; at the end it must have let everything finish."""
    task = asyncio.create_task(cloud.worker.drain())
    await asyncio.sleep(0)
    yield task
    assert await soon(task) is True


async def test_a_request_on_an_idle_connection_is_still_served_and_told_to_go(run_dir: Path) -> None:
    async with Cloud(run_dir).running() as cloud:
        cloud.agent(RawAgent())
        client = await cloud.client()
        assert (await client.ask(request())).header("Connection") is None
        async with draining(cloud):
            answer = await client.ask(request())
            assert (answer.status, answer.header("Connection")) == (200, "close")
            assert await client.at_end()


async def test_a_connection_without_a_request_is_ended_without_a_reset(run_dir: Path) -> None:
    async with Cloud(run_dir).running() as cloud:
        client = await cloud.client()
        await cloud.ask(request("/"))
        async with draining(cloud):
            assert await client.reader.read() == b""
            client.send(request())  # it crosses with the end: nobody answers, and nobody resets
            await client.writer.drain()
            client.close()


async def test_an_answer_that_had_begun_ends_whole_and_the_next_one_says_goodbye(run_dir: Path) -> None:
    go_on = asyncio.Event()

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbe")
        await soon(go_on.wait())
        writer.write(b"gun")
        writer.close()

    async with Cloud(run_dir).running() as cloud:
        cloud.agent(agent)
        client = await cloud.client()
        client.send(request())
        head = await soon(client.reader.readuntil(b"\r\n\r\nbe"))
        assert b"Connection: close" not in head
        async with draining(cloud):
            cloud.agent(RawAgent())
            go_on.set()
            assert await client.reader.readexactly(2) == b"gu"
            assert (await client.ask(request())).header("Connection") == "close"


async def test_a_client_in_its_handshake_is_waited_for(run_dir: Path) -> None:
    async with running(run_dir, ServerCertificate(*write_pair(run_dir))) as cloud:
        connection = socket.create_connection(("127.0.0.1", cloud.port))
        connection.setblocking(False)
        await until(lambda: any(acceptor.arriving for acceptor in cloud.worker._acceptors))
        async with draining(cloud):
            context = ssl.create_default_context(cafile=str(run_dir / "relay.crt"))
            reader, writer = await asyncio.open_connection(sock=connection, ssl=context, server_hostname="relay.test")
            writer.write(request())
            assert b"Connection: close" in await soon(reader.readuntil(b"\r\n\r\n"))
            writer.close()
