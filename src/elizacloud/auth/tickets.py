"""One-time tickets: a link that a browser may open, or a WebSocket may be opened with, instead of a token in a URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr

from elizacloud.auth.issuing import known_token
from elizacloud.auth.tokens import SESSION_PREFIX, TICKET_PREFIX, mint
from elizacloud.errors import Unauthenticated
from elizacloud.model import ApiToken, Principal, Scope, TokenKind, is_agent_id
from elizacloud.store import Store, Ticket
from elizacloud.upstreams import KnownToken, Redemption, Relays

_REACHES = frozenset({Scope.RELAY})


@dataclass(frozen=True, slots=True)
class IssuedTicket:
    """A new ticket, the only time that its value is known."""

    value: SecretStr
    agent_id: str
    expires_at: datetime


class Tickets:
    """`ticket_seconds` is how long one can be redeemed, `session_seconds` how long what it gives lasts at most."""

    def __init__(
        self,
        store: Store,
        relays: Relays,
        now: Callable[[], datetime],
        *,
        ticket_seconds: float,
        session_seconds: float,
    ) -> None:
        self._store = store
        self._relays = relays
        self._now = now
        self._ticket = timedelta(seconds=ticket_seconds)
        self._session = timedelta(seconds=session_seconds)

    async def issue(self, agent_id: str, owner_id: str, *, by: Principal) -> IssuedTicket:
        """A ticket for this agent; the caller checked that `by` may reach it for the owner. Raises NotFound.

        Neither it nor what it is exchanged for outlives the credential that it was asked for with.
        """
        now, minted = self._now(), mint(TICKET_PREFIX)
        end = by.expires_at or now + self._session
        ticket = Ticket(
            sha256=minted.sha256,
            id=minted.id,
            agent_id=agent_id,
            owner_id=owner_id,
            parent_id=by.parent_id,
            created_at=now,
            expires_at=min(now + self._ticket, end),
            session_expires_at=min(now + self._session, end),
        )
        await self._store.tickets.create(ticket)
        return IssuedTicket(minted.value, agent_id, ticket.expires_at)

    async def redeem(self, ticket_sha256: str, agent_id: str, *, session: bool) -> Redemption:
        """Consume it: for a session, which relays know when this returns, or for the one connection it came with.

        Raises Unauthenticated `ticket_used` when it is unknown, used, expired or another agent's, and StoreUnavailable.
        """
        minted = mint(SESSION_PREFIX)

        def session_of(ticket: Ticket) -> ApiToken:
            token = ApiToken(
                id=minted.id,
                owner_id=ticket.owner_id,
                name="session",
                scopes=_REACHES,
                agent_id=ticket.agent_id,
                sha256=minted.sha256,
                created_at=self._now(),
                expires_at=ticket.session_expires_at,
                kind=TokenKind.SESSION,
                parent_id=ticket.parent_id,
            )
            # Relays are told within the transaction: a revocation of the parent waits for its end, so it comes after.
            self._relays.add_token(known_token(token))
            return token

        redeemed = None
        if is_agent_id(agent_id):
            try:
                redeemed = await self._store.tickets.redeem(ticket_sha256, agent_id, session_of if session else None)
            except BaseException:
                self._relays.revoke_token(minted.id)
                raise
        if redeemed is None:
            raise Unauthenticated(
                "cannot take this ticket: it was used, has expired, or is for another agent; ask for a new one",
                code="ticket_used",
            )
        ticket, token = redeemed
        if token is None:
            return Redemption(
                KnownToken(
                    ticket.id,
                    ticket.sha256,
                    ticket.owner_id,
                    _REACHES,
                    ticket.agent_id,
                    ticket.session_expires_at,
                    TokenKind.SESSION,
                    ticket.parent_id,
                )
            )
        return Redemption(known_token(token), minted.value)
