"""HTTP messages: a request as it came, read as it arrives, and the answer to it. They write to a `Wire`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs, unquote

Headers = list[tuple[bytes, bytes]]


class Wire(Protocol):
    """What a message needs of its connection."""

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Return when the peer has taken enough for more to be written."""

    def balance_reading(self) -> None:
        """Read on if the body has been consumed far enough."""


class BodyTooLarge(Exception):
    """A body that had to be held in memory passed its limit."""


class Request:
    """One request, as it came. Its body is read by `chunks` or `read`."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
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
                self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self.buffered_bytes -= len(chunk)
                self._wire.balance_reading()
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

    def __init__(self, wire: Wire, request: Request) -> None:
        self._wire = wire
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
        self._wire.write(b"".join(head) + b"\r\n")

    async def write(self, data: bytes) -> None:
        if data and not self._bodiless:
            self._wire.write(b"%x\r\n%s\r\n" % (len(data), data) if self._chunked else data)
        await self._wire.drained()

    def end(self, trailers: Headers | None = None) -> None:
        if self._chunked:
            lines = b"".join(b"%s: %s\r\n" % trailer for trailer in trailers or [])
            self._wire.write(b"0\r\n" + lines + b"\r\n")
