"""Forgetting credentials that are dead: in the store, in batches, and at the relays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

import structlog

from elizacloud.errors import Error
from elizacloud.store import Store
from elizacloud.upstreams import Relays

EVERY_SECONDS = 60.0
BATCH = 500
"""Rows that go in one transaction: others write, too."""
MOST_BATCHES = 20

log = structlog.get_logger()


class Pruner:
    """`leads` says whether the store is ours to prune: of several control planes one does that."""

    def __init__(
        self, store: Store, relays: Relays, now: Callable[[], datetime], leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._store = store
        self._relays = relays
        self._now = now
        self._leads = leads

    async def run(self) -> None:
        """Prune every minute, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS * (0.75 + random.random() / 2))
            try:
                await self.prune()
            except Error as error:
                log.warning("cannot forget what has expired", reason=str(error))

    async def prune(self) -> None:
        """One round. Raises StoreUnavailable."""
        self._relays.forget_expired(self._now())
        if not self._leads():
            return
        store = self._store
        for noun, rows in (("token", store.tokens), ("ticket", store.tickets), ("signing key", store.signing_keys)):
            if gone := await _in_batches(rows):
                log.debug("forgotten what has expired", noun=noun, count=gone)


class _Prunable(Protocol):
    async def prune(self, *, batch: int) -> int: ...


async def _in_batches(rows: _Prunable) -> int:
    """How many went. What is left after many batches has time until the next round."""
    gone = 0
    for _ in range(MOST_BATCHES):
        pruned = await rows.prune(batch=BATCH)
        gone += pruned
        if pruned < BATCH:
            break
    return gone
