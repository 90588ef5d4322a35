"""A credential among a WebSocket's subprotocols, which is all that a browser lets a page choose. Pure.

A page offers `elizacloud` and `elizacloud.bearer.<token>`. Neither reaches the agent. A browser ends a connection whose
server selects none of what was offered, so when the agent selects nothing the answer selects `elizacloud`.
"""

from __future__ import annotations

from elizacloud.errors import Unauthenticated
from elizacloud.relay.http1.head import AnswerHead, RequestHead, kept_with_head, value_of

HEADER = b"sec-websocket-protocol"
_OURS = b"elizacloud"
_BEARER = b"elizacloud.bearer."
_SELECTED = b"Sec-WebSocket-Protocol: elizacloud\r\n"


@kept_with_head
def offered_by(head: RequestHead) -> bytes | None:
    """The list of subprotocols."""
    return value_of(head.fields, HEADER)


def token_of(offered: bytes) -> str | None:
    """The token that a list of subprotocols carries. Raises Unauthenticated for more than one."""
    tokens = [name[len(_BEARER) :] for name in _names(offered) if name.startswith(_BEARER)]
    if len(tokens) > 1:
        raise Unauthenticated(
            "cannot tell who is calling: the request offers two elizacloud.bearer subprotocols", code="two_credentials"
        )
    return tokens[0].decode("latin-1") if tokens else None


def offers_ours(offered: bytes) -> bool:
    return _OURS in _names(offered)


def without_ours(head: RequestHead) -> RequestHead:
    """The request as the agent may see it."""
    fields = []
    for field in head.fields:
        if field[0] == HEADER:
            left = b", ".join(name for name in _names(field[2]) if not name.lower().startswith(_OURS))
            if not left:
                continue
            field = (*field[:2], left)
        fields.append(field)
    return RequestHead(head.method, head.target, head.minor, fields, head.host)


def selection(head: AnswerHead) -> bytes:
    """The line that the answer to an upgrade needs besides the agent's own."""
    return b"" if any(lower == HEADER for lower, _, _ in head.fields) else _SELECTED


def _names(offered: bytes) -> list[bytes]:
    return [name for part in offered.split(b",") if (name := part.strip(b" \t"))]
