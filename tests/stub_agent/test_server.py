"""The agent as a process: how it starts, fails on demand and ends."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.stub_agent import support


@contextlib.asynccontextmanager
async def started(**environment: str) -> AsyncIterator[tuple[Process, str]]:
    directory = tempfile.mkdtemp(dir=support.root)
    socket = f"{directory}/agent.sock"
    base = {
        "PATH": os.environ["PATH"],
        "HOME": directory,
        "MILADY_API_TOKEN": "t",
        "ELIZACLOUD_AGENT_LISTEN": f"unix:{socket}",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "elizacloud.stub_agent", env=base | environment, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process, socket
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def said(process: Process) -> str:
    assert process.stdout
    return (await process.stdout.readline()).decode()


async def health(socket: str) -> dict[str, object]:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as client,
        client.get("http://agent/api/health") as answer,
    ):
        return dict(await answer.json())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly_even_in_the_middle_of_an_answer(number: signal.Signals) -> None:
    async with started() as (process, socket):
        assert "listens on unix:" in await said(process)
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as client:
            headers = {"X-Api-Key": "t"}
            async with client.post(
                "http://a/api/chat/stream?intervalMs=60000", json={"text": "x"}, headers=headers
            ) as answer:
                await answer.content.readuntil(b"\n\n")
                process.send_signal(number)
                assert await process.wait() == 0
        assert process.stderr
        assert await process.stderr.read() == b""


async def test_it_starts_again_where_a_killed_one_left_its_socket() -> None:
    async with started() as (first, socket):
        await said(first)
        first.kill()
        await first.wait()
        assert Path(socket).exists()
        async with started(ELIZACLOUD_AGENT_LISTEN=f"unix:{socket}") as (second, _):
            await said(second)
            assert (await health(socket))["ready"] is True


async def test_a_late_start_and_an_end_by_signal_before_it() -> None:
    async with started(STUB_START_DELAY_SECONDS="0.05") as (process, socket):
        await said(process)
        assert (await health(socket))["ready"] is True
    async with started(STUB_NEVER_LISTEN="1", STUB_EXIT_AFTER_SECONDS="0.05", STUB_EXIT_CODE="78") as (process, socket):
        assert await process.wait() == 78
        assert not Path(socket).exists()


async def test_it_can_be_never_ready() -> None:
    async with started(STUB_NEVER_READY="1") as (process, socket):
        await said(process)
        seen = await health(socket)
    assert (seen["ready"], seen["runtime"], seen["agentState"]) == (False, "not_initialized", "starting")


async def test_crash_on_demand_has_the_exit_code() -> None:
    async with started() as (process, socket):
        await said(process)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as client,
            client.post("http://a/api/stub/crash", json={"exitCode": 7}, headers={"X-Api-Key": "t"}) as answer,
        ):
            assert answer.status == 200
        assert await process.wait() == 7


async def test_a_wrong_environment_is_one_line_and_exit_code_2() -> None:
    for environment in ({"ELIZACLOUD_AGENT_LISTEN": "nonsense"}, {"ELIZACLOUD_AGENT_CONFIG": "/nowhere"}):
        async with started(**environment) as (process, _):
            _, error = await process.communicate()
        assert process.returncode == 2
        assert error.startswith(b"cannot start the stub agent: ")
        assert error.count(b"\n") == 1
