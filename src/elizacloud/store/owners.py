"""Owners: whoever agents and tokens belong to. Known by an id that comes from outside; made known at the first use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.errors import Invalid
from elizacloud.store import tables
from elizacloud.store.database import Database, insert_or_ignore

_LONGEST = 255


class Owners:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def idle_policy(self, owner_id: str) -> Mapping[str, Any]:
        """What the owner says about agents that nobody uses; empty for one who said nothing, or is not known."""
        query = sa.select(tables.owners.c.idle_policy).where(tables.owners.c.id == owner_id)
        async with self._database.read() as connection:
            return await connection.scalar(query) or {}

    async def set_idle_policy(self, owner_id: str, policy: Mapping[str, Any]) -> None:
        """Make the owner known, with this policy. The caller has checked it."""
        async with self._database.write() as connection:
            await ensure_owner(connection, owner_id, self._clock())
            change = sa.update(tables.owners).where(tables.owners.c.id == owner_id)
            await connection.execute(change.values(idle_policy=dict(policy) or None))

    async def ensure(self, owner_id: str) -> None:
        """Make the owner known; nothing happens when it is. Raises Invalid for an id of no or over 255 characters."""
        async with self._database.write() as connection:
            await ensure_owner(connection, owner_id, self._clock())


async def ensure_owner(connection: AsyncConnection, owner_id: str, now: datetime) -> None:
    if not owner_id or len(owner_id) > _LONGEST:
        raise Invalid(
            f"cannot use an owner id of {len(owner_id)} characters: give 1 to {_LONGEST}", code="invalid_owner"
        )
    await insert_or_ignore(connection, tables.owners, {"id": owner_id, "created_at": now})
