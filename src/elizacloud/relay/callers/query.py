"""What of a query reaches an agent: all of it, byte for byte, but for credentials of ours. Pure.

Servers decode names and values before they compare them, so here too the decoded text decides what goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote, unquote_plus

TICKET = "elizacloud_ticket"
TICKET_NAME = TICKET.encode("ascii")
_PERHAPS = re.compile(rb"[%_.]")
"""Every credential of ours has one of these, as it is or encoded."""
_BEARER = re.compile(r"bearer +", re.IGNORECASE)
# As the agent reads them (AGENT api/server-helpers-auth.js): the stock UI opens `/ws?clientId=..&token=..`.
_AGENT_TOKENS = frozenset({"token", "apiKey", "api_key"})


def tickets(target: bytes) -> list[str]:
    """The tickets that the query carries; more than one is a mistake that the caller refuses."""
    return [value for name, value in _parameters(target) if name == TICKET]


def without_credentials(target: bytes, is_ours: Callable[[str], bool]) -> bytes:
    """The target without tickets, and without parameters whose value is a credential of ours."""
    path, mark, query = target.partition(b"?")
    if not mark or not _PERHAPS.search(query):
        return target
    parts = query.split(b"&")
    kept = [part for part in parts if not _stays_here(part, is_ours)]
    if len(kept) == len(parts):
        return target
    return path + mark + b"&".join(kept) if kept else path


def with_agent_token(target: bytes, token: str) -> bytes:
    """The target of a WebSocket, its `token` replaced by the agent's own: a wrong one there would be refused."""
    path, mark, query = target.partition(b"?")
    if not mark:
        return target
    parts = query.split(b"&")
    for at, part in enumerate(parts):
        name = part.partition(b"=")[0]
        if _decoded(name) in _AGENT_TOKENS:
            parts[at] = name + b"=" + quote(token, safe="").encode("ascii")
    return path + mark + b"&".join(parts)


def _stays_here(part: bytes, is_ours: Callable[[str], bool]) -> bool:
    name, _, value = part.partition(b"=")
    return _decoded(name) == TICKET or is_ours(_BEARER.sub("", _decoded(value), count=1))


def _parameters(target: bytes) -> list[tuple[str, str]]:
    query = target.partition(b"?")[2]
    return [
        (_decoded(name), _decoded(value)) for name, _, value in (part.partition(b"=") for part in query.split(b"&"))
    ]


def _decoded(text: bytes) -> str:
    return unquote_plus(text.decode("latin-1"), "latin-1")
