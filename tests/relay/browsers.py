"""What a browser sends to an agent's own host, and the credentials that it may have."""

from dataclasses import replace
from datetime import timedelta

from pydantic import SecretStr

from elizacloud.auth.tokens import token_sha256
from elizacloud.model import Scope, TokenKind, utc_now
from elizacloud.upstreams import KnownToken, Redemption
from tests.relay.conftest import AGENT, OWNER, TOKENS, Cloud

HOST = f"{AGENT}.agents.test"
ORIGIN = f"http://{HOST}"
PAGE = "https://app.test"
SESSION = "ecs_sessionid001_sessionsecret"
TICKET = "ect_ticketid00001_ticketsecret"
PARENT = TOKENS[0].token_id


def session(**changes: object) -> KnownToken:
    known = KnownToken(
        "sessionid001",
        token_sha256(SESSION),
        OWNER,
        frozenset({Scope.RELAY}),
        AGENT,
        utc_now() + timedelta(hours=12),
        TokenKind.SESSION,
        PARENT,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


async def signed_in(cloud: Cloud, **changes: object) -> None:
    """The control plane knows the session of COOKIE from now on."""
    cloud.hub.add_token(session(**changes))
    await cloud.told()


def ticket_for(cloud: Cloud, agent_id: str = AGENT, **changes: object) -> None:
    """TICKET can be redeemed, once, for a request: it stands for the owner's first token."""
    cloud.heard.tickets[token_sha256(TICKET), agent_id] = Redemption(session(sha256="", **changes))


def session_ticket_for(cloud: Cloud) -> None:
    """TICKET can be redeemed, once, for SESSION."""
    cloud.heard.tickets[token_sha256(TICKET), AGENT] = Redemption(session(), SecretStr(SESSION))


def by_host(
    path: str = "/",
    *,
    method: str = "GET",
    headers: str = "",
    cookie: str = "",
    host: str = HOST,
    body: bytes = b"",
) -> bytes:
    """A request to an agent's own host."""
    lines = f"Cookie: {cookie}\r\n" if cookie else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}{headers}\r\n".encode("latin-1") + body


COOKIE = f"__Host-elizacloud={SESSION}"
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
