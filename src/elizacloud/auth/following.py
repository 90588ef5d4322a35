"""Tokens that another control plane issued or revoked, made known to our own relays: by its hint at once, by a poll at last."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Set
from typing import Protocol

import structlog

from elizacloud.auth.issuing import known_token
from elizacloud.errors import Error
from elizacloud.model import ApiToken
from elizacloud.store import Store
from elizacloud.store.hints import Hint
from elizacloud.upstreams import KnownToken, Snapshot

POLL_SECONDS = 5.0
LOOKS = 4
LOOK_SECONDS = 0.25
"""A hint may come before what it tells of is committed: so many looks, so far apart."""

log = structlog.get_logger()


class Table(Protocol):
    """Our own relays' table."""

    def snapshot(self) -> Snapshot: ...

    def add_token(self, token: KnownToken) -> None: ...

    def revoke_token(self, token_id: str) -> None: ...


class TokenFollower:
    """`table` is of our own relays only: nothing that is followed is told to others again. `run` it once."""

    def __init__(self, store: Store, table: Table, me: str) -> None:
        self._store = store
        self._table = table
        self._me = me
        self._hinted: asyncio.Queue[str] = asyncio.Queue()
        self._missing: frozenset[str] = frozenset()
        store.hints.listen(self._hear)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(), name="look for tokens of other control planes")
            while True:
                token_id = await self._hinted.get()
                tasks.create_task(self._look(token_id), name="look for a token")

    async def refresh(self) -> None:
        """Make the relays' table what the store has. Raises StoreUnavailable."""
        before = _ids(self._table)
        live = {token.id: token for token in await self._store.tokens.list_live()}
        await self._add(token for token in live.values() if token.id not in before)
        missing = frozenset(before - live.keys())
        # One of our own that is not committed yet is not in the store: only what is missing twice is gone.
        for token_id in missing & self._missing:
            self._table.revoke_token(token_id)
        self._missing = missing

    def _hear(self, hint: Hint) -> None:
        if hint.get("kind") == "token" and hint.get("from") != self._me:
            self._hinted.put_nowait(str(hint.get("token")))

    async def _poll(self) -> None:
        while True:
            try:
                await self.refresh()
            except Error as error:
                log.warning("cannot follow the tokens of other control planes", reason=str(error))
            await asyncio.sleep(POLL_SECONDS)

    async def _look(self, token_id: str) -> None:
        try:
            for _ in range(LOOKS):
                if found := await self._store.tokens.live([token_id]):
                    await self._add(found)
                    return
                if token_id in _ids(self._table):
                    self._table.revoke_token(token_id)
                    return
                await asyncio.sleep(LOOK_SECONDS)
        except Error as error:
            log.warning("cannot look for a token", token=token_id, reason=str(error))

    async def _add(self, tokens: Iterable[ApiToken]) -> None:
        """Add them, and look again: one that was revoked here meanwhile must not come back by that."""
        added = tuple(tokens)
        for token in added:
            self._table.add_token(known_token(token))
        if not added:
            return
        live = {token.id for token in await self._store.tokens.live([token.id for token in added])}
        for token in added:
            if token.id not in live:
                self._table.revoke_token(token.id)


def _ids(table: Table) -> Set[str]:
    return {token.token_id for token in table.snapshot().tokens}
