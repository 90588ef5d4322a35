"""Where a message's body ends (RFC 9112 section 6), decided once, strictly. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from elizacloud.relay.http1.head import AnswerHead, BadMessage, Field, RequestHead, kept_with_head, tokens

_MAX_LENGTH_DIGITS = 18


class Kind:
    """No Enum: on CPython 3.11 each look at a member of one costs a tenth of a microsecond, and a request has dozens."""

    NONE: Final = "none"
    LENGTH: Final = "length"
    CHUNKED: Final = "chunked"
    UNTIL_CLOSE: Final = "until close"


class Framing(NamedTuple):
    kind: str
    length: int = 0


NO_BODY = Framing(Kind.NONE)
CHUNKED = Framing(Kind.CHUNKED)
UNTIL_CLOSE = Framing(Kind.UNTIL_CLOSE)


@kept_with_head
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
    return NO_BODY if method == b"HEAD" else _answer_framing(head)


@kept_with_head
def _answer_framing(head: AnswerHead) -> Framing:
    if head.status < 200 or head.status in (204, 304):
        return NO_BODY
    chunked, length = _declared(head.fields)
    if chunked:
        if head.minor == 0:
            raise BadMessage("HTTP/1.0 has no Transfer-Encoding")
        return CHUNKED
    return UNTIL_CLOSE if length is None else Framing(Kind.LENGTH, length)


@kept_with_head
def request_keeps_alive(head: RequestHead) -> bool:
    """The client would use the connection for another request."""
    return keeps_alive(head)


def keeps_alive(head: RequestHead | AnswerHead) -> bool:
    """Its sender would use the connection again, as far as the head says."""
    connection = tokens(head.fields, b"connection")
    return b"close" not in connection if head.minor else b"keep-alive" in connection


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
