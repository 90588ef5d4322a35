"""Leases: a name, who holds it, and until when by the database's own time. Taken and kept by compare-and-set.

`epoch` grows each time that a lease changes hands, so that its holder of before, who may have been stopped in the middle of
something and know nothing of it, can be told from the one of now, also when they are the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.errors import LeaseLost
from elizacloud.store import tables
from elizacloud.store.clock import DatabaseTime
from elizacloud.store.database import Database, insert_or_ignore

_LEASES = tables.leases


@dataclass(frozen=True, slots=True)
class Fence:
    """What a write is made under: refused unless this holder still has the lease, and had it without a break."""

    name: str
    holder: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as it is. `holder` is None when nobody holds it, also when its time is over."""

    name: str
    holder: str | None
    epoch: int


class Leases:
    """All times are the database's: no caller's clock counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self) -> Sequence[Lease]:
        """All of them, by name."""
        held = sa.case((_is_alive(), _LEASES.c.holder), else_=None).label("holder")
        query = sa.select(_LEASES.c.name, held, _LEASES.c.epoch).order_by(_LEASES.c.name)
        async with self._database.read() as connection:
            return [Lease(row.name, row.holder, row.epoch) for row in await connection.execute(query)]

    async def renew(self, holder: str, seconds: float) -> Sequence[Fence]:
        """Keep what this holder has for so many seconds from now; returns it. What ended meanwhile is not revived."""
        async with self._database.write() as connection:
            renewed = await connection.execute(
                sa.update(_LEASES)
                .where(_LEASES.c.holder == holder, _is_alive())
                .values(until=DatabaseTime(seconds))
                .returning(_LEASES.c.name, _LEASES.c.epoch)
            )
            return [Fence(row.name, holder, row.epoch) for row in renewed]

    async def take(self, name: str, holder: str, seconds: float) -> Fence | None:
        """Take the lease, which is made if it was not there; None when somebody holds it."""
        async with self._database.write() as connection:
            await insert_or_ignore(connection, _LEASES, {"name": name, "epoch": 0})
            epoch = await connection.scalar(
                sa.update(_LEASES)
                .where(_LEASES.c.name == name, _LEASES.c.holder.is_(None) | ~_is_alive())
                .values(holder=holder, epoch=_LEASES.c.epoch + 1, until=DatabaseTime(seconds))
                .returning(_LEASES.c.epoch)
            )
        return None if epoch is None else Fence(name, holder, epoch)

    async def give_up(self, names: Collection[str], holder: str) -> None:
        """Let go of these, those of them that this holder has."""
        async with self._database.write() as connection:
            await connection.execute(
                sa.update(_LEASES)
                .where(_LEASES.c.name.in_(names), _LEASES.c.holder == holder)
                .values(holder=None, until=None)
            )

    async def forget(self, prefix: str) -> None:
        """Forget leases whose names begin so and that nobody has held for an hour."""
        old = _LEASES.c.until.is_(None) | (_LEASES.c.until < DatabaseTime(-3600))
        async with self._database.write() as connection:
            await connection.execute(sa.delete(_LEASES).where(_LEASES.c.name.startswith(prefix, autoescape=True), old))


async def check(connection: AsyncConnection, fence: Fence | None) -> None:
    """Raise LeaseLost unless the fence stands; until this transaction ends nobody else can take the lease then.

    None is for what needs no lease: what an owner wants, and everything on SQLite, whose fence is the start epoch.
    """
    if fence is None:
        return
    query = sa.select(sa.literal(1)).where(
        _LEASES.c.name == fence.name,
        _LEASES.c.holder == fence.holder,
        _LEASES.c.epoch == fence.epoch,
        _is_alive(),
    )
    if await connection.scalar(query.with_for_update(read=True)) is None:
        raise LeaseLost(f"cannot write: the lease {fence.name!r} is another control plane's by now")


def _is_alive() -> sa.ColumnElement[bool]:
    return _LEASES.c.until > DatabaseTime()
