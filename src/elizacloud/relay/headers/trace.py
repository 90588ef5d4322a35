"""Names for one request: an id that all its log lines and its answer carry, and its W3C trace context. Pure but for chance.

Trace Context level 1 (W3C, sections 3.2 and 3.3): a `traceparent` that is well-formed passes as it is, with its
`tracestate`; else a new trace begins here and what came as `tracestate` means nothing.
"""

from __future__ import annotations

import re
from random import getrandbits

from elizacloud.relay.http1.head import Field

_TRACEPARENT = re.compile(
    rb"(?:00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"|(?!00|ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[\x21-\x7e]*)?)"
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


TRACE_FIELDS = frozenset({b"x-request-id", b"traceparent", b"tracestate"})

Trace = tuple[str, str, str]
"""The request's id, its trace's id, and the header lines that carry both to an agent or the API."""


def new_trace() -> Trace:
    """For a request that came with no names of its own."""
    made = f"{getrandbits(192):048x}"
    request_id = made[:32]
    # "01", sampled: with 00 an agent that traces by itself would record nothing.
    lines = f"X-Request-Id: {request_id}\r\ntraceparent: 00-{request_id}-{made[32:]}-01\r\n"
    return request_id, request_id, lines


def trace_of(fields: list[Field], *, trusted: bool) -> Trace:
    """Only a trusted proxy may name the request; anybody may say which trace it belongs to."""
    names = [value for lower, _, value in fields if lower == b"x-request-id"]
    parents = [value for lower, _, value in fields if lower == b"traceparent"]
    request_id, trace_id, lines = new_trace()
    if trusted and len(names) == 1 and _REQUEST_ID.fullmatch(names[0]):
        lines = lines.replace(request_id, names[0].decode("ascii"), 1)
        request_id = names[0].decode("ascii")
    found = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if found is None:
        return request_id, trace_id, lines
    states = [value.decode("latin-1") for lower, _, value in fields if lower == b"tracestate"]
    lines = f"X-Request-Id: {request_id}\r\ntraceparent: {parents[0].decode('ascii')}\r\n"
    lines += "".join(f"tracestate: {state}\r\n" for state in states)
    return request_id, (found[1] or found[2]).decode("ascii"), lines
