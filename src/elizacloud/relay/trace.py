"""Names for one request: an id that all its log lines and its answer carry, and its W3C trace context. Pure but for chance.

Trace Context level 1 (W3C, sections 3.2 and 3.3): a `traceparent` that is well-formed passes as it is, with its
`tracestate`; else a new trace begins here and what came as `tracestate` means nothing.
"""

from __future__ import annotations

import re
from random import getrandbits
from typing import NamedTuple

from elizacloud.relay.http1.head import Field

_TRACEPARENT = re.compile(
    rb"(?:00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"|(?!00|ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]*)?)"
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class Trace(NamedTuple):
    request_id: bytes
    trace_id: bytes
    lines: bytes
    """The header lines that carry both to an agent or the API."""


def trace_of(fields: list[Field], *, trusted: bool) -> Trace:
    """Only a trusted proxy may name the request; anybody may say which trace it belongs to."""
    request_id = parent = None
    for lower, _, value in fields:
        if lower == b"x-request-id":
            request_id = value if request_id is None else b""
        elif lower == b"traceparent":
            parent = value if parent is None else b""
    made = b"%048x" % getrandbits(192)
    if not trusted or request_id is None or not _REQUEST_ID.fullmatch(request_id):
        request_id = made[:32]
    found = None if parent is None else _TRACEPARENT.fullmatch(parent)
    if found is None or parent is None:
        # "01", sampled: with 00 an agent that traces by itself would record nothing.
        lines = b"X-Request-Id: %b\r\ntraceparent: 00-%b-%b-01\r\n" % (request_id, made[:32], made[32:])
        return Trace(request_id, made[:32], lines)
    state = b"".join(b"tracestate: %b\r\n" % value for lower, _, value in fields if lower == b"tracestate")
    lines = b"X-Request-Id: %b\r\ntraceparent: %b\r\n%b" % (request_id, parent, state)
    return Trace(request_id, found[1] or found[2], lines)
