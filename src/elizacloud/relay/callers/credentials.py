"""Which credential a request carries: where each kind may stand, and which one counts when there are several. Pure.

    bearer header                     both fronts        API tokens, agent tokens, JWTs
    subprotocol of a WebSocket        both fronts        the same, or a ticket
    elizacloud_ticket in the query    an agent's host    a ticket, for a WebSocket or an event stream
    cookie __Host-elizacloud          an agent's host    a session

What somebody put there on purpose (the first three) wins over the cookie, which a browser sends by itself; two such
are refused, since somebody would read the other one. Beside another credential, an Authorization header that is not of
ours is meant for the agent.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from elizacloud.errors import Unauthenticated
from elizacloud.relay.callers import query, subprotocols
from elizacloud.relay.front import ToAgent
from elizacloud.relay.http1.head import RequestHead, kept_with_head

COOKIE = "__Host-elizacloud"
_COOKIE = COOKIE.encode("ascii")
_OWNER = b"elizacloud-owner"
_FOR_AGENT = b"elizacloud-agent-authorization"
_READ = frozenset({b"authorization", b"cookie", _OWNER, _FOR_AGENT, subprotocols.HEADER})
_SHAPE = re.compile(r"ec[st]?_[A-Za-z0-9]+_")
_TICKET_SHAPE = re.compile(r"ect_[A-Za-z0-9]{1,64}_[A-Za-z0-9]{1,128}")
_BEARER = re.compile(r"(?i:bearer) +(\S+) *")


class Source(Enum):
    BEARER = auto()
    SUBPROTOCOL = auto()
    COOKIE = auto()
    TICKET = auto()


class Carried(NamedTuple):
    """What one look at the headers found; the last two are lists as sent, over all their lines."""

    authorization: bytes | None
    owner: bytes | None
    for_agent: bytes | None
    cookies: bytes | None
    protocols: bytes | None


class Shown(NamedTuple):
    """The one credential that counts. `authorization` is the request's when it is meant for the agent."""

    source: Source
    value: str
    """For a bearer the whole header, else the bare credential."""
    authorization: bytes | None = None


@kept_with_head
def carried_by(head: RequestHead) -> Carried:
    """Raises Unauthenticated for two headers of one kind: somebody would read the other one."""
    authorization = owner = for_agent = cookies = protocols = None
    for lower, _, value in head.fields:
        if lower in _READ:
            if lower == b"cookie":
                cookies = value if cookies is None else cookies + b";" + value
            elif lower == subprotocols.HEADER:
                protocols = value if protocols is None else protocols + b"," + value
            elif lower == b"authorization" and authorization is None:
                authorization = value
            elif lower == _OWNER and owner is None:
                owner = value
            elif lower == _FOR_AGENT and for_agent is None:
                for_agent = value
            else:
                raise Unauthenticated(
                    f"cannot tell who is calling: the request has two {lower.decode()} headers",
                    code="malformed_credential",
                )
    return Carried(authorization, owner, for_agent, cookies, protocols)


def shown(carried: Carried, front: ToAgent, *, stream: bool, is_ours: Callable[[str], bool]) -> Shown:
    """The credential that counts. `stream` says whether the request is one that a ticket is for. Raises Unauthenticated."""
    authorization = None if carried.authorization is None else carried.authorization.decode("latin-1")
    deliberate: list[Shown] = []
    bearer = _BEARER.fullmatch(authorization or "")
    if authorization is not None and bearer is not None and is_ours(bearer[1]):
        deliberate.append(Shown(Source.BEARER, authorization))
    foreign = None if deliberate else carried.authorization
    if carried.protocols is not None and (token := subprotocols.token_of(carried.protocols)) is not None:
        source = Source.TICKET if token.startswith("ect_") else Source.SUBPROTOCOL
        deliberate.append(Shown(source, token, foreign))
    for ticket in query.tickets(front.target):
        if front.by_path or not stream:
            raise misplaced(
                "a ticket in the query is for a WebSocket or an event stream on the agent's own host; "
                "exchange it for a session at /.elizacloud/session there"
            )
        deliberate.append(Shown(Source.TICKET, ticket, foreign))
    if len(deliberate) > 1:
        raise Unauthenticated(
            "cannot tell who is calling: the request carries two credentials; send one", code="two_credentials"
        )
    if deliberate:
        return deliberate[0]
    if not front.by_path and carried.cookies is not None and (cookie := cookie_of(carried.cookies)) is not None:
        return Shown(Source.COOKIE, cookie, foreign)
    if authorization is not None:
        return Shown(Source.BEARER, authorization)
    raise Unauthenticated(
        "cannot do this without a credential: send the header `Authorization: Bearer <token>`", code="no_credential"
    )


def cookie_of(cookies: bytes) -> str | None:
    """The session of a Cookie header. Raises Unauthenticated for two: a neighbouring host may have set one of them."""
    if _COOKIE not in cookies:
        return None
    found = [
        value.strip(b" \t")
        for name, _, value in (cookie.partition(b"=") for cookie in cookies.split(b";"))
        if name.strip(b" \t") == _COOKIE
    ]
    if len(found) > 1:
        raise Unauthenticated(
            f"cannot tell who is calling: the browser sent two {COOKIE} cookies; clear this site's cookies",
            code="two_credentials",
        )
    return found[0].decode("latin-1") if found else None


def looks_ours(text: str) -> bool:
    """An API token, a session or a ticket, by its prefix."""
    return _SHAPE.match(text) is not None


def looks_like_ticket(text: str) -> bool:
    return _TICKET_SHAPE.fullmatch(text) is not None


def claimed_issuer(text: str) -> str | None:
    """The `iss` that a JWT claims, unverified: enough to know for whom it is meant. None for all else."""
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) else None


def misplaced(where: str) -> Unauthenticated:
    return Unauthenticated(f"cannot accept this credential here: {where}", code="misplaced_credential")
