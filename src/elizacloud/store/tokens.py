"""API tokens, by the SHA-256 of their value. Whether one may be used is for auth/ to decide: here they are only kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.errors import Conflict, NotFound
from elizacloud.model import ApiToken, TokenKind
from elizacloud.store import rows, tables
from elizacloud.store.database import Database, insert_or_ignore
from elizacloud.store.owners import ensure_owner

_TOKENS = tables.tokens
_SHOWN = timedelta(days=30)
"""How long an API token that has expired is still listed, so that its owner sees why it works no more."""


class Tokens:
    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def create(self, token: ApiToken) -> ApiToken:
        """Store it. NotFound when it is bound to an agent that does not exist; Conflict when the value is known."""
        async with self._database.write() as connection:
            await ensure_owner(connection, token.owner_id, self._clock())
            await connection.execute(sa.insert(_TOKENS).values(rows.token_to_row(token)))
        return token

    async def keep_only(self, token: ApiToken) -> None:
        """Make this the one API token of its owner, also when it was revoked before; all others of that owner are revoked, with
        the sessions that were made with them. Conflict when the value is another owner's token."""
        this = _TOKENS.c.sha256 == token.sha256
        theirs = (_TOKENS.c.owner_id == token.owner_id) & (_TOKENS.c.kind == TokenKind.API.value)
        others = theirs & ~this & _TOKENS.c.revoked_at.is_(None)
        async with self._database.write() as connection:
            await ensure_owner(connection, token.owner_id, self._clock())
            await insert_or_ignore(connection, _TOKENS, rows.token_to_row(token))
            kept = sa.update(_TOKENS).where(this, theirs).values(revoked_at=None, expires_at=token.expires_at)
            if not (await connection.execute(kept)).rowcount:
                raise Conflict("cannot take this token: its value is that of another owner's; make a new one")
            revoked = sa.update(_TOKENS).where(others).values(revoked_at=self._clock()).returning(_TOKENS.c.id)
            await self._revoke_made_with(connection, list(await connection.scalars(revoked)))

    async def by_sha256(self, sha256: str) -> ApiToken | None:
        """The token of that value, also when it is revoked or expired; None when there never was one."""
        async with self._database.read() as connection:
            found = await connection.execute(sa.select(_TOKENS).where(_TOKENS.c.sha256 == sha256))
            row = found.mappings().one_or_none()
        return None if row is None else rows.token_from_row(row)

    async def list(self, owner_id: str) -> Sequence[ApiToken]:
        """The owner's API tokens that are not revoked, newest first; expired ones too, to be seen. No sessions."""
        api = _TOKENS.c.kind == TokenKind.API.value
        return await self._select(_TOKENS.c.owner_id == owner_id, _TOKENS.c.revoked_at.is_(None), api)

    async def list_live(self) -> Sequence[ApiToken]:
        """All tokens that are neither revoked nor expired."""
        return await self._select(*self._live())

    async def live(self, ids: Collection[str]) -> Sequence[ApiToken]:
        """Those of these tokens that are neither revoked nor expired."""
        return await self._select(_TOKENS.c.id.in_(ids), *self._live())

    async def revoke(self, token_id: str, owner_id: str | None = None) -> ApiToken:
        """Revoke it for good, with the sessions that were made with it; again is no error.

        NotFound when there is none, or when it is not that owner's.
        """
        mine = _TOKENS.c.id == token_id
        if owner_id is not None:
            mine &= _TOKENS.c.owner_id == owner_id
        async with self._database.write() as connection:
            await connection.execute(
                sa.update(_TOKENS).where(mine, _TOKENS.c.revoked_at.is_(None)).values(revoked_at=self._clock())
            )
            row = (await connection.execute(sa.select(_TOKENS).where(mine))).mappings().one_or_none()
            if row is not None:
                await self._revoke_made_with(connection, [token_id])
        if row is None:
            raise NotFound(f"cannot find the token {token_id}")
        return rows.token_from_row(row)

    async def _revoke_made_with(self, connection: AsyncConnection, token_ids: Collection[str]) -> None:
        """After the tokens themselves: a ticket that is being redeemed holds its token until its session is there."""
        made = _TOKENS.c.parent_id.in_(token_ids) & _TOKENS.c.revoked_at.is_(None)
        await connection.execute(sa.update(_TOKENS).where(made).values(revoked_at=self._clock()))

    async def revoke_of_agent(self, agent_id: str) -> Sequence[ApiToken]:
        """Revoke all tokens bound to the agent; returns those that were not revoked before."""
        async with self._database.write() as connection:
            found = await connection.execute(
                sa.update(_TOKENS)
                .where(_TOKENS.c.agent_id == agent_id, _TOKENS.c.revoked_at.is_(None))
                .values(revoked_at=self._clock())
                .returning(*_TOKENS.c)
            )
            return [rows.token_from_row(row) for row in found.mappings()]

    async def prune(self, *, batch: int) -> int:
        """Forget what is dead, at most `batch` of them; returns how many: sessions at once, API tokens after a month."""
        now = self._clock()
        session = _TOKENS.c.kind == TokenKind.SESSION.value
        dead = self._dead(session, now) | self._dead(sa.true(), now - _SHOWN)
        ids = sa.select(_TOKENS.c.id).where(dead).limit(batch)
        async with self._database.write() as connection:
            return (await connection.execute(sa.delete(_TOKENS).where(_TOKENS.c.id.in_(ids)))).rowcount

    def _live(self) -> tuple[sa.ColumnElement[bool], ...]:
        unexpired = _TOKENS.c.expires_at.is_(None) | (_TOKENS.c.expires_at > self._clock())
        return _TOKENS.c.revoked_at.is_(None), unexpired

    @staticmethod
    def _dead(which: sa.ColumnElement[bool], since: datetime) -> sa.ColumnElement[bool]:
        return which & ((_TOKENS.c.expires_at <= since) | (_TOKENS.c.revoked_at <= since))

    async def _select(self, *conditions: sa.ColumnElement[bool]) -> Sequence[ApiToken]:
        query = sa.select(_TOKENS).where(*conditions).order_by(_TOKENS.c.created_at.desc(), _TOKENS.c.id)
        async with self._database.read() as connection:
            return [rows.token_from_row(row) for row in (await connection.execute(query)).mappings()]
