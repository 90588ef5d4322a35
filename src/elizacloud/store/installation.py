"""Which installation a store belongs to, its start epoch, and marks by which a database that went back is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from elizacloud.cipher import Cipher
from elizacloud.errors import Misconfigured
from elizacloud.store import tables
from elizacloud.store.database import Database, advance, insert_or_ignore

_INSTALLATION = tables.installation
_CANARY = b"this store and this secret key belong together"


@dataclass(frozen=True, slots=True)
class Marks:
    """How far the store has come. Both only grow, so a lower one than was seen before means an older database."""

    epoch: int
    last_event: int


def regressed(now: Marks, seen: Marks) -> bool:
    """True when the store is behind what was seen of it: a backup was restored, or its file was replaced."""
    return now.epoch < seen.epoch or now.last_event < seen.last_event


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

    async def marks(self) -> Marks:
        async with self._database.read() as connection:
            found = (await connection.execute(sa.select(tables.counters.c.name, tables.counters.c.value))).all()
        values = {row.name: row.value for row in found}
        return Marks(epoch=values["epoch"], last_event=values["events"])


def _canary_of(installation_id: str) -> str:
    return f"installation/{installation_id}/canary"
