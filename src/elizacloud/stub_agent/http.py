"""A small HTTP/1.1 server: httptools parses, one task a connection answers. Bodies stream both ways with backpressure.

It reports what arrived exactly (raw target, header order and case, trailers), keeps connections alive, answers
`Expect: 100-continue` when the body is first asked for, and hands the connection over on an upgrade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import httptools

from elizacloud.stub_agent.messages import Request, Response

_BODY_BUFFER_BYTES = 256 * 1024
_PIPELINED_MAX = 8

Handler = Callable[[Request, Response, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One connection. After an upgrade, `received` gives the raw bytes."""

    def __init__(self, handler: Handler, tasks: asyncio.TaskGroup, open_connections: set[Connection]) -> None:
        self._handler = handler
        self._tasks = tasks
        self._open_connections = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._pending: asyncio.Queue[Request] = asyncio.Queue()
        self._incoming = Request(self)
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None]
        self._upgraded = False
        self._raw: asyncio.Queue[bytes] = asyncio.Queue()
        self.local_peer = False
        """The other end is on the loopback interface."""
        self.served = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.local_peer = isinstance(peer, tuple) and peer[0] in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        self._open_connections.add(self)
        self._task = self._tasks.create_task(self._answer_all(), name="connection")

    def data_received(self, data: bytes) -> None:
        if self._upgraded:
            self._raw.put_nowait(data)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded = True
            if rest := data[upgrade.args[0] :]:
                self._raw.put_nowait(rest)
        except httptools.HttpParserError:
            self.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()

    def eof_received(self) -> bool:
        # A client may shut its side down and still read: finish what is complete.
        return self._incoming.complete and not self._upgraded

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_connections.discard(self)
        self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._incoming = Request(self)

    def on_url(self, url: bytes) -> None:
        self._incoming.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._incoming
        (request.trailers if request.headers_complete else request.headers).append((name, value))

    def on_headers_complete(self) -> None:
        request = self._incoming
        request.headers_complete = True
        request.method = self._parser.get_method().decode()
        request.version = self._parser.get_http_version()
        request.keep_alive = self._parser.should_keep_alive()
        request.upgrade = self._parser.should_upgrade()
        self._pending.put_nowait(request)
        self.balance_reading()

    def on_body(self, body: bytes) -> None:
        self._incoming.feed(body)
        self.balance_reading()

    def on_message_complete(self) -> None:
        self._incoming.finish()

    # for Request, Response and the handlers

    def balance_reading(self) -> None:
        """Read on while there is room for more of the body and for more pipelined requests."""
        full = self._incoming.buffered_bytes > _BODY_BUFFER_BYTES or self._pending.qsize() > _PIPELINED_MAX
        if full and self._transport.is_reading():
            self._transport.pause_reading()
        elif not full and not self._transport.is_reading() and not self._transport.is_closing():
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)

    async def drained(self) -> None:
        await self._writable.wait()

    async def received(self) -> bytes:
        """The next raw bytes after an upgrade; the task is cancelled when the peer goes away."""
        return await self._raw.get()

    def close(self) -> None:
        self._transport.close()

    def cut(self) -> None:
        """End the connection in the middle of whatever it is doing."""
        self._transport.abort()

    async def _answer_all(self) -> None:
        try:
            while True:
                request = await self._pending.get()
                self.served += 1
                await self._handler(request, Response(self, request), self)
                async for _ in request.chunks():
                    pass  # what the handler did not want to read, so that the next request can be found
                self.balance_reading()
                if not request.keep_alive or request.upgrade:
                    return
        finally:
            self._transport.close()
