"""Redeeming tickets, and ending what they gave. It is the control plane that does it, so that each works once."""

from __future__ import annotations

from typing import Protocol

from elizacloud.auth.tokens import token_sha256
from elizacloud.errors import TooMany, Unauthenticated
from elizacloud.relay.callers.credentials import looks_like_ticket
from elizacloud.upstreams import Redemption, UpstreamTable

_MOST_AT_A_TIME = 256
"""Anyone can send something that looks like a ticket, and each costs the control plane a query."""


class Link(Protocol):
    @property
    def table(self) -> UpstreamTable: ...

    async def redeem(self, ticket_sha256: str, agent_id: str, *, session: bool) -> Redemption: ...

    def tell_session_ended(self, session_sha256: str) -> None: ...


class Tickets:
    """One a worker."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._open = 0

    async def redeem(self, ticket: str, agent_id: str, *, session: bool) -> Redemption:
        """What it gives, for a session or for one request. Raises Unauthenticated, TooMany, Unavailable."""
        if not looks_like_ticket(ticket):
            raise Unauthenticated(
                "cannot accept this ticket: it is malformed; ask for a new one", code="invalid_ticket"
            )
        if self._open >= _MOST_AT_A_TIME:
            raise TooMany(
                "cannot redeem the ticket: very many are being redeemed; try again",
                code="too_many_tickets",
                retry_after_seconds=1,
            )
        self._open += 1
        try:
            return await self._link.redeem(token_sha256(ticket), agent_id, session=session)
        finally:
            self._open -= 1

    def end_session(self, session: str) -> None:
        """Revoke it, as soon as the control plane can. Nobody is bothered with what is no session."""
        sha256 = token_sha256(session)
        if sha256 in self._link.table.tokens:
            self._link.tell_session_ended(sha256)
