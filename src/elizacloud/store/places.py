"""Where agents live: cells (one Headscale each) and hosts (one runtime each)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.errors import Conflict
from elizacloud.model import Cell, Host
from elizacloud.store import tables
from elizacloud.store.database import Database, insert_or_ignore


class Places:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure_cell(self, cell: Cell) -> None:
        """Make the cell known, or give it its new name. Conflict when another one has that name."""
        async with self._database.write() as connection:
            await _ensure(connection, tables.cells, {"id": cell.id, "name": cell.name})

    async def ensure_host(self, host: Host) -> None:
        """Make the host known, or give it its new name. Conflict when another one has that name."""
        async with self._database.write() as connection:
            await _ensure(connection, tables.hosts, {"id": host.id, "name": host.name, "runtime": host.runtime})

    async def cells(self) -> Sequence[Cell]:
        async with self._database.read() as connection:
            found = await connection.execute(sa.select(tables.cells).order_by(tables.cells.c.id))
            return [Cell(**row) for row in found.mappings()]

    async def hosts(self) -> Sequence[Host]:
        async with self._database.read() as connection:
            found = await connection.execute(sa.select(tables.hosts).order_by(tables.hosts.c.id))
            return [Host(**row) for row in found.mappings()]


async def _ensure(connection: AsyncConnection, table: sa.Table, values: dict[str, Any]) -> None:
    await insert_or_ignore(connection, table, values)
    result = await connection.execute(sa.update(table).where(table.c.id == values["id"]).values(values))
    if result.rowcount != 1:
        raise Conflict(f"cannot use the name {values['name']!r} in {table.name}: another one has it; choose another")
