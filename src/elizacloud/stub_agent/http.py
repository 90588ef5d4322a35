"""A small HTTP/1.1 server: httptools parses, one task a connection answers. Bodies stream both ways with backpressure.

It reports what arrived exactly (raw target, header order and case, trailers), keeps connections alive, answers
`Expect: 100-continue` when the body is first asked for, and hands the connection over on an upgrade.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qs, unquote

import httptools

Headers = list[tuple[bytes, bytes]]
_BODY_BUFFER_BYTES = 256 * 1024
_PIPELINED_MAX = 8


class BodyTooLarge(Exception):
    """A body that had to be held in memory passed its limit."""


class Request:
    """One request, as it came. Its body is read by `chunks` or `read`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._asked = False
        self.buffered_bytes = 0
        self.complete = False
        self.headers_complete = False
        self.method = ""
        self.version = ""
        self.target = b""
        self.headers: Headers = []
        self.trailers: Headers = []
        self.keep_alive = True
        self.upgrade = False
        self.answered = False

    @property
    def path(self) -> str:
        return unquote(self.target.split(b"?", 1)[0].decode("latin-1"))

    def query(self, name: str) -> list[str]:
        raw = self.target.partition(b"?")[2].decode("latin-1")
        return parse_qs(raw, keep_blank_values=True).get(name, [])

    def number(self, name: str, default: float) -> float:
        """A query parameter as a number; ValueError when it is not one."""
        values = self.query(name)
        return float(values[0]) if values else default

    def header(self, name: str) -> str | None:
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self.buffered_bytes += len(data)
        self._arrived.set()

    def finish(self) -> None:
        self.complete = True
        self._arrived.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; the first call answers `Expect: 100-continue`."""
        if not self._asked:
            self._asked = True
            waiting = not self.complete and not self.answered
            if waiting and (self.header("expect") or "").lower() == "100-continue":
                self._connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self.buffered_bytes -= len(chunk)
                self._connection.balance_reading()
                yield chunk
            if self.complete:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body; BodyTooLarge as soon as it is known to be over the limit."""
        if int(self.header("content-length") or 0) > limit_bytes:
            raise BodyTooLarge
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit_bytes:
                raise BodyTooLarge
        return bytes(body)


class Response:
    """The answer to one request: `send` in one go, or `start`, `write` and `end`."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._chunked = False
        self._bodiless = request.method == "HEAD"
        self.headers: Headers = []
        self.started = False

    async def send(self, status: int, body: bytes = b"", *, content_type: str = "application/json") -> None:
        if body or status not in (204, 304):
            self.headers.append((b"Content-Type", content_type.encode()))
        self.start(status, length=len(body))
        await self.write(body)
        self.end()

    def start(self, status: int, *, length: int | None = None) -> None:
        """Send the head. Without a length the body is chunked (to HTTP/1.0: up to the end of the connection)."""
        request = self._request
        if status < 200 or status in (204, 304):
            self._bodiless = True
        elif length is not None:
            self.headers.append((b"Content-Length", b"%d" % length))
        elif request.version == "1.1":
            self._chunked = not self._bodiless
            self.headers.append((b"Transfer-Encoding", b"chunked"))
        else:
            request.keep_alive = False
        if request.keep_alive:
            self.headers += [(b"Connection", b"keep-alive"), (b"Keep-Alive", b"timeout=60")]
        else:
            self.headers.append((b"Connection", b"close"))
        reason = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
        head = [b"HTTP/1.1 %d %s\r\n" % (status, reason.encode())]
        head += [b"%s: %s\r\n" % header for header in self.headers]
        self.started = request.answered = True
        self._connection.write(b"".join(head) + b"\r\n")

    async def write(self, data: bytes) -> None:
        if data and not self._bodiless:
            self._connection.write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)
        await self._connection.drained()

    def end(self, trailers: Headers | None = None) -> None:
        if self._chunked:
            lines = b"".join(b"%s: %s\r\n" % trailer for trailer in trailers or [])
            self._connection.write(b"0\r\n" + lines + b"\r\n")


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
