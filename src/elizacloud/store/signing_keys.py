"""The keys that JWTs and assertions are signed with, each for a time of its own. The private parts are sealed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.cipher import Cipher
from elizacloud.store import tables
from elizacloud.store.database import Database

_KEYS = tables.signing_keys


class Purpose(StrEnum):
    """What a key signs, and nothing else: JWTs that we accept, or assertions that we never do."""

    ACCESS = "access"
    ASSERTION = "assertion"


@dataclass(frozen=True, slots=True)
class SigningKey:
    kid: str
    purpose: Purpose
    private_jwk: SecretStr
    signs_from: datetime
    signs_until: datetime
    published_until: datetime
    """Until then something that it signed may be valid."""


class SigningKeys:
    def __init__(self, database: Database, cipher: Cipher, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock

    async def list(self) -> Sequence[SigningKey]:
        """All that are published now or will be, by the time at which they begin to sign."""
        async with self._database.read() as connection:
            return await self._published(connection)

    async def complete(self, missing: Callable[[Sequence[SigningKey]], Iterable[SigningKey]]) -> Sequence[SigningKey]:
        """All keys, with those that are `missing` among the present ones made and stored: by one control plane only."""
        async with self._database.write() as connection:
            # The lock is a row that is always there: whoever comes second finds the keys made.
            epoch = sa.select(tables.counters.c.value).where(tables.counters.c.name == "epoch")
            await connection.execute(epoch.with_for_update())
            present = await self._published(connection)
            for key in missing(present):
                sealed = self._cipher.seal(key.private_jwk.get_secret_value().encode(), bound_to=_private_of(key.kid))
                await connection.execute(
                    sa.insert(_KEYS).values(
                        kid=key.kid,
                        purpose=key.purpose.value,
                        private_jwk=sealed,
                        signs_from=key.signs_from,
                        signs_until=key.signs_until,
                        published_until=key.published_until,
                    )
                )
            return await self._published(connection)

    async def prune(self, *, batch: int) -> int:
        """Forget keys of which nothing can be valid any more, at most `batch` of them; returns how many."""
        dead = sa.select(_KEYS.c.kid).where(_KEYS.c.published_until <= self._clock()).limit(batch)
        async with self._database.write() as connection:
            return (await connection.execute(sa.delete(_KEYS).where(_KEYS.c.kid.in_(dead)))).rowcount

    async def _published(self, connection: AsyncConnection) -> Sequence[SigningKey]:
        query = (
            sa.select(_KEYS)
            .where(_KEYS.c.published_until > self._clock())
            .order_by(_KEYS.c.purpose, _KEYS.c.signs_from, _KEYS.c.kid)
        )
        return [self._from_row(row) for row in (await connection.execute(query)).mappings()]

    def _from_row(self, row: sa.RowMapping) -> SigningKey:
        private = self._cipher.open(row["private_jwk"], bound_to=_private_of(row["kid"]))
        return SigningKey(**{**row, "purpose": Purpose(row["purpose"]), "private_jwk": SecretStr(private.decode())})


def _private_of(kid: str) -> str:
    return f"signing_keys/{kid}/private_jwk"
