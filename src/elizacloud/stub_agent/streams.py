"""Bodies that flow: the SSE chat stream, transfers of any size, and the echo of what arrived."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable

from elizacloud.stub_agent.agent import Agent
from elizacloud.stub_agent.http import Connection
from elizacloud.stub_agent.messages import Request, Response

CHAT_BODY_BYTES = 20 * 1024 * 1024
EXPORT_BLOCK = bytes(range(256)) * 256
"""An export is this block over and over, so that a client can tell what it should have got."""
_HEARTBEAT_SECONDS = 5.0
_TOKEN_SECONDS = 0.02

Endpoint = Callable[[Agent, Request, Response, Connection], Awaitable[None]]


async def chat_stream(agent: Agent, request: Request, response: Response, connection: Connection) -> None:
    """`data: {"type":"token"|"done"|"error",...}` frames, as the UI reads them.

    The reply repeats the `text` of the body. For tests: `?tokens=N` frames, `?intervalMs=` between them, `?failAfter=N`
    ends with an error frame, `?cutAfter=N` breaks the connection off.
    """
    body = json.loads(await request.read(CHAT_BODY_BYTES) or b"{}")
    text = str(body.get("text") or body.get("message") or "hello") if isinstance(body, dict) else "hello"
    words = f"You said: {text}".split(" ")
    count = int(request.number("tokens", len(words)))
    interval_seconds = request.number("intervalMs", _TOKEN_SECONDS * 1000) / 1000
    fail_after, cut_after = request.number("failAfter", -1), request.number("cutAfter", -1)
    response.headers += [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache, no-transform")]
    response.headers.append((b"X-Accel-Buffering", b"no"))
    response.start(200)

    async def frame(payload: dict[str, str]) -> None:
        await response.write(f"data: {json.dumps(payload)}\n\n".encode())

    full_text = ""
    for index in range(count):
        if index == cut_after:
            connection.cut()
            return
        if index == fail_after:
            await frame({"type": "error", "message": "the stub was asked to fail"})
            response.end()
            return
        if index:
            await _pause(interval_seconds, response)
        token = words[index % len(words)] + (" " if index + 1 < count else "")
        full_text += token
        await frame({"type": "token", "text": token, "fullText": full_text})
    agent.publish("assistant", {"text": full_text})
    await frame({"type": "done", "fullText": full_text, "agentName": agent.config.agent_name})
    response.end()


async def _pause(seconds: float, response: Response) -> None:
    """Wait, with the agent's heartbeat comment every five seconds."""
    while seconds > _HEARTBEAT_SECONDS:
        await asyncio.sleep(_HEARTBEAT_SECONDS)
        await response.write(b": heartbeat\n\n")
        seconds -= _HEARTBEAT_SECONDS
    await asyncio.sleep(seconds)


async def upload(agent: Agent, request: Request, response: Response, connection: Connection) -> None:
    """Take an octet stream of any size, keep nothing, and say what came: bytes and SHA-256."""
    size, digest = await _digest(request)
    await response.send(200, json.dumps({"success": True, "bytes": size, "sha256": digest}).encode())


async def export(agent: Agent, request: Request, response: Response, connection: Connection) -> None:
    """`?bytes=N` octets (EXPORT_BLOCK repeated), with Content-Length unless `?chunked=1`."""
    await _digest(request)
    size = int(request.number("bytes", len(EXPORT_BLOCK)))
    response.headers += [
        (b"Content-Type", b"application/octet-stream"),
        (b"Content-Disposition", b'attachment; filename="agent.eliza-agent"'),
    ]
    response.start(200, length=None if request.query("chunked") else size)
    sent = 0
    while sent < size and request.method != "HEAD":
        block = EXPORT_BLOCK[: size - sent]
        await response.write(block)
        sent += len(block)
    response.end()


async def echo(agent: Agent, request: Request, response: Response, connection: Connection) -> None:
    """What arrived, exactly: method, raw target, headers in order, trailers, the body's length and SHA-256.

    For tests: `?status=` sets the status, `?delayMs=` waits before the answer, `?header=Name:value` (repeatable) adds a
    header to it, `?early=1` answers before the body is read.
    """
    for line in request.query("header"):
        name, _, value = line.partition(":")
        if any(character in line for character in "\r\n\0"):
            raise ValueError("a header must be one line")
        response.headers.append((name.strip().encode("latin-1"), value.strip().encode("latin-1")))
    early = bool(request.query("early"))
    size, digest = (0, "") if early else await _digest(request)
    await asyncio.sleep(request.number("delayMs", 0) / 1000)
    received = {
        "method": request.method,
        "target": request.target.decode("latin-1"),
        "httpVersion": request.version,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
        "trailers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.trailers],
        "bodyBytes": None if early else size,
        "bodySha256": None if early else digest,
        "agent": dict(agent.config.identity),
        "requestOnConnection": connection.served,
    }
    await response.send(int(request.number("status", 200)), json.dumps(received).encode())


async def _digest(request: Request) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    async for chunk in request.chunks():
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
