"""What is sent to dial, and what each answer means; against a scripted LocalAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from elizacloud.errors import Refused, TailnetUnavailable
from elizacloud.tailnet.dialer import ANSWER_LIMIT_BYTES, DialAnswer, Outcome, dial, dial_request, parse_dial_answer

CONNECTED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n"


def test_the_request_is_the_upgrade_that_the_local_api_wants() -> None:
    head = dial_request("100.64.0.2", 2138).decode()

    assert head.startswith("POST /localapi/v0/dial HTTP/1.1\r\n")
    assert head.endswith("\r\n\r\n")
    for line in ("Host: local-tailscaled.sock", "Connection: upgrade", "Upgrade: ts-dial", "Content-Length: 0"):
        assert f"\r\n{line}\r\n" in head
    assert "\r\nDial-Host: 100.64.0.2\r\nDial-Port: 2138\r\n" in head


@pytest.mark.parametrize("cut", [0, 1, 30, len(CONNECTED) - 1])
def test_an_answer_that_is_not_complete_says_nothing(cut: int) -> None:
    assert parse_dial_answer(CONNECTED[:cut]) is None


def test_an_answer_with_half_a_reason_says_nothing() -> None:
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 18\r\n\r\nconnection refused"

    assert parse_dial_answer(answer[:-1]) is None
    parsed = parse_dial_answer(answer)
    assert parsed is not None
    assert parsed.outcome is Outcome.REFUSED


def test_connected_and_what_the_agent_sent_first() -> None:
    assert parse_dial_answer(CONNECTED + b"220 hello\r\n\r\n") == DialAnswer(Outcome.CONNECTED, b"220 hello\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 OK\r\nDial-Self: true\r\nDial-Addr: 100.64.9.9:80\r\n\r\n", Outcome.NOT_A_PEER),
        (b"HTTP/1.1 200 OK\r\ndial-self: true\r\n\r\n", Outcome.NOT_A_PEER),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDial-Self: true\r\n\r\n", Outcome.NOT_A_PEER),
        (b"HTTP/1.1 200 OK\r\n\r\n", Outcome.FAILED),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\ndial failure: connect: connection refused\n", Outcome.REFUSED),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\ndial failure: context deadline exceeded\n", Outcome.FAILED),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Outcome.FAILED),
        (b"HTTP/1.1 1010 \r\n\r\n", Outcome.FAILED),
        (b"x" * (ANSWER_LIMIT_BYTES + 1), Outcome.FAILED),
    ],
)
def test_anything_else_is_no_connection(answer: bytes, outcome: Outcome) -> None:
    parsed = parse_dial_answer(answer)

    assert parsed is not None
    assert parsed.outcome is outcome
    assert parsed.rest == b""


@asynccontextmanager
async def answering(socket: Path, answer: bytes | None) -> AsyncIterator[None]:
    """A LocalAPI that gives this answer and closes; with None, one that waits for the client to go."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_unix_server(serve, socket)
    try:
        yield
        async with asyncio.timeout(20):
            await gone.wait()
    finally:
        server.close()


async def dialled(socket: Path, within_seconds: float = 5) -> bytes:
    reader, writer = await dial(socket, "100.64.0.2", 2138, within_seconds=within_seconds)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_dialled_connection_reads_what_the_agent_sends(short_dir: Path) -> None:
    async with answering(short_dir / "s", CONNECTED + b"hello"):
        assert await dialled(short_dir / "s") == b"hello"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nDial-Self: true\r\n\r\n", "not_a_peer"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 18\r\n\r\nconnection refused", "refused"),
    ],
)
async def test_a_dial_that_is_refused(short_dir: Path, answer: bytes, code: str) -> None:
    async with answering(short_dir / "s", answer):
        with pytest.raises(Refused) as refused:
            await dialled(short_dir / "s")

    assert refused.value.reason == code


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101", b"HTTP/1.1 502 Bad Gateway\r\n\r\ntimeout"])
async def test_a_dial_that_fails(short_dir: Path, answer: bytes) -> None:
    async with answering(short_dir / "s", answer):
        with pytest.raises(TailnetUnavailable):
            await dialled(short_dir / "s")


async def test_a_dial_without_an_answer_ends_at_its_deadline(short_dir: Path) -> None:
    async with answering(short_dir / "s", None):
        with pytest.raises(TailnetUnavailable) as late:
            await dialled(short_dir / "s", within_seconds=0.05)

    assert late.value.reason == "dial_timeout"


async def test_without_tailscaled_there_is_no_dial(short_dir: Path) -> None:
    with pytest.raises(TailnetUnavailable):
        await dialled(short_dir / "none")
