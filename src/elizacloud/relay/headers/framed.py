"""How an answer is framed for the client: where it ends, and whether the connection is kept. Pure.

An agent's own framing stops at the relay (RFC 9112 section 6), so it is said anew in the client's version of HTTP.
"""

from __future__ import annotations

from typing import NamedTuple

from elizacloud.relay.http1.framing import Framing, Kind
from elizacloud.relay.http1.head import AnswerHead


class Framed(NamedTuple):
    lines: bytes
    """The first lines of the answer's head: its status, its length, and what becomes of the connection."""
    chunked: bool
    """The body is sent in chunks."""
    keep_alive: bool


def framed(head: AnswerHead, framing: Framing, minor: int, keep_alive: bool) -> Framed:
    """The client speaks HTTP/1.`minor`; with `keep_alive` it and the worker would use the connection again."""
    asked = framing.kind, minor, keep_alive
    found: Framed | None = head.kept.get(asked)
    if found is None:
        found = head.kept[asked] = _framed(head, framing, minor, keep_alive)
    return found


def _framed(head: AnswerHead, framing: Framing, minor: int, keep_alive: bool) -> Framed:
    lines, chunked = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)], False
    if framing.kind is Kind.LENGTH:
        lines.append(b"Content-Length: %d\r\n" % framing.length)
    elif framing.kind is Kind.NONE:
        if head.status != 204:
            # For HEAD and 304 the length is that of the body which is not sent.
            lengths = (value for lower, _, value in head.fields if lower == b"content-length")
            lines += [b"Content-Length: " + value + b"\r\n" for value in lengths]
    elif minor:
        lines.append(b"Transfer-Encoding: chunked\r\n")
        chunked = True
    else:
        keep_alive = False  # its end is that of the connection
    if not keep_alive:
        lines.append(b"Connection: close\r\n")
    elif not minor:
        lines.append(b"Connection: keep-alive\r\n")
    return Framed(b"".join(lines), chunked, keep_alive)
