"""Idempotency keys: a request that is sent twice acts once.

The id of the agent to be is chosen with the claim. A control plane that dies between claim and answer leaves a claim
that can be taken over, and whoever takes it over is told the same agent id: it finds the agent that was made, or makes
it under that id, but never a second one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from elizacloud.cipher import Cipher
from elizacloud.errors import Invalid
from elizacloud.store import tables
from elizacloud.store.database import Database, insert_or_ignore
from elizacloud.store.owners import ensure_owner

_KEYS = tables.idempotency_keys
_LONGEST = 255


class Outcome(StrEnum):
    NEW = "new"
    """Yours: act, under the claim's agent id, then `finish` or `release`."""
    IN_PROGRESS = "in progress"
    """Another request with this key is at work: tell the caller to come back."""
    REPLAY = "replay"
    """Done before: answer with the stored status and body."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a key means now. `taken_over`: an earlier holder may have made the agent already, so look for it first."""

    owner_id: str
    key: str
    outcome: Outcome
    agent_id: str
    claimed_at: datetime
    taken_over: bool = False
    status: int | None = None
    body: bytes | None = None


class Idempotency:
    def __init__(self, database: Database, cipher: Cipher, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock

    async def claim(
        self,
        owner_id: str,
        key: str,
        body_sha256: str,
        *,
        agent_id: str,
        take_over_after_seconds: float = 60,
        kept_seconds: float = 86400,
    ) -> Claim:
        """Claim the key for this request; of two at once one gets NEW and the other IN_PROGRESS.

        `agent_id` is the id that a new agent would get. Raises Invalid `idempotency_mismatch` when the key was used with
        another body, and `invalid_idempotency_key` when it is empty or over 255 characters.
        """
        if not key or len(key) > _LONGEST:
            raise Invalid(
                f"cannot use an Idempotency-Key of {len(key)} characters: give 1 to {_LONGEST}",
                code="invalid_idempotency_key",
            )
        now = self._clock()
        async with self._database.write() as connection:
            await ensure_owner(connection, owner_id, now)
            await connection.execute(
                sa.delete(_KEYS).where(*_is(owner_id, key), _KEYS.c.claimed_at <= now - timedelta(seconds=kept_seconds))
            )
            new = {
                "owner_id": owner_id,
                "key": key,
                "body_sha256": body_sha256,
                "agent_id": agent_id,
                "claimed_at": now,
            }
            if await insert_or_ignore(connection, _KEYS, new):
                return Claim(owner_id, key, Outcome.NEW, agent_id, now)
            row = await self._held(connection, owner_id, key)
            if row["body_sha256"] != body_sha256:
                raise Invalid(
                    "cannot use this Idempotency-Key: it was used with another request; choose a new one",
                    code="idempotency_mismatch",
                )
            claim = self._claim_from_row(row)
            if claim.outcome is Outcome.IN_PROGRESS and now - claim.claimed_at >= timedelta(
                seconds=take_over_after_seconds
            ):
                return await self._take_over(connection, claim, now)
            return claim

    async def finish(self, claim: Claim, *, status: int, body: bytes) -> None:
        """Store the answer for replays. Nothing happens when the claim was taken over meanwhile."""
        answer = self._cipher.seal(body, bound_to=_answer_of(claim.owner_id, claim.key))
        async with self._database.write() as connection:
            await connection.execute(sa.update(_KEYS).where(*_mine(claim)).values(status=status, answer=answer))

    async def release(self, claim: Claim) -> None:
        """Give the key back after a failure that left nothing behind, so that the caller can try again with it."""
        async with self._database.write() as connection:
            await connection.execute(sa.delete(_KEYS).where(*_mine(claim)))

    async def sweep(self, *, kept_seconds: float = 86400) -> int:
        """Forget the keys that are older; returns how many."""
        oldest = self._clock() - timedelta(seconds=kept_seconds)
        async with self._database.write() as connection:
            return (await connection.execute(sa.delete(_KEYS).where(_KEYS.c.claimed_at <= oldest))).rowcount

    async def _held(self, connection: AsyncConnection, owner_id: str, key: str) -> Any:
        # Locked, so that of two that want to take the claim over the second sees the first one's time.
        query = sa.select(_KEYS).where(*_is(owner_id, key)).with_for_update()
        return (await connection.execute(query)).mappings().one()

    async def _take_over(self, connection: AsyncConnection, claim: Claim, now: datetime) -> Claim:
        await connection.execute(sa.update(_KEYS).where(*_mine(claim)).values(claimed_at=now))
        return Claim(claim.owner_id, claim.key, Outcome.NEW, claim.agent_id, now, taken_over=True)

    def _claim_from_row(self, row: Any) -> Claim:
        owner_id, key = row["owner_id"], row["key"]
        if row["answer"] is None:
            return Claim(owner_id, key, Outcome.IN_PROGRESS, row["agent_id"], row["claimed_at"])
        body = self._cipher.open(row["answer"], bound_to=_answer_of(owner_id, key))
        return Claim(owner_id, key, Outcome.REPLAY, row["agent_id"], row["claimed_at"], status=row["status"], body=body)


def _is(owner_id: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (_KEYS.c.owner_id == owner_id, _KEYS.c.key == key)


def _mine(claim: Claim) -> tuple[sa.ColumnElement[bool], ...]:
    """Still this holder's claim: whoever takes it over changes its time."""
    return (*_is(claim.owner_id, claim.key), _KEYS.c.claimed_at == claim.claimed_at, _KEYS.c.answer.is_(None))


def _answer_of(owner_id: str, key: str) -> str:
    return f"idempotency_keys/{len(owner_id)}/{owner_id}/{key}"
