"""Forgetting what nobody asks for any more: events of long ago, and agents that are long gone. A batch a transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from elizacloud.states import State
from elizacloud.store import tables
from elizacloud.store.database import Database

EVENTS_AT_ONCE = 1000
AGENTS_AT_ONCE = 50
_OF_AGENT = (tables.tickets, tables.tokens, tables.events, tables.runs, tables.generations)
"""In the order in which they may go."""


class Pruning:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def forget_events(self, *, older_than_seconds: float) -> bool:
        """Forget the oldest events, if they are older than that; True when there may be more.

        Their sequence goes on: whoever resumes after one that was forgotten gets what came after it.
        """
        events, limit = tables.events, self._clock() - timedelta(seconds=older_than_seconds)
        oldest = sa.select(events.c.sequence, events.c.at).order_by(events.c.sequence).limit(EVENTS_AT_ONCE).subquery()
        last = sa.select(sa.func.max(oldest.c.sequence)).where(oldest.c.at < limit).scalar_subquery()
        async with self._database.write() as connection:
            deleted = await connection.execute(sa.delete(events).where(events.c.sequence <= last, events.c.at < limit))
        return deleted.rowcount >= EVENTS_AT_ONCE

    async def forget_gone(self, *, older_than_seconds: float) -> bool:
        """Forget agents that have been gone for longer, with all that is told of them; True when there may be more."""
        agents, limit = tables.agents, self._clock() - timedelta(seconds=older_than_seconds)
        gone = (
            sa.select(agents.c.id)
            .where(agents.c.state == State.GONE.value, agents.c.updated_at < limit)
            .order_by(agents.c.updated_at)
            .limit(AGENTS_AT_ONCE)
        )
        async with self._database.write() as connection:
            ids = list(await connection.scalars(gone))
            for table in _OF_AGENT:
                await connection.execute(sa.delete(table).where(table.c.agent_id.in_(ids)))
            await connection.execute(sa.delete(agents).where(agents.c.id.in_(ids)))
        return len(ids) >= AGENTS_AT_ONCE
