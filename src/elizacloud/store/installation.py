"""Which installation a store belongs to, its start epoch, what outside is its own, and marks by which a database that went
back is noticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from elizacloud.cipher import Cipher
from elizacloud.errors import Misconfigured
from elizacloud.store import tables
from elizacloud.store.database import Database, advance, insert_or_ignore

_INSTALLATION = tables.installation
_CANARY = b"this store and this secret key belong together"


@dataclass(frozen=True, slots=True)
class Marks:
    """How far the store has come. All only grow, so a lower one than was seen before means an older database."""

    epoch: int
    last_event: int
    accepted: float = 0.0
    """When an operator last took it for right as it is, in seconds since 1970; 0 when none ever did."""


def regressed(now: Marks, seen: Marks) -> bool:
    """True when the store is behind what was seen of it: a backup was restored, or its file was replaced. What an operator
    accepted since then is right."""
    return now.accepted <= seen.accepted and (now.epoch < seen.epoch or now.last_event < seen.last_event)


class Installation:
    def __init__(self, database: Database, cipher: Cipher, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock

    async def check_key(self) -> None:
        """Misconfigured when the store's secrets were written with a key that we do not have."""
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(_INSTALLATION))).mappings().one_or_none()
        if row is not None:
            self._cipher.open(row["canary"], bound_to=_canary_of(row["id"]))

    async def present(self) -> str | None:
        """The id of its installation; None while it has none, hence nothing else."""
        async with self._database.read() as connection:
            found: str | None = await connection.scalar(sa.select(_INSTALLATION.c.id))
            return found

    async def ensure(self, installation_id: str) -> None:
        """Give a new store its installation; Misconfigured when it belongs to another one."""
        canary = self._cipher.seal(_CANARY, bound_to=_canary_of(installation_id))
        values = {"singleton": 1, "id": installation_id, "canary": canary, "created_at": self._clock()}
        async with self._database.write() as connection:
            await insert_or_ignore(connection, _INSTALLATION, values)
            present = await connection.scalar(sa.select(_INSTALLATION.c.id))
        if present != installation_id:
            raise Misconfigured(
                f"cannot use the store: it belongs to the installation {present} and this one is {installation_id}; "
                "use its own data dir, or an empty database"
            )

    async def next_epoch(self) -> int:
        """Begin a new start of the control plane. On SQLite every later write under an older epoch is refused."""
        self._database.fence = None
        async with self._database.write() as connection:
            epoch = await advance(connection, "epoch")
        self._database.fence = epoch
        return epoch

    async def headscale_key(self, *, first: str) -> str:
        """The public key of the Headscale that it is on; `first` from now on, when none was known."""
        return str(await self._known(_INSTALLATION.c.headscale_key, first))

    async def relays(self, *, first: Sequence[str] = ()) -> tuple[str, ...]:
        """The machine keys of its relays; `first` from now on, when none were known and these are any."""
        return tuple(await self._known(_INSTALLATION.c.relays, list(first)))

    async def accept_headscale(self, key: str) -> None:
        """It is on this one from now on."""
        async with self._database.write() as connection:
            await connection.execute(sa.update(_INSTALLATION).values(headscale_key=key))

    async def accept(self, relays: Sequence[str]) -> None:
        """The store is right as it is now, however far it had come before, and these are its relays."""
        now = self._clock()
        async with self._database.write() as connection:
            await connection.execute(sa.update(_INSTALLATION).values(relays=list(relays) or None, accepted_at=now))

    async def marks(self) -> Marks:
        async with self._database.read() as connection:
            found = (await connection.execute(sa.select(tables.counters.c.name, tables.counters.c.value))).all()
            accepted: datetime | None = await connection.scalar(sa.select(_INSTALLATION.c.accepted_at))
        values = {row.name: row.value for row in found}
        return Marks(values["epoch"], values["events"], accepted.timestamp() if accepted is not None else 0.0)

    async def _known(self, column: sa.Column[Any], first: Any) -> Any:
        async with self._database.read() as connection:
            known = await connection.scalar(sa.select(column))
        if known or not first:
            return known or first
        async with self._database.write() as connection:
            await connection.execute(sa.update(_INSTALLATION).where(column.is_(None)).values({column: first}))
            return await connection.scalar(sa.select(column))


def _canary_of(installation_id: str) -> str:
    return f"installation/{installation_id}/canary"
