"""What workers ask the control plane to do for a caller: redeem a ticket, end a session, look for an issuer's new key.

All of it is bounded, since anyone can make them ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol

import structlog

from elizacloud.errors import Error, TooMany
from elizacloud.model import TokenKind
from elizacloud.relay.link import messages
from elizacloud.relay.link.linked import LinkedWorker
from elizacloud.upstreams import KnownToken, Redemption

logger = structlog.get_logger()

_MAX_SEEKING = 16
_MAX_REDEEMING = 64
"""Tickets that are looked up at one time: the database is for others too."""


class Registrar(Protocol):
    """Who keeps tickets and sessions."""

    async def redeem(self, ticket_sha256: str, agent_id: str, *, session: bool) -> Redemption:
        """Consume the ticket. Raises Unauthenticated `ticket_used` when it is unknown, used, expired or for another
        agent, and StoreUnavailable."""

    async def end_session(self, session_sha256: str) -> None:
        """Revoke the session, if there is one. Raises StoreUnavailable."""

    async def seek_keys(self, issuer: str) -> None:
        """Look whether this trusted issuer has new keys, unless that was done just now."""


class Errands:
    """Owns the tasks that do them; `cancel` at the end."""

    def __init__(self, registrar: Registrar) -> None:
        self._registrar = registrar
        self._redeeming = 0
        self._ending: set[str] = set()
        self._seeking: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def redeem(self, worker: LinkedWorker, asked: messages.AskRedeem) -> None:
        """Begin it; the answer goes to the worker."""
        if self._redeeming >= _MAX_REDEEMING:
            busy = TooMany("cannot take the ticket now: very many are being redeemed; try again")
            worker.send(messages.Redeemed(asked.id, error=str(busy), code=busy.reason))
            return
        self._redeeming += 1
        self._begin(self._redeem(worker, asked), f"redeem a ticket for {asked.agent_id[:40]}")

    def end_session(self, known: KnownToken | None) -> None:
        """Begin it, for what the table has under the hash that came: a session, once at a time, and nothing else."""
        if known is not None and known.kind is TokenKind.SESSION and known.sha256 not in self._ending:
            self._ending.add(known.sha256)
            self._begin(self._end_session(known.sha256), f"end the session {known.token_id}")

    def seek_keys(self, issuer: str) -> None:
        """Begin it, once at a time for an issuer; an unknown one costs nothing."""
        if issuer not in self._seeking and len(self._seeking) < _MAX_SEEKING:
            self._seeking.add(issuer)
            self._begin(self._seek_keys(issuer), f"seek keys of {issuer[:60]}")

    def cancel(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _redeem(self, worker: LinkedWorker, asked: messages.AskRedeem) -> None:
        try:
            redemption = await self._registrar.redeem(asked.ticket_sha256, asked.agent_id, session=asked.session)
        except Error as error:
            worker.send(messages.Redeemed(asked.id, error=str(error), code=error.reason))
        else:
            worker.send(messages.Redeemed(asked.id, redemption))
        finally:
            self._redeeming -= 1

    async def _end_session(self, session_sha256: str) -> None:
        try:
            await self._registrar.end_session(session_sha256)
        except Error as error:
            logger.warning("a browser logged out, but its session goes on", reason=str(error))
        finally:
            self._ending.discard(session_sha256)

    async def _seek_keys(self, issuer: str) -> None:
        try:
            await self._registrar.seek_keys(issuer)
        finally:
            self._seeking.discard(issuer)
