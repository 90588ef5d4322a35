"""Logins of the CLI: a session that is opened, approved by its user code in a browser, and taken exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime

import sqlalchemy as sa

from elizacloud.errors import Conflict, NotFound
from elizacloud.store import tables
from elizacloud.store.database import Database

_SESSIONS = tables.cli_sessions


@dataclass(frozen=True, slots=True)
class CliSession:
    """The session id is what the CLI polls with, a secret: only its SHA-256 is kept. The user code is for people."""

    sha256: str
    user_code: str
    created_at: datetime
    expires_at: datetime
    owner_id: str | None = None
    approved_at: datetime | None = None
    taken_at: datetime | None = None


class Sessions:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def create(self, session: CliSession) -> None:
        """Store it. Conflict when a session of that user code or id is there: draw another."""
        async with self._database.write() as connection:
            await connection.execute(sa.insert(_SESSIONS).values(asdict(session)))

    async def get(self, sha256: str) -> CliSession:
        """NotFound when there is none."""
        return await self._one(_SESSIONS.c.sha256 == sha256)

    async def by_user_code(self, user_code: str) -> CliSession:
        """For the page that asks for the approval. NotFound when there is none."""
        return await self._one(_SESSIONS.c.user_code == user_code)

    async def approve(self, user_code: str, owner_id: str) -> CliSession:
        """Let the session act for that owner. NotFound when there is none or it expired; Conflict when it was approved."""
        now = self._clock()
        mine = _SESSIONS.c.user_code == user_code
        async with self._database.write() as connection:
            result = await connection.execute(
                sa.update(_SESSIONS)
                .where(mine, _SESSIONS.c.expires_at > now, _SESSIONS.c.approved_at.is_(None))
                .values(owner_id=owner_id, approved_at=now)
            )
            row = (await connection.execute(sa.select(_SESSIONS).where(mine))).mappings().one_or_none()
        if row is None or row["expires_at"] <= now:
            raise NotFound("cannot approve this login: the code is not known or has expired; start the login again")
        if result.rowcount != 1:
            raise Conflict("cannot approve this login: it was approved before", code="approved_before")
        return CliSession(**row)

    async def take(self, sha256: str) -> CliSession | None:
        """The approved session, to exactly one caller; None while it is not approved, when it expired or was taken."""
        now = self._clock()
        async with self._database.write() as connection:
            found = await connection.execute(
                sa.update(_SESSIONS)
                .where(
                    _SESSIONS.c.sha256 == sha256,
                    _SESSIONS.c.expires_at > now,
                    _SESSIONS.c.approved_at.is_not(None),
                    _SESSIONS.c.taken_at.is_(None),
                )
                .values(taken_at=now)
                .returning(*_SESSIONS.c)
            )
            row = found.mappings().one_or_none()
        return None if row is None else CliSession(**row)

    async def sweep(self) -> int:
        """Forget the sessions that expired; returns how many."""
        async with self._database.write() as connection:
            return (
                await connection.execute(sa.delete(_SESSIONS).where(_SESSIONS.c.expires_at <= self._clock()))
            ).rowcount

    async def _one(self, condition: sa.ColumnElement[bool]) -> CliSession:
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(_SESSIONS).where(condition))).mappings().one_or_none()
        if row is None:
            raise NotFound("cannot find this login: start it again")
        return CliSession(**row)
