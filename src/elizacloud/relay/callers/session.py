"""A browser's session with one agent, at the relay's own addresses on that agent's host.

GET  /.elizacloud/session?elizacloud_ticket=...&next=/path    redeem the ticket, set the cookie, go on to `next`
POST /.elizacloud/logout                                      revoke the session, clear the cookie
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, unquote

from elizacloud.errors import Error, Forbidden, NotFound, Unauthenticated, Unavailable
from elizacloud.model import utc_now
from elizacloud.relay.answers import Answer, Answered
from elizacloud.relay.callers import query
from elizacloud.relay.callers.credentials import COOKIE, carried_by, cookie_of
from elizacloud.relay.callers.origins import Origins
from elizacloud.relay.callers.pages import Page, sign_in_page
from elizacloud.relay.callers.tickets import Tickets
from elizacloud.relay.edge import Request
from elizacloud.relay.front import ToAgent, ToOwn
from elizacloud.relay.http1.head import value_of

_ATTRIBUTES = "Secure; HttpOnly; Path=/; SameSite=None; Partitioned"
_PATH_END = re.compile("[?#]")
# A browser reads a backslash as a slash, and drops tabs and line ends, wherever they stand (URL standard, section 4.4).
_NEVER_IN_URLS = re.compile(r"[\\\x00-\x1f\x7f]")
_LONGEST_NEXT = 2048
_MOST_DECODINGS = 5


class Sessions:
    """One a worker. `public_url` is where people sign in; without it, the domain above the agents' hosts."""

    def __init__(
        self,
        tickets: Tickets,
        origins: Origins,
        *,
        relay_domain: str,
        public_url: str | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tickets = tickets
        self._origins = origins
        self._relay_domain = relay_domain
        self._public_url = public_url
        self._now = now

    async def answer(self, front: ToOwn, request: Request) -> Page:
        """Raises an Error."""
        head = request.head
        path = front.target.partition(b"?")[0]
        method = {b"/.elizacloud/session": b"GET", b"/.elizacloud/logout": b"POST"}.get(path)
        if front.by_path or method is None:
            raise NotFound("cannot find this page: the relay has no such address", code="not_found")
        if head.method != method:
            raise _method_not_allowed(method)
        return self._log_out(request) if method == b"POST" else await self._begin(front, request)

    async def _begin(self, front: ToOwn, request: Request) -> Page:
        if value_of(request.head.fields, b"sec-fetch-mode") not in (None, b"navigate"):
            raise Forbidden("cannot begin a session from a script: open this address", code="cross_site_request")
        tickets = query.tickets(front.target)
        if len(tickets) != 1:
            raise Unauthenticated("cannot begin a session: it needs one elizacloud_ticket", code="no_credential")
        redemption = await self._tickets.redeem(tickets[0], front.agent_id, session=True)
        token, value = redemption.token, redemption.value
        if value is None or token.expires_at is None:
            raise Unavailable("cannot begin a session: the control plane gave none", code="control_plane_unavailable")
        seconds = max(0, int((token.expires_at - self._now()).total_seconds()))
        cookie = f"{COOKIE}={value.get_secret_value()}; {_ATTRIBUTES}; Max-Age={seconds}"
        onward = next_on_this_host(front.target)
        return Page(HTTPStatus.SEE_OTHER, "session", (f"Location: {onward}", f"Set-Cookie: {cookie}"))

    def _log_out(self, request: Request) -> Page:
        cookies = carried_by(request.head).cookies
        if cookies is not None and (session := cookie_of(cookies)) is not None:
            request.edge_lines += self._origins.check_cookie(request)
            self._tickets.end_session(session)
        return Page(HTTPStatus.NO_CONTENT, "logout", (f"Set-Cookie: {COOKIE}=; {_ATTRIBUTES}; Max-Age=0",))

    def invite(self, error: Unauthenticated, front: ToAgent, request: Request) -> Error:
        """What a person who opened an agent's address gets to see instead of the error."""
        fields = request.head.fields
        if (
            front.by_path
            or b"text/html" not in (value_of(fields, b"accept") or b"")
            or value_of(fields, b"sec-fetch-mode") not in (None, b"navigate")
        ):
            return error
        url = self._public_url or self._above(request)
        return Answered(sign_in_page(error.reason, str(error), url, self._origins.frame_ancestors))

    def _above(self, request: Request) -> str:
        scheme, own_host = self._origins.own(request).decode("latin-1").split("://")
        _, colon, port = own_host.partition(":")
        return f"{scheme}://{self._relay_domain}{colon}{port}/"


def next_on_this_host(target: bytes) -> str:
    """The path that `next` names, or `/` when it leads elsewhere for any reader: a browser, or one that decodes again."""
    named = parse_qsl(target.partition(b"?")[2].decode("latin-1"), errors="replace")
    wanted = [value for name, value in named if name == "next"]
    if len(wanted) != 1 or len(wanted[0]) > _LONGEST_NEXT:
        return "/"
    text = wanted[0]
    for _ in range(_MOST_DECODINGS):
        if _leads_elsewhere(text):
            return "/"
        decoded = unquote(text, errors="replace")
        if decoded == text:
            return quote(wanted[0], safe="/%?#[]@!$&'()*+,;=:~")
        text = decoded
    return "/"


def _leads_elsewhere(text: str) -> bool:
    path = _PATH_END.split(text, maxsplit=1)[0]
    return not path.startswith("/") or "//" in path or _NEVER_IN_URLS.search(text) is not None


def _method_not_allowed(method: bytes) -> Answered:
    answer = Answer(405, "method_not_allowed", f"cannot do this: this address takes {method.decode()} only")
    return Answered(answer)
