"""One head of a message: the request line or status line, and the fields. Pure.

llhttp (httptools) checks the grammar: names, values, line ends, folding, Content-Length, CL beside TE. It is fed exactly
one head, in a parser of its own. What it lets through (httptools 0.9) and is refused or put right here: HTTP/0.9 and
other versions, several spaces in a request line, blanks at the end of a value, a missing or second Host. Methods that
it does not know are read as POST, which it treats no differently, and kept as sent.

Clients and agents send the same heads again and again, and to read one costs more than all else that is done for a
request. So small heads are remembered by their bytes, and what a pure function says of a head is kept with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import Any, TypeVar

import httptools

MAX_HEAD_BYTES = 64 << 10
HEAD_END = b"\r\n\r\n"
_REMEMBERED = 1024
_REMEMBERED_BYTES = 2048
"""Heads over this are read each time, so that what is remembered stays under some 10 MB, whoever sends what."""


Field = tuple[bytes, bytes, bytes]
"""One header line: its name in lower case for comparing, its name as sent, its value. Plain, since there are many."""


class BadMessage(Exception):
    """What was received is not a message that we pass on; `status` and `code` are how a client is told."""

    def __init__(self, reason: str, *, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(reason)
        self.status = status
        self.code = code


Kept = dict[object, Any]


@dataclass(slots=True, repr=False)
class RequestHead:
    """Never changed once it is read: others may be sent the same one."""

    method: bytes
    target: bytes
    """Byte for byte as sent."""
    minor: int
    """0 or 1: HTTP/1.0 or HTTP/1.1."""
    fields: list[Field]
    host: bytes
    """Empty when an HTTP/1.0 client sent none."""
    kept: Kept = field(default_factory=dict, compare=False)
    """What was worked out from the above; see `kept_with_head`."""


@dataclass(slots=True, repr=False)
class AnswerHead:
    """Never changed once it is read, likewise."""

    status: int
    reason: bytes
    minor: int
    fields: list[Field]
    kept: Kept = field(default_factory=dict, compare=False)


Head = TypeVar("Head", RequestHead, AnswerHead)
Fact = TypeVar("Fact")


def kept_with_head(decide: Callable[[Head], Fact]) -> Callable[[Head], Fact]:
    """Ask a function once for each head. It must be pure: what it says may depend on nothing but the head's bytes."""

    @wraps(decide)
    def known(head: Head) -> Fact:
        try:
            return head.kept[decide]  # type: ignore[no-any-return]
        except KeyError:
            pass
        fact = head.kept[decide] = decide(head)
        return fact

    return known


_METHODS_OF_LLHTTP = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{0,5})?")
_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_NO_METHOD = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?\r\n")


_NONE: frozenset[bytes] = frozenset()


class _Reader:
    """Collects what llhttp calls back with."""

    __slots__ = ("fields", "target")

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[Field] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if value[-1:] in b" \t":
            value = value.rstrip(b" \t")
        self.fields.append((name.lower(), name, value))


def read_request_head(raw: bytes) -> RequestHead:
    """Read one head, which ends with the first empty line in `raw` and nothing after it. Raises BadMessage."""
    return _remembered_request(raw) if len(raw) <= _REMEMBERED_BYTES else _read_request(raw)


def _read_request(raw: bytes) -> RequestHead:
    line = raw[: raw.index(b"\r\n")]
    parts = line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]):
        raise BadMessage("the request line is malformed")
    method, target, version = parts
    if method == b"CONNECT":
        raise BadMessage("CONNECT would make this an open proxy", status=405, code="method_not_allowed")
    minor = _VERSIONS.get(version)
    if minor is None:
        if re.fullmatch(rb"HTTP/[0-9]\.[0-9]", version):
            raise BadMessage("only HTTP/1.1 and HTTP/1.0 are spoken here", status=505, code="version_not_supported")
        raise BadMessage("the request line is malformed")
    reader = _Reader()
    try:
        httptools.HttpRequestParser(reader).feed_data(
            raw if method in _METHODS_OF_LLHTTP else b"POST" + raw[len(method) :]
        )
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise BadMessage(f"the request is malformed: {error}") from None
    if reader.target != target:
        raise BadMessage("the request line is malformed")
    return RequestHead(method, target, minor, reader.fields, _host(reader.fields, minor))


_remembered_request = lru_cache(_REMEMBERED)(_read_request)


def cut_request_head(held: bytes, searched: int) -> tuple[bytes, bytes]:
    """The next head in what a client has sent, and what follows it; no head, and all of it, when its end has not come.
    `searched` bytes were looked at before. Raises BadMessage for what will never be a request."""
    at = 0
    if held[:2] == b"\r\n":  # an empty line before a request is forgiven (RFC 9112 section 2.2), one of them
        if held == b"\r\n":
            return b"", held
        at = 2
    end = held.find(HEAD_END, max(at, searched - 3))
    if end < 0 or end - at > MAX_HEAD_BYTES:
        check_unfinished(held[at:], max(0, searched - at))
        return b"", held
    return held[at : end + 4], held[end + 4 :]


def check_unfinished(held: bytes, searched: int) -> None:
    """Refuse early what will never be a request, instead of waiting for its end; `searched` bytes were looked at before.

    Raises BadMessage.
    """
    if len(held) > MAX_HEAD_BYTES:
        if b"\r\n" not in held[:MAX_HEAD_BYTES]:
            raise BadMessage("the request line is too long", status=414, code="target_too_long")
        raise BadMessage("the headers are too large", status=431, code="headers_too_large")
    if _NO_METHOD.match(held) and held != b"\r":
        raise BadMessage("this is not HTTP")
    if _BARE_LINE_END.search(held, max(0, searched - 1)):
        raise BadMessage("a line ends with a bare CR or LF")


def _host(fields: list[Field], minor: int) -> bytes:
    host = None
    for lower, _, value in fields:
        if lower == b"host":
            if host is not None:
                raise BadMessage("the request needs exactly one Host header")
            host = value
    if host is None and minor == 0:
        return b""
    if host is None or not _HOST.fullmatch(host):
        raise BadMessage("the request needs exactly one valid Host header")
    return host


def read_answer_head(raw: bytes) -> AnswerHead:
    """Read the head of an answer, which ends with the first empty line in `raw`. Raises BadMessage."""
    return _remembered_answer(raw) if len(raw) <= _REMEMBERED_BYTES else _read_answer(raw)


def _read_answer(raw: bytes) -> AnswerHead:
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise BadMessage("the status line is malformed")
    minor, status, reason = int(line[1]), int(line[2]), line[3] or b""
    reader = _Reader()
    try:
        # For 101 llhttp would stop at the head or fail, by other fields; as 200 it just reads them.
        httptools.HttpResponseParser(reader).feed_data(raw if status != 101 else raw[:9] + b"200" + raw[12:])
    except httptools.HttpParserError as error:
        raise BadMessage(f"the answer is malformed: {error}") from None
    return AnswerHead(status, reason, minor, reader.fields)


_remembered_answer = lru_cache(_REMEMBERED)(_read_answer)


def read_trailers(raw: bytes) -> list[Field]:
    """Read the lines between a last chunk and the empty line that ends `raw`. Raises BadMessage."""
    reader = _Reader()
    try:
        httptools.HttpRequestParser(reader).feed_data(b"GET / HTTP/1.1\r\n" + raw)
    except (httptools.HttpParserUpgrade, httptools.HttpParserError):
        raise BadMessage("the trailers are malformed") from None
    return reader.fields


def tokens(fields: list[Field], name: bytes) -> frozenset[bytes]:
    """The members of a comma-separated list field such as Connection, in lower case."""
    found = _NONE
    for lower, _, value in fields:
        if lower == name:
            members = (member.strip(b" \t") for member in value.lower().split(b","))
            found |= {member for member in members if member}
    return found


def value_of(fields: list[Field], name: bytes) -> bytes | None:
    """The value of the first field of this name."""
    for lower, _, value in fields:
        if lower == name:
            return value
    return None
