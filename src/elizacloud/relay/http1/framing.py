"""Where a message's body ends (RFC 9112 section 6), decided once, strictly. Pure."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from elizacloud.relay.http1.head import AnswerHead, BadMessage, Field, RequestHead

_MAX_LENGTH_DIGITS = 18


class Kind(Enum):
    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


class Framing(NamedTuple):
    kind: Kind
    length: int = 0


NO_BODY = Framing(Kind.NONE)
CHUNKED = Framing(Kind.CHUNKED)
UNTIL_CLOSE = Framing(Kind.UNTIL_CLOSE)


def request_framing(head: RequestHead) -> Framing:
    """How long the request's body is. Raises BadMessage: 400, or 501 for a transfer coding other than chunked."""
    chunked, length = _declared(head.fields)
    if chunked:
        if head.minor == 0:
            raise BadMessage("HTTP/1.0 has no Transfer-Encoding")
        return CHUNKED
    # A declared length of 0 is kept: some agents insist on it for POST.
    return NO_BODY if length is None else Framing(Kind.LENGTH, length)


def answer_framing(head: AnswerHead, method: bytes) -> Framing:
    """How long the body of an answer to `method` is. Raises BadMessage."""
    if method == b"HEAD" or head.status < 200 or head.status in (204, 304):
        return NO_BODY
    chunked, length = _declared(head.fields)
    if chunked:
        if head.minor == 0:
            raise BadMessage("HTTP/1.0 has no Transfer-Encoding")
        return CHUNKED
    return UNTIL_CLOSE if length is None else Framing(Kind.LENGTH, length)


def _declared(fields: list[Field]) -> tuple[bool, int | None]:
    chunked = False
    length: int | None = None
    for lower, _, value in fields:
        if lower == b"content-length":
            if length is not None or chunked or not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
                raise BadMessage("the length of the body is not clear: check Content-Length and Transfer-Encoding")
            length = int(value)
        elif lower == b"transfer-encoding":
            if chunked or length is not None:
                raise BadMessage("the length of the body is not clear: check Content-Length and Transfer-Encoding")
            if value.lower() != b"chunked":
                raise BadMessage(
                    "only the transfer coding `chunked` is spoken here", status=501, code="unknown_transfer_coding"
                )
            chunked = True
    return chunked, length
