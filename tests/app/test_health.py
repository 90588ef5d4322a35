"""The health check of containers, as they run it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest


async def check(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "elizacloud.app.health", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, str]]:
    """The same server at a socket's path and at a URL; what it was asked for must be /healthz."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer if head.startswith(b"GET /healthz ") else b"HTTP/1.1 404 Not Found\r\n\r\n")
        await writer.drain()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        path = str(Path(directory) / "s")
        async with (
            await asyncio.start_unix_server(serve, path),
            await asyncio.start_server(serve, "127.0.0.1", 0) as tcp,
        ):
            yield path, f"http://127.0.0.1:{tcp.sockets[0].getsockname()[1]}"


async def test_what_answers_is_healthy() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as places:
        for where in places:
            assert await check(where) == (0, "")


async def test_an_error_is_not_unless_any_answer_will_do() -> None:
    """A relay goes on serving agents while the control plane, whom it asks for /healthz, is down."""
    async with answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n") as (path, url):
        assert await check(path) == (1, f"{path}/healthz answers 502\n")
        assert await check("--any-answer", url) == (0, "")


@pytest.mark.parametrize("where", ["/nowhere/at.sock", "http://127.0.0.1:1"])
async def test_nobody_there(where: str) -> None:
    code, said = await check("--any-answer", where)
    assert code == 1
    assert said.startswith(f"{where} does not answer: ")


async def test_an_answer_that_is_none() -> None:
    async with answering(b"220 mail.example.com ESMTP\r\n") as (path, _):
        code, said = await check("--any-answer", path)
        assert code == 1
        assert "does not answer" in said
