"""Which pages may use a browser's session with an agent. Pure.

A browser sends the cookie whoever made it ask. So the page must be the agent's own, or of an origin that the operator
listed; another agent's host is same-site with this one, but no friend. Without an Origin header (Fetch standard,
section 3.1) Sec-Fetch-Site and -Mode decide; a person who follows a link from elsewhere gets through, since that page
cannot read what comes. Frames are for listed origins, which `frame-ancestors` makes the browser check.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from elizacloud.errors import Forbidden
from elizacloud.relay.edge import Request
from elizacloud.relay.headers.cors import ALLOW_CREDENTIALS
from elizacloud.relay.http1.head import value_of

_BY_ITSELF = (None, b"same-origin", b"none")
_FRAMES = (b"iframe", b"frame")


class Origins:
    """`listed` are the origins of `cors_origins`; the scheme of `public_url` is that of agents' hosts too."""

    def __init__(self, listed: Iterable[str] = (), public_url: str | None = None) -> None:
        self._listed = frozenset(origin.encode("ascii") for origin in listed)
        self._scheme = urlsplit(public_url).scheme.encode("ascii") if public_url else None
        ancestors = " ".join(["'self'", *sorted(origin.decode() for origin in self._listed)])
        self.frame_ancestors = f"frame-ancestors {ancestors}"
        self.cookie_lines = f"Content-Security-Policy: {self.frame_ancestors}\r\n".encode("ascii")
        """What every answer to a request by cookie carries, in place of the agent's X-Frame-Options, which cannot know
        who may embed it (CSP level 3 section 6.4.2: browsers then ignore that one)."""
        self._credentials_lines = self.cookie_lines + ALLOW_CREDENTIALS

    def check_cookie(self, request: Request) -> bytes:
        """The lines that the answer needs. Raises Forbidden when the page that asks may not use the session."""
        fields = request.head.fields
        if request.origin is not None:
            if request.origin in self._listed:
                return self._credentials_lines
            if request.origin == self.own(request):
                return self.cookie_lines
            raise Forbidden(
                "cannot use this browser's session: the page's origin is neither the agent's nor listed in cors_origins",
                code="origin_not_allowed",
            )
        if value_of(fields, b"upgrade") is not None:
            raise Forbidden(
                "cannot use this browser's session: an upgrade needs an Origin header", code="origin_not_allowed"
            )
        if value_of(fields, b"sec-fetch-site") not in _BY_ITSELF and not self._is_navigation(request):
            raise Forbidden(
                "cannot use this browser's session: a page of another site asked for this", code="cross_site_request"
            )
        return self.cookie_lines

    def own(self, request: Request) -> bytes:
        """The origin of the agent's host that the request came to, as a browser writes it."""
        scheme = self._scheme or (b"https" if b"X-Forwarded-Proto: https" in request.forwarded_lines else b"http")
        return scheme + b"://" + request.head.host.lower()

    def _is_navigation(self, request: Request) -> bool:
        head = request.head
        if head.method not in (b"GET", b"HEAD") or value_of(head.fields, b"sec-fetch-mode") != b"navigate":
            return False
        destination = value_of(head.fields, b"sec-fetch-dest")
        return destination == b"document" or (destination in _FRAMES and bool(self._listed))
