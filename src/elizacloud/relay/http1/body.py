"""Reading a body as it comes, by its framing, and writing chunks. Pure: bytes in, bytes out, bounded memory.

llhttp is not used for bodies: it cannot say where in the input a message ended, and it puts no bound on extensions.
"""

from __future__ import annotations

import re
from typing import Protocol

from elizacloud.relay.http1.framing import Framing, Kind
from elizacloud.relay.http1.head import HEAD_END, MAX_HEAD_BYTES, BadMessage, Field, read_trailers

LAST_CHUNK = b"0\r\n"

# Sizes over 2^60 are attacks; extensions are dropped, so a long one is only a way to waste our time.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_MAX_SIZE_LINE_BYTES = 256
_WORTH_A_WRITE_BYTES = 16 << 10


class Body(Protocol):
    """A body that is being read; `done` says that its end was seen, `trailers` came after it."""

    done: bool
    trailers: list[Field]

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The next payload bytes, and what came after the end of the body. Raises BadMessage."""


def body_reader(framing: Framing) -> Body:
    if framing.kind is Kind.CHUNKED:
        return ChunkedBody()
    if framing.kind is Kind.UNTIL_CLOSE:
        return EndlessBody()
    return SizedBody(framing.length)


def chunk(payload: bytes) -> bytes:
    """One chunk; the payload must not be empty, since an empty chunk is the last one."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def chunk_parts(payload: bytes) -> tuple[bytes, ...]:
    """The same as bytes to be written one after another: a long payload is not copied."""
    if len(payload) < _WORTH_A_WRITE_BYTES:
        return (chunk(payload),)
    return b"%x\r\n" % len(payload), payload, b"\r\n"


class SizedBody:
    """Content-Length bytes."""

    __slots__ = ("_left", "done", "trailers")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        size = len(data)
        if size < self._left:
            self._left -= size
            return data, b""
        left, self._left = self._left, 0
        self.done = True
        return (data, b"") if size == left else (data[:left], data[left:])


class EndlessBody:
    """Everything until the connection ends, which only an answer may have."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""


class ChunkedBody:
    """Chunks, a last chunk, trailers, an empty line (RFC 9112 section 7.1), with nothing forgiven."""

    __slots__ = ("_held", "_in_trailers", "_left", "done", "trailers")

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        """Bytes of the present chunk that have not come, with the two of its line end."""
        self._in_trailers = False
        self.done = False
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        if self._held:
            data, self._held = self._held + data, b""
        pieces: list[memoryview] = []
        view, at, size = memoryview(data), 0, len(data)
        while at < size and not self.done:
            if self._in_trailers:
                at = self._read_trailers(data, at)
            elif self._left:
                at = self._read_payload(view, at, pieces)
            else:
                at = self._read_size(data, at)
        return b"".join(pieces), data[at:] if self.done else b""

    def _read_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at, at + _MAX_SIZE_LINE_BYTES)
        if end < 0:
            if len(data) - at >= _MAX_SIZE_LINE_BYTES:
                raise BadMessage("a chunk's size line is too long")
            self._held = data[at:]
            return len(data)
        line = _SIZE_LINE.fullmatch(data, at, end - 1)
        if line is None or data[end - 1 : end] != b"\r":
            raise BadMessage("a chunk's size line is malformed")
        size = int(line[1], 16)
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True
        return end + 1

    def _read_payload(self, data: memoryview, at: int, pieces: list[memoryview]) -> int:
        payload = self._left - 2
        if payload > 0:
            piece = data[at : at + payload]
            pieces.append(piece)
            at += len(piece)
            self._left -= len(piece)
        if 0 < self._left <= 2:
            end = data[at : at + self._left]
            if end != b"\r\n"[2 - self._left :][: len(end)]:
                raise BadMessage("a chunk does not end where its size says")
            at += len(end)
            self._left -= len(end)
        return at

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return at + 2
        end = data.find(HEAD_END, at)
        if end < 0:
            if len(data) - at > MAX_HEAD_BYTES:
                raise BadMessage("the trailers are too large", status=431, code="headers_too_large")
            self._held = data[at:]
            return len(data)
        self.trailers = read_trailers(data[at : end + 4])
        self.done = True
        return end + 4
