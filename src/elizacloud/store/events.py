"""The history of all agents: one sequence for the installation, read again from the table whoever rings the bell."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.model import Event
from elizacloud.store import rows, tables
from elizacloud.store.bell import Bell
from elizacloud.store.database import Database, advance

_LARGEST = 2**63 - 1  # of a BIGINT; clients send back what they like
_BATCH = 500


class Events:
    """Reads events; they are written by Agents, in the transaction of the change they tell of."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self._database = database
        self._bell = bell

    async def after(self, sequence: int, *, agent_id: str | None = None, limit: int = _BATCH) -> Sequence[Event]:
        """Events with a greater sequence, oldest first, of one agent or of all."""
        table = tables.events
        known = max(0, min(sequence, _LARGEST))
        query = sa.select(table).where(table.c.sequence > known).order_by(table.c.sequence).limit(limit)
        if agent_id is not None:
            query = query.where(table.c.agent_id == agent_id)
        async with self._database.read() as connection:
            return [rows.event_from_row(row) for row in (await connection.execute(query)).mappings()]

    async def last(self, agent_id: str, *, step: str) -> Event | None:
        """The agent's newest event of that step, if it is still kept."""
        table = tables.events
        query = sa.select(table).where(table.c.agent_id == agent_id, table.c.step == step)
        async with self._database.read() as connection:
            found = await connection.execute(query.order_by(table.c.sequence.desc()).limit(1))
            row = found.mappings().one_or_none()
        return None if row is None else rows.event_from_row(row)

    async def last_sequence(self) -> int:
        """The sequence of the newest event, 0 when there is none: from here on `subscribe` brings only new ones."""
        counter = tables.counters
        async with self._database.read() as connection:
            return await connection.scalar(sa.select(counter.c.value).where(counter.c.name == "events")) or 0

    async def subscribe(
        self, after: int, *, agent_id: str | None = None, poll_seconds: float = 15
    ) -> AsyncGenerator[Event, None]:
        """Every event after that sequence, in order, none left out, for ever; close the iterator to stop.

        Woken by writes of this process at once, by those of others through LISTEN, and in any case every `poll_seconds`.
        """
        while True:
            rung = self._bell.waiter(agent_id)
            found = await self.after(after, agent_id=agent_id)
            for event in found:
                after = event.sequence
                yield event
            if not found:
                await rung.wait(poll_seconds)


async def append(connection: AsyncConnection, event: Event) -> None:
    """Write the event with the next sequence; the caller's transaction commits it and then rings the bell.

    The sequence comes from a counter's row and not from an identity column: PostgreSQL gives identity values at once and
    commits in any order, so that a reader could see n + 1, go on from there, and never see n. The row's lock, held until
    the commit, makes the order of sequences the order of commits. Call it last in a transaction, to hold it briefly.
    """
    sequence = await advance(connection, "events")
    values = rows.event_to_row(event) | {"sequence": sequence}
    await connection.execute(sa.insert(tables.events).values(values))
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.select(sa.func.pg_notify(Bell.CHANNEL, event.agent_id)))
