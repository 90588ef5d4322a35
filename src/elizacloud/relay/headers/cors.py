"""CORS (Fetch standard, section 3.3), decided here for agents and the API alike: which origins may read what. Pure.

Only listed origins, byte for byte. `Access-Control-Allow-Credentials` is for agents' hosts alone, whose cookie counts
there (origins.py). Elsewhere what a browser sends by itself is no credential: a page needs its token in `Authorization`,
which needs no such leave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from elizacloud.relay.answers import ERROR_HEADER, Answer
from elizacloud.relay.http1.head import RequestHead, value_of

EXPOSED_HEADERS = (
    "Content-Disposition",
    "ETag",
    "Link",
    "Location",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Request-Id",
    ERROR_HEADER,
)
ALLOW_CREDENTIALS = b"Access-Control-Allow-Credentials: true\r\n"
_MAX_AGE_SECONDS = 600
_HEADER_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]*")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")


@dataclass(frozen=True, slots=True)
class Preflight:
    """The answer that lets a listed origin send the request that it asked about."""

    method: bytes
    header_names: bytes
    credentials: bool = False
    status: int = 204
    code: str = "preflight"

    def encode(self, *, head_only: bool, close: bool, edge_lines: bytes) -> bytes:
        lines = [
            b"HTTP/1.1 204 No Content\r\n",
            edge_lines,
            b"Elizacloud-Answer: preflight\r\n",  # ours, as Elizacloud-Error says of all others
            b"Access-Control-Allow-Methods: %b\r\n" % self.method,
            b"Access-Control-Max-Age: %d\r\n" % _MAX_AGE_SECONDS,
            b"Vary: Access-Control-Request-Method, Access-Control-Request-Headers\r\n",
        ]
        if self.header_names:
            lines.append(b"Access-Control-Allow-Headers: %b\r\n" % self.header_names)
        if self.credentials:
            lines.append(ALLOW_CREDENTIALS)
        if close:
            lines.append(b"Connection: close\r\n")
        return b"".join((*lines, b"\r\n"))


class Cors:
    """`origins` are serialised as browsers do it: scheme, host and a port that is not the default one."""

    def __init__(self, origins: Iterable[str], is_agents_host: Callable[[bytes], bool] = lambda _: False) -> None:
        self._is_agents_host = is_agents_host
        exposed = ", ".join(EXPOSED_HEADERS)
        self._lines = {
            origin.encode("ascii"): (
                f"Access-Control-Allow-Origin: {origin}\r\nAccess-Control-Expose-Headers: {exposed}\r\nVary: Origin\r\n"
            ).encode("ascii")
            for origin in origins
        }
        # Also without an Origin header: a cache must not give that answer to a page of a listed origin.
        self._other = b"Vary: Origin\r\n" if self._lines else b""

    def answer_lines(self, origin: bytes | None) -> bytes:
        """The lines that every answer to a request from this origin carries, whoever's answer it is."""
        return self._lines.get(origin, self._other) if origin is not None else self._other

    def preflight(self, head: RequestHead, origin: bytes | None) -> Answer | Preflight | None:
        """The answer to a preflight, which goes no further than here; None for any other request."""
        if head.method != b"OPTIONS" or origin is None:
            return None
        method = value_of(head.fields, b"access-control-request-method")
        if method is None:
            return None
        names = value_of(head.fields, b"access-control-request-headers") or b""
        if origin not in self._lines:
            return Answer(
                403,
                "origin_not_allowed",
                "cannot allow this origin to call: it is not listed; the operator can add it to cors_origins",
            )
        if not _METHOD.fullmatch(method) or not _HEADER_NAMES.fullmatch(names):
            return Answer(400, "bad_request", "cannot read the preflight: its method or headers are malformed")
        return Preflight(method, names, credentials=self._is_agents_host(head.host))
