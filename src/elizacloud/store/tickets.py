"""One-time tickets: consumed by one compare-and-set, so that of two who bring the same one, anywhere, one is let in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.model import ApiToken
from elizacloud.states import Wanted
from elizacloud.store import rows, tables
from elizacloud.store.database import Database

_TICKETS, _TOKENS, _AGENTS = tables.tickets, tables.tokens, tables.agents


@dataclass(frozen=True, slots=True)
class Ticket:
    """Lets its bearer in once, as the owner, to one agent. Only the SHA-256 of its value is kept."""

    sha256: str
    id: str
    agent_id: str
    owner_id: str
    parent_id: str | None
    """The API token that asked for it; None when a trusted issuer's JWT did."""
    created_at: datetime
    expires_at: datetime
    session_expires_at: datetime
    """When whatever it is exchanged for ends at the latest."""
    redeemed_at: datetime | None = None


class Tickets:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def create(self, ticket: Ticket) -> None:
        """Store it. NotFound when there is no such agent."""
        async with self._database.write() as connection:
            await connection.execute(sa.insert(_TICKETS).values(asdict(ticket)))

    async def redeem(
        self, sha256: str, agent_id: str, session_of: Callable[[Ticket], ApiToken] | None = None
    ) -> tuple[Ticket, ApiToken | None] | None:
        """Consume the ticket, to exactly one caller, and store the session that is made of it, as one.

        None when it is unknown, used, expired or another agent's, when the token that asked for it was revoked or has
        expired, or when the agent is being deleted.
        """
        now = self._clock()
        good = (
            _TICKETS.c.sha256 == sha256,
            _TICKETS.c.agent_id == agent_id,
            _TICKETS.c.redeemed_at.is_(None),
            _TICKETS.c.expires_at > now,
        )
        async with self._database.read() as connection:
            # Anyone can send a value that looks like a ticket: only one that is good waits for its turn to write.
            if await connection.scalar(sa.select(sa.literal(1)).where(*good)) is None:
                return None
        async with self._database.write() as connection:
            found = await connection.execute(
                sa.update(_TICKETS).where(*good).values(redeemed_at=now).returning(*_TICKETS.c)
            )
            row = found.mappings().one_or_none()
            if row is None:
                return None
            ticket = Ticket(**row)
            if not await self._still_good(connection, ticket, now):
                return None
            session = None if session_of is None else session_of(ticket)
            if session is not None:
                await connection.execute(sa.insert(_TOKENS).values(rows.token_to_row(session)))
        return ticket, session

    async def prune(self, *, batch: int) -> int:
        """Forget tickets that have expired, at most `batch` of them; returns how many."""
        dead = sa.select(_TICKETS.c.sha256).where(_TICKETS.c.expires_at <= self._clock()).limit(batch)
        async with self._database.write() as connection:
            return (await connection.execute(sa.delete(_TICKETS).where(_TICKETS.c.sha256.in_(dead)))).rowcount

    async def _still_good(self, connection: AsyncConnection, ticket: Ticket, now: datetime) -> bool:
        kept = sa.select(sa.literal(1)).where(_AGENTS.c.id == ticket.agent_id, _AGENTS.c.wanted != Wanted.DELETED.value)
        if await connection.scalar(kept) is None:
            return False
        if ticket.parent_id is None:
            return True
        # The lock makes a revocation wait for this transaction, so that it sees the session and revokes that one too.
        parent = sa.select(_TOKENS.c.revoked_at, _TOKENS.c.expires_at).where(_TOKENS.c.id == ticket.parent_id)
        row = (await connection.execute(parent.with_for_update(read=True))).one_or_none()
        return row is not None and row.revoked_at is None and (row.expires_at is None or row.expires_at > now)
