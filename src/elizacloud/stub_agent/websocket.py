"""`/ws`: status every five seconds, the last 120 events again, live events, and ping/pong in the application.

`websockets` does RFC 6455 without I/O and is imported at the first use, so that a start does not wait for it.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from elizacloud.stub_agent import gates
from elizacloud.stub_agent.agent import Agent
from elizacloud.stub_agent.http import Connection
from elizacloud.stub_agent.messages import Request

if TYPE_CHECKING:
    from websockets.server import ServerProtocol

STATUS_SECONDS = 5.0
_POLICY_VIOLATION = 1008
_MESSAGE_BYTES = 64 * 1024


async def serve_websocket(agent: Agent, request: Request, connection: Connection) -> None:
    """Talk until either side closes. Any other upgrade, or one that may not pass, is answered in plain text."""
    refusal = (404, "Not found") if request.path != "/ws" else None
    refusal = refusal or gates.websocket_refusal(agent.config, request.header, request.query)
    if refusal:
        status, reason = refusal
        _refuse(connection, status, reason)
        return
    from websockets.http11 import Request as Handshake
    from websockets.server import ServerProtocol

    protocol = ServerProtocol(max_size=_MESSAGE_BYTES)
    lines = [f"GET {request.target.decode('latin-1')} HTTP/1.1\r\n".encode("latin-1")]
    lines += [b"%s: %s\r\n" % header for header in request.headers]
    protocol.receive_data(b"".join(lines) + b"\r\n")
    handshake = next((event for event in protocol.events_received() if isinstance(event, Handshake)), None)
    if handshake is None:
        _refuse(connection, 400, "Bad Request")
        return
    protocol.send_response(protocol.accept(handshake))
    await _flush(protocol, connection)
    if protocol.handshake_exc is not None:
        return
    config = agent.config
    token = gates.websocket_token(config, request.header, request.query)
    session = _Session(agent, protocol, connection)
    trusted = gates.token_matches(config, token) or (config.api_token is None and not config.cloud_provisioned)
    await session.talk(trusted=trusted)


class _Session:
    """One client after the handshake. Until it has shown the token, all it may do is show the token."""

    def __init__(self, agent: Agent, protocol: ServerProtocol, connection: Connection) -> None:
        self._agent = agent
        self._protocol = protocol
        self._connection = connection
        self._message = bytearray()
        self._trusted = asyncio.Event()

    async def talk(self, *, trusted: bool) -> None:
        if trusted:
            self._trusted.set()
        async with asyncio.TaskGroup() as tasks:
            events = tasks.create_task(self._send_events(), name="websocket events")
            status = tasks.create_task(self._send_status(), name="websocket status")
            await self._receive()
            events.cancel()
            status.cancel()

    async def _send_events(self) -> None:
        await self._trusted.wait()
        replay, queue = self._agent.subscribe()
        try:
            await self._send(self._agent.websocket_status())
            for event in replay:
                await self._send(event)
            while True:
                await self._send(await queue.get())
        finally:
            self._agent.unsubscribe(queue)

    async def _send_status(self) -> None:
        await self._trusted.wait()
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            await self._send(self._agent.websocket_status())

    async def _receive(self) -> None:
        from websockets.frames import Frame, Opcode
        from websockets.protocol import State

        while self._protocol.state is State.OPEN:
            self._protocol.receive_data(await self._connection.received())
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    self._message += event.data
                    if event.fin:
                        text, self._message = bytes(self._message), bytearray()
                        await self._handle(text)
            await _flush(self._protocol, self._connection)

    async def _handle(self, text: bytes) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        kind = message.get("type") if isinstance(message, dict) else None
        if not self._trusted.is_set():
            token = message.get("token") if kind == "auth" else None
            if isinstance(token, str) and gates.token_matches(self._agent.config, token.strip()):
                await self._send({"type": "auth-ok"})
                self._trusted.set()
            else:
                self._protocol.send_close(_POLICY_VIOLATION, "Unauthorized")
        elif kind == "ping":
            await self._send({"type": "pong"})
        elif kind == "echo":
            await self._send(message)

    async def _send(self, payload: dict[str, Any]) -> None:
        from websockets.protocol import State

        if self._protocol.state is State.OPEN:
            self._protocol.send_text(json.dumps(payload).encode())
            await _flush(self._protocol, self._connection)


async def _flush(protocol: ServerProtocol, connection: Connection) -> None:
    for data in protocol.data_to_send():
        if data:
            connection.write(data)
    await connection.drained()


def _refuse(connection: Connection, status: int, reason: str) -> None:
    body = f"{reason}\n".encode()
    phrase = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}.get(status, "Bad Request")
    head = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    connection.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
