"""An agent that writes its bytes itself, for what no HTTP server does on purpose: `PORT=8000 python raw_agent.py`.

    /echo...           what came: the head's lines as they were, the body's length and SHA-256, the trailers
    /down/N            N bytes, with a length; /down/N?chunked in chunks, /down/N?close until the connection closes
    /head/NAME         one of HEADS, as it is
    /early             413 at once; what is still to come is read and thrown away, until the other side closes
    /silent            never an answer
    /sse, /sse/next    a stream that sends its next event only when somebody asks /sse/next
    anything, with Upgrade: mirror      101, then each byte back as it came
    anything, with Upgrade: websocket   101, then each frame back without its mask, a ping as a pong

It imports nothing of the product, which starts it as an owner's command.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import os
from collections.abc import AsyncIterator

PATTERN = bytes(range(251)) * 261
"""No power of two long, so that a piece that is lost, doubled or moved shows."""
GZIPPED = gzip.compress(b"compressed by the agent", mtime=0)
HEADS = {
    "hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-More\r\n\r\n"
    b"3;ext=1\r\nabc\r\n0\r\nX-Sum: 42\r\nX-More: yes\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(GZIPPED), GZIPPED),
    "no-content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not-modified": b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n',
    "odd-status": b"HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n",
    "broken": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nonly",
}
CLOSING = frozenset({"broken"})

asked = asyncio.Semaphore(0)


class Body:
    """Reads one request's body; `trailers` are there when it has ended."""

    def __init__(self, reader: asyncio.StreamReader, fields: list[tuple[str, str]]) -> None:
        self._reader = reader
        self._fields = {name.lower(): value for name, value in fields}
        self.trailers: list[str] = []

    async def pieces(self) -> AsyncIterator[bytes]:
        if "chunked" in self._fields.get("transfer-encoding", ""):
            while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                async for piece in self._exactly(size):
                    yield piece
                await self._reader.readexactly(2)
            while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
                self.trailers.append(line[:-2].decode("latin-1"))
        else:
            async for piece in self._exactly(int(self._fields.get("content-length", "0"))):
                yield piece

    async def _exactly(self, left: int) -> AsyncIterator[bytes]:
        while left:
            piece = await self._reader.read(min(left, 1 << 18))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await answer(reader, writer):
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; False when the connection is to close."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    method, target, _ = head[0].split(" ")
    fields = [(name, value) for name, _, value in (line.partition(": ") for line in head[1:])]
    values = {name.lower(): value for name, value in fields}
    path, _, query = target.partition("?")
    kind, _, argument = path.strip("/").partition("/")
    if values.get("upgrade") == "mirror":
        await mirror(reader, writer)
        return False
    if values.get("upgrade", "").lower() == "websocket":
        await websocket(reader, writer, values["sec-websocket-key"])
        return False
    if kind == "early":
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much")
        while await reader.read(1 << 16):  # as servers do: to close on unread bytes would reset what was answered
            pass
        return False
    if values.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = Body(reader, fields)
    digest, length = hashlib.sha256(), 0
    async for piece in body.pieces():
        digest.update(piece)
        length += len(piece)
    if kind == "silent":
        await reader.read()
        return False
    if kind == "sse":
        return await events(writer, argument)
    if kind == "down":
        return await down(writer, int(argument), query, with_body=method != "HEAD")
    if kind == "head":
        writer.write(HEADS[argument])
        return argument not in CLOSING
    seen = {"head": head, "length": length, "sha256": digest.hexdigest(), "trailers": body.trailers, "ready": True}
    payload = json.dumps(seen).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload))
    if method != "HEAD":
        writer.write(payload)
    return True


async def down(writer: asyncio.StreamWriter, size: int, query: str, *, with_body: bool) -> bool:
    framing = {"chunked": b"Transfer-Encoding: chunked\r\n", "close": b"Connection: close\r\n"}
    writer.write(b"HTTP/1.1 200 OK\r\n" + framing.get(query, b"Content-Length: %d\r\n" % size) + b"\r\n")
    left = size if with_body else 0
    while left:
        piece = PATTERN[:left]
        left -= len(piece)
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if query == "chunked" else piece)
        await writer.drain()
    if query == "chunked" and with_body:
        writer.write(b"0\r\n\r\n")
    return query != "close"


async def events(writer: asyncio.StreamWriter, argument: str) -> bool:
    if argument == "next":
        asked.release()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for number in range(3):
        event = b"data: %d\n\n" % number
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
        await asked.acquire()
    writer.write(b"0\r\n\r\n")
    return True


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: mirror\r\n\r\n")
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


async def websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
    proof = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n")
    writer.write(b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(proof))
    while True:
        first, second = await reader.readexactly(2)
        size = second & 0x7F
        extended = await reader.readexactly({126: 2, 127: 8}.get(size, 0))
        mask = await reader.readexactly(4)
        payload = await reader.readexactly(int.from_bytes(extended, "big") if extended else size)
        repeated = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
        plain = (int.from_bytes(payload, "big") ^ repeated).to_bytes(len(payload), "big")
        writer.write(bytes([first + 1 if first & 0xF == 9 else first, size]) + extended + plain)
        await writer.drain()
        if first & 0xF == 8:
            return


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
